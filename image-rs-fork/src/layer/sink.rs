//! What carries out a table's decisions.

use super::attributes::{Attributes, Plain, Xattr};
use crate::error::ImageError;

/// A node without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// What an inode has after a hard link's header was applied to it.
#[derive(Debug)]
pub(crate) struct Changed<'a> {
    pub(crate) plain: Plain,
    /// As they were: a change of owner takes capabilities away.
    pub(crate) xattrs: &'a [Xattr],
    pub(crate) kind: LinkKind,
}

/// What a hard link was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkKind {
    File,
    Symlink,
    Device,
}

/// Makes things at paths whose directories exist and where nothing is yet. Directories get their
/// attributes at the end, by [`Sink::directory_done`], when those are known.
pub(crate) trait Sink: Send {
    fn directory(&mut self, path: &[u8]) -> Result<(), ImageError>;
    fn directory_done(&mut self, path: &[u8], attributes: &Attributes, opaque: bool) -> Result<(), ImageError>;
    /// Starts a file that will have `attributes`; its content comes by [`Sink::write`], then [`Sink::file_done`] with
    /// the same attributes.
    fn file(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), ImageError>;
    fn write(&mut self, content: &[u8]) -> Result<(), ImageError>;
    fn file_done(&mut self, attributes: &Attributes) -> Result<(), ImageError>;
    fn symlink(&mut self, path: &[u8], target: &[u8], attributes: &Attributes) -> Result<(), ImageError>;
    fn device(&mut self, path: &[u8], device: Device, attributes: &Attributes) -> Result<(), ImageError>;
    /// A further name of `existing`, which then has `changed` where that is given.
    fn link(&mut self, path: &[u8], existing: &[u8], changed: Option<&Changed<'_>>) -> Result<(), ImageError>;
    fn whiteout(&mut self, path: &[u8]) -> Result<(), ImageError>;
    /// Removes what is at `path`, and all below it when it is a directory.
    fn remove(&mut self, path: &[u8], directory: bool) -> Result<(), ImageError>;
}

/// Carries out nothing: for measuring alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoSink;

impl Sink for NoSink {
    fn directory(&mut self, _: &[u8]) -> Result<(), ImageError> {
        Ok(())
    }
    fn directory_done(&mut self, _: &[u8], _: &Attributes, _: bool) -> Result<(), ImageError> {
        Ok(())
    }
    fn file(&mut self, _: &[u8], _: &Attributes) -> Result<(), ImageError> {
        Ok(())
    }
    fn write(&mut self, _: &[u8]) -> Result<(), ImageError> {
        Ok(())
    }
    fn file_done(&mut self, _: &Attributes) -> Result<(), ImageError> {
        Ok(())
    }
    fn symlink(&mut self, _: &[u8], _: &[u8], _: &Attributes) -> Result<(), ImageError> {
        Ok(())
    }
    fn device(&mut self, _: &[u8], _: Device, _: &Attributes) -> Result<(), ImageError> {
        Ok(())
    }
    fn link(&mut self, _: &[u8], _: &[u8], _: Option<&Changed<'_>>) -> Result<(), ImageError> {
        Ok(())
    }
    fn whiteout(&mut self, _: &[u8]) -> Result<(), ImageError> {
        Ok(())
    }
    fn remove(&mut self, _: &[u8], _: bool) -> Result<(), ImageError> {
        Ok(())
    }
}
