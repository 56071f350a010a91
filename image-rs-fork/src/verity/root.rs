//! The root hash of data that are there already, without keeping a tree.

use std::io;

use protocols::digest::Sha256Digest;

use super::{BLOCK, Block, BlockIn, HASHES_PER_BLOCK, Hash, SaltedSha256};

/// Blocks read at once: 128 KiB.
const BATCH: usize = 32;

/// Takes data blocks in order; memory is one hash block for each level.
#[derive(Debug)]
pub struct RootHasher {
    hasher: SaltedSha256,
    levels: Levels,
}

/// The hash block being filled in each level, the leaves' first; none is empty, and a full one waits for the
/// next hash, so that the top is never closed too early.
type Levels = Vec<(Box<Block>, usize)>;

impl RootHasher {
    /// A hasher that has seen no block.
    #[must_use]
    pub fn new(salt: &[u8]) -> Self {
        Self { hasher: SaltedSha256::new(salt), levels: Vec::new() }
    }

    /// The next data blocks.
    pub fn update(&mut self, blocks: &[Block]) {
        let Self { hasher, levels } = self;
        hasher.hash_each(blocks, |hash| push(levels, hasher, 0, hash));
    }

    /// The root hash; `None` without any block.
    #[must_use]
    pub fn finish(mut self) -> Option<Sha256Digest> {
        if let [(block, 1)] = self.levels.as_slice() {
            return block.first_chunk().copied().map(Sha256Digest::new);
        }
        let mut depth = 0;
        loop {
            let (block, _) = self.levels.get(depth)?;
            let hash = self.hasher.hash(block);
            depth += 1;
            if depth == self.levels.len() {
                return Some(Sha256Digest::new(hash));
            }
            push(&mut self.levels, &self.hasher, depth, hash);
        }
    }
}

fn push(levels: &mut Levels, hasher: &SaltedSha256, depth: usize, hash: Hash) {
    if let Some((block, filled)) = levels.get_mut(depth)
        && *filled == HASHES_PER_BLOCK
    {
        let above = hasher.hash(block);
        block.fill(0);
        *filled = 0;
        push(levels, hasher, depth + 1, above);
    }
    if depth >= levels.len() {
        levels.push((Box::new([0; BLOCK]), 0));
    }
    if let Some((block, filled)) = levels.get_mut(depth) {
        if let Some(place) = block.as_chunks_mut::<32>().0.get_mut(*filled) {
            *place = hash;
        }
        *filled += 1;
    }
}

/// Reads data blocks 0 to `data_blocks` and gives their root hash; `None` without any block.
///
/// # Errors
/// The input's; fewer blocks than `data_blocks` are an error.
pub fn root_hash(input: &impl BlockIn, data_blocks: u64, salt: &[u8]) -> io::Result<Option<Sha256Digest>> {
    let mut hasher = RootHasher::new(salt);
    let mut buffer = vec![[0; BLOCK]; BATCH];
    let mut at = 0;
    while at < data_blocks {
        let count = usize::try_from(data_blocks.saturating_sub(at)).unwrap_or(BATCH).min(BATCH);
        let batch = buffer.get_mut(..count).unwrap_or_default();
        input.read_at(at, batch)?;
        hasher.update(batch);
        at = at.saturating_add(count as u64);
    }
    Ok(hasher.finish())
}
