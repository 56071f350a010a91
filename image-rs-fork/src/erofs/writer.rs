//! The sink that turns a stream of entries into an image.

use std::collections::HashMap;

use super::attributes::attributes;
use super::error::{ErofsError, Problem};
use super::finish::StreamedLayer;
use super::format::{Attributes, Kind, device};
use super::image::{Image, Node};
use super::pack::MOST_BLOCKS;
use super::resolve;
use super::tree::{Entry, Extent, Hides, ROOT, Tree};
use super::xattrs;
use super::{ErofsLimits, SALT};
use crate::layer::attributes::Mtime;
use crate::layer::whiteout::{self, Mark};
use crate::layer::xattrs::{Carrier, kept, mode_fits};
use crate::tar::{EntryKind, EntryMeta, EntrySink, TarPath, XattrList};
use crate::verity::{BLOCK, Block, BlockOut, TreeBuilder};

/// Writes one layer as an EROFS image while its archive is parsed.
///
/// Memory is about 300 KiB, 40 to 60 bytes for each entry and, without a spill, 32 bytes for each 4 KiB block.
pub struct LayerWriter<O> {
    pub(super) image: Image<O>,
    pub(super) tree: Tree,
    pub(super) links: HashMap<u32, Link>,
    pub(super) limits: ErofsLimits,
    /// The directory the last entry was in.
    parent: Parent,
    encoded: Vec<u8>,
    file: Option<OpenFile>,
    /// The open file's bytes after its last whole block.
    tail: Box<Block>,
    filled: usize,
}

impl<O> std::fmt::Debug for LayerWriter<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerWriter").field("tree", &self.tree).finish_non_exhaustive()
    }
}

/// A directory by its path in the archive, and where that leads.
#[derive(Debug, Default)]
struct Parent {
    path: Vec<u8>,
    dir: u32,
    extent: Extent,
}

/// A regular file whose data are arriving; its extended attributes wait in `encoded`.
#[derive(Debug)]
struct OpenFile {
    entry: u32,
    attributes: Attributes,
    start: Option<u32>,
    size: u64,
}

/// What the hard links to one inode make of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// Of the last link: an unpacker applies a link's header to the inode it shares.
    pub(super) attributes: Attributes,
    /// Names, counted at the end.
    pub(super) names: u32,
}

impl<O: BlockOut> LayerWriter<O> {
    /// Writes to `out`, which must be empty, and keeps the hashes of all blocks in memory.
    #[must_use]
    pub fn new(out: O, limits: ErofsLimits) -> Self {
        Self::with_hashes(out, limits, TreeBuilder::new(&SALT))
    }

    /// The same, with all but the newest hashes in `spill`, an empty file for this layer alone.
    #[must_use]
    pub fn spilling(out: O, spill: Box<dyn BlockOut + Send>, limits: ErofsLimits) -> Self {
        Self::with_hashes(out, limits, TreeBuilder::spilling(&SALT, spill))
    }

    fn with_hashes(out: O, limits: ErofsLimits, hashes: TreeBuilder) -> Self {
        Self {
            image: Image::new(out, hashes, u32::try_from(limits.blocks).unwrap_or(MOST_BLOCKS).min(MOST_BLOCKS)),
            tree: Tree::new(&limits),
            links: HashMap::new(),
            limits,
            parent: Parent::default(),
            encoded: Vec::new(),
            file: None,
            tail: Box::new([0; BLOCK]),
            filled: 0,
        }
    }

    /// The archive has ended: all but directories is written.
    ///
    /// # Errors
    /// `store.*`; `image.limit` for too many implied directories; `image.layer_format` where the last file is not
    /// complete.
    pub fn into_streamed(self) -> Result<StreamedLayer<O>, ErofsError> {
        let Self { image, tree, links, limits, file, .. } = self;
        if let Some(entry) = file.and_then(|file| tree.entry(file.entry).copied()) {
            return Err(ErofsError::entry(tree.name(&entry), Problem::Incomplete));
        }
        StreamedLayer::new(image, tree, links, limits)
    }

    /// The directory at `path`, made where it does not exist. A name of `name` bytes may be put into it.
    fn parent_dir(&mut self, path: TarPath<'_>, name: usize) -> Result<u32, ErofsError> {
        if self.parent.path != path.as_bytes() {
            let image = &self.image;
            let dir = resolve::make_dir(&mut self.tree, path, &mut |nid| image.read_link(nid))?;
            self.parent.path.clear();
            self.parent.path.extend_from_slice(path.as_bytes());
            self.parent.dir = dir;
            self.parent.extent = self.tree.extent(dir);
        }
        if name > 0 {
            self.parent.extent.join(name)?;
        }
        Ok(self.parent.dir)
    }

    /// Forgets the last directory: what led to it may have been replaced.
    fn forget_parent(&mut self) {
        self.parent = Parent::default();
    }

