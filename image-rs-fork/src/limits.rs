//! The bounds on one image; the `[limits]` table of a configuration.

use serde::Deserialize;

/// How large an image may be. Every bound is enforced while bytes stream, before they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of all unpacked layers together (their tar archives). Default 32 GiB.
    pub image_bytes: u64,
    /// Bytes of one unpacked layer (its tar archive). Default 16 GiB.
    pub layer_bytes: u64,
    /// Bytes of one layer as it travels, compressed or not. Default 8 GiB.
    pub blob_bytes: u64,
    /// Entries of all layers together. Default 2,000,000.
    pub entries: u64,
    /// Layers. Default 500, what overlayfs can stack: more is never taken.
    pub layers: u32,
    /// Unpacked bytes per compressed byte of a layer, beyond the first 64 MiB. Default 1,000.
    pub ratio: u32,
    /// Layers received at the same time, at most 16; memory grows with each. Default 2.
    pub parallel: u32,
    /// One layer at a time, all of it on one thread: the least memory. Always so where there is one processor.
    /// Default false.
    pub inline: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            image_bytes: 32 << 30,
            layer_bytes: 16 << 30,
            blob_bytes: 8 << 30,
            entries: 2_000_000,
            layers: 500,
            ratio: 1000,
            parallel: 2,
            inline: false,
        }
    }
}
