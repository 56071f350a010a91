//! The digest of a layer's table: SHA-256 over its canonical listing (`docs/measurement.md`).

use std::collections::BTreeMap;

use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};

use super::attributes::{Attributes, Content, put, record};
use super::records::Reader;
use super::table::{Entry, Kind, Table};
use crate::error::ImageError;

/// Starts what is hashed of a layer.
const LAYER: &[u8] = b"tcl-layer tree-v1\0";

impl Table {
    /// SHA-256 over the canonical listing (`docs/measurement.md`).
    ///
    /// # Errors
    /// The spill's, `store.io`.
    pub(crate) fn digest(&self) -> Result<Sha256Digest, ImageError> {
        let live = self.live();
        let mut children: Vec<u32> = (0u32..u32::MAX)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.kind != Kind::Removed && live.get(entry.parent as usize) == Some(&true))
            .map(|(id, _)| id)
            .collect();
        children.sort_unstable_by_key(|id| self.entries.get(*id as usize).map(|entry| entry.parent));
        let mut hasher = Sha256::new();
        hasher.update(LAYER);
        hasher.update((children.len() as u64).saturating_add(1).to_be_bytes());
        let mut listing = Listing {
            table: self,
            children,
            records: self.records.reader(),
            first: BTreeMap::new(),
            path: Vec::new(),
            line: Vec::with_capacity(256),
            hasher,
        };
        listing.run()?;
        Ok(Sha256Digest::new(listing.hasher.finalize().into()))
    }
}

/// A listing on its way. Its order is that of whole paths as bytes.
struct Listing<'a> {
    table: &'a Table,
    /// Ids of all entries, by the directories they are in.
    children: Vec<u32>,
    records: Reader<'a>,
    /// Of every inode with several names the first path; later ones are hard links to it.
    first: BTreeMap<usize, Vec<u8>>,
    path: Vec<u8>,
    line: Vec<u8>,
    hasher: Sha256,
}

/// What is still to be listed.
enum Next {
    /// An entry of the directory whose path has so many bytes.
    Entry(u32, usize),
    /// What is in the directory of that entry. It does not follow the entry itself: `a-b` lies between `a` and `a/b`.
    Below(u32, usize),
}

impl Listing<'_> {
    fn run(&mut self) -> Result<(), ImageError> {
        let mut waiting = Vec::new();
        self.directory(0);
        self.below(0, &mut waiting);
        while let Some(next) = waiting.pop() {
            let (Next::Entry(id, above) | Next::Below(id, above)) = next;
            let table = self.table;
            // Ids come from the table.
            let Some(entry) = table.entries.get(id as usize) else { continue };
            self.path.truncate(above);
            if above > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(table.name(entry));
            match next {
                Next::Entry(..) => self.entry(entry)?,
                Next::Below(..) => self.below(entry.node, &mut waiting),
            }
        }
        Ok(())
    }

    /// Puts what is in a directory, whose path is the present one, on top of what waits: the first last.
    fn below(&self, directory: u32, waiting: &mut Vec<Next>) {
        let entry = |id: &u32| self.table.entries.get(*id as usize);
        let parent = |id: &u32| entry(id).map_or(u32::MAX, |entry| entry.parent);
        let from = self.children.partition_point(|id| parent(id) < directory);
        let rest = self.children.get(from..).unwrap_or_default();
        let children = rest.get(..rest.partition_point(|id| parent(id) == directory)).unwrap_or_default();
        let above = self.path.len();
        let start = waiting.len();
        for id in children {
            waiting.push(Next::Entry(*id, above));
            if entry(id).is_some_and(|entry| entry.kind == Kind::Directory) {
                waiting.push(Next::Below(*id, above));
            }
        }
        let key = |next: &Next| {
            let (id, slash) = match next {
                Next::Entry(id, _) => (id, false),
                Next::Below(id, _) => (id, true),
            };
            (entry(id).map(|entry| self.table.name(entry)).unwrap_or_default(), slash)
        };
        let part = waiting.get_mut(start..).unwrap_or_default();
        part.sort_unstable_by(|one, other| {
            let ((one, one_slash), (other, other_slash)) = (key(one), key(other));
            let common = one.len().min(other.len());
            let heads = one.get(..common).cmp(&other.get(..common));
            heads.reverse().then_with(|| {
                // One name starts the other: the next byte decides, which is the slash where the name has ended.
                let next = |name: &[u8], slash: bool| name.get(common).copied().or(slash.then_some(b'/'));
                next(other, other_slash).cmp(&next(one, one_slash))
            })
        });
    }

    fn directory(&mut self, id: u32) {
        let undescribed = Attributes::undescribed();
        if let Some(listed) = self.table.directories.get(id as usize) {
            let attributes = listed.directory.attributes.as_ref().unwrap_or(&undescribed);
            let content = Content::Directory { opaque: listed.directory.opaque };
            self.line.clear();
            put(&mut self.line, &self.path);
            self.line.push(b'e');
            self.line.extend_from_slice(record(&attributes.plain, &attributes.xattrs, &content).as_bytes());
            self.hasher.update(&self.line);
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), ImageError> {
        let place = entry.node as usize;
        match entry.kind {
            Kind::Directory => {
                self.directory(entry.node);
                return Ok(());
            }
            Kind::Removed => return Ok(()),
            Kind::Whiteout | Kind::Inode => {}
        }
        self.line.clear();
        put(&mut self.line, &self.path);
        if entry.kind == Kind::Whiteout {
            self.line.push(b'w');
        } else if let Some(first) = self.first.get(&place) {
            self.line.push(b'h');
            put(&mut self.line, first);
        } else {
            if self.table.shared.contains(&place) {
                self.first.insert(place, self.path.clone());
            }
            match self.records.get(place)? {
                Some(inode) => {
                    self.line.push(b'e');
                    let record = record(&inode.plain, self.table.xattrs(place), &inode.content.content());
                    self.line.extend_from_slice(record.as_bytes());
                }
                // A node always names one of the table's inodes.
                None => self.line.push(b'?'),
            }
        }
        self.hasher.update(&self.line);
        Ok(())
    }
}
