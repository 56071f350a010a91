//! Applies an archive's entries to a table, in the archive's order, as the common unpackers do.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};

use super::attributes::{Attributes, Content, Mtime, checked_xattrs, record};
use super::path::{components, join, show, split};
use super::sink::{Device, Sink};
use super::table::{Directory, Inode, Node, Table};
use super::{Budget, LayerError};
use crate::tar::{EntryKind, EntryMeta, EntrySink, Parser, TarError, TarLimits};

/// Starts the name of an entry that hides another one.
const WHITEOUT: &[u8] = b".wh.";
/// The name of an entry that hides all of its directory's lower content.
const OPAQUE: &[u8] = b".wh..wh..opq";
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
            let sha256 = Sha256Digest::new(hasher.finalize().into());
            self.add(&path, &attributes, &Content::File { size, sha256: &sha256 }, None);
        }
        Ok(())
    }
}

impl<S: Sink> Unpacker<S> {
    /// `sink` has an empty root directory.
    pub(crate) fn new(sink: S, budget: Arc<Budget>) -> Self {
        let limits = budget.limits();
        let parser = Parser::new(TarLimits {
            archive_bytes: limits.layer_bytes,
            file_bytes: limits.layer_bytes,
            entries: limits.entries,
            ..TarLimits::default()
        });
        Self { parser: Some(Box::new(parser)), table: Table::new(), sink, budget, file: None }
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

    /// Completes implied directories by the layers below and gives all directories their attributes.
    pub(crate) fn finish(mut self, lower: &[Arc<Table>]) -> Result<(Table, S), LayerError> {
        self.table.inherit(lower);
        let undescribed = Attributes::undescribed();
        for (path, directory) in self.table.directories().rev() {
            let attributes = directory.attributes.as_ref().unwrap_or(&undescribed);
            self.sink.directory_done(path, attributes, directory.opaque)?;
        }
        Ok((self.table, self.sink))
    }

    fn apply(&mut self, meta: &EntryMeta<'_>) -> Result<(), LayerError> {
        let whole = meta.path.as_bytes();
        let refused = |problem: &str| Err(LayerError::Format(format!("{}: {problem}", show(whole))));
        let names = components(whole)?;
        // The parser lets only directories stand for the root.
        let Some((name, parents)) = names.split_last() else { return self.directory(whole, attributes_of(meta)?) };
        if parents.iter().any(|parent| parent.starts_with(WHITEOUT)) {
            return refused("a path below a whiteout");
        }
        let parent = self.resolve(parents, whole)?;
        if *name == OPAQUE {
            self.ensure_directory(&parent)?;
            if let Some(directory) = self.table.directory_mut(&parent) {
                directory.opaque = true;
            }
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT) {
                return refused("a whiteout of nothing");
            }
            self.ensure_directory(&parent)?;
            return self.whiteout(&join(&parent, hidden)?);
        }
        let path = join(&parent, name)?;
        self.ensure_directory(&parent)?;
        self.create(path, meta)
    }

    fn create(&mut self, path: Vec<u8>, meta: &EntryMeta<'_>) -> Result<(), LayerError> {
        match meta.kind {
            EntryKind::Dir => self.directory(&path, attributes_of(meta)?),
            EntryKind::Hardlink { target } => self.link(&path, target.as_bytes()),
            // The kernel's own form of a whiteout, and one to overlayfs wherever it comes from.
            EntryKind::Char { major: 0, minor: 0 } => {
                self.remove(&path)?;
                self.sink.whiteout(&path)?;
                self.table.insert(&path, Node::Whiteout);
                Ok(())
            }
            EntryKind::File { size } => {
                let attributes = attributes_of(meta)?;
                self.remove(&path)?;
                self.sink.file(&path)?;
                self.file = Some(OpenFile { path, size, attributes, hasher: Sha256::new() });
                Ok(())
            }
            EntryKind::Symlink { target } => {
                let attributes = attributes_of(meta)?;
                self.remove(&path)?;
                self.sink.symlink(&path, target, &attributes)?;
                self.add(&path, &attributes, &Content::Symlink(target), Some(target.into()));
                Ok(())
            }
            EntryKind::Char { major, minor } => {
                self.device(&path, meta, Device::Character(major, minor), &Content::Character(major, minor))
            }
            EntryKind::Block { major, minor } => {
                self.device(&path, meta, Device::Block(major, minor), &Content::Block(major, minor))
            }
            EntryKind::Fifo => self.device(&path, meta, Device::Fifo, &Content::Fifo),
        }
    }

