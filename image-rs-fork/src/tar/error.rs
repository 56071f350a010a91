//! Why an archive was refused.

use protocols::reason::{self, Code, Refusal};

use super::path::PathProblem;

/// A refusal by the parser. `offset` is where the header it is about starts, in bytes of the archive; paths
/// are shown escaped and cut to 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The archive ends inside a header, an extended header or a file's data.
    #[error("the archive ends early, after {offset} bytes")]
    Truncated {
        /// Bytes there were.
        offset: u64,
    },
    /// Extended headers stand at the end of the archive, or before a global header, without an entry.
    #[error("at byte {offset}: an extended header without an entry")]
    Dangling {
        /// Where the entry should start.
        offset: u64,
    },
    /// One entry has two extended headers of one type: readers differ in which counts.
    #[error("at byte {offset}: a second '{}' header for one entry", typeflag.escape_ascii())]
    Repeated {
        /// The second one.
        offset: u64,
        /// Its type.
        typeflag: u8,
    },
    /// A GNU long header and a PAX record give one entry different names or targets: readers differ.
    #[error("at byte {offset}: a long {field} and a PAX {field} that differ")]
    Conflict {
        /// The entry.
        offset: u64,
        /// `path` or `linkpath`.
        field: &'static str,
    },
    /// Neither the unsigned nor the signed sum of the header's bytes is the one it states.
    #[error("at byte {offset}: no tar header, or a damaged one")]
    Checksum {
        /// The header.
        offset: u64,
    },
    /// A single block of zeros before further headers.
    #[error("at byte {offset}: a header after a block of zeros")]
    AfterZeros {
        /// The header.
        offset: u64,
    },
    /// A field or record holds no number of its kind.
    #[error("at byte {offset}: {field} is no number: {value}")]
    Number {
        /// The header.
        offset: u64,
        /// Which one.
        field: &'static str,
        /// Its bytes, escaped.
        value: String,
    },
    /// A size below zero.
    #[error("at byte {offset}: size {size}")]
    NegativeSize {
        /// The header.
        offset: u64,
        /// The size.
        size: i64,
    },
    /// A user or group that no file can have: negative, or above 4,294,967,294.
    #[error("at byte {offset}: {field} {value} of {path}")]
    Owner {
        /// The header.
        offset: u64,
        /// The entry.
        path: String,
        /// `uid` or `gid`.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// A device number that no device can have: major above 0xfff, minor above 0xfffff, or negative.
    #[error("at byte {offset}: device {major}:{minor} of {path}")]
    Device {
        /// The header.
        offset: u64,
        /// The entry.
        path: String,
        /// Major.
        major: i64,
        /// Minor.
        minor: i64,
    },
    /// An entry of a type nobody can unpack (volume labels, dump directories, unknown ones).
    #[error("at byte {offset}: {path} is of unknown type '{}'", typeflag.escape_ascii())]
    Typeflag {
        /// The header.
        offset: u64,
        /// The entry.
        path: String,
        /// Its type.
        typeflag: u8,
    },
    /// A regular file whose name ends in `/`: a file to some readers, a directory to others.
    #[error("at byte {offset}: {path} is a regular file by its type and a directory by its name")]
    SlashFile {
        /// The header.
        offset: u64,
        /// The entry.
        path: String,
    },
    /// A PAX record that breaks the format.
    #[error("at byte {offset}: a PAX record is malformed: {problem}")]
    Record {
        /// The extended header.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A global PAX record that would give later entries other names, sizes or contents.
    #[error("at byte {offset}: a global PAX header sets {key}")]
    GlobalRecord {
        /// The global header.
        offset: u64,
        /// The record's key.
        key: String,
    },
    /// A sparse file's map does not describe it.
    #[error("at byte {offset}: a sparse file's map is wrong: {problem}")]
    Sparse {
        /// The entry.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A symbolic link with an empty target.
    #[error("at byte {offset}: the link {path} has no target")]
    EmptyLink {
        /// The header.
        offset: u64,
        /// The link.
        path: String,
    },
    /// A path or link target is refused.
    #[error("at byte {offset}: {problem}: {path}")]
    Path {
        /// The header.
        offset: u64,
        /// What is wrong with it.
        problem: PathProblem,
        /// The path.
        path: String,
    },
    /// A hard link to the layer's root.
    #[error("at byte {offset}: {path} is a hard link to the layer's root")]
    LinkToRoot {
        /// The header.
        offset: u64,
        /// The link.
        path: String,
    },
    /// An entry in place of the layer's root that is no directory.
    #[error("at byte {offset}: {path} would replace the layer's root")]
    RootReplaced {
        /// The header.
        offset: u64,
        /// Its path as stored.
        path: String,
    },
    /// An extended attribute that steers overlayfs.
    #[error("at byte {offset}: {path} sets the reserved attribute {name}")]
    ReservedAttribute {
        /// The header.
        offset: u64,
        /// The entry.
        path: String,
        /// The attribute.
        name: String,
    },
    /// Larger than [`super::TarLimits`] allow.
    #[error("at byte {offset}: more than {limit} {what}")]
    Limit {
        /// The header.
        offset: u64,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The parser was used again after it had refused the archive.
    #[error("the archive was refused before")]
    Refused,
}

impl TarError {
    /// The stable reason code: `image.layer_format`, `image.unsafe` or `image.limit`.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Path { problem: PathProblem::Nul | PathProblem::Escapes, .. }
            | Self::LinkToRoot { .. }
            | Self::RootReplaced { .. }
            | Self::ReservedAttribute { .. } => reason::IMAGE_UNSAFE,
            Self::Path {
                problem: PathProblem::Long { .. } | PathProblem::ComponentLong { .. } | PathProblem::Deep { .. },
                ..
            }
            | Self::Limit { .. } => reason::IMAGE_LIMIT,
            _ => reason::IMAGE_LAYER_FORMAT,
        }
    }

    /// The refusal a launch ends with; `subject` names the layer.
    #[must_use]
    pub fn refusal(&self, subject: &str) -> Refusal {
        let expected = match self {
            Self::Limit { what, limit, .. } => format!("at most {limit} {what}"),
            _ if self.code() == reason::IMAGE_UNSAFE => "safe entries".to_owned(),
            _ => "a tar archive".to_owned(),
        };
        Refusal::new(self.code(), subject, expected, self.to_string())
    }
}

/// Bytes for a message: escaped, cut to 256.
pub(super) fn show(bytes: &[u8]) -> String {
    bytes.get(..256).unwrap_or(bytes).escape_ascii().to_string()
}
