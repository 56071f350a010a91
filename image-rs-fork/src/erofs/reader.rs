//! Reads directories of finished images: what a layer above needs to know of those below it.

use std::io;

use super::attributes::DirAttributes;
use super::format::{INODE, Inode, Kind, ROOT_NID, SLOT, Superblock, blocks_and_tail, dirent_count, read_dirent};
use super::xattrs;
use crate::tar::{TarPath, XattrList};
use crate::verity::{BLOCK, Block, BlockIn};

/// A finished image of this layout. Its bytes are not trusted: whoever must know that they are those that were
/// measured compares the root hash first. Memory is a few blocks.
pub struct LayerReader<I> {
    input: I,
    blocks: u32,
}

impl<I> std::fmt::Debug for LayerReader<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerReader").field("blocks", &self.blocks).finish_non_exhaustive()
    }
}

/// What a layer has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A directory.
    Directory {
        /// Its attributes, without overlayfs's own.
        attributes: DirAttributes,
        /// It hides what lower layers have in it.
        opaque: bool,
    },
    /// Something else there or on the way, or an opaque directory on the way: lower layers are hidden.
    Hidden,
    /// Nothing; lower layers show.
    Absent,
}

/// An inode with what stands behind it.
struct Node {
    inode: Inode,
    xattrs: XattrList,
    /// Where inline data would start, in bytes of the image.
    behind: u64,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<I: BlockIn> LayerReader<I> {
    /// Checks the superblock.
    ///
    /// # Errors
    /// `InvalidData` for anything but an image of this layout; else the input's.
    pub fn open(input: I) -> io::Result<Self> {
        let mut first = [0; BLOCK];
        input.read_at(0, std::slice::from_mut(&mut first))?;
        let superblock = Superblock::read(&first).ok_or_else(|| invalid("no superblock of this layout"))?;
        Ok(Self { input, blocks: superblock.blocks })
    }

    /// Blocks of the file system, before its hash tree.
    #[must_use]
    pub fn data_blocks(&self) -> u64 {
        u64::from(self.blocks)
    }

    /// Looks for the directory at `path`; symbolic links are not followed.
    ///
    /// # Errors
    /// `InvalidData` where the image is damaged; else the input's.
    pub fn find(&self, path: TarPath<'_>) -> io::Result<Found> {
        let mut node = self.node(ROOT_NID)?;
        let mut hidden = false;
        for name in path.components() {
            hidden |= is_opaque(&node);
            let Some(nid) = self.entry(&node, name)? else {
                return Ok(if hidden { Found::Hidden } else { Found::Absent });
            };
            node = self.node(nid)?;
            if node.inode.mode & !0o7777 != Kind::Dir.mode() {
                return Ok(Found::Hidden);
            }
        }
        let mut kept = XattrList::new();
        let others = node.xattrs.as_xattrs();
        let others = others.iter().filter(|(name, _)| !name.starts_with(xattrs::RESERVED));
        others.for_each(|(name, value)| kept.set(name, value));
        let attributes = DirAttributes::new(node.inode.attributes, kept);
        Ok(Found::Directory { attributes, opaque: is_opaque(&node) })
    }

    fn node(&self, nid: u32) -> io::Result<Node> {
        let damaged = || invalid("a damaged inode");
        let offset = u64::from(nid) * SLOT as u64;
        let bytes = self.bytes(offset, INODE)?;
        let inode = bytes.first_chunk().and_then(Inode::decode).ok_or_else(damaged)?;
        let encoded = self.bytes(offset + INODE as u64, inode.xattr_bytes)?;
        let behind = offset + INODE as u64 + inode.xattr_bytes as u64;
        Ok(Node { inode, xattrs: xattrs::decode(&encoded).ok_or_else(damaged)?, behind })
    }

    /// The nid that a directory has for `name`.
    fn entry(&self, dir: &Node, name: &[u8]) -> io::Result<Option<u32>> {
        let damaged = || invalid("a damaged directory");
        let (whole, tail) = blocks_and_tail(dir.inode.size);
        let pages = u32::try_from(whole + u64::from(tail > 0)).map_err(|_| damaged())?;
        // The page to look in is the last one whose first name is not after the one sought.
        let (mut low, mut high) = (0, pages);
        let mut page = None;
        while low < high {
            let middle = low.midpoint(high);
            let (block, used) = self.page(dir, middle)?;
            let count = dirent_count(&block, used).ok_or_else(damaged)?;
            let first = read_dirent(&block, used, count, 0).ok_or_else(damaged)?;
            if first.name <= name {
                low = middle + 1;
                page = Some((block, used, count));
            } else {
                high = middle;
            }
        }
        let Some((block, used, count)) = page else { return Ok(None) };
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            let entry = read_dirent(&block, used, count, middle).ok_or_else(damaged)?;
            match entry.name.cmp(name) {
                std::cmp::Ordering::Equal => return Ok(Some(entry.nid)),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Block `index` of a directory and the bytes used of it.
    fn page(&self, dir: &Node, index: u32) -> io::Result<(Block, usize)> {
        let (whole, tail) = blocks_and_tail(dir.inode.size);
        let mut block = [0; BLOCK];
        if dir.inode.inline && u64::from(index) == whole {
            let bytes = self.bytes(dir.behind, tail)?;
            block.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        } else {
            let number = dir.inode.start.checked_add(index).ok_or_else(|| invalid("a damaged inode"))?;
            self.block(number, &mut block)?;
        }
        Ok((block, if u64::from(index) == whole { tail } else { BLOCK }))
    }

    /// Bytes of the image, at most what an inode may have of extended attributes.
    fn bytes(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let (first, skip) = blocks_and_tail(offset);
        let mut bytes = Vec::new();
        let mut block = [0; BLOCK];
        let mut number = u32::try_from(first).map_err(|_| invalid("an offset outside the image"))?;
        while bytes.len() < skip + length {
            self.block(number, &mut block)?;
            bytes.extend_from_slice(&block);
            number = number.saturating_add(1);
        }
        bytes.truncate(skip + length);
        bytes.drain(..skip);
        Ok(bytes)
    }

    fn block(&self, number: u32, block: &mut Block) -> io::Result<()> {
        if number >= self.blocks {
            return Err(invalid("a block outside the image"));
        }
        self.input.read_at(u64::from(number), std::slice::from_mut(block))
    }
}

fn is_opaque(dir: &Node) -> bool {
    dir.xattrs.as_xattrs().iter().any(|(name, _)| name == xattrs::OPAQUE.0)
}

/// The attributes that a new layer's implied directory `path` takes from the layers below, the nearest first:
/// those of the directory that shows there; `None` where none does.
///
/// # Errors
/// As [`LayerReader::find`].
pub fn inherited<I: BlockIn>(lowers: &[LayerReader<I>], path: &[u8]) -> io::Result<Option<DirAttributes>> {
    let Some(path) = TarPath::from_clean(path) else { return Ok(None) };
    shown(lowers.iter().map(|layer| layer.find(path)))
}

/// The directory that shows at a path, of what the layers have there, the nearest first.
pub(crate) fn shown(found: impl Iterator<Item = io::Result<Found>>) -> io::Result<Option<DirAttributes>> {
    for found in found {
        match found? {
            Found::Directory { attributes, .. } => return Ok(Some(attributes)),
            Found::Hidden => return Ok(None),
            Found::Absent => {}
        }
    }
    Ok(None)
}
