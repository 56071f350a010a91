//! Whether a directory's files are guest memory, which nobody outside can alter once they are measured.

use std::path::Path;

use rustix::fs::statfs;

use super::disk::store_error;
use crate::error::ImageError;

/// File systems that are memory, by their magic numbers in `linux/magic.h`: tmpfs, ramfs.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// Whether `dir` lies on tmpfs or ramfs. What tmpfs has swapped out is memory no more: a guest has no swap.
///
/// # Errors
/// `store.io`.
pub fn in_memory(dir: &Path) -> Result<bool, ImageError> {
    let found = statfs(dir).map_err(|e| store_error(dir, "look at the file system", e))?;
    #[allow(clippy::useless_conversion)] // another type on other architectures; the number has 32 bits
    let magic = i64::from(found.f_type) & 0xffff_ffff;
    Ok(IN_MEMORY.iter().any(|known| i64::from(*known) == magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_memory_and_a_disk_is_not() {
        assert!(in_memory(Path::new("/dev/shm")).unwrap());
        let shared = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(in_memory(shared.path()).unwrap());
        for other in ["/proc", "/var/tmp"] {
            assert!(!in_memory(Path::new(other)).unwrap(), "{other}");
        }
        let missing = in_memory(Path::new("/nowhere")).unwrap_err();
        assert_eq!(missing.code(), protocols::reason::STORE_IO);
    }
}
