//! Applies an archive's entries to a table, in the archive's order, as the common unpackers do.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};

use super::attributes::{Attributes, Mtime, Plain, Xattr};
use super::path::{join, split};
use super::sink::{Changed, Device, LinkKind, Sink};
use super::table::{Directory, Kept, Node, Table};
use super::whiteout::{self, Mark};
use super::xattrs::{Carrier, kept, mode_fits};
use super::{Budget, LayerError};
use crate::erofs::{ErofsLimits, Problem, check_xattrs};
use crate::tar::{EntryKind, EntryMeta, EntrySink, Parser, TarError, TarLimits, TarPath, XattrList, Xattrs};

/// The most symbolic links on the way to one path, as in the kernel.
const MAX_LINKS: u32 = 40;
/// Bytes of the archive that are read at once.
const BUFFER: usize = 256 * 1024;

/// Unpacks one layer into a sink while its table grows.
#[derive(Debug)]
pub(crate) struct Unpacker<S> {
    /// Until the archive has ended or was refused.
    parser: Option<Box<Parser>>,
    table: Table,
    sink: S,
    budget: Arc<Budget>,
    file: Option<OpenFile>,
    /// A directory's path in the archive, and where that leads: most entries follow one from the same directory.
    parent: Option<(Vec<u8>, Vec<u8>)>,
}

/// The file whose content comes next. A whiteout's content has none to go to.
#[derive(Debug)]
struct OpenFile {
    path: Vec<u8>,
    size: u64,
    attributes: Attributes,
    hasher: Sha256,
}

impl<S: Sink> EntrySink for Unpacker<S> {
    type Error = LayerError;

    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), LayerError> {
        self.budget.take_entry()?;
        self.apply(meta)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        if let Some(file) = &mut self.file {
            file.hasher.update(bytes);
            self.sink.write(bytes)?;
        }
        Ok(())
    }

    fn hole(&mut self, mut len: u64) -> Result<(), LayerError> {
        // The archive does not hold these bytes, so its reader has not counted them.
        self.budget.take_unpacked(len)?;
        let zeros = [0; 32 * 1024];
        while len > 0 {
            let part = usize::try_from(len).ok().and_then(|len| zeros.get(..len)).unwrap_or(&zeros);
            self.data(part)?;
            len = len.saturating_sub(part.len() as u64);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), LayerError> {
        if let Some(OpenFile { path, size, attributes, hasher }) = self.file.take() {
            self.sink.file_done(&attributes)?;
            let content = Kept::File { size, sha256: Sha256Digest::new(hasher.finalize().into()) };
            self.table.insert_inode(&path, attributes, &content)?;
        }
        Ok(())
    }
}

impl<S: Sink> Unpacker<S> {
    /// `sink` has an empty root directory.
    pub(crate) fn new(sink: S, budget: Arc<Budget>) -> Self {
        Self::with_table(Table::new(), sink, budget)
    }

    /// The same with a table that keeps most of itself in a file.
    pub(crate) fn with_table(table: Table, sink: S, budget: Arc<Budget>) -> Self {
        let limits = budget.limits();
        let parser = Parser::new(TarLimits {
            archive_bytes: limits.layer_bytes,
            file_bytes: limits.layer_bytes,
            entries: limits.entries,
            ..TarLimits::default()
        });
        Self { parser: Some(Box::new(parser)), table, sink, budget, file: None, parent: None }
    }

    /// Applies what the next bytes of the archive complete, any number of them.
    pub(crate) fn push(&mut self, archive: &[u8]) -> Result<(), LayerError> {
        // Not put back after an error: a refused archive stays refused.
        let mut parser = self.parser.take().ok_or(TarError::Refused)?;
        parser.push(archive, self)?;
        self.parser = Some(parser);
        Ok(())
    }

    /// The archive has no more bytes: refuses one that is cut short.
    pub(crate) fn end(&mut self) -> Result<(), LayerError> {
        self.parser.take().ok_or(TarError::Refused)?.finish()?;
        Ok(())
    }

