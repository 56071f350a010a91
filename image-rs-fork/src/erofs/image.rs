//! The image being written: blocks leave in any order, each hashed as it leaves.

use super::error::{Doing, ErofsError};
use super::format::{Attributes, INODE, Inode, Kind, NO_BLOCK, SLOT, SLOTS_PER_BLOCK, put};
use super::pack::{Packer, Plan};
use crate::verity::{BLOCK, Block, BlockOut, TreeBuilder};

/// Blocks gathered before they are written: 128 KiB.
const BATCH: usize = 32;

/// Runs of this many blocks are written from the caller's buffer.
const DIRECT: usize = 8;

/// What an inode is to say, its place not yet known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
    /// Encoded.
    pub(super) xattrs: &'a [u8],
    pub(super) size: u64,
    /// First block of the data where there are whole ones; the device's number for a device.
    pub(super) start: Option<u32>,
    /// What follows the last whole block.
    pub(super) tail: &'a [u8],
    pub(super) links: u32,
}

impl Node<'_> {
    /// The inode, once it is known how it is laid out.
    pub(super) fn inode(&self, inline: bool, tail_block: Option<u32>, number: u32) -> Inode {
        Inode {
            inline,
            mode: self.kind.mode() | if self.kind == Kind::Symlink { 0o777 } else { self.attributes.mode },
            xattr_bytes: self.xattrs.len(),
            size: self.size,
            start: self.start.or(tail_block).unwrap_or(NO_BLOCK),
            number,
            attributes: self.attributes,
            links: self.links,
        }
    }
}

/// The output with its open bins and the hash tree.
pub(super) struct Image<O> {
    out: O,
    hashes: TreeBuilder,
    pub(super) packer: Packer,
    /// Contents of open bins.
    bins: Vec<(u32, Box<Block>)>,
    spare: Vec<Box<Block>>,
    pending: Vec<Block>,
    /// The number of each pending block.
    numbers: Vec<u32>,
    inodes: u32,
    zero: [u8; 32],
}

impl<O> std::fmt::Debug for Image<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("blocks", &self.packer.blocks()).finish_non_exhaustive()
    }
}

impl<O: BlockOut> Image<O> {
    pub(super) fn new(out: O, hashes: TreeBuilder, most_blocks: u32) -> Self {
        let zero = hashes.hasher().hash(&[0; BLOCK]);
        Self {
            out,
            hashes,
            packer: Packer::new(most_blocks),
            bins: Vec::new(),
            spare: Vec::new(),
            pending: Vec::with_capacity(BATCH),
            numbers: Vec::with_capacity(BATCH),
            inodes: 0,
            zero,
        }
    }

    /// The next inode's number; numbers only tell inodes apart for old programs.
    pub(super) const fn number(&mut self) -> u32 {
        self.inodes = self.inodes.wrapping_add(1);
        self.inodes
    }

    /// Writes the next blocks of a file's content; gives the first one's number.
    pub(super) fn append(&mut self, blocks: &[Block]) -> Result<u32, ErofsError> {
        let first = self.packer.take(blocks.len() as u64)?;
        if blocks.len() >= DIRECT {
            self.hashes.hash(u64::from(first), blocks).doing("spill hashes")?;
            self.out.write_content_at(u64::from(first), blocks).doing("write the image")?;
        } else {
            for (number, block) in (first..).zip(blocks) {
                self.push(number, block)?;
            }
        }
        Ok(first)
    }

    /// Makes the next `count` blocks zeros, without writing them.
    pub(super) fn append_zeros(&mut self, count: u64) -> Result<u32, ErofsError> {
        let first = self.packer.take(count)?;
        for number in first..self.packer.blocks() {
            self.hashes.set_leaf(u64::from(number), &self.zero).doing("spill hashes")?;
        }
        Ok(first)
    }

    /// Writes a block that has been handed out.
    pub(super) fn push(&mut self, number: u32, block: &Block) -> Result<(), ErofsError> {
        self.pending.push(*block);
        self.numbers.push(number);
        if self.pending.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Hashes and writes what is pending, neighbours in one go.
    pub(super) fn flush(&mut self) -> Result<(), ErofsError> {
        let Self { out, hashes, pending, numbers, .. } = self;
        let mut digests = [[0; 32]; BATCH];
        let mut places = digests.iter_mut();
        hashes.hasher().hash_each(pending, |hash| {
            if let Some(place) = places.next() {
                *place = hash;
            }
        });
        for (number, hash) in numbers.iter().zip(&digests) {
            hashes.set_leaf(u64::from(*number), hash).doing("spill hashes")?;
        }
        let mut rest = pending.as_slice();
        for run in numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
            let (blocks, after) = rest.split_at_checked(run.len()).unwrap_or_default();
            rest = after;
            if let Some(first) = run.first() {
                out.write_at(u64::from(*first), blocks).doing("write the image")?;
            }
        }
        pending.clear();
        numbers.clear();
        Ok(())
    }

    /// Gives back the memory that only streaming needs.
    pub(super) fn rest(&mut self) -> Result<(), ErofsError> {
        self.flush()?;
        self.pending.shrink_to_fit();
        self.numbers.shrink_to_fit();
        self.spare = Vec::new();
        Ok(())
    }

    /// Writes an inode with what belongs behind it, and the data's end; gives its nid.
    pub(super) fn store(&mut self, node: &Node<'_>) -> Result<u32, ErofsError> {
        let plan = self.packer.plan(node.xattrs.len(), node.tail.len())?;
        self.fill(node, &plan)
    }