    fn device(
        &mut self,
        path: &[u8],
        meta: &EntryMeta<'_>,
        device: Device,
        content: &Content<'_>,
    ) -> Result<(), LayerError> {
        let attributes = attributes_of(meta)?;
        self.remove(path)?;
        self.sink.device(path, device, &attributes)?;
        self.add(path, &attributes, content, None);
        Ok(())
    }

    fn add(&mut self, path: &[u8], attributes: &Attributes, content: &Content<'_>, symlink: Option<Box<[u8]>>) {
        let inode = self.table.add_inode(Inode { record: record(attributes, content), symlink });
        self.table.insert(path, Node::Inode(inode));
    }

    /// A directory keeps what it holds when it is described again; anything else gives way to it.
    fn directory(&mut self, path: &[u8], attributes: Attributes) -> Result<(), LayerError> {
        if let Some(directory) = self.table.directory_mut(path) {
            directory.attributes = Some(attributes);
            return Ok(());
        }
        // Hidden and made again in one layer: lower content must not show through.
        let opaque = matches!(self.table.get(path), Some(Node::Whiteout));
        self.remove(path)?;
        self.sink.directory(path)?;
        let directory = Directory { attributes: Some(attributes), opaque };
        self.table.insert(path, Node::Directory(Box::new(directory)));
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), LayerError> {
        let refused = |problem: &str| {
            Err(LayerError::Format(format!("{}: a hard link to {}, {problem}", show(path), show(target))))
        };
        let names = components(target)?;
        // The parser refuses links to the root.
        let Some((name, parents)) = names.split_last() else { return refused("which is no file") };
        let existing = join(&self.resolve(parents, target)?, name)?;
        if existing == path {
            return refused("itself");
        }
        self.remove(path)?;
        // Looked up after the removal, which may have taken the target along.
        match self.table.get(&existing) {
            Some(Node::Inode(inode)) => {
                let inode = *inode;
                self.sink.link(path, &existing)?;
                self.table.insert(path, Node::Inode(inode));
                Ok(())
            }
            Some(_) => refused("which is no file"),
            None => refused("which is not in this layer"),
        }
    }

    /// Hides what lower layers have at `path`; what this layer has there stays, in whichever order.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        if let Some(directory) = self.table.directory_mut(path) {
            directory.opaque = true;
        } else if self.table.get(path).is_none() {
            self.sink.whiteout(path)?;
            self.table.insert(path, Node::Whiteout);
        }
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) -> Result<(), LayerError> {
        if let Some(node) = self.table.get(path) {
            let directory = matches!(node, Node::Directory(_));
            self.sink.remove(path, directory)?;
            self.table.remove(path);
        }
        Ok(())
    }

    /// Makes the directory at a resolved path, and those above it, where they are missing.
    fn ensure_directory(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let mut missing = Vec::new();
        let mut at = path;
        loop {
            match self.table.get(at) {
                Some(Node::Directory(_)) => break,
                Some(Node::Inode(_)) => {
                    return Err(LayerError::Format(format!("{} is used as a directory and is none", show(at))));
                }
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
            self.table.insert(path, Node::Directory(Box::new(Directory { attributes: None, opaque })));
        }
        Ok(())
    }

    /// Where a directory's path leads: symbolic links of this layer are followed, and cannot lead above
    /// its root. What the layer does not have is taken as written.
    fn resolve(&self, names: &[&[u8]], whole: &[u8]) -> Result<Vec<u8>, LayerError> {
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0u32;
        let mut ahead: VecDeque<Vec<u8>> = names.iter().map(|name| name.to_vec()).collect();
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                at.truncate(split(&at).map_or(0, |(parent, _)| parent.len()));
                continue;
            }
            let next = join(&at, &name)?;
            let Some(target) = self.table.symlink(&next) else {
                at = next;
                continue;
            };
            links = links.saturating_add(1);
            if links > MAX_LINKS {
                return Err(LayerError::Unsafe(format!("{}: more than {MAX_LINKS} symbolic links", show(whole))));
            }
            if target.starts_with(b"/") {
                at.clear();
            }
            let parts = target.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
            for part in parts.rev() {
                ahead.push_front(part.to_vec());
            }
        }
        // A link may lead deeper than a path may be.
        components(&at)?;
        Ok(at)
    }
}

fn attributes_of(meta: &EntryMeta<'_>) -> Result<Attributes, LayerError> {
    let xattrs = checked_xattrs(meta)?;
    // A symbolic link has no permissions of its own.
    let mode = if matches!(meta.kind, EntryKind::Symlink { .. }) { 0o777 } else { meta.mode };
    let mtime = Mtime::bounded(meta.mtime, meta.mtime_nsec);
    Ok(Attributes { mode, uid: meta.uid, gid: meta.gid, mtime, xattrs })
}
