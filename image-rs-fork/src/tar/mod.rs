//! A push parser for layer archives: tar as containerd's unpacker (Go `archive/tar`) reads it, or a refusal.
//!
//! [`Parser::push`] takes the archive in pieces of any size and hands entries to an [`EntrySink`]; file data
//! are slices of the caller's buffer. The decisions on every odd archive stand in `tar/README.md`.

mod entry;
mod error;
mod limits;
mod path;

pub use entry::{EntryKind, EntryMeta, EntrySink, XattrList, Xattrs};
pub use error::TarError;
pub use limits::TarLimits;
pub use path::{Components, PathProblem, TarPath};