    fn fill(&mut self, node: &Node<'_>, plan: &Plan) -> Result<u32, ErofsError> {
        if let Some(number) = plan.tail_block {
            let mut block = [0; BLOCK];
            put(&mut block, 0, node.tail);
            self.push(number, &block)?;
        }
        let inode = node.inode(plan.inline, plan.tail_block, self.number()).encode();
        let place = plan.place;
        if plan.own_blocks > 0 {
            let mut blocks = vec![[0; BLOCK]; plan.own_blocks as usize];
            let bytes = blocks.as_flattened_mut();
            put(bytes, 0, &inode);
            put(bytes, INODE, node.xattrs);
            for (number, block) in (place.block..).zip(&blocks) {
                self.push(number, block)?;
            }
            return Ok(place.nid());
        }
        if let Some(evicted) = place.evicted {
            self.close(evicted)?;
        }
        let index = match self.bins.iter().position(|(number, _)| *number == place.block) {
            Some(index) => index,
            None => {
                let mut block = self.spare.pop().unwrap_or_else(|| Box::new([0; BLOCK]));
                block.fill(0);
                self.bins.push((place.block, block));
                self.bins.len().saturating_sub(1)
            }
        };
        if let Some((_, block)) = self.bins.get_mut(index) {
            put(&mut **block, place.offset, &inode);
            put(&mut **block, place.offset + INODE, node.xattrs);
            if plan.inline {
                put(&mut **block, place.offset + INODE + node.xattrs.len(), node.tail);
            }
        }
        if place.full {
            self.close(place.block)?;
        }
        Ok(place.nid())
    }

    fn close(&mut self, number: u32) -> Result<(), ErofsError> {
        let Some(index) = self.bins.iter().position(|(bin, _)| *bin == number) else { return Ok(()) };
        let (number, block) = self.bins.swap_remove(index);
        self.push(number, &block)?;
        self.spare.push(block);
        Ok(())
    }

    /// Writes all open bins and what is pending.
    pub(super) fn close_all(&mut self) -> Result<(), ErofsError> {
        while let Some((number, block)) = self.bins.pop() {
            self.push(number, &block)?;
        }
        self.flush()
    }

    /// Reads a block back, wherever it is.
    pub(super) fn read(&self, number: u32, into: &mut Block) -> Result<(), ErofsError> {
        if let Some((_, block)) = self.bins.iter().find(|(bin, _)| *bin == number) {
            into.copy_from_slice(&**block);
        } else if let Some(index) = self.numbers.iter().rposition(|pending| *pending == number) {
            into.copy_from_slice(self.pending.get(index).unwrap_or(&[0; BLOCK]));
        } else {
            self.out.read_at(u64::from(number), std::slice::from_mut(into)).doing("read the image back")?;
        }
        Ok(())
    }

    /// Reads `length` bytes of the image from `offset` on.
    fn read_bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>, ErofsError> {
        let (first, skip) = super::format::blocks_and_tail(offset);
        let mut bytes = Vec::with_capacity(skip + length + BLOCK);
        let mut block = [0; BLOCK];
        let mut number = u32::try_from(first).unwrap_or(u32::MAX);
        while bytes.len() < skip + length {
            self.read(number, &mut block)?;
            bytes.extend_from_slice(&block);
            number = number.saturating_add(1);
        }
        bytes.truncate(skip + length);
        bytes.drain(..skip);
        Ok(bytes)
    }

    fn read_inode(&self, nid: u32) -> Result<(u64, Inode), ErofsError> {
        let offset = u64::from(nid) * SLOT as u64;
        let bytes = self.read_bytes(offset, INODE)?;
        let inode = bytes.first_chunk().and_then(Inode::decode).ok_or(std::io::ErrorKind::InvalidData.into());
        Ok((offset + INODE as u64, inode.doing("read an inode back")?))
    }

    /// The target of a symbolic link written before.
    pub(super) fn read_link(&self, nid: u32) -> Result<Vec<u8>, ErofsError> {
        let (after, inode) = self.read_inode(nid)?;
        let size = usize::try_from(inode.size).unwrap_or(usize::MAX).min(BLOCK);
        let inline = after + inode.xattr_bytes as u64;
        self.read_bytes(if inode.inline { inline } else { u64::from(inode.start) * BLOCK as u64 }, size)
    }

    /// The encoded extended attributes of an inode written before.
    pub(super) fn read_xattrs(&self, nid: u32) -> Result<Vec<u8>, ErofsError> {
        let (after, inode) = self.read_inode(nid)?;
        self.read_bytes(after, inode.xattr_bytes)
    }

    /// Changes inodes written before; `changes` are sorted by nid. No bin may be open.
    pub(super) fn patch<T>(&mut self, changes: &[(u32, T)], change: impl Fn(&mut Inode, &T)) -> Result<(), ErofsError> {
        self.flush()?;
        let mut block = [0; BLOCK];
        for group in changes.chunk_by(|(one, _), (next, _)| one / SLOTS_PER_BLOCK == next / SLOTS_PER_BLOCK) {
            let Some((first, _)) = group.first() else { continue };
            let number = first / SLOTS_PER_BLOCK;
            self.read(number, &mut block)?;
            for (nid, what) in group {
                let at = (nid % SLOTS_PER_BLOCK) as usize * SLOT;
                if let Some(place) = block.get_mut(at..).and_then(|rest| rest.first_chunk_mut())
                    && let Some(mut inode) = Inode::decode(place)
                {
                    change(&mut inode, what);
                    *place = inode.encode();
                }
            }
            self.push(number, &block)?;
        }
        self.flush()
    }

    /// The parts that the image's end needs.
    pub(super) fn into_parts(self) -> (O, TreeBuilder) {
        (self.out, self.hashes)
    }

    /// Hashes block 0, which is written after everything else.
    pub(super) fn hash_first(&mut self, block: &Block) -> Result<(), ErofsError> {
        self.hashes.hash(0, std::slice::from_ref(block)).doing("spill hashes")
    }
}
