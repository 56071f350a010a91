//! What the program has mapped of its own file and of its libraries.
#![allow(unsafe_code)] // `madvise` with an advice that takes pages away

use std::ffi::c_void;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of code, and of the executable's constants, that were needed so far; the next access maps them again
/// from the file. What was used only at the start is then no longer the process's, and the kernel may have its page cache.
/// Gives the bytes of address space that were let go.
///
/// # Errors
/// `/proc/self` cannot be read; the kernel refuses the advice.
pub fn let_go() -> std::io::Result<usize> {
    let executable = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read("/proc/self/maps")?;
    let mut total = 0;
    for line in maps.split(|byte| *byte == b'\n') {
        let Some(range) = clean(line, executable.as_os_str().as_bytes()) else { continue };
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(range.start);
        // SAFETY: the range is a private mapping of the executable or a library that the kernel has just listed, and
        // nothing unmaps those. It cannot be written and never was (code is position independent: the loader relocates
        // only data, which begins behind), so each of its pages is what the file holds, and the kernel reads it again
        // from there.
        unsafe { madvise(start, range.len(), Advice::LinuxDontNeed)? };
        total += range.len();
    }
    Ok(total)
}

/// The addresses of a line of `/proc/self/maps` (proc(5)) whose pages are the file's, `START-END RIGHTS OFFSET … PATH`:
/// code (`r-xp`) of any file, and the start of `executable` (`r--p` at offset 0: headers, relocations, constants).
fn clean(line: &[u8], executable: &[u8]) -> Option<Range<usize>> {
    let mut words = line.splitn(6, |byte| *byte == b' ');
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let path = words.nth(2)?.trim_ascii_start();
    let code = rights == b"r-xp" && path.starts_with(b"/") && !path.ends_with(b" (deleted)");
    let constants = rights == b"r--p" && path == executable && offset.iter().all(|byte| *byte == b'0');
    if !code && !constants {
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
    fn only_what_is_as_in_the_file_is_let_go() {
        let at = |range: &str, rights: &str, offset: &str, path: &str| {
            let line = format!("{range} {rights} {offset} fe:00 1234567                    {path}");
            clean(line.as_bytes(), b"/usr/bin/the agent")
        };
        let line = |range: &str, rights: &str, path: &str| at(range, rights, "002af000", path);
        assert_eq!(line("1000-3000", "r-xp", "/usr/bin/the agent"), Some(0x1000..0x3000));
        assert_eq!(line("1000-3000", "r-xp", "/usr/lib/libc.so.6"), Some(0x1000..0x3000));
        assert_eq!(at("1000-3000", "r--p", "00000000", "/usr/bin/the agent"), Some(0x1000..0x3000));
        // Relocated constants are read-only too by now, but the file does not hold what they were made.
        for rights in ["r--p", "rw-p", "rwxp", "r-xs", "---p"] {
            assert_eq!(line("1000-3000", rights, "/usr/bin/the agent"), None, "{rights}");
        }
        assert_eq!(at("1000-3000", "rw-p", "00000000", "/usr/bin/the agent"), None);
        assert_eq!(at("1000-3000", "r--p", "00000000", "/usr/lib/libc.so.6"), None);
        for path in ["[vdso]", "", "/usr/bin/the agent (deleted)"] {
            assert_eq!(line("1000-3000", "r-xp", path), None, "{path}");
        }
        for range in ["", "1000", "3000-1000", "1000-1000", "x-y", "1000-1ffffffffffffffff"] {
            assert_eq!(line(range, "r-xp", "/usr/bin/the agent"), None, "{range}");
        }
        assert_eq!(clean(b"", b""), None);
    }
}
