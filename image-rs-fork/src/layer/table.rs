//! The table of a layer's final entries: 16 bytes and the name for each, 64 for its inode, and directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashTable;
use protocols::digest::Sha256Digest;

use super::LayerError;
use super::attributes::{Attributes, Content, Plain, Xattr};
use super::path::{self, split};
use super::records::Records;
use crate::error::ImageError;

/// The root, among directories.
const ROOT: u32 = 0;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    /// An inode that is no directory, by its place in the table; hard links share it.
    Inode(usize),
    /// Hides what lower layers have here.
    Whiteout,
}

/// A directory. Without attributes it is implied: no entry describes it, and it takes those of the layers
/// below.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory {
    pub(crate) attributes: Option<Attributes>,
    /// Hides what lower layers have in it.
    pub(crate) opaque: bool,
    /// Takes the place of what this layer had hidden or replaced: nothing of lower layers is its own.
    pub(crate) fresh: bool,
}

/// An inode that is no directory. Its few extended attributes are kept beside it, since most have none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) plain: Plain,
    pub(crate) content: Kept,
}

/// What is kept of an inode's content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    File { size: u64, sha256: Sha256Digest },
    Symlink(Box<[u8]>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Kept {
    pub(super) fn content(&self) -> Content<'_> {
        match self {
            Self::File { size, sha256 } => Content::File { size: *size, sha256 },
            Self::Symlink(target) => Content::Symlink(target),
            Self::Character(major, minor) => Content::Character(*major, *minor),
            Self::Block(major, minor) => Content::Block(*major, *minor),
            Self::Fifo => Content::Fifo,
        }
    }
}

/// A name in a directory. Ids are positions and never change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// The directory it is in.
    pub(super) parent: u32,
    text: u32,
    /// The directory's id or the inode's place.
    pub(super) node: u32,
    length: u8,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Inode,
    Whiteout,
    /// Nothing any more; what was below a removed directory is still listed, but nothing leads there.
    Removed,
}

/// A directory's place in the tree beside what it is.
#[derive(Debug)]
pub(super) struct Listed {
    /// The entry that names it; the root's is not there.
    entry: Option<u32>,
    pub(super) directory: Directory,
}

/// A layer's final entries. The root, with the empty path, is always there.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) entries: Vec<Entry>,
    names: Vec<u8>,
    pub(super) directories: Vec<Listed>,
    index: HashTable<u32>,
    /// Keyed at random: names are hostile. The index's order decides nothing.
    state: RandomState,
    pub(super) records: Records,
    /// By the inode's place.
    xattrs: BTreeMap<usize, Vec<Xattr>>,
    /// Inodes that have had several names.
    pub(super) shared: BTreeSet<usize>,
    /// The directory that was last put into: most entries follow one from the same.
    last: (Vec<u8>, u32),
}

/// What a layer says of a directory to the layers above it.
enum Found<'a> {
    Directory(&'a Attributes),
    /// Not there, and lower layers do not show through.
    Hidden,
    /// Nothing said.
    Absent,
}

impl Table {
    /// Keeps everything in memory.
    pub(crate) fn new() -> Self {
        Self::with_records(Records::default())
    }

    /// Keeps most of the inodes in `file`, which is empty and this layer's alone; `path` is told in errors.
    pub(crate) fn spilling(file: File, path: &Path) -> Self {
        Self::with_records(Records::spilling(file, path))
    }

