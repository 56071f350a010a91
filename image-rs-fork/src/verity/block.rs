//! Where blocks are read from and written to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{BLOCK, Block};

/// 4 KiB blocks that can be read by their number.
pub trait BlockIn {
    /// Fills `blocks` from number `at` on.
    ///
    /// # Errors
    /// The system's; blocks past the end are an error.
    fn read_at(&self, at: u64, blocks: &mut [Block]) -> io::Result<()>;
}

/// 4 KiB blocks that can be written in any order and read again. A block never written reads as zeros when a
/// later one was.
pub trait BlockOut: BlockIn {
    /// Writes `blocks` from number `at` on.
    ///
    /// # Errors
    /// The system's, such as no room.
    fn write_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()>;

    /// Writes blocks that hold nothing but a file's content: whoever writes them never reads them again.
    ///
    /// # Errors
    /// As [`BlockOut::write_at`].
    fn write_content_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        self.write_at(at, blocks)
    }
}

impl<T: BlockIn + ?Sized> BlockIn for &T {
    fn read_at(&self, at: u64, blocks: &mut [Block]) -> io::Result<()> {
        (**self).read_at(at, blocks)
    }
}

impl<T: BlockIn + ?Sized> BlockIn for &mut T {
    fn read_at(&self, at: u64, blocks: &mut [Block]) -> io::Result<()> {
        (**self).read_at(at, blocks)
    }
}

impl<T: BlockOut + ?Sized> BlockOut for &mut T {
    fn write_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        (**self).write_at(at, blocks)
    }

    fn write_content_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        (**self).write_content_at(at, blocks)
    }
}

impl BlockIn for File {
    fn read_at(&self, at: u64, blocks: &mut [Block]) -> io::Result<()> {
        self.read_exact_at(blocks.as_flattened_mut(), offset(at)?)
    }
}

impl BlockOut for File {
    fn write_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        self.write_all_at(blocks.as_flattened(), offset(at)?)
    }
}

fn offset(block: u64) -> io::Result<u64> {
    block.checked_mul(BLOCK as u64).ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))
}

/// Blocks in memory, for small images and tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks(Vec<Block>);

impl Blocks {
    /// No blocks yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// All bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

impl From<Vec<Block>> for Blocks {
    fn from(blocks: Vec<Block>) -> Self {
        Self(blocks)
    }
}

impl BlockIn for Blocks {
    fn read_at(&self, at: u64, blocks: &mut [Block]) -> io::Result<()> {
        let start = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let found = start.checked_add(blocks.len()).and_then(|end| self.0.get(start..end));
        blocks.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl BlockOut for Blocks {
    fn write_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        let start = usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let end = start.checked_add(blocks.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if self.0.len() < end {
            self.0.resize(end, [0; BLOCK]);
        }
        self.0.get_mut(start..end).ok_or(io::ErrorKind::FileTooLarge)?.copy_from_slice(blocks);
        Ok(())
    }
}
