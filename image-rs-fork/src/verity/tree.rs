//! The tree built while the data are written.

use std::io;

use protocols::digest::Sha256Digest;

use super::leaves::Leaves;
use super::{BLOCK, Block, BlockOut, HASHES_PER_BLOCK, Hash, SaltedSha256, tree_blocks};

/// Hash blocks written at once: 64 KiB.
const BATCH: usize = 16;

/// A finished tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    /// What dm-verity is told to trust.
    pub root_hash: Sha256Digest,
    /// Data blocks it covers.
    pub data_blocks: u64,
    /// Hash blocks written; 0 over a single data block.
    pub tree_blocks: u64,
}

/// Collects the hashes of data blocks by number, in any order; a block written again is hashed again.
#[derive(Debug)]
pub struct TreeBuilder {
    hasher: SaltedSha256,
    leaves: Leaves,
}

impl TreeBuilder {
    /// Keeps the leaves in memory: 32 bytes for each data block.
    #[must_use]
    pub fn new(salt: &[u8]) -> Self {
        Self { hasher: SaltedSha256::new(salt), leaves: Leaves::new(None) }
    }

    /// Keeps about 256 KiB of leaves in memory and the rest in `spill`, an empty file for this tree alone.
    #[must_use]
    pub fn spilling(salt: &[u8], spill: Box<dyn BlockOut + Send>) -> Self {
        Self { hasher: SaltedSha256::new(salt), leaves: Leaves::new(Some(spill)) }
    }

    /// The hasher that leaves come from.
    #[must_use]
    pub const fn hasher(&self) -> &SaltedSha256 {
        &self.hasher
    }

    /// Hashes `blocks`, which are data blocks from number `at` on.
    ///
    /// # Errors
    /// The spill's.
    pub fn hash(&mut self, at: u64, blocks: &[Block]) -> io::Result<()> {
        let leaves = &mut self.leaves;
        let mut result = Ok(());
        let mut index = at;
        self.hasher.hash_each(blocks, |hash| {
            if result.is_ok() {
                result = leaves.set(index, &hash);
            }
            index = index.saturating_add(1);
        });
        result
    }

    /// Sets or replaces the hash of data block `index`.
    ///
    /// # Errors
    /// The spill's.
    pub fn set_leaf(&mut self, index: u64, hash: &Hash) -> io::Result<()> {
        self.leaves.set(index, hash)
    }

    /// Writes the tree over data blocks 0 to `data_blocks` from block `at` of `out` on.
    ///
    /// # Errors
    /// `InvalidInput` when there is no data block, one of them was never hashed or one beyond them was; else
    /// the output's or the spill's.
    pub fn finish(self, data_blocks: u64, out: &mut impl BlockOut, at: u64) -> io::Result<Tree> {
        let problem = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if data_blocks == 0 {
            return problem("no data block".to_owned());
        }
        if let Some(block) = self.leaves.first_missing(data_blocks) {
            return problem(format!("data block {block} was not hashed"));
        }
        if self.leaves.has_beyond(data_blocks) {
            return problem(format!("a block past the {data_blocks} data blocks was hashed"));
        }
        let total = tree_blocks(data_blocks);
        if total == 0 {
            let mut leaves = [0; BLOCK];
            self.leaves.read(0, &mut leaves)?;
            let root = leaves.first_chunk().copied().unwrap_or_default();
            return Ok(Tree { root_hash: Sha256Digest::new(root), data_blocks, tree_blocks: 0 });
        }

        let mut end = at.checked_add(total).ok_or(io::ErrorKind::FileTooLarge)?;
        let leaves = &self.leaves;
        let mut level = Level { hasher: &self.hasher, hashes: Vec::new() };
        let mut blocks = data_blocks.div_ceil(HASHES_PER_BLOCK as u64);
        end = end.saturating_sub(blocks);
        level.write(out, end, blocks, |page, into| leaves.read(page, into))?;
        while blocks > 1 {
            let below = std::mem::take(&mut level.hashes);
            blocks = blocks.div_ceil(HASHES_PER_BLOCK as u64);
            end = end.saturating_sub(blocks);
            level.write(out, end, blocks, |page, into| {
                *into = [0; BLOCK];
                let hashes = below.iter().skip(page.saturating_mul(HASHES_PER_BLOCK));
                into.as_chunks_mut::<32>().0.iter_mut().zip(hashes).for_each(|(to, from)| *to = *from);
                Ok(())
            })?;
        }
        let root = level.hashes.first().copied().unwrap_or_default();
        Ok(Tree { root_hash: Sha256Digest::new(root), data_blocks, tree_blocks: total })
    }
}

/// The hashes of one level's blocks, which fill the blocks of the level above.
struct Level<'a> {
    hasher: &'a SaltedSha256,
    hashes: Vec<Hash>,
}

impl Level<'_> {
    fn write(
        &mut self,
        out: &mut impl BlockOut,
        at: u64,
        blocks: u64,
        read: impl Fn(usize, &mut Block) -> io::Result<()>,
    ) -> io::Result<()> {
        let blocks = usize::try_from(blocks).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut buffer = vec![[0; BLOCK]; BATCH.min(blocks)];
        let mut place = at;
        let mut page = 0;
        while page < blocks {
            let batch = buffer.get_mut(..BATCH.min(blocks.saturating_sub(page))).unwrap_or_default();
            for block in batch.iter_mut() {
                read(page, block)?;
                page += 1;
            }
            self.hasher.hash_each(batch, |hash| self.hashes.push(hash));
            out.write_at(place, batch)?;
            place = place.saturating_add(batch.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
