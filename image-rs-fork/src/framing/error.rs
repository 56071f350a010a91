//! Why a blob could not be uncompressed.

use protocols::reason::{self, Code, Refusal};

/// A refusal. `offset` is in bytes of the blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FramingError {
    /// The blob ends inside a gzip member or a zstd frame.
    #[error("the compressed data end early, after {offset} bytes")]
    Truncated {
        /// Bytes there were.
        offset: u64,
    },
    /// A gzip header that breaks the format.
    #[error("at byte {offset}: a gzip header is wrong: {problem}")]
    GzipHeader {
        /// Near the header's end.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The deflate data in a gzip member are no such data.
    #[error("at byte {offset}: the gzip data are damaged: {problem}")]
    GzipData {
        /// Near the damage.
        offset: u64,
        /// What is wrong with them.
        problem: String,
    },
    /// A gzip member's content has another CRC-32.
    #[error("at byte {offset}: a gzip member has CRC {actual:08x}, not {expected:08x}")]
    GzipCrc {
        /// The member's end.
        offset: u64,
        /// By the member.
        expected: u32,
        /// Of the content.
        actual: u32,
    },
    /// A gzip member's content has another length.
    #[error("at byte {offset}: a gzip member has {actual} bytes, not {expected}, modulo 2^32")]
    GzipSize {
        /// The member's end.
        offset: u64,
        /// By the member.
        expected: u32,
        /// Of the content.
        actual: u32,
    },
    /// Something behind the last gzip member that is neither a member nor zeros.
    #[error("at byte {offset}: bytes that are no gzip member")]
    GzipTrailing {
        /// Where it is.
        offset: u64,
    },
    /// Something behind the last zstd frame that is no frame.
    #[error("at byte {offset}: bytes that are no zstd frame")]
    ZstdTrailing {
        /// Where it is.
        offset: u64,
    },
    /// A zstd frame header that breaks the format.
    #[error("at byte {offset}: a zstd frame header is wrong: {problem}")]
    ZstdHeader {
        /// The frame.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A zstd frame that needs a dictionary.
    #[error("at byte {offset}: a zstd frame needs dictionary {dictionary}")]
    ZstdDictionary {
        /// The frame.
        offset: u64,
        /// The dictionary's number.
        dictionary: u32,
    },
    /// A zstd frame whose window is larger than we give memory for.
    #[error("at byte {offset}: a zstd frame needs a window of {window} bytes, more than {limit}")]
    ZstdWindow {
        /// The frame.
        offset: u64,
        /// Bytes it asks for.
        window: u64,
        /// Bytes it may ask for.
        limit: u64,
    },
    /// The data in a zstd frame are damaged, or their checksum is another.
    #[error("at byte {offset}: the zstd data are damaged: {problem}")]
    ZstdData {
        /// Near the damage.
        offset: u64,
        /// What is wrong with them.
        problem: String,
    },
    /// More bytes come out than [`super::FramingLimits::output_bytes`].
    #[error("the layer uncompresses to more than {limit} bytes")]
    Limit {
        /// Bytes there may be.
        limit: u64,
    },
    /// More bytes come out for each byte in than [`super::FramingLimits::ratio`].
    #[error("{input} bytes uncompress to {output}, more than {limit} times as many")]
    Ratio {
        /// Bytes of the blob so far.
        input: u64,
        /// Bytes that came out.
        output: u64,
        /// How many there may be for one.
        limit: u32,
    },
    /// There is no memory for the decoder.
    #[error("no memory for decompression")]
    Memory,
    /// The decompressor was used again after it had refused the blob.
    #[error("the blob was refused before")]
    Refused,
}

impl FramingError {
    /// The stable reason code: `image.layer_format`, `image.limit` or `image.zstd_window`.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Limit { .. } | Self::Ratio { .. } => reason::IMAGE_LIMIT,
            Self::ZstdWindow { .. } => reason::IMAGE_ZSTD_WINDOW,
            _ => reason::IMAGE_LAYER_FORMAT,
        }
    }

    /// The refusal a launch ends with; `subject` names the layer.
    #[must_use]
    pub fn refusal(&self, subject: &str) -> Refusal {
        let expected = match self {
            Self::Limit { limit } => format!("at most {limit} bytes"),
            Self::Ratio { limit, .. } => format!("at most {limit} bytes for each compressed byte"),
            Self::ZstdWindow { limit, .. } => format!("a window of at most {limit} bytes"),
            _ => "whole gzip members or zstd frames".to_owned(),
        };
        Refusal::new(self.code(), subject, expected, self.to_string())
    }
}
