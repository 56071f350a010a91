//! The program's own code in memory.
#![allow(unsafe_code)] // `madvise` with an advice that takes pages away

use std::ffi::c_void;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of the executable's code that were needed so far; the next access maps them again from the file.
/// What ran only at the start is then no longer the process's, and the kernel may have its page cache. Gives the bytes
/// of address space that were let go.
///
/// # Errors
/// `/proc/self` cannot be read; the kernel refuses the advice.
pub fn let_go() -> std::io::Result<usize> {
    let executable = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read("/proc/self/maps")?;
    let mut total = 0;
    for line in maps.split(|byte| *byte == b'\n') {
        let Some(range) = code_of(line, executable.as_os_str().as_bytes()) else { continue };
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(range.start);
        // SAFETY: the range is a private mapping of the executable that the kernel has just listed, and nothing unmaps
        // the executable. It cannot be written and never was (code is position independent: the loader relocates only
        // data), so each of its pages is what the file holds, and the kernel reads it again from there.
        unsafe { madvise(start, range.len(), Advice::LinuxDontNeed)? };
        total += range.len();
    }
    Ok(total)
}

/// The addresses of a line of `/proc/self/maps` (proc(5)) that is code of `executable`: `START-END r-xp … PATH`.
fn code_of(line: &[u8], executable: &[u8]) -> Option<Range<usize>> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (range, rights) = (words.next()?, words.next()?);
    let path = words.nth(3)?.trim_ascii_start();
    if path != executable || rights != b"r-xp" {
        return None;
    }
    let (start, end) = std::str::from_utf8(range).ok()?.split_once('-')?;
    let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_goes_on_without_what_it_has_run_so_far() {
        let text = |number: u64| format!("{number:x} {:?}", std::time::Duration::from_nanos(number));
        let before = text(123_456_789);
        assert!(let_go().unwrap() > 0);
        assert_eq!(text(123_456_789), before);
    }

    #[test]
    fn only_code_of_the_executable_is_let_go() {
        let line = |range: &str, rights: &str, path: &str| {
            let line = format!("{range} {rights} 002af000 fe:00 1234567                    {path}");
            code_of(line.as_bytes(), b"/usr/bin/the agent")
        };
        assert_eq!(line("1000-3000", "r-xp", "/usr/bin/the agent"), Some(0x1000..0x3000));
        // Relocated constants are read-only too by now, but the file does not hold what they were made.
        for rights in ["r--p", "rw-p", "rwxp", "r-xs", "---p"] {
            assert_eq!(line("1000-3000", rights, "/usr/bin/the agent"), None, "{rights}");
        }
        for path in ["/usr/lib/libc.so.6", "[vdso]", "", "/usr/bin/the", "/usr/bin/the agent (deleted)"] {
            assert_eq!(line("1000-3000", "r-xp", path), None, "{path}");
        }
        for range in ["", "1000", "3000-1000", "1000-1000", "x-y", "1000-1ffffffffffffffff"] {
            assert_eq!(line(range, "r-xp", "/usr/bin/the agent"), None, "{range}");
        }
        assert_eq!(code_of(b"", b""), None);
    }
}
