//! From the last entry to the finished image: attributes of implied directories, then directories, link counts,
//! superblock and hash tree.

use std::collections::HashMap;
use std::io;

use protocols::digest::Sha256Digest;

use super::attributes::{DirAttributes, Inheritance};
use super::directories::Listing;
use super::error::{Doing, ErofsError, Problem};
use super::format::{Attributes, INODE, Inode, Kind, NO_BLOCK, ROOT as ROOT_OFFSET, Superblock, put};
use super::image::{Image, Node};
use super::tree::{DEFAULT, Hides, ROOT, Tree};
use super::writer::Link;
use super::{ErofsLimits, LAYOUT, xattrs};
use crate::tar::{TarPath, XattrList};
use crate::verity::{BLOCK, BlockOut, Tree as HashTree};

/// A layer whose archive has ended. It waits for what the layers below give its implied directories.
pub struct StreamedLayer<O> {
    image: Image<O>,
    tree: Tree,
    links: HashMap<u32, Link>,
    limits: ErofsLimits,
    /// Which directories are still part of the tree.
    live: Vec<bool>,
    /// In which directories whiteouts have nothing to hide, and are left out.
    idle: Vec<bool>,
    /// Paths of the directories that were asked about because of their whiteouts, and whether a layer below has them.
    marked: Vec<(Vec<u8>, bool)>,
}

impl<O> std::fmt::Debug for StreamedLayer<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamedLayer").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// A finished image: `data_blocks` of file system, followed by its hash tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Root hash and size of the dm-verity tree; its salt is [`super::SALT`].
    pub tree: HashTree,
    /// Inodes, each hard-linked file once.
    pub inodes: u64,
    /// Names, whiteouts included.
    pub entries: u64,
    /// The layer hides everything below it. Overlayfs does not look for this on a layer's root: whoever mounts
    /// must leave out the layers below.
    pub opaque: bool,
    /// Directories that no entry described and lower layers may have, in ascending order of their bytes.
    pub implied: Vec<Vec<u8>>,
    /// Directories with whiteouts that lower layers were asked about, in the archive's order.
    pub marked: Vec<Vec<u8>>,
    /// Digest of what the layers below have decided of both ([`Inheritance`]).
    pub inherited: Sha256Digest,
}

impl Finished {
    /// Where the hash tree starts, in bytes.
    #[must_use]
    pub const fn hash_offset(&self) -> u64 {
        self.tree.data_blocks.saturating_mul(BLOCK as u64)
    }

    /// Size of image and hash tree, in bytes.
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        self.tree.data_blocks.saturating_add(self.tree.tree_blocks).saturating_mul(BLOCK as u64)
    }
}

impl<O: BlockOut> StreamedLayer<O> {
    pub(super) fn new(
        mut image: Image<O>,
        tree: Tree,
        links: HashMap<u32, Link>,
        limits: ErofsLimits,
    ) -> Result<Self, ErofsError> {
        image.rest()?;
        let live = tree.live_dirs();
        let mut idle = content_hidden(&tree);
        // Above the root's layers is always the writable one.
        if let Some(root) = idle.first_mut() {
            *root = false;
        }
        let layer = Self { image, tree, links, limits, live, idle, marked: Vec::new() };
        layer.tree.check_paths(layer.implied().chain(layer.with_whiteouts()))?;
        Ok(layer)
    }

    /// Paths of the directories that no entry described and that lower layers may have, in ascending order of
    /// their bytes; the root is the empty path.
    #[must_use]
    pub fn implied_directories(&self) -> Vec<Vec<u8>> {
        let mut paths: Vec<Vec<u8>> = self.implied().map(|dir| self.tree.path(dir)).collect();
        paths.sort_unstable();
        paths
    }

    /// Live implied directories that this layer does not hide from the layers below.
    fn implied(&self) -> impl Iterator<Item = u32> {
        let content_hidden = content_hidden(&self.tree);
        let dirs = self.tree.dirs().iter().zip(&self.live);
        let implied = (0u32..).zip(dirs).filter(|(_, (dir, live))| dir.implied && **live);
        implied.filter_map(move |(id, (dir, _))| {
            let entry = self.tree.entry(dir.entry)?;
            let above = id != ROOT && content_hidden.get(entry.parent as usize).copied().unwrap_or(false);
            (!above && entry.hides < Hides::All).then_some(id)
        })
    }

