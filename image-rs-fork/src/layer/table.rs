//! The table of a layer's final entries, and its digest.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};

use super::attributes::{Attributes, Content, Plain, Xattr, put, record};
use super::path;

/// Starts what is hashed of a layer.
const LAYER: &[u8] = b"tcl-layer tree-v1\0";

/// What is at a path.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Directory(Box<Directory>),
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
#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) plain: Plain,
    pub(crate) content: Kept,
}

/// What is kept of an inode's content.
#[derive(Debug)]
pub(crate) enum Kept {
    File { size: u64, sha256: Sha256Digest },
    Symlink(Box<[u8]>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Kept {
    fn content(&self) -> Content<'_> {
        match self {
            Self::File { size, sha256 } => Content::File { size: *size, sha256 },
            Self::Symlink(target) => Content::Symlink(target),
            Self::Character(major, minor) => Content::Character(*major, *minor),
            Self::Block(major, minor) => Content::Block(*major, *minor),
            Self::Fifo => Content::Fifo,
        }
    }
}

/// A layer's final entries by path. The root, with the empty path, is always there.
#[derive(Debug)]
pub(crate) struct Table {
    nodes: BTreeMap<Box<[u8]>, Node>,
    inodes: Vec<Inode>,
    /// By the inode's place.
    xattrs: BTreeMap<usize, Vec<Xattr>>,
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
    pub(crate) fn new() -> Self {
        let root = Node::Directory(Box::default());
        Self { nodes: BTreeMap::from([(Box::default(), root)]), inodes: Vec::new(), xattrs: BTreeMap::new() }
    }

    pub(crate) fn get(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The directory at `path`, where there is one.
    pub(crate) fn directory_mut(&mut self, path: &[u8]) -> Option<&mut Directory> {
        match self.nodes.get_mut(path) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    /// The target of the symbolic link at `path`, where there is one.
    pub(crate) fn symlink(&self, path: &[u8]) -> Option<&[u8]> {
        match self.nodes.get(path) {
            Some(Node::Inode(inode)) => match &self.inodes.get(*inode)?.content {
                Kept::Symlink(target) => Some(target),
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn insert(&mut self, path: &[u8], node: Node) {
        self.nodes.insert(path.into(), node);
    }

    pub(crate) fn add_inode(&mut self, attributes: Attributes, content: Kept) -> usize {
        let place = self.inodes.len();
        self.inodes.push(Inode { plain: attributes.plain, content });
        if !attributes.xattrs.is_empty() {
            self.xattrs.insert(place, attributes.xattrs);
        }
        place
    }

    pub(crate) fn inode(&self, place: usize) -> Option<&Inode> {
        self.inodes.get(place)
    }

    pub(crate) fn inode_mut(&mut self, place: usize) -> Option<&mut Inode> {
        self.inodes.get_mut(place)
    }

    /// An inode's extended attributes.
    pub(crate) fn xattrs(&self, place: usize) -> &[Xattr] {
        self.xattrs.get(&place).map(Vec::as_slice).unwrap_or_default()
    }

    /// Forgets what is at `path` and all below it.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        if matches!(self.nodes.remove(path), Some(Node::Directory(_))) {
            // `/` is followed by `0`: all paths below lie between the two.
            let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
            let range = (Bound::Excluded(from.as_slice()), Bound::Excluded(to.as_slice()));
            let below: Vec<Box<[u8]>> = self.nodes.range::<[u8], _>(range).map(|(path, _)| path.clone()).collect();
            for path in below {
                self.nodes.remove(&path);
            }
        }
    }

    pub(crate) fn directories(&self) -> impl DoubleEndedIterator<Item = (&[u8], &Directory)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::Directory(directory) => Some((&**path, &**directory)),
            _ => None,
        })
    }

    /// Gives every implied directory the attributes of the layers below (`lower`, lowest first): those of
    /// the topmost layer that has the directory and does not hide it, unless this layer itself hides it.
    pub(crate) fn inherit(&mut self, lower: &[Arc<Self>]) {
        let implied = self.directories().filter(|(_, directory)| directory.attributes.is_none());
        let implied: Vec<Box<[u8]>> = implied.map(|(path, _)| path.into()).collect();
        for path in implied {
            let attributes = if self.hides(&path) { Attributes::undescribed() } else { inherited(&path, lower) };
            if let Some(directory) = self.directory_mut(&path) {
                directory.attributes = Some(attributes);
            }
        }
    }

    /// Whether lower layers have no part in the directory at `path`.
    fn hides(&self, path: &[u8]) -> bool {
        path::prefixes(path).any(|prefix| match self.nodes.get(prefix) {
            Some(Node::Directory(directory)) => directory.fresh || (directory.opaque && prefix.len() < path.len()),
            _ => false,
        })
    }

    fn find(&self, path: &[u8]) -> Found<'_> {
        let mut hidden = false;
        for prefix in path::prefixes(path) {
            match self.nodes.get(prefix) {
                Some(Node::Directory(directory)) if prefix.len() == path.len() => {
                    return directory.attributes.as_ref().map_or(Found::Absent, Found::Directory);
                }
                Some(Node::Directory(directory)) => hidden |= directory.opaque,
                Some(Node::Inode(_) | Node::Whiteout) => return Found::Hidden,
                None => break,
            }
        }
        if hidden { Found::Hidden } else { Found::Absent }
    }

    /// Whether the root hides all lower layers.
    pub(crate) fn root_is_opaque(&self) -> bool {
        matches!(self.nodes.get(&b""[..]), Some(Node::Directory(root)) if root.opaque)
    }

    /// SHA-256 over the canonical listing (`docs/measurement.md`).
    pub(crate) fn digest(&self) -> Sha256Digest {
        let mut hasher = Sha256::new();
        hasher.update(LAYER);
        hasher.update((self.nodes.len() as u64).to_be_bytes());
        // An inode's first path in order; later ones are hard links to it.
        let mut first: Vec<Option<&[u8]>> = vec![None; self.inodes.len()];
        let undescribed = Attributes::undescribed();
        let mut line = Vec::with_capacity(256);
        for (path, node) in &self.nodes {
            line.clear();
            put(&mut line, path);
            match node {
                Node::Whiteout => line.push(b'w'),
                Node::Directory(directory) => {
                    let attributes = directory.attributes.as_ref().unwrap_or(&undescribed);
                    line.push(b'e');
                    let content = Content::Directory { opaque: directory.opaque };
                    line.extend_from_slice(record(&attributes.plain, &attributes.xattrs, &content).as_bytes());
                }
                Node::Inode(place) => match (first.get_mut(*place), self.inodes.get(*place)) {
                    (Some(Some(first)), _) => {
                        line.push(b'h');
                        put(&mut line, first);
                    }
                    (Some(first), Some(inode)) => {
                        *first = Some(path);
                        line.push(b'e');
                        let record = record(&inode.plain, self.xattrs(*place), &inode.content.content());
                        line.extend_from_slice(record.as_bytes());
                    }
                    // A node always names one of the table's inodes.
                    _ => line.push(b'?'),
                },
            }
            hasher.update(&line);
        }
        Sha256Digest::new(hasher.finalize().into())
    }
}

fn inherited(path: &[u8], lower: &[Arc<Table>]) -> Attributes {
    for table in lower.iter().rev() {
        match table.find(path) {
            Found::Directory(attributes) => return attributes.clone(),
            Found::Hidden => break,
            Found::Absent => {}
        }
    }
    Attributes::undescribed()
}