    /// Gives a name to an inode, or to one that follows.
    fn name(&mut self, path: TarPath<'_>, kind: Kind, node: u32) -> Result<u32, ErofsError> {
        let Some((parent, name)) = path.split() else { return Err(ErofsError::entry(b"", Problem::Parent)) };
        let dir = self.parent_dir(parent, name.len())?;
        let (entry, before) = self.tree.place(dir, name, kind, node)?;
        // Only a directory or a symbolic link can lead to the remembered one.
        if matches!(before, Some(Kind::Dir | Kind::Symlink)) {
            self.forget_parent();
        }
        Ok(entry)
    }

    /// The attributes that are kept of an entry's.
    fn kept_xattrs(&self, carrier: Carrier, meta: &EntryMeta<'_>) -> Result<XattrList, ErofsError> {
        if meta.xattrs.is_empty() {
            return Ok(XattrList::new());
        }
        let refused = |problem| Err(ErofsError::entry(meta.path.as_bytes(), problem));
        if meta.xattrs.iter().any(|(name, _)| name.starts_with(xattrs::RESERVED)) {
            return refused(Problem::ReservedAttribute);
        }
        let list = kept(carrier, meta.mode, meta.xattrs).or_else(refused)?;
        let root = meta.path.is_root() && carrier == Carrier::Directory;
        xattrs::check(list.as_xattrs(), root, self.limits.xattr_bytes).map_err(xattrs::over)?;
        Ok(list)
    }

    /// Symbolic links, devices and pipes: everything is in the header.
    fn small(&mut self, meta: &EntryMeta<'_>, kind: Kind, device: Option<u32>, tail: &[u8]) -> Result<(), ErofsError> {
        let entry = self.name(meta.path, kind, 0)?;
        let node =
            Node { kind, attributes: of(meta), xattrs: &[], size: tail.len() as u64, start: device, tail, links: 1 };
        let nid = self.image.store(&node)?;
        self.set_node(entry, nid);
        Ok(())
    }

    fn set_node(&mut self, entry: u32, nid: u32) {
        if let Some(entry) = self.tree.entry_mut(entry) {
            entry.node = nid;
        }
    }

    fn directory(&mut self, meta: &EntryMeta<'_>) -> Result<(), ErofsError> {
        let mut list = self.kept_xattrs(Carrier::Directory, meta)?;
        let dir = match meta.path.split() {
            None => ROOT,
            Some((parent, name)) => {
                let parent = self.parent_dir(parent, name.len())?;
                let (dir, before) = self.tree.place_dir(parent, name)?;
                if before == Some(Kind::Symlink) {
                    self.forget_parent();
                }
                dir
            }
        };
        let before = self.tree.xattrs(dir);
        if !before.is_empty() {
            let new = std::mem::take(&mut list);
            before.iter().chain(new.as_xattrs().iter()).for_each(|(name, value)| list.set(name, value));
            if !mode_fits(meta.mode, list.as_xattrs().iter()) {
                return Err(ErofsError::entry(meta.path.as_bytes(), Problem::Attribute));
            }
            xattrs::check(list.as_xattrs(), dir == ROOT, self.limits.xattr_bytes).map_err(xattrs::over)?;
        }
        self.tree.describe(dir, false, of(meta), list.as_xattrs())
    }

    fn hard_link(&mut self, meta: &EntryMeta<'_>, target: TarPath<'_>) -> Result<(), ErofsError> {
        let refused = |problem| Err(ErofsError::entry(meta.path.as_bytes(), problem));
        let Some((parent, name)) = target.split() else { return refused(Problem::LinkToDir) };
        let image = &self.image;
        let dir = resolve::find_dir(&self.tree, parent, &mut |nid| image.read_link(nid))?;
        let Some(id) = dir.and_then(|dir| self.tree.find(dir, name)) else { return refused(Problem::LinkMissing) };
        let Some(Entry { kind, node, parent: target_dir, .. }) = self.tree.entry(id).copied() else {
            return refused(Problem::LinkMissing);
        };
        match kind {
            Kind::Dir => return refused(Problem::LinkToDir),
            Kind::Whiteout => return refused(Problem::LinkMissing),
            _ => {}
        }
        let carrier = if kind == Kind::File { Carrier::File } else { Carrier::Other };
        let given = self.kept_xattrs(carrier, meta)?;
        let have = xattrs::decode(&self.image.read_xattrs(node)?).unwrap_or_default();
        let has = |name, value| have.as_xattrs().iter().any(|have| have == (name, value));
        if !mode_fits(meta.mode, have.as_xattrs().iter())
            || !given.as_xattrs().iter().all(|(name, value)| has(name, value))
        {
            return refused(Problem::LinkAttributes);
        }
        let entry = self.name(meta.path, kind, node)?;
        if entry == id || self.tree.is_within(target_dir, entry) {
            return refused(Problem::LinkToItself);
        }
        for id in [id, entry] {
            if let Some(entry) = self.tree.entry_mut(id) {
                entry.linked = true;
            }
        }
        self.links.insert(node, Link { attributes: of(meta), names: 0 });
        Ok(())
    }

