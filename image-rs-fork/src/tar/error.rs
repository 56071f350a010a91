//! Why an archive was refused.

/// A refusal by the parser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The archive ends inside an entry or header.
    #[error("the archive ends early, at byte {offset}")]
    Truncated {
        /// Bytes there were.
        offset: u64,
    },
}
