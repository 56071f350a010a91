//! A push parser for layer archives: tar as containerd's unpacker (Go `archive/tar`) reads it, or a refusal.
//!
//! [`Parser::push`] takes the archive in pieces of any size and hands entries to an [`EntrySink`]. File data are
//! slices of the caller's buffer; only headers that lie across two pieces and extended headers are copied, into
//! buffers that are reused. How an archive is cut makes no difference to what the sink is told.
//!
//! # Decisions
//!
//! "As containerd" means what containerd 1.6 with Go 1.19 makes of it; where we differ it is said.
//!
//! **Ends.** An empty blob and an archive without closing zeros are complete. One block of zeros before the end
//! of the input is an end, before anything else it is refused. After two, bytes are counted and not looked at.
//! The last padding may be missing. Anything else that is cut short is [`TarError::Truncated`].
//!
//! **Headers.** v7, ustar, star and GNU, told apart by magic; unsigned and signed sums. Numbers are octal or
//! base-256; what does not fit 63 bits is refused. GNU headers whose times are no numbers hold a ustar prefix
//! (old Go writers). Types `0`, NUL and `7` are files, NUL with a trailing `/` is a directory, `S` a sparse file;
//! containerd refuses `7` and `S`. A `0` or `7` with a trailing `/` is refused: containerd makes a file of it,
//! GNU tar a directory. Sizes stated for links, directories, devices and FIFOs stand for no data. Unknown types
//! are refused, as are device numbers Linux cannot hold.
//!
//! **Names.** Any bytes but NUL. Paths and hard link targets are normalised by their text: an absolute one
//! starts at the root, `..` at the root stays there in a path, and is refused in a hard link's target. The root
//! may be given attributes by a directory entry (containerd ignores those); any other entry in its place, and a
//! hard link to it, is refused. Symbolic link targets stay as they are; an empty one is refused.
//!
//! **Owners and times.** 0 to 4,294,967,294, anything else is refused: chown(2) would cut it or leave the owner
//! alone. Times keep their fraction to the nanosecond and may be negative; the layouts make those 0.
//!
//! **Extended headers.** A PAX `x`, a GNU `L` and a GNU `K` header each concern the next entry alone, and never
//! another extended header between (CVE-2025-62518, CVE-2026-33055, CVE-2026-53655): `size` replaces the size of
//! the entry, whatever its header says, and nothing else. Two of one kind for one entry, names by `L` and `x`
//! that differ, and extended headers without an entry are refused: readers disagree. Of one key's records the
//! last counts; an empty value leaves what the header says. Records are read: `path`, `linkpath`, `size`, `uid`,
//! `gid`, `mtime`, `SCHILY.xattr.*`, `GNU.sparse.*`; others have no effect (`LIBARCHIVE.xattr.*` and
//! `SCHILY.acl.*` too, as containerd). Global `g` headers have no effect, as containerd, and are refused where
//! they set a path, target, size or sparse map.
//!
//! **Attributes.** Sorted, each once, an empty value is a value. `trusted.overlay.*` is refused.
//!
//! **Sparse files.** GNU's old form and PAX 0.0, 0.1 and 1.0. Pieces must be in order, apart, inside the file and
//! exactly what is stored. Other versions, and records of a map that describe none, are refused.

mod entry;
mod error;
mod header;
mod limits;
mod next;
mod number;
mod parser;
mod path;
mod pax;
mod sparse;

pub use entry::{EntryKind, EntryMeta, EntrySink, XattrList, Xattrs};
pub use error::TarError;
pub use limits::TarLimits;
pub use parser::{Parser, TarTotals};
pub use path::{Above, Components, PathProblem, TarPath};

#[cfg(test)]
pub(crate) mod tests;