    /// Applies every entry of an archive and reads its input to the end.
    pub(crate) fn unpack(&mut self, mut input: impl Read) -> Result<(), LayerError> {
        let mut buffer = vec![0u8; BUFFER];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(got) => self.push(buffer.get(..got).unwrap_or_default())?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Input(e)),
            }
        }
    }

    /// Completes implied directories by the layers below, leaves out whiteouts that hide nothing there, and gives all
    /// directories their attributes.
    pub(crate) fn finish(mut self, lower: &[Arc<Table>]) -> Result<(Table, S), LayerError> {
        self.table.inherit(lower);
        for path in self.table.idle_whiteouts(lower)? {
            self.remove(&path)?;
        }
        let undescribed = Attributes::undescribed();
        for (path, directory) in self.table.directories().rev() {
            let attributes = directory.attributes.as_ref().unwrap_or(&undescribed);
            self.sink.directory_done(&path, attributes, directory.opaque)?;
        }
        Ok((self.table, self.sink))
    }

    fn apply(&mut self, meta: &EntryMeta<'_>) -> Result<(), LayerError> {
        let whole = meta.path.as_bytes();
        match whiteout::classify(meta.path).map_err(|problem| LayerError::entry(whole, problem))? {
            Mark::Ignored => return Ok(()),
            Mark::Opaque(dir) => {
                let dir = self.resolve(dir, whole)?;
                self.ensure_directory(&dir, whole)?;
                if let Some(directory) = self.table.directory_mut(&dir) {
                    directory.opaque = true;
                }
                return Ok(());
            }
            Mark::Whiteout(dir, hidden) => {
                let dir = self.resolve(dir, whole)?;
                let path = join(&dir, hidden)?;
                self.ensure_directory(&dir, whole)?;
                return self.whiteout(&path);
            }
            Mark::None => {}
        }
        let Some((parent, name)) = meta.path.split() else {
            // The parser lets only directories stand for the root.
            return self.directory(whole, attributes_of(meta, Carrier::Directory)?);
        };
        let (carrier, existing) = match meta.kind {
            EntryKind::Hardlink { target } => {
                let (place, existing) = self.link_target(meta, target)?;
                (Carrier::Other, Some((place, existing)))
            }
            EntryKind::File { .. } => (Carrier::File, None),
            EntryKind::Dir => (Carrier::Directory, None),
            _ => (Carrier::Other, None),
        };
        let attributes = attributes_of(meta, carrier)?;
        let path = self.place(parent, name, whole)?;
        match existing {
            Some((place, existing)) => self.link(&path, meta, place, &existing),
            None => self.create(path, meta, attributes),
        }
    }

    /// Where an entry is put, in a directory that is made where it is missing.
    fn place(&mut self, parent: TarPath<'_>, name: &[u8], whole: &[u8]) -> Result<Vec<u8>, LayerError> {
        if let Some((_, leads)) = self.parent.as_ref().filter(|(written, _)| written == parent.as_bytes()) {
            return join(leads, name);
        }
        let leads = self.resolve(parent, whole)?;
        let path = join(&leads, name)?;
        self.ensure_directory(&leads, whole)?;
        self.parent = Some((parent.as_bytes().to_vec(), leads));
        Ok(path)
    }

    fn create(&mut self, path: Vec<u8>, meta: &EntryMeta<'_>, attributes: Attributes) -> Result<(), LayerError> {
        let device = |device, content| (Some(device), content);
        let (device, content) = match meta.kind {
            EntryKind::Dir => return self.directory(&path, attributes),
            // The kernel's own form of a whiteout, and one to overlayfs wherever it comes from.
            EntryKind::Char { major: 0, minor: 0 } => {
                self.remove(&path)?;
                self.sink.whiteout(&path)?;
                return self.table.insert_whiteout(&path);
            }
            EntryKind::File { size } => {
                self.remove(&path)?;
                self.sink.file(&path, &attributes)?;
                self.file = Some(OpenFile { path, size, attributes, hasher: Sha256::new() });
                return Ok(());
            }
            EntryKind::Symlink { target } => (None, Kept::Symlink(target.into())),
            EntryKind::Char { major, minor } => device(Device::Character(major, minor), Kept::Character(major, minor)),
            EntryKind::Block { major, minor } => device(Device::Block(major, minor), Kept::Block(major, minor)),
            EntryKind::Fifo => device(Device::Fifo, Kept::Fifo),
            // Made by `link`, since it has no inode of its own.
            EntryKind::Hardlink { .. } => return Err(LayerError::entry(&path, Problem::LinkMissing)),
        };
        self.remove(&path)?;
        match (device, &content) {
            (Some(device), _) => self.sink.device(&path, device, &attributes)?,
            (None, Kept::Symlink(target)) => self.sink.symlink(&path, target, &attributes)?,
            (None, _) => {}
        }
        self.table.insert_inode(&path, attributes, &content)?;
        Ok(())
    }

    /// A directory keeps what it holds when it is described again, and its extended attributes; anything else gives
    /// way to it.
    fn directory(&mut self, path: &[u8], attributes: Attributes) -> Result<(), LayerError> {
        let is_root = path.is_empty();
        if let Some(directory) = self.table.directory_mut(path) {
            let before = directory.attributes.take().map(|before| before.xattrs).unwrap_or_default();
            let merged = merge(path, is_root, before, attributes)?;
            directory.attributes = Some(merged);
            return Ok(());
        }
        // What stood here took the place of all that lower layers have: that must not show through.
        let opaque = self.table.get(path).is_some();
        self.remove(path)?;
        self.sink.directory(path)?;
        let directory = Directory { attributes: Some(attributes), opaque, fresh: opaque };
        self.table.insert_directory(path, directory)
    }

    /// The inode a hard link shares, and a name of it.
    fn link_target(&self, meta: &EntryMeta<'_>, target: TarPath<'_>) -> Result<(usize, Vec<u8>), LayerError> {
        let refused = |problem| Err(LayerError::entry(meta.path.as_bytes(), problem));
        let Some((parent, name)) = target.split() else { return refused(Problem::LinkToDir) };
        let parent = self.resolve(parent, meta.path.as_bytes())?;
        let existing = if parent.is_empty() { name.to_vec() } else { [&parent, name].join(&b'/') };
        let place = match self.table.get(&existing) {
            Some(Node::Inode(place)) => place,
            Some(Node::Directory) => return refused(Problem::LinkToDir),
            Some(Node::Whiteout) | None => return refused(Problem::LinkMissing),
        };
        let content = self.table.inode(place)?.map(|inode| inode.content);
        let carrier = if matches!(content, Some(Kept::File { .. })) { Carrier::File } else { Carrier::Other };
        let given = kept(carrier, meta.mode, meta.xattrs).map_err(|p| LayerError::entry(meta.path.as_bytes(), p))?;
        check_size(given.as_xattrs(), false)?;
        let have = self.table.xattrs(place);
        let has = |name: &[u8], value: &[u8]| have.iter().any(|(n, v)| **n == *name && **v == *value);
        let fits = mode_fits(meta.mode, have.iter().map(|(name, value)| (&**name, &**value)));
        if !fits || !given.as_xattrs().iter().all(|(name, value)| has(name, value)) {
            return refused(Problem::LinkAttributes);
        }
        Ok((place, existing))
    }

    /// The header of a hard link describes the inode that it shares, as unpackers have it.
    fn link(&mut self, path: &[u8], meta: &EntryMeta<'_>, place: usize, existing: &[u8]) -> Result<(), LayerError> {
        let itself = Err(LayerError::entry(meta.path.as_bytes(), Problem::LinkToItself));
        if existing == path {
            return itself;
        }
        self.remove(path)?;
        // The removal may have taken the target along.
        if self.table.get(existing).is_none() {
            return itself;
        }
        let Some(inode) = self.table.inode(place)? else { return itself };
        let kind = match inode.content {
            Kept::File { .. } => LinkKind::File,
            Kept::Symlink(_) => LinkKind::Symlink,
            _ => LinkKind::Device,
        };
        let plain = Plain { mode: if kind == LinkKind::Symlink { 0o777 } else { meta.mode }, ..plain_of(meta) };
        let differs = inode.plain != plain;
        if differs {
            self.table.describe(place, &plain)?;
        }
        let changed = Changed { plain, xattrs: self.table.xattrs(place), kind };
        self.sink.link(path, existing, differs.then_some(&changed))?;
        self.table.insert_link(path, place)
    }

    /// Hides what lower layers have at `path`; what this layer has there stays, in whichever order.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        if let Some(directory) = self.table.directory_mut(path) {
            directory.opaque = true;
            directory.fresh = true;
        } else if self.table.get(path).is_none() {
            self.sink.whiteout(path)?;
            self.table.insert_whiteout(path)?;
        }
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), LayerError> {
        if let Some(node) = self.table.get(path) {
            let directory = node == Node::Directory;
            // It may have led to the directory that is remembered.
            self.parent = None;
            self.sink.remove(path, directory)?;
            self.table.remove(path);
        }
        Ok(())
    }

    /// Makes the directory at a resolved path, and those above it, where they are missing.
    fn ensure_directory(&mut self, path: &[u8], whole: &[u8]) -> Result<(), LayerError> {
        let mut missing = Vec::new();
        let mut at = path;
        loop {
            match self.table.get(at) {
                Some(Node::Directory) => break,
                Some(Node::Inode(_)) => return Err(LayerError::entry(whole, Problem::Parent)),
                Some(Node::Whiteout) | None => missing.push(at),
            }
            match split(at) {
                Some((parent, _)) => at = parent,
                None => break,
            }
        }
        for path in missing.into_iter().rev() {
            self.budget.take_entry()?;
            let opaque = matches!(self.table.get(path), Some(Node::Whiteout));
            self.remove(path)?;
            self.sink.directory(path)?;
            self.table.insert_directory(path, Directory { attributes: None, opaque, fresh: opaque })?;
        }
        Ok(())
    }

    /// Where a directory's path leads: symbolic links of this layer are followed, and cannot lead above
    /// its root. What the layer does not have is taken as written.
    fn resolve(&self, path: TarPath<'_>, whole: &[u8]) -> Result<Vec<u8>, LayerError> {
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0u32;
        let mut ahead: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                at.truncate(split(&at).map_or(0, |(parent, _)| parent.len()));
                continue;
            }
            let next = join(&at, &name)?;
            let target = match self.table.get(&next) {
                Some(Node::Inode(_)) => {
                    self.table.symlink(&next)?.ok_or_else(|| LayerError::entry(whole, Problem::Parent))?
                }
                _ => {
                    at = next;
                    continue;
                }
            };
            links = links.saturating_add(1);
            if links > MAX_LINKS {
                return Err(LayerError::entry(whole, Problem::Loop));
            }
            if target.starts_with(b"/") {
                at.clear();
            }
            let parts = target.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
            for part in parts.rev() {
                ahead.push_front(part.to_vec());
            }
        }
        Ok(at)
    }
}