    fn with_records(records: Records) -> Self {
        Self {
            entries: Vec::new(),
            names: Vec::new(),
            directories: vec![Listed { entry: None, directory: Directory::default() }],
            index: HashTable::new(),
            state: RandomState::new(),
            records,
            xattrs: BTreeMap::new(),
            shared: BTreeSet::new(),
            last: (Vec::new(), ROOT),
        }
    }

    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        text(&self.names, entry)
    }

    /// The entry of that name in a directory.
    fn child(&self, parent: u32, name: &[u8]) -> Option<(u32, &Entry)> {
        let hash = self.state.hash_one((parent, name));
        let id = self.index.find(hash, |id| is(&self.entries, &self.names, *id, parent, name))?;
        let entry = self.entries.get(*id as usize)?;
        (entry.kind != Kind::Removed).then_some((*id, entry))
    }

    /// The id of the directory at `path`.
    fn directory_id(&self, path: &[u8]) -> Option<u32> {
        if self.last.0 == path {
            return Some(self.last.1);
        }
        let mut names = path.split(|b| *b == b'/').filter(|name| !name.is_empty());
        names.try_fold(ROOT, |parent, name| match self.child(parent, name)? {
            (_, Entry { kind: Kind::Directory, node, .. }) => Some(*node),
            _ => None,
        })
    }

    /// What is at `path`, which is not the root.
    fn entry(&self, path: &[u8]) -> Option<(u32, &Entry)> {
        let (parent, name) = split(path)?;
        self.child(self.directory_id(parent)?, name)
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<Node> {
        if path.is_empty() {
            return Some(Node::Directory);
        }
        match self.entry(path)?.1 {
            Entry { kind: Kind::Directory, .. } => Some(Node::Directory),
            Entry { kind: Kind::Inode, node, .. } => Some(Node::Inode(*node as usize)),
            Entry { kind: Kind::Whiteout, .. } => Some(Node::Whiteout),
            Entry { kind: Kind::Removed, .. } => None,
        }
    }

    fn directory(&self, path: &[u8]) -> Option<&Directory> {
        self.directories.get(self.directory_id(path)? as usize).map(|listed| &listed.directory)
    }

    /// The directory at `path`, where there is one.
    pub(crate) fn directory_mut(&mut self, path: &[u8]) -> Option<&mut Directory> {
        let id = self.directory_id(path)?;
        self.directories.get_mut(id as usize).map(|listed| &mut listed.directory)
    }

    /// The target of the symbolic link at `path`, where there is one.
    pub(crate) fn symlink(&self, path: &[u8]) -> Result<Option<Box<[u8]>>, ImageError> {
        let Some(Node::Inode(inode)) = self.get(path) else { return Ok(None) };
        Ok(self.inode(inode)?.and_then(|inode| match inode.content {
            Kept::Symlink(target) => Some(target),
            _ => None,
        }))
    }

    /// Puts `kind` at a path whose directory is there.
    fn insert(&mut self, path: &[u8], kind: Kind, node: usize) -> Result<u32, LayerError> {
        let many = || LayerError::Limit { what: "entries in one layer", limit: u64::from(u32::MAX) };
        let (parent_path, name) = split(path).ok_or_else(many)?;
        let parent = self.directory_id(parent_path).ok_or_else(many)?;
        if self.last.0 != parent_path {
            self.last.0.clear();
            self.last.0.extend_from_slice(parent_path);
            self.last.1 = parent;
        }
        let node = u32::try_from(node).map_err(|_| many())?;
        let Self { entries, names, index, state, .. } = self;
        let hash = state.hash_one((parent, name));
        if let Some(id) = index.find(hash, |id| is(entries, names, *id, parent, name)) {
            if let Some(entry) = entries.get_mut(*id as usize) {
                if entry.kind == Kind::Directory {
                    self.last = (Vec::new(), ROOT);
                }
                *entry = Entry { kind, node, ..*entry };
            }
            return Ok(*id);
        }
        let id = u32::try_from(entries.len()).map_err(|_| many())?;
        let at = u32::try_from(names.len()).map_err(|_| many())?;
        let length = u8::try_from(name.len()).map_err(|_| many())?;
        names.extend_from_slice(name);
        entries.push(Entry { parent, text: at, node, length, kind });
        index.insert_unique(hash, id, |id| rehash(state, entries, names, *id));
        Ok(id)
    }

    pub(crate) fn insert_directory(&mut self, path: &[u8], directory: Directory) -> Result<(), LayerError> {
        if path.is_empty() {
            if let Some(root) = self.directories.first_mut() {
                root.directory = directory;
            }
            return Ok(());
        }
        let entry = self.insert(path, Kind::Directory, self.directories.len())?;
        self.directories.push(Listed { entry: Some(entry), directory });
        Ok(())
    }

    pub(crate) fn insert_whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.insert(path, Kind::Whiteout, 0).map(drop)
    }

    /// Adds an inode with its first name; gives its place.
    pub(crate) fn insert_inode(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        content: &Kept,
    ) -> Result<usize, LayerError> {
        let place = self.records.add(&attributes.plain, content)?;
        if !attributes.xattrs.is_empty() {
            self.xattrs.insert(place, attributes.xattrs);
        }
        self.insert(path, Kind::Inode, place)?;
        Ok(place)
    }

    /// Gives an inode a further name.
    pub(crate) fn insert_link(&mut self, path: &[u8], place: usize) -> Result<(), LayerError> {
        self.shared.insert(place);
        self.insert(path, Kind::Inode, place).map(drop)
    }

    pub(crate) fn inode(&self, place: usize) -> Result<Option<Inode>, ImageError> {
        self.records.get(place)
    }

    /// Gives an inode other attributes.
    pub(crate) fn describe(&mut self, place: usize, plain: &Plain) -> Result<(), ImageError> {
        self.records.describe(place, plain)
    }

    /// An inode's extended attributes.
    pub(crate) fn xattrs(&self, place: usize) -> &[Xattr] {
        self.xattrs.get(&place).map(Vec::as_slice).unwrap_or_default()
    }

    /// Forgets what is at `path` and all below it.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        if let Some((id, _)) = self.entry(path)
            && let Some(entry) = self.entries.get_mut(id as usize)
        {
            entry.kind = Kind::Removed;
            self.last = (Vec::new(), ROOT);
        }
    }

    /// Whether each directory is still in the tree. Those it is in come before it, so one pass does.
    pub(super) fn live(&self) -> Vec<bool> {
        let mut live: Vec<bool> = Vec::with_capacity(self.directories.len());
        for (id, listed) in (0u32..).zip(&self.directories) {
            let entry = listed.entry.and_then(|entry| self.entries.get(entry as usize));
            live.push(entry.is_none_or(|entry| {
                entry.kind == Kind::Directory
                    && entry.node == id
                    && live.get(entry.parent as usize).is_some_and(|live| *live)
            }));
        }
        live
    }

    /// The path of a directory.
    fn path(&self, directory: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = directory;
        while let Some(entry) = self.directories.get(at as usize).and_then(|listed| listed.entry) {
            let Some(entry) = self.entries.get(entry as usize) else { break };
            names.push(self.name(entry));
            at = entry.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Every directory after those it is in.
    pub(crate) fn directories(&self) -> impl DoubleEndedIterator<Item = (Vec<u8>, &Directory)> {
        let live = (0u32..u32::MAX).zip(&self.directories).zip(self.live()).filter(|(_, live)| *live);
        let live: Vec<_> = live.map(|(directory, _)| directory).collect();
        live.into_iter().map(|(id, listed)| (self.path(id), &listed.directory))
    }

    /// Gives every implied directory the attributes of the layers below (`lower`, lowest first): those of
    /// the topmost layer that has the directory and does not hide it, unless this layer itself hides it.
    pub(crate) fn inherit(&mut self, lower: &[Arc<Self>]) {
        let implied = self.directories().filter(|(_, directory)| directory.attributes.is_none());
        let implied: Vec<Vec<u8>> = implied.map(|(path, _)| path).collect();
        for path in implied {
            let attributes = if self.hides(&path) { None } else { shown(&path, lower).cloned() };
            let attributes = attributes.unwrap_or_else(Attributes::undescribed);
            if let Some(directory) = self.directory_mut(&path) {
                directory.attributes = Some(attributes);
            }
        }
    }

    /// Whiteouts with nothing to hide: in a directory whose lower content this layer hides, or that no layer below
    /// shows. Overlayfs would list their names. The root's stay: above its layers is always the writable one.
    pub(crate) fn idle_whiteouts(&self, lower: &[Arc<Self>]) -> Result<Vec<Vec<u8>>, LayerError> {
        let live = self.live();
        // Of each directory that holds whiteouts, its path where they are idle.
        let mut idle: BTreeMap<u32, Option<Vec<u8>>> = BTreeMap::new();
        let mut found = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.kind == Kind::Whiteout && entry.parent != ROOT) {
            if live.get(entry.parent as usize) != Some(&true) {
                continue;
            }
            let parent = idle.entry(entry.parent).or_insert_with(|| {
                let path = self.path(entry.parent);
                (self.hides_content(&path) || shown(&path, lower).is_none()).then_some(path)
            });
            if let Some(parent) = parent {
                found.push(path::join(parent, self.name(entry))?);
            }
        }
        Ok(found)
    }

    /// Whether what lower layers have in the directory at `path` does not show.
    fn hides_content(&self, path: &[u8]) -> bool {
        path::prefixes(path).any(|prefix| self.directory(prefix).is_some_and(|directory| directory.opaque))
    }

    /// Whether lower layers have no part in the directory at `path`.
    fn hides(&self, path: &[u8]) -> bool {
        path::prefixes(path).any(|prefix| {
            let hides = |directory: &Directory| directory.fresh || (directory.opaque && prefix.len() < path.len());
            self.directory(prefix).is_some_and(hides)
        })
    }

    fn find(&self, path: &[u8]) -> Found<'_> {
        let mut hidden = false;
        for prefix in path::prefixes(path) {
            match self.get(prefix) {
                Some(Node::Directory) => match self.directory(prefix) {
                    Some(directory) if prefix.len() == path.len() => {
                        return directory.attributes.as_ref().map_or(Found::Absent, Found::Directory);
                    }
                    directory => hidden |= directory.is_some_and(|directory| directory.opaque),
                },
                Some(Node::Inode(_) | Node::Whiteout) => return Found::Hidden,
                None => break,
            }
        }
        if hidden { Found::Hidden } else { Found::Absent }
    }

    /// Whether the root hides all lower layers.
    pub(crate) fn root_is_opaque(&self) -> bool {
        self.directories.first().is_some_and(|root| root.directory.opaque)
    }

    /// The layer is measured: forgets the inodes, which no layer above asks for.
    pub(crate) fn sealed(mut self) -> Arc<Self> {
        self.records = Records::default();
        self.xattrs = BTreeMap::new();
        self.shared = BTreeSet::new();
        self.entries.shrink_to_fit();
        self.names.shrink_to_fit();
        Arc::new(self)
    }
}

/// The directory that `lower`, lowest first, show at a path.
fn shown<'a>(path: &[u8], lower: &'a [Arc<Table>]) -> Option<&'a Attributes> {
    for table in lower.iter().rev() {
        match table.find(path) {
            Found::Directory(attributes) => return Some(attributes),
            Found::Hidden => break,
            Found::Absent => {}
        }
    }
    None
}

fn text<'a>(names: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.text as usize;
    names.get(start..start + usize::from(entry.length)).unwrap_or_default()
}

fn is(entries: &[Entry], names: &[u8], id: u32, parent: u32, name: &[u8]) -> bool {
    entries.get(id as usize).is_some_and(|entry| entry.parent == parent && text(names, entry) == name)
}

fn rehash(state: &RandomState, entries: &[Entry], names: &[u8], id: u32) -> u64 {
    entries.get(id as usize).map_or(0, |entry| state.hash_one((entry.parent, text(names, entry))))
}
