//! Directories: written last, because only then everything they name has its place.

use super::error::ErofsError;
use super::finish::ROOT_ROOM;
use super::format::{DIRENT, Dirent, INODE, Kind, ROOT_NID, put, write_dirents};
use super::image::{Image, Node};
use super::pack::Packer;
use super::tree::{Entry, Hides, ROOT, Tree};
use super::{ErofsLimits, xattrs};
use crate::tar::{XattrList, Xattrs};
use crate::verity::{BLOCK, Block, BlockOut};

/// In a listing, the directory itself and the one it is in.
const DOT: u32 = u32::MAX;
const DOT_DOT: u32 = u32::MAX - 1;

/// What each live directory holds, sorted: 4 bytes for each name.
#[derive(Debug)]
pub(super) struct Listing {
    /// Entry ids, grouped by directory; each group has `.` and `..` too.
    ids: Vec<u32>,
    /// For each directory, where its group ends; it starts where the one before ends.
    ends: Vec<usize>,
    /// Live directories.
    live: u64,
}

impl Listing {
    /// `idle` are the directories whose whiteouts are left out.
    pub(super) fn new(tree: &Tree, live: &[bool], idle: &[bool]) -> Self {
        let of = |dirs: &[bool], dir: u32| dirs.get(dir as usize).is_some_and(|is| *is);
        let listed =
            |entry: &Entry| of(live, entry.parent) && !(entry.kind == Kind::Whiteout && of(idle, entry.parent));
        // The root's own entry stands first and is in no directory.
        let named = || (0u32..).zip(tree.entries()).skip(1).filter(|(_, entry)| listed(entry));
        let mut ends: Vec<usize> = live.iter().map(|live| if *live { 2 } else { 0 }).collect();
        for (_, entry) in named() {
            if let Some(count) = ends.get_mut(entry.parent as usize) {
                *count += 1;
            }
        }
        let mut total = 0;
        for end in &mut ends {
            // For now, where the group starts; filling it moves this to its end.
            let count = std::mem::replace(end, total);
            total += count;
        }
        let mut ids = vec![DOT; total];
        let mut add = |dir: usize, id: u32| {
            if let Some(end) = ends.get_mut(dir) {
                if let Some(place) = ids.get_mut(*end) {
                    *place = id;
                }
                *end += 1;
            }
        };
        for (dir, _) in live.iter().enumerate().filter(|(_, live)| **live) {
            add(dir, DOT);
            add(dir, DOT_DOT);
        }
        named().for_each(|(id, entry)| add(entry.parent as usize, id));

        let mut start = 0;
        for end in &ends {
            if let Some(group) = ids.get_mut(start..*end) {
                group.sort_unstable_by(|one, other| name(tree, *one).cmp(name(tree, *other)));
            }
            start = *end;
        }
        Self { ids, ends, live: live.iter().filter(|live| **live).count() as u64 }
    }

    /// Live directories.
    pub(super) const fn directories(&self) -> u64 {
        self.live
    }

    /// Names in them, without `.` and `..`.
    pub(super) const fn names(&self) -> u64 {
        (self.ids.len() as u64).saturating_sub(self.live.saturating_mul(2))
    }

    /// All entries in live directories.
    pub(super) fn entries<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = &'a Entry> {
        self.ids.iter().filter(|id| **id < DOT_DOT).filter_map(|id| tree.entry(*id))
    }

    /// The live directories with what they hold.
    fn groups(&self) -> impl Iterator<Item = (u32, &[u32])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let groups = starts.zip(&self.ends).map(|(start, end)| self.ids.get(start..*end).unwrap_or_default());
        (0u32..).zip(groups).filter(|(_, group)| !group.is_empty())
    }
}

fn name(tree: &Tree, id: u32) -> &[u8] {
    match id {
        DOT => b".",
        DOT_DOT => b"..",
        id => tree.entry(id).map(|entry| tree.name(entry)).unwrap_or_default(),
    }
}

/// Splits a directory's names into blocks, as many in each as fit.
fn pages<'a>(tree: &'a Tree, group: &'a [u32]) -> impl Iterator<Item = (&'a [u32], usize)> {
    let mut rest = group;
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = |id: &&u32| {
            let next = used + DIRENT + name(tree, **id).len();
            let fits = next <= BLOCK;
            if fits {
                used = next;
            }
            fits
        };
        let count = rest.iter().take_while(fits).count();
        let (page, after) = rest.split_at_checked(count)?;
        rest = after;
        (!page.is_empty()).then_some((page, used))
    })
}

/// A directory's size: whole blocks, and bytes used of the last one where that is not full.
fn size(tree: &Tree, group: &[u32]) -> (u64, usize) {
    let (mut blocks, mut tail) = (0, 0);
    for (_, used) in pages(tree, group) {
        // Only the last page counts as used in part.
        blocks += u64::from(tail > 0);
        tail = used;
    }
    if tail == BLOCK { (blocks + 1, 0) } else { (blocks, tail) }
}

