//! The runtime's executable, opened once: what is hashed is what runs.
//!
//! The file is copied into a sealed memfd while it is hashed, so that nothing can change between the hash and
//! any later exec. runc recognises such a memfd as its own protected copy and spares itself another.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use sha2::{Digest as _, Sha256};

/// The largest executable taken, in bytes.
const MAX_SIZE: u64 = 256 * 1024 * 1024;

/// A sealed copy of the runtime and its digest.
#[derive(Debug)]
pub struct Binary {
    fd: OwnedFd,
    digest: Sha256Digest,
    name: PathBuf,
}

impl Binary {
    /// Opens, copies, hashes and seals the executable at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not a regular file, is larger than 256 MiB, or no memfd can be made.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let source = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
        let mut source = File::from(source);
        let meta = source.metadata()?;
        if !meta.is_file() || meta.len() > MAX_SIZE {
            return Err(std::io::Error::other("not a regular file of at most 256 MiB"));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know MFD_EXEC and make every memfd executable.
        let fd = rustix::fs::memfd_create("oci-runtime", flags | MemfdFlags::EXEC)
            .or_else(|_| rustix::fs::memfd_create("oci-runtime", flags))?;
        let mut copy = File::from(fd);
        let (digest, script) = copy_hashed(&mut source, &mut copy)?;
        let fd = OwnedFd::from(copy);
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        if script {
            // An interpreter opens the script again by its descriptor's path, after exec.
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty())?;
        }
        Ok(Self { fd, digest, name: path.to_owned() })
    }

    /// SHA-256 of the executable.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// The configured path, given to the runtime as its own name.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// The path that executes exactly the hashed bytes.
    #[must_use]
    pub fn exec_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// Copies everything and tells whether it starts as a script does.
fn copy_hashed(source: &mut File, copy: &mut File) -> std::io::Result<(Sha256Digest, bool)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 64 * 1024];
    let mut total = 0u64;
    let mut script = false;
    loop {
        let read = source.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        script |= total == 0 && part.starts_with(b"#!");
        total += part.len() as u64;
        if total > MAX_SIZE {
            return Err(std::io::Error::other("larger than 256 MiB"));
        }
        hasher.update(part);
        copy.write_all(part)?;
    }
    Ok((Sha256Digest::new(hasher.finalize().into()), script))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_was_hashed_runs_even_after_the_file_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runtime");
        std::fs::copy("/bin/busybox", &path).unwrap();
        let binary = Binary::open(&path).unwrap();
        assert_eq!(binary.digest(), Sha256Digest::of(&std::fs::read("/bin/busybox").unwrap()));
        std::fs::write(&path, b"#!/bin/false\n").unwrap();
        let out = Command::new(binary.exec_path()).args(["echo", "hashed"]).output();
        // busybox looks at its own name; under a descriptor's number it says so and fails, but it is busybox.
        let out = out.unwrap();
        assert!(String::from_utf8_lossy(&out.stderr).contains("applet not found"), "{out:?}");
    }

    #[test]
    fn a_script_runs_by_its_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wrapper");
        std::fs::write(&path, "#!/bin/sh\necho \"script $1\"\n").unwrap();
        let binary = Binary::open(&path).unwrap();
        let out = Command::new(binary.exec_path()).arg("runs").output().unwrap();
        assert_eq!(out.stdout, b"script runs\n");
    }

    #[test]
    fn the_copy_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wrapper");
        std::fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        let binary = Binary::open(&path).unwrap();
        assert!(rustix::io::write(&binary.fd, b"x").is_err());
        assert!(rustix::fs::ftruncate(&binary.fd, 0).is_err());
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(Binary::open(Path::new("/proc")).is_err());
        assert!(Binary::open(Path::new("/nonexistent/runc")).is_err());
    }
}
