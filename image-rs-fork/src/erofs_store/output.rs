//! Where an image is written: a file whose growth is counted.

use std::fs::File;
use std::io;

use crate::space::Growth;
use crate::verity::{BLOCK, Block, BlockIn, BlockOut};

/// A file of blocks.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    /// What counts it; without it the content of large files is not written at all: nobody will read it.
    growth: Option<Growth>,
    blocks: u64,
}

impl Output {
    /// An image that is stored.
    pub(crate) const fn stored(file: File, growth: Growth) -> Self {
        Self { file, growth: Some(growth), blocks: 0 }
    }

    /// An image that is only measured: `file` gets what a layer above may have to read.
    pub(crate) const fn measured(file: File) -> Self {
        Self { file, growth: None, blocks: 0 }
    }

    /// The file, and what was counted.
    pub(crate) fn into_parts(self) -> (File, Option<Growth>) {
        (self.file, self.growth)
    }
}

impl BlockIn for Output {
    fn read_at(&self, at: u64, blocks: &mut [Block]) -> io::Result<()> {
        self.file.read_at(at, blocks)
    }
}

impl BlockOut for Output {
    fn write_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        let end = at.saturating_add(blocks.len() as u64);
        if let Some(growth) = &mut self.growth
            && end > self.blocks
        {
            // Behind a hole all blocks before count too: whoever reads them may give them place.
            let bytes = end.saturating_sub(self.blocks).saturating_mul(BLOCK as u64);
            growth.grow(bytes).map_err(io::Error::other)?;
            self.blocks = end;
        }
        self.file.write_at(at, blocks)
    }

    fn write_content_at(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        if self.growth.is_some() { self.write_at(at, blocks) } else { Ok(()) }
    }
}