    /// Directories below the root whose whiteouts may hide something, in the archive's order.
    fn with_whiteouts(&self) -> Vec<u32> {
        let mut holds = vec![false; self.live.len()];
        for entry in self.tree.entries().iter().filter(|entry| entry.kind == Kind::Whiteout) {
            if let Some(holds) = holds.get_mut(entry.parent as usize) {
                *holds = true;
            }
        }
        let dirs = (ROOT..).zip(holds.iter().zip(&self.live)).zip(&self.idle).skip(1);
        dirs.filter(|((_, (holds, live)), idle)| **holds && **live && !**idle).map(|((dir, _), _)| dir).collect()
    }

    /// Leaves out whiteouts that have nothing to hide, since overlayfs would list their names: `shown` says whether
    /// the layers below show a directory at a path. The root's whiteouts stay, and those in directories that this
    /// layer hides from the layers below are left out in any case.
    ///
    /// # Errors
    /// Those of `shown`.
    pub fn settle_whiteouts(&mut self, mut shown: impl FnMut(&[u8]) -> io::Result<bool>) -> io::Result<()> {
        for dir in self.with_whiteouts() {
            let path = self.tree.path(dir);
            let matched = shown(&path)?;
            if let Some(idle) = self.idle.get_mut(dir as usize) {
                *idle = !matched;
            }
            self.marked.push((path, matched));
        }
        Ok(())
    }

    /// Gives an implied directory the attributes that the layers below have for it. The path of anything else
    /// is left as it is.
    ///
    /// # Errors
    /// `image.unsafe` for an attribute of overlayfs's own; `image.limit`.
    pub fn set_attributes(&mut self, path: &[u8], attributes: &DirAttributes) -> Result<(), ErofsError> {
        let xattrs = attributes.xattrs.as_xattrs();
        if xattrs.iter().any(|(name, _)| name.starts_with(xattrs::RESERVED)) {
            return Err(ErofsError::entry(path, Problem::ReservedAttribute));
        }
        if let Some(dir) = TarPath::from_clean(path).and_then(|path| self.tree.dir_at(path))
            && self.tree.dir(dir).is_some_and(|dir| dir.implied)
        {
            return self.tree.describe(dir, true, attributes.plain(), xattrs);
        }
        Ok(())
    }

    /// Writes the rest of the image and its hash tree; gives back the output too. The image's UUID is derived
    /// from `diff_id`.
    ///
    /// # Errors
    /// `store.*`; `image.limit` for too many blocks or for the root's extended attributes.
    pub fn finish(mut self, diff_id: &Sha256Digest) -> Result<(Finished, O), ErofsError> {
        let implied = self.implied_directories();
        let mut inheritance = Inheritance::new();
        implied.iter().for_each(|path| inheritance.directory(path, &self.describe(path)));
        let marked = std::mem::take(&mut self.marked);
        marked.iter().filter(|(_, matched)| !matched).for_each(|(path, _)| inheritance.unmatched(path));
        let marked = marked.into_iter().map(|(path, _)| path).collect();
        let inherited = inheritance.digest();

        let listing = Listing::new(&self.tree, &self.live, &self.idle);
        let shared = self.count_links(&listing);
        let whiteouts = self.write_whiteouts(&listing)?;
        let mut first = [0; BLOCK];
        let root = super::directories::write(&mut self.image, &self.tree, &listing, whiteouts, &self.limits)?;
        put(&mut first, ROOT_OFFSET, &root);
        self.image.close_all()?;
        self.patch_links()?;

        let inodes = listing.directories() + listing.names() - shared;
        let blocks = self.image.packer.blocks();
        Superblock { inodes, blocks, uuid: uuid(diff_id) }.write(&mut first, &label());
        self.image.hash_first(&first)?;
        let entries = listing.names();
        let opaque = self.tree.entry(ROOT).is_some_and(|root| root.hides > Hides::Nothing);
        drop(listing);
        let (mut out, hashes) = self.image.into_parts();
        let tree = hashes.finish(u64::from(blocks), &mut out, u64::from(blocks)).doing("write the hash tree")?;
        out.write_at(0, &[first]).doing("write the image")?;
        Ok((Finished { tree, inodes, entries, opaque, implied, marked, inherited }, out))
    }

