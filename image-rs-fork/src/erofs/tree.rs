//! The names of a layer: 16 bytes and the name for each entry, 32 bytes more for each directory.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::ErofsLimits;
use super::error::ErofsError;
use super::format::{Attributes, Kind};
use crate::layer::path::{MAX_DEPTH, MAX_NAME, MAX_PATH};
use crate::tar::{TarPath, XattrList, Xattrs};

/// The root, among entries and among directories.
pub(super) const ROOT: u32 = 0;

/// What a directory that no entry and no lower layer describes has: 0755, root's, 1970.
pub(super) const DEFAULT: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0, nsec: 0 };

/// Bytes that an extended attribute takes in memory beside name and value.
const KEPT_XATTR: usize = 16;
/// Bytes that a path takes in memory beside itself.
const KEPT_PATH: usize = 24;

/// What an entry hides of the layers below, whatever came after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hides {
    Nothing,
    /// An opaque marker: what they have in the directory, but not what they say of itself.
    Content,
    /// A whiteout, or something that is no directory: all they have under the name.
    All,
}

/// How long a path is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    bytes: usize,
    names: usize,
}

impl Extent {
    const fn with(self, name: usize) -> Self {
        Self { bytes: self.bytes + name + (self.names > 0) as usize, names: self.names + 1 }
    }

    /// The path with one more name of so many bytes.
    ///
    /// # Errors
    /// `image.limit`: a path that a symbolic link made longer than the parser lets one be.
    pub(super) const fn join(self, name: usize) -> Result<Self, ErofsError> {
        let longer = self.with(name);
        if name > MAX_NAME {
            return Err(ErofsError::Limit { what: "bytes of a name in a path", limit: MAX_NAME as u64 });
        }
        if longer.bytes > MAX_PATH {
            return Err(ErofsError::Limit { what: "bytes of a path", limit: MAX_PATH as u64 });
        }
        if longer.names > MAX_DEPTH {
            return Err(ErofsError::Limit { what: "names in a path", limit: MAX_DEPTH as u64 });
        }
        Ok(longer)
    }
}

/// A name in a directory. Ids are positions and never change; what replaces an entry takes over its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// The directory it is in.
    pub(super) parent: u32,
    text: u32,
    /// The inode's nid; for a directory its position among the directories; for a whiteout nothing yet.
    pub(super) node: u32,
    length: u8,
    pub(super) kind: Kind,
    pub(super) hides: Hides,
    /// A hard link was made from or to here, so that others may share the inode.
    pub(super) linked: bool,
}

/// A directory. One that was replaced stays in the list, and with it what was in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dir {
    /// The entry that names it.
    pub(super) entry: u32,
    /// No entry described it.
    pub(super) implied: bool,
    pub(super) attributes: Attributes,
}

