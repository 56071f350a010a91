//! The leaves' level while it is being collected: 32 bytes for each data block, in memory or spilled.

use std::collections::BTreeMap;
use std::io;

use super::{BLOCK, Block, BlockOut, HASHES_PER_BLOCK, Hash};

/// Hash blocks of the leaves' level. With a spill at most [`RESIDENT`] of them stay in memory.
pub(super) struct Leaves {
    resident: BTreeMap<usize, Box<Block>>,
    /// For each hash block, one bit for each hash that has been set.
    set: Vec<u128>,
    spill: Option<Box<dyn BlockOut + Send>>,
}

/// Hash blocks kept in memory beside a spill: 256 KiB, the leaves of 32 MiB of data.
const RESIDENT: usize = 64;

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaves").field("blocks", &self.set.len()).finish_non_exhaustive()
    }
}

impl Leaves {
    pub(super) fn new(spill: Option<Box<dyn BlockOut + Send>>) -> Self {
        Self { resident: BTreeMap::new(), set: Vec::new(), spill }
    }

    /// Sets or replaces the hash of data block `index`.
    pub(super) fn set(&mut self, index: u64, hash: &Hash) -> io::Result<()> {
        let index = usize::try_from(index).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let (page, slot) = (index / HASHES_PER_BLOCK, index % HASHES_PER_BLOCK);
        self.load(page)?;
        if page >= self.set.len() {
            self.set.resize(page + 1, 0);
        }
        if let Some(bits) = self.set.get_mut(page) {
            *bits |= 1u128 << slot;
        }
        let block = self.resident.entry(page).or_insert_with(|| Box::new([0; BLOCK]));
        if let Some(place) = block.as_chunks_mut::<32>().0.get_mut(slot) {
            *place = *hash;
        }
        Ok(())
    }

    /// Makes room for and, where it was spilled, brings back a page.
    fn load(&mut self, page: usize) -> io::Result<()> {
        let Some(spill) = &mut self.spill else { return Ok(()) };
        if self.resident.contains_key(&page) {
            return Ok(());
        }
        if self.resident.len() >= RESIDENT
            && let Some((oldest, block)) = self.resident.pop_first()
        {
            spill.write_at(oldest as u64, std::slice::from_ref(&*block))?;
        }
        if self.set.get(page).is_some_and(|bits| *bits != 0) {
            let mut block = Box::new([0; BLOCK]);
            spill.read_at(page as u64, std::slice::from_mut(&mut *block))?;
            self.resident.insert(page, block);
        }
        Ok(())
    }

    /// The first data block below `count` that has no hash yet.
    pub(super) fn first_missing(&self, count: u64) -> Option<u64> {
        let pages = count.div_ceil(HASHES_PER_BLOCK as u64);
        (0..pages).find_map(|page| {
            let bits = usize::try_from(page).ok().and_then(|page| self.set.get(page)).copied().unwrap_or(0);
            let first = page.saturating_mul(HASHES_PER_BLOCK as u64).saturating_add(u64::from(bits.trailing_ones()));
            (first < count && bits != u128::MAX).then_some(first)
        })
    }

    /// Whether a block at or past `count` has a hash.
    pub(super) fn has_beyond(&self, count: u64) -> bool {
        let Ok(count) = usize::try_from(count) else { return false };
        let (page, slot) = (count / HASHES_PER_BLOCK, count % HASHES_PER_BLOCK);
        self.set.get(page).is_some_and(|bits| bits >> slot != 0)
            || self.set.get(page + 1..).is_some_and(|rest| rest.iter().any(|bits| *bits != 0))
    }

    /// Copies hash block `page`, which must exist.
    pub(super) fn read(&self, page: usize, into: &mut Block) -> io::Result<()> {
        match (self.resident.get(&page), &self.spill) {
            (Some(block), _) => into.copy_from_slice(&**block),
            (None, Some(spill)) => spill.read_at(page as u64, std::slice::from_mut(into))?,
            (None, None) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}