    /// What an implied directory has now.
    fn describe(&self, path: &[u8]) -> DirAttributes {
        let dir = TarPath::from_clean(path).and_then(|path| self.tree.dir_at(path)).unwrap_or(ROOT);
        let attributes = self.tree.dir(dir).map_or(DEFAULT, |dir| dir.attributes);
        let mut xattrs = XattrList::new();
        self.tree.xattrs(dir).iter().for_each(|(name, value)| xattrs.set(name, value));
        DirAttributes::new(attributes, xattrs)
    }

    /// Counts the names of shared inodes; gives how many names share one with an earlier name or are directories,
    /// which are counted apart.
    fn count_links(&mut self, listing: &Listing) -> u64 {
        let mut shared = 0;
        let mut whiteouts = 0u64;
        for entry in listing.entries(&self.tree) {
            match entry.kind {
                Kind::Dir => shared += 1,
                Kind::Whiteout => {
                    whiteouts += 1;
                    shared += u64::from(whiteouts > 1);
                }
                _ if entry.linked => {
                    if let Some(link) = self.links.get_mut(&entry.node) {
                        link.names = link.names.saturating_add(1);
                        shared += u64::from(link.names > 1);
                    }
                }
                _ => {}
            }
        }
        shared
    }

    /// Writes the inode that all whiteouts share; gives its nid.
    fn write_whiteouts(&mut self, listing: &Listing) -> Result<u32, ErofsError> {
        let count = listing.entries(&self.tree).filter(|entry| entry.kind == Kind::Whiteout).count();
        if count == 0 {
            return Ok(NO_BLOCK);
        }
        self.image.store(&Node {
            kind: Kind::Whiteout,
            attributes: Attributes { mode: 0, ..DEFAULT },
            xattrs: &[],
            size: 0,
            start: Some(0),
            tail: &[],
            links: u32::try_from(count).unwrap_or(u32::MAX),
        })
    }

    fn patch_links(&mut self) -> Result<(), ErofsError> {
        let mut changes: Vec<(u32, Link)> = self.links.drain().filter(|(_, link)| link.names > 0).collect();
        changes.sort_unstable_by_key(|(nid, _)| *nid);
        self.image.patch(&changes, |inode: &mut Inode, link: &Link| {
            let kind = inode.mode & !0o7777;
            if kind != Kind::Symlink.mode() {
                inode.mode = kind | link.attributes.mode;
            }
            inode.attributes = link.attributes;
            inode.links = link.names;
        })
    }
}

/// For each directory, whether this layer hides what the layers below have in it.
fn content_hidden(tree: &Tree) -> Vec<bool> {
    let mut hidden: Vec<bool> = Vec::with_capacity(tree.dirs().len());
    for dir in tree.dirs() {
        let entry = tree.entry(dir.entry);
        let hides = entry.is_some_and(|entry| entry.hides > Hides::Nothing);
        // Of the root's own place nothing is known yet: it is not hidden by itself.
        let above = entry.and_then(|entry| hidden.get(entry.parent as usize)).copied().unwrap_or(false);
        hidden.push(above || hides);
    }
    hidden
}

/// The root's inode fits into block 0 with at most this much behind it.
pub(super) const ROOT_ROOM: usize = BLOCK - ROOT_OFFSET - INODE;

/// Version 8 of RFC 9562: the first bytes of SHA-256 over the layout's name and the diffID.
fn uuid(diff_id: &Sha256Digest) -> [u8; 16] {
    let digest = Sha256Digest::of_parts(&[LAYOUT.as_bytes(), diff_id.as_bytes()]);
    let mut uuid: [u8; 16] = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut uuid;
    *version = (*version & 0x0f) | 0x80;
    *variant = (*variant & 0x3f) | 0x80;
    uuid
}

/// The volume's name is the layout's.
fn label() -> [u8; 16] {
    let mut label = [0; 16];
    put(&mut label, 0, LAYOUT.as_bytes());
    label
}