/// Entries and directories of one layer.
pub(super) struct Tree {
    entries: Vec<Entry>,
    text: Vec<u8>,
    dirs: Vec<Dir>,
    /// Extended attributes of the few directories that have any.
    xattrs: BTreeMap<u32, XattrList>,
    table: HashTable<u32>,
    /// Keyed at random: names are hostile. The table's order decides nothing.
    state: RandomState,
    limit: u32,
    /// Bytes that extended attributes of directories may still take.
    room: usize,
    held_limit: usize,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Tree {
    /// A root that no entry described yet.
    pub(super) fn new(limits: &ErofsLimits) -> Self {
        let root = Entry {
            parent: ROOT,
            text: 0,
            node: ROOT,
            length: 0,
            kind: Kind::Dir,
            hides: Hides::Nothing,
            linked: false,
        };
        Self {
            entries: vec![root],
            text: Vec::new(),
            dirs: vec![Dir { entry: ROOT, implied: true, attributes: DEFAULT }],
            xattrs: BTreeMap::new(),
            table: HashTable::new(),
            state: RandomState::new(),
            limit: u32::try_from(limits.entries).unwrap_or(u32::MAX),
            room: limits.held_bytes,
            held_limit: limits.held_bytes,
        }
    }

    /// All entries by id.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All directories by id.
    pub(super) fn dirs(&self) -> &[Dir] {
        &self.dirs
    }

    pub(super) fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)
    }

    pub(super) fn entry_mut(&mut self, id: u32) -> Option<&mut Entry> {
        self.entries.get_mut(id as usize)
    }

    pub(super) fn dir(&self, id: u32) -> Option<&Dir> {
        self.dirs.get(id as usize)
    }

    pub(super) fn name(&self, entry: &Entry) -> &[u8] {
        text(&self.text, entry)
    }

    pub(super) fn xattrs(&self, dir: u32) -> Xattrs<'_> {
        self.xattrs.get(&dir).map(XattrList::as_xattrs).unwrap_or_default()
    }

    /// The entry of that name in directory `parent`.
    pub(super) fn find(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.state.hash_one((parent, name));
        self.table.find(hash, |id| is(&self.entries, &self.text, *id, parent, name)).copied()
    }

    /// The directory that directory `dir` is in; the root's is the root.
    pub(super) fn parent(&self, dir: u32) -> u32 {
        self.dir(dir).and_then(|dir| self.entry(dir.entry)).map_or(ROOT, |entry| entry.parent)
    }

    /// Puts a name into directory `parent`, in place of whatever had it; gives its id and what that was.
    pub(super) fn place(
        &mut self,
        parent: u32,
        name: &[u8],
        kind: Kind,
        node: u32,
    ) -> Result<(u32, Option<Kind>), ErofsError> {
        let Self { entries, text, table, state, .. } = self;
        let hash = state.hash_one((parent, name));
        if let Some(id) = table.find(hash, |id| is(entries, text, *id, parent, name)) {
            let mut before = None;
            if let Some(entry) = entries.get_mut(*id as usize) {
                before = Some(entry.kind);
                // What stood here took the place of all that lower layers have: a directory does not show it again.
                *entry = Entry { kind, node, linked: false, hides: Hides::All, ..*entry };
            }
            return Ok((*id, before));
        }
        let id = u32::try_from(entries.len()).ok().filter(|id| *id <= self.limit);
        let (Some(id), Ok(at), Ok(length)) = (id, u32::try_from(text.len()), u8::try_from(name.len())) else {
            return Err(ErofsError::Limit { what: "entries in one layer", limit: u64::from(self.limit) });
        };
        text.extend_from_slice(name);
        entries.push(Entry { parent, text: at, node, length, kind, hides: Hides::Nothing, linked: false });
        table.insert_unique(hash, id, |id| rehash(state, entries, text, *id));
        Ok((id, None))
    }

    /// The directory of that name in `parent`: the one that is there, or a new, implied one in place of
    /// whatever else had the name; and what that was.
    pub(super) fn place_dir(&mut self, parent: u32, name: &[u8]) -> Result<(u32, Option<Kind>), ErofsError> {
        if let Some(Entry { kind: Kind::Dir, node, .. }) = self.find(parent, name).and_then(|id| self.entry(id)) {
            return Ok((*node, Some(Kind::Dir)));
        }
        let dir = u32::try_from(self.dirs.len()).unwrap_or(u32::MAX);
        let (entry, before) = self.place(parent, name, Kind::Dir, dir)?;
        self.dirs.push(Dir { entry, implied: true, attributes: DEFAULT });
        Ok((dir, before))
    }

    /// Hides what lower layers have under that name; what this layer has there stays.
    pub(super) fn white_out(&mut self, parent: u32, name: &[u8]) -> Result<(), ErofsError> {
        let id = match self.find(parent, name) {
            Some(id) => id,
            None => self.place(parent, name, Kind::Whiteout, 0)?.0,
        };
        self.hide(id, Hides::All);
        Ok(())
    }

    /// Hides what lower layers have in a directory.
    pub(super) fn make_opaque(&mut self, dir: u32) {
        if let Some(entry) = self.dir(dir).map(|dir| dir.entry) {
            self.hide(entry, Hides::Content);
        }
    }

    /// Hides what lower layers have under an entry's name.
    pub(super) fn hide(&mut self, entry: u32, hides: Hides) {
        if let Some(entry) = self.entry_mut(entry) {
            entry.hides = entry.hides.max(hides);
        }
    }

    /// Sets a directory's attributes; extended ones are added to those it has.
    pub(super) fn describe(
        &mut self,
        dir: u32,
        implied: bool,
        attributes: Attributes,
        xattrs: Xattrs<'_>,
    ) -> Result<(), ErofsError> {
        if let Some(dir) = self.dirs.get_mut(dir as usize) {
            dir.implied = implied;
            dir.attributes = attributes;
        }
        for (name, value) in xattrs.iter() {
            // A value that is replaced stays in the list's memory, so it is counted too.
            let bytes = name.len().saturating_add(value.len()).saturating_add(KEPT_XATTR);
            self.room = self.room.checked_sub(bytes).ok_or_else(|| self.over_held())?;
            self.xattrs.entry(dir).or_default().set(name, value);
        }
        Ok(())
    }

    fn over_held(&self) -> ErofsError {
        let limit = self.held_limit as u64;
        ErofsError::Limit { what: "bytes of directories' attributes and of paths to ask for below", limit }
    }

    /// Refuses more bytes in the paths of the directories `asked` than may be held.
    pub(super) fn check_paths(&self, asked: impl Iterator<Item = u32>) -> Result<(), ErofsError> {
        let mut lengths: Vec<u32> = Vec::with_capacity(self.dirs.len());
        for dir in &self.dirs {
            let entry = self.entry(dir.entry);
            let above = entry.and_then(|entry| lengths.get(entry.parent as usize)).copied().unwrap_or(0);
            lengths.push(entry.map_or(0, |entry| above.saturating_add(u32::from(entry.length)).saturating_add(1)));
        }
        let length = |dir: u32| lengths.get(dir as usize).map_or(0, |length| *length as usize);
        let total = asked.fold(0usize, |total, dir| total.saturating_add(length(dir)).saturating_add(KEPT_PATH));
        if total > self.room { Err(self.over_held()) } else { Ok(()) }
    }

    /// Bytes of a directory's path, and names in it.
    pub(super) fn extent(&self, dir: u32) -> Extent {
        let mut extent = Extent::default();
        let mut at = dir;
        while at != ROOT {
            let Some(entry) = self.dir(at).and_then(|dir| self.entry(dir.entry)) else { break };
            extent = extent.with(usize::from(entry.length));
            at = entry.parent;
        }
        extent
    }

    /// Whether each directory is still in the tree. Those it is in come before it, so one pass does.
    pub(super) fn live_dirs(&self) -> Vec<bool> {
        let mut live: Vec<bool> = Vec::with_capacity(self.dirs.len());
        for (id, dir) in (0u32..).zip(&self.dirs) {
            let named = self.entry(dir.entry).is_some_and(|entry| {
                entry.kind == Kind::Dir && entry.node == id && live.get(entry.parent as usize).is_some_and(|live| *live)
            });
            live.push(id == ROOT || named);
        }
        live
    }

    /// The path of a directory, without a leading `/`.
    pub(super) fn path(&self, dir: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != ROOT {
            let Some(entry) = self.dir(at).and_then(|dir| self.entry(dir.entry)) else { break };
            names.push(self.name(entry));
            at = entry.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Whether directory `dir` is `entry`'s or lies below it.
    pub(super) fn is_within(&self, dir: u32, entry: u32) -> bool {
        let mut at = dir;
        loop {
            match self.dir(at) {
                Some(dir) if dir.entry == entry => return true,
                Some(_) if at != ROOT => at = self.parent(at),
                _ => return false,
            }
        }
    }

    /// The directory at `path`, if every component is a directory.
    pub(super) fn dir_at(&self, path: TarPath<'_>) -> Option<u32> {
        path.components().try_fold(ROOT, |dir, name| match self.entry(self.find(dir, name)?)? {
            Entry { kind: Kind::Dir, node, .. } => Some(*node),
            _ => None,
        })
    }
}

fn text<'a>(text: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.text as usize;
    text.get(start..start + usize::from(entry.length)).unwrap_or_default()
}

fn is(entries: &[Entry], names: &[u8], id: u32, parent: u32, name: &[u8]) -> bool {
    entries.get(id as usize).is_some_and(|entry| entry.parent == parent && text(names, entry) == name)
}

fn rehash(state: &RandomState, entries: &[Entry], names: &[u8], id: u32) -> u64 {
    entries.get(id as usize).map_or(0, |entry| state.hash_one((entry.parent, text(names, entry))))
}
