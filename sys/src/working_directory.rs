//! A working directory for one call alone.
#![allow(unsafe_code)]

use std::path::Path;

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `work` in the directory `path`, on a thread of its own: no other thread's working directory changes.
///
/// # Errors
/// When the directory cannot be entered or no thread be had.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    std::thread::scope(|threads| {
        let thread = std::thread::Builder::new().name("directory".to_owned()).spawn_scoped(threads, || {
            // SAFETY: only this thread's root, working directory and umask are parted from the others', and this
            // thread ends with the call; no descriptor table and no memory is unshared.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            rustix::process::chdir(path)?;
            Ok(work())
        });
        let ended = thread.map_err(|_| Errno::AGAIN)?.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_call_is_elsewhere() {
        let before = std::env::current_dir().unwrap();
        let seen = within(Path::new("/proc/self"), || std::env::current_dir().unwrap()).unwrap();
        assert!(seen.starts_with("/proc"), "{}", seen.display());
        assert_eq!(std::env::current_dir().unwrap(), before);
        assert_eq!(within(Path::new("/no/such"), || ()).unwrap_err(), Errno::NOENT);
    }
}
