//! The file system on a sealed device, of which nothing can be read that was not written.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::DiskError;

/// No journal: nobody reads this file system after a crash. No second superblocks, for the same reason, and because
/// they would be written in part of a block.
const FEATURES: &str = "none,extent,64bit,flex_bg,metadata_csum,sparse_super2,huge_file,dir_nlink,extra_isize,filetype,\
                        large_file,dir_index";
/// Layers are a few files each, however large: one for each so many bytes, and these at least.
const BYTES_PER_FILE: u64 = 1024 * 1024;
const FILES: u64 = 16 * 1024;
/// How much of the program's words is told.
const WORDS: usize = 400;

/// Makes an ext4 file system of `bytes` on `device`, every table of it written: what the kernel reads is there.
pub(crate) fn ext4(mke2fs: &Path, device: &Path, bytes: u64) -> Result<(), DiskError> {
    let fail = |what: String| DiskError::Format { program: mke2fs.to_owned(), what };
    let files = (bytes / BYTES_PER_FILE).max(FILES).to_string();
    let made = Command::new(mke2fs)
        .args(["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-N", &files, "-O", FEATURES])
        .args(["-E", "nodiscard,lazy_itable_init=0,num_backup_sb=0,root_owner=0:0"])
        .arg(device)
        .env_clear()
        // The guest image's own choices would change what is made.
        .env("MKE2FS_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| fail(error.to_string()))?;
    if made.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&made.stderr);
    let words: String = words.trim().chars().take(WORDS).collect();
    Err(fail(format!("{}: {}", made.status, words.escape_debug())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MKE2FS: &str = "/usr/sbin/mke2fs";

    #[test]
    fn a_file_system_is_made_without_what_only_a_crash_would_need() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("device");
        std::fs::File::create(&device).unwrap().set_len(256 << 20).unwrap();
        ext4(Path::new(MKE2FS), &device, 256 << 20).unwrap();
        let told = Command::new("/usr/sbin/dumpe2fs").arg("-h").arg(&device).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(told.contains("Inode count:              16384"), "{told}");
        assert!(told.contains("metadata_csum") && !told.contains("has_journal"), "{told}");
    }

    #[test]
    fn a_program_that_fails_or_is_not_there_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let absent = ext4(Path::new("/no/such/mke2fs"), dir.path(), 1 << 30).unwrap_err();
        assert!(absent.to_string().starts_with("/no/such/mke2fs: No such file"), "{absent}");
        let failed = ext4(Path::new(MKE2FS), dir.path(), 1 << 30).unwrap_err();
        assert!(failed.to_string().contains("exit status: 1"), "{failed}");
    }
}
