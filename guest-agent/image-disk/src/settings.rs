//! What the measured configuration says of the disk.

use std::path::PathBuf;

use serde::Deserialize;

/// The longest serial, in bytes: a virtio disk has no longer one.
pub const MAX_SERIAL: usize = 20;

/// The table `[image_disk]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDiskSettings {
    /// The serial that the one disk has; it only finds the disk, and says nothing of whose it is.
    pub serial: String,
    /// The program that makes the file system: mke2fs of e2fsprogs.
    pub mke2fs: PathBuf,
}

impl ImageDiskSettings {
    /// Checks the values.
    ///
    /// # Errors
    /// The key and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if !(1..=MAX_SERIAL).contains(&self.serial.len()) || !self.serial.bytes().all(known) {
            return Err(("image_disk.serial", "must be 1 to 20 of A-Z a-z 0-9 . _ -"));
        }
        if !self.mke2fs.is_absolute() {
            return Err(("image_disk.mke2fs", "must be an absolute path"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_one_that_a_disk_can_have_and_a_name_can_hold() {
        let check = |serial: &str, mke2fs: &str| {
            ImageDiskSettings { serial: serial.to_owned(), mke2fs: mke2fs.into() }.check().map_err(|(key, _)| key)
        };
        assert_eq!(check("tcl-images", "/sbin/mke2fs"), Ok(()));
        for serial in ["", "a b", "../x", "123456789012345678901"] {
            assert_eq!(check(serial, "/sbin/mke2fs"), Err("image_disk.serial"), "{serial}");
        }
        assert_eq!(check("tcl-images", "mke2fs"), Err("image_disk.mke2fs"));
    }

    #[test]
    fn both_keys_are_required_and_no_other_is_taken() {
        assert!(toml::from_str::<ImageDiskSettings>("serial = \"a\"\nmke2fs = \"/m\"\n").is_ok());
        for text in ["serial = \"a\"\n", "mke2fs = \"/m\"\n", "serial = \"a\"\nmke2fs = \"/m\"\nkey = \"k\"\n"] {
            assert!(toml::from_str::<ImageDiskSettings>(text).is_err(), "{text}");
        }
    }
}