    /// The first blocks of the open file, or more of them.
    fn add_blocks(&mut self, first: u32) {
        if let Some(file) = &mut self.file {
            file.start.get_or_insert(first);
        }
    }

    /// Fills the tail from `bytes`, at most to the block's end; gives how many it took.
    fn fill_tail(&mut self, bytes: &[u8]) -> Result<usize, ErofsError> {
        let free = self.tail.get_mut(self.filled..).unwrap_or_default();
        let count = free.len().min(bytes.len());
        free.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        self.filled += count;
        if self.filled == BLOCK {
            self.filled = 0;
            let first = self.image.append(std::slice::from_ref(&*self.tail))?;
            self.add_blocks(first);
        }
        Ok(count)
    }
}

fn of(meta: &EntryMeta<'_>) -> Attributes {
    let Mtime { seconds, nanoseconds } = Mtime::bounded(meta.mtime, meta.mtime_nsec);
    attributes(meta.mode, meta.uid, meta.gid, seconds, nanoseconds)
}

impl<O: BlockOut> EntrySink for LayerWriter<O> {
    type Error = ErofsError;

    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), ErofsError> {
        self.file = None;
        self.filled = 0;
        match whiteout::classify(meta.path).map_err(|problem| ErofsError::entry(meta.path.as_bytes(), problem))? {
            Mark::None => {}
            Mark::Ignored => return Ok(()),
            Mark::Opaque(dir) => {
                let dir = self.parent_dir(dir, 0)?;
                self.tree.make_opaque(dir);
                return Ok(());
            }
            Mark::Whiteout(dir, name) => {
                let dir = self.parent_dir(dir, name.len())?;
                return self.tree.white_out(dir, name);
            }
        }
        match meta.kind {
            EntryKind::File { .. } => {
                let list = self.kept_xattrs(Carrier::File, meta)?;
                xattrs::encode(&mut self.encoded, list.as_xattrs().iter(), self.limits.xattr_bytes)?;
                let entry = self.name(meta.path, Kind::File, 0)?;
                self.file = Some(OpenFile { entry, attributes: of(meta), start: None, size: 0 });
                Ok(())
            }
            EntryKind::Dir => self.directory(meta),
            EntryKind::Symlink { target } => self.small(meta, Kind::Symlink, None, target),
            EntryKind::Hardlink { target } => self.hard_link(meta, target),
            // The kernel's own form of a whiteout, and one to overlayfs wherever it comes from.
            EntryKind::Char { major: 0, minor: 0 } => {
                let entry = self.name(meta.path, Kind::Whiteout, 0)?;
                self.tree.hide(entry, Hides::All);
                Ok(())
            }
            EntryKind::Char { major, minor } => self.small(meta, Kind::Char, Some(device(major, minor)), &[]),
            EntryKind::Block { major, minor } => self.small(meta, Kind::Block, Some(device(major, minor)), &[]),
            EntryKind::Fifo => self.small(meta, Kind::Fifo, Some(0), &[]),
        }
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ErofsError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.size = file.size.saturating_add(bytes.len() as u64);
        let mut bytes = bytes;
        if self.filled > 0 {
            let count = self.fill_tail(bytes)?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        if !blocks.is_empty() {
            let first = self.image.append(blocks)?;
            self.add_blocks(first);
        }
        self.fill_tail(rest).map(|_| ())
    }

    fn hole(&mut self, len: u64) -> Result<(), ErofsError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.size = file.size.saturating_add(len);
        let mut left = len;
        if self.filled > 0 {
            let count = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let count = self.fill_tail([0; BLOCK].get(..count).unwrap_or_default())?;
            left = left.saturating_sub(count as u64);
        }
        let (blocks, rest) = super::format::blocks_and_tail(left);
        if blocks > 0 {
            let first = self.image.append_zeros(blocks)?;
            self.add_blocks(first);
        }
        self.fill_tail([0; BLOCK].get(..rest).unwrap_or_default()).map(|_| ())
    }

    fn end(&mut self) -> Result<(), ErofsError> {
        let Some(OpenFile { entry, attributes, start, size }) = self.file.take() else { return Ok(()) };
        let tail = self.tail.get(..self.filled).unwrap_or_default();
        let node = Node { kind: Kind::File, attributes, xattrs: &self.encoded, size, start, tail, links: 1 };
        let nid = self.image.store(&node)?;
        self.filled = 0;
        self.set_node(entry, nid);
        Ok(())
    }
}
