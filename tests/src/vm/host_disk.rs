//! A disk that this machine reads and writes while a guest uses it, as a hostile host does.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::Guest;
use crate::command::tool;

/// Bytes of a block: what is encrypted as a whole.
const BLOCK: usize = 4096;
/// The shortest run of changed blocks that is taken for a file's data.
const RUN: usize = 20;

/// A raw disk by its serial.
#[derive(Debug)]
pub struct HostDisk(PathBuf);

impl HostDisk {
    /// Makes an empty disk in `folder`, and attaches it.
    ///
    /// # Panics
    /// When it cannot be made, or there is one of that serial.
    #[must_use]
    pub fn attach(folder: &Path, serial: &str, bytes: u64, guest: Guest) -> (Self, Guest) {
        let path = folder.join(serial);
        File::create_new(&path).unwrap().set_len(bytes).unwrap();
        let drive = format!("file={},if=none,id={serial},format=raw", path.display());
        let device = format!("virtio-blk-pci,drive={serial},serial={serial}");
        (Self(path), guest.qemu(&["-drive", &drive, "-device", &device]))
    }

    /// Whether these bytes are on it, within one block.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        blocks(&self.0).any(|block| block.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Keeps what is on it now.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn keep(&self, to: &Path) {
        let _ = tool("cp", &["--sparse=always", self.0.to_str().unwrap(), to.to_str().unwrap()]).ok();
    }

    /// Puts back what was on it, or on another.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, from: &Path) {
        let disk = File::options().write(true).open(&self.0).unwrap();
        for (number, (block, now)) in blocks(from).zip(blocks(&self.0)).enumerate() {
            if block != now {
                disk.write_all_at(&block, (number * BLOCK) as u64).unwrap();
            }
        }
    }

    /// Inverts one byte in the middle of the longest piece that was written since `before` was kept: file data, and no
    /// table of the file system.
    ///
    /// # Panics
    /// When no file was written.
    pub fn flip(&self, before: &Path) {
        let (mut longest, mut start) = (0..0, 0);
        for (number, (old, new)) in blocks(before).zip(blocks(&self.0)).enumerate() {
            if old == new {
                start = number + 1;
            } else if number + 1 - start > longest.len() {
                longest = start..number + 1;
            }
        }
        assert!(longest.len() > RUN, "nothing was written in one piece: {longest:?}");
        let at = ((longest.start + longest.len() / 2) * BLOCK + 100) as u64;
        let disk = File::options().read(true).write(true).open(&self.0).unwrap();
        let mut byte = [0];
        disk.read_exact_at(&mut byte, at).unwrap();
        disk.write_all_at(&[!byte[0]], at).unwrap();
    }

    /// Bytes that it takes on this machine.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn taken(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata(&self.0).unwrap().blocks() * 512
    }
}

fn blocks(path: &Path) -> impl Iterator<Item = Vec<u8>> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).unwrap());
    std::iter::from_fn(move || {
        let mut block = vec![0; BLOCK];
        file.read_exact(&mut block).ok().map(|()| block)
    })
}