/// Writes all directories; gives the root's inode with what stands behind it.
pub(super) fn write<O: BlockOut>(
    image: &mut Image<O>,
    tree: &Tree,
    listing: &Listing,
    whiteouts: u32,
    limits: &ErofsLimits,
) -> Result<Vec<u8>, ErofsError> {
    let nids = places(image.packer.clone(), tree, listing, limits)?;
    let nid = |dir: u32| nids.get(dir as usize).copied().unwrap_or_default();
    let mut encoded = Vec::new();
    let mut block = [0; BLOCK];
    let mut root = Vec::new();
    for (id, group) in listing.groups() {
        let Some(dir) = tree.dir(id) else { continue };
        let dirent = |entry: &u32| {
            let (nid, kind) = match *entry {
                DOT => (nid(id), Kind::Dir),
                DOT_DOT => (nid(tree.parent(id)), Kind::Dir),
                entry => match tree.entry(entry) {
                    Some(Entry { kind: Kind::Dir, node, .. }) => (nid(*node), Kind::Dir),
                    Some(Entry { kind: Kind::Whiteout, .. }) => (whiteouts, Kind::Whiteout),
                    Some(entry) => (entry.node, entry.kind),
                    None => (0, Kind::Fifo),
                },
            };
            Dirent { nid, file_type: kind.file_type(), name: name(tree, *entry) }
        };
        let (blocks, tail) = size(tree, group);
        let start = if blocks > 0 { Some(image.packer.take(blocks)?) } else { None };
        for (number, (page, _)) in (0..).zip(pages(tree, group)) {
            write_dirents(&mut block, page.iter().map(dirent));
            // A last page that is not full stays in `block`: it is the tail.
            if u64::from(number) < blocks {
                image.push(start.unwrap_or_default() + number, &block)?;
            }
        }
        encode_xattrs(&mut encoded, tree, id, limits)?;
        let node = Node {
            kind: Kind::Dir,
            attributes: dir.attributes,
            xattrs: &encoded,
            size: blocks * BLOCK as u64 + tail as u64,
            start,
            tail: if tail > 0 { block.get(..tail).unwrap_or_default() } else { &[] },
            links: links(tree, group),
        };
        if id == ROOT {
            root = write_root(image, &node)?;
        } else {
            image.store(&node)?;
        }
    }
    Ok(root)
}

/// Where every directory's inode will be: a run without content, since directories name each other.
fn places(mut packer: Packer, tree: &Tree, listing: &Listing, limits: &ErofsLimits) -> Result<Vec<u32>, ErofsError> {
    let mut nids = vec![0; tree.dirs().len()];
    let mut encoded = Vec::new();
    for (id, group) in listing.groups() {
        let (blocks, tail) = size(tree, group);
        if blocks > 0 {
            packer.take(blocks)?;
        }
        encode_xattrs(&mut encoded, tree, id, limits)?;
        let nid = if id == ROOT {
            if tail > 0 && !fits_root(encoded.len(), tail) {
                packer.take(1)?;
            }
            ROOT_NID
        } else {
            packer.plan(encoded.len(), tail)?.place.nid()
        };
        if let Some(place) = nids.get_mut(id as usize) {
            *place = nid;
        }
    }
    Ok(nids)
}

const fn fits_root(xattrs: usize, tail: usize) -> bool {
    xattrs + tail <= ROOT_ROOM
}

/// The root's inode has its place in block 0.
fn write_root<O: BlockOut>(image: &mut Image<O>, node: &Node<'_>) -> Result<Vec<u8>, ErofsError> {
    let inline = !node.tail.is_empty() && fits_root(node.xattrs.len(), node.tail.len());
    let mut tail_block = None;
    if !node.tail.is_empty() && !inline {
        let number = image.packer.take(1)?;
        let mut block: Block = [0; BLOCK];
        put(&mut block, 0, node.tail);
        image.push(number, &block)?;
        tail_block = Some(number);
    }
    let number = image.number();
    let mut bytes = node.inode(inline, tail_block, number).encode().to_vec();
    bytes.extend_from_slice(node.xattrs);
    if inline {
        bytes.extend_from_slice(node.tail);
    }
    Ok(bytes)
}

/// A directory's own name, `.`, and `..` of each directory in it.
fn links(tree: &Tree, group: &[u32]) -> u32 {
    let inner = group.iter().filter(|id| tree.entry(**id).is_some_and(|entry| entry.kind == Kind::Dir));
    u32::try_from(inner.count() + 2).unwrap_or(u32::MAX)
}

fn encode_xattrs(out: &mut Vec<u8>, tree: &Tree, dir: u32, limits: &ErofsLimits) -> Result<(), ErofsError> {
    let limit = if dir == ROOT { limits.xattr_bytes.min(ROOT_ROOM) } else { limits.xattr_bytes };
    let given = tree.xattrs(dir);
    let opaque = tree.dir(dir).and_then(|dir| tree.entry(dir.entry)).is_some_and(|entry| entry.hides > Hides::Nothing);
    if !opaque {
        return xattrs::encode(out, given.iter(), limit);
    }
    let list = with_opaque(given);
    xattrs::encode(out, list.as_xattrs().iter(), limit)
}

fn with_opaque(given: Xattrs<'_>) -> XattrList {
    let mut list = XattrList::new();
    given.iter().for_each(|(name, value)| list.set(name, value));
    list.set(xattrs::OPAQUE.0, xattrs::OPAQUE.1);
    list
}

const _: () = assert!(ROOT_ROOM < BLOCK - INODE);