fn attributes_of(meta: &EntryMeta<'_>, carrier: Carrier) -> Result<Attributes, LayerError> {
    let path = meta.path.as_bytes();
    let list = kept(carrier, meta.mode, meta.xattrs).map_err(|problem| LayerError::entry(path, problem))?;
    check_size(list.as_xattrs(), path.is_empty())?;
    Ok(Attributes { plain: plain_of(meta), xattrs: owned(list.as_xattrs()) })
}

fn plain_of(meta: &EntryMeta<'_>) -> Plain {
    // A symbolic link has no permissions of its own.
    let mode = if matches!(meta.kind, EntryKind::Symlink { .. }) { 0o777 } else { meta.mode };
    Plain { mode, uid: meta.uid, gid: meta.gid, mtime: Mtime::bounded(meta.mtime, meta.mtime_nsec) }
}

fn owned(xattrs: Xattrs<'_>) -> Vec<Xattr> {
    xattrs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn check_size(xattrs: Xattrs<'_>, root: bool) -> Result<(), LayerError> {
    let limit = ErofsLimits::default().xattr_bytes;
    check_xattrs(xattrs, root, limit)
        .map_err(|limit| LayerError::Limit { what: "bytes of extended attributes on one file", limit: limit as u64 })
}

/// What a directory has that had `before` and is described again.
fn merge(path: &[u8], root: bool, before: Vec<Xattr>, after: Attributes) -> Result<Attributes, LayerError> {
    if before.is_empty() {
        return Ok(after);
    }
    let mut list = XattrList::new();
    for (name, value) in before.iter().chain(&after.xattrs) {
        list.set(name, value);
    }
    if !mode_fits(after.plain.mode, list.as_xattrs().iter()) {
        return Err(LayerError::entry(path, Problem::Attribute));
    }
    check_size(list.as_xattrs(), root)?;
    Ok(Attributes { plain: after.plain, xattrs: owned(list.as_xattrs()) })
}
