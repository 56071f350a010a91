//! Which block an inode goes to. Part of the layout: another choice here is another root hash.

use super::error::ErofsError;
use super::format::{INODE, SLOT, SLOTS_PER_BLOCK};
use crate::verity::BLOCK;

/// Blocks that take inodes at the same time.
const OPEN_BINS: usize = 32;

/// The most blocks an image can have: inodes are numbered by 32-byte slots in 32 bits.
pub(super) const MOST_BLOCKS: u32 = u32::MAX / SLOTS_PER_BLOCK;

/// Hands out blocks in order, and room in those that take inodes. It never looks at content, so a dry run on a
/// copy gives the same places.
#[derive(Debug, Clone)]
pub(super) struct Packer {
    next: u32,
    limit: u32,
    /// Number and free bytes of each open bin.
    bins: Vec<(u32, usize)>,
}

/// Where an inode, its extended attributes and the data's inline end go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) block: u32,
    pub(super) offset: usize,
    /// The bin that had to be closed to make room for another.
    pub(super) evicted: Option<u32>,
    /// Nothing more fits into `block`.
    pub(super) full: bool,
}

impl Place {
    /// The inode's number.
    pub(super) const fn nid(&self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "at most 127")]
        let slot = (self.offset / SLOT) as u32;
        self.block * SLOTS_PER_BLOCK + slot
    }
}

/// How an inode and the end of its data are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// The data's end in a block of its own, directly after the whole blocks.
    pub(super) tail_block: Option<u32>,
    /// The data's end stands behind the inode.
    pub(super) inline: bool,
    /// Where the inode starts.
    pub(super) place: Place,
    /// Blocks that the inode has for itself; 0 when it shares a bin.
    pub(super) own_blocks: u32,
}

impl Packer {
    /// Block 0 is taken; at most `limit` blocks.
    pub(super) const fn new(limit: u32) -> Self {
        Self { next: 1, limit, bins: Vec::new() }
    }

    /// Blocks handed out.
    pub(super) const fn blocks(&self) -> u32 {
        self.next
    }

    /// The next `count` blocks.
    pub(super) fn take(&mut self, count: u64) -> Result<u32, ErofsError> {
        let first = self.next;
        self.next = u32::try_from(count)
            .ok()
            .and_then(|count| first.checked_add(count))
            .filter(|next| *next <= self.limit)
            .ok_or(ErofsError::Limit { what: "blocks of 4 KiB", limit: u64::from(self.limit) })?;
        Ok(first)
    }

    /// Finds room for an inode with `xattrs` bytes of extended attributes and `tail` bytes after its last whole
    /// block: together in a bin where they fit into one block; else the tail apart; and the inode in blocks of
    /// its own where its attributes alone are too large.
    pub(super) fn plan(&mut self, xattrs: usize, tail: usize) -> Result<Plan, ErofsError> {
        let alone = INODE.saturating_add(xattrs);
        let together = alone.saturating_add(tail);
        if together <= BLOCK {
            let place = self.place(together)?;
            return Ok(Plan { tail_block: None, inline: tail > 0, place, own_blocks: 0 });
        }
        let tail_block = if tail > 0 { Some(self.take(1)?) } else { None };
        if alone <= BLOCK {
            return Ok(Plan { tail_block, inline: false, place: self.place(alone)?, own_blocks: 0 });
        }
        let own = alone.div_ceil(BLOCK);
        let block = self.take(own as u64)?;
        let place = Place { block, offset: 0, evicted: None, full: false };
        Ok(Plan { tail_block, inline: false, place, own_blocks: u32::try_from(own).unwrap_or(u32::MAX) })
    }

    /// Room for `bytes`, at most a block: in the open bin with the least room that has enough, the lowest of
    /// equals; else in a new one, for which, when too many are open, the fullest is closed.
    fn place(&mut self, bytes: usize) -> Result<Place, ErofsError> {
        let need = bytes.next_multiple_of(SLOT);
        let fitting = self.bins.iter().enumerate().filter(|(_, (_, free))| *free >= need);
        let mut evicted = None;
        let index = match fitting.min_by_key(|(_, (block, free))| (*free, *block)) {
            Some((index, _)) => index,
            None => {
                if self.bins.len() >= OPEN_BINS {
                    let fullest = self.bins.iter().enumerate().min_by_key(|(_, (block, free))| (*free, *block));
                    if let Some((index, _)) = fullest {
                        evicted = Some(self.bins.swap_remove(index).0);
                    }
                }
                let block = self.take(1)?;
                self.bins.push((block, BLOCK));
                self.bins.len().saturating_sub(1)
            }
        };
        let (block, free) = self.bins.get(index).copied().unwrap_or_default();
        let left = free.saturating_sub(need);
        let full = left < INODE;
        if full {
            self.bins.swap_remove(index);
        } else if let Some(bin) = self.bins.get_mut(index) {
            bin.1 = left;
        }
        Ok(Place { block, offset: BLOCK.saturating_sub(free), evicted, full })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_goes_where_the_least_room_is_left() {
        let mut packer = Packer::new(1000);
        assert_eq!(packer.plan(0, 3000).unwrap().place.block, 1);
        assert_eq!(packer.plan(0, 2000).unwrap().place.block, 2);
        // 1,024 bytes are left in block 1, 2,016 in block 2.
        let place = packer.plan(0, 900).unwrap().place;
        assert_eq!((place.block, place.offset, place.nid()), (1, 3072, 128 + 96));
        assert_eq!(packer.plan(0, 900).unwrap().place.block, 2);
    }

    #[test]
    fn the_fullest_bin_is_closed_when_all_are_open() {
        let mut packer = Packer::new(1000);
        for block in 1..=32 {
            let place = packer.plan(0, if block == 7 { 2500 } else { 2400 }).unwrap().place;
            assert_eq!((place.block, place.evicted), (block, None));
        }
        let place = packer.plan(0, 2000).unwrap().place;
        assert_eq!((place.block, place.evicted), (33, Some(7)));
    }

    #[test]
    fn a_block_without_room_for_an_inode_is_full() {
        let mut packer = Packer::new(1000);
        assert!(!packer.plan(0, BLOCK - INODE - 64).unwrap().place.full);
        assert!(packer.plan(0, 0).unwrap().place.full);
        assert!(packer.plan(0, BLOCK - INODE).unwrap().place.full);
    }

    #[test]
    fn a_tail_or_attributes_that_do_not_fit_get_blocks_of_their_own() {
        let mut packer = Packer::new(1000);
        let plan = packer.plan(0, BLOCK - INODE + 1).unwrap();
        assert_eq!((plan.tail_block, plan.inline, plan.place.block, plan.own_blocks), (Some(1), false, 2, 0));
        let plan = packer.plan(5000, 10).unwrap();
        assert_eq!((plan.tail_block, plan.inline, plan.place.block, plan.own_blocks), (Some(3), false, 4, 2));
        assert_eq!(packer.take(1).unwrap(), 6);
    }

    #[test]
    fn no_block_past_the_limit_is_handed_out() {
        let mut packer = Packer::new(3);
        packer.take(2).unwrap();
        assert!(matches!(packer.plan(0, 0), Err(ErofsError::Limit { limit: 3, .. })));
        assert!(matches!(packer.take(u64::MAX), Err(ErofsError::Limit { .. })));
    }
}
