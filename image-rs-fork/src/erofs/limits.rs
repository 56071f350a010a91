//! How large a layer's image may be.

/// The writer's bounds; each is enforced before what it bounds reaches memory or the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErofsLimits {
    /// Names in one layer, implied directories included; memory grows with them. Default 2,000,000.
    pub entries: u64,
    /// Blocks of 4 KiB in one image. Default 8,388,608: 32 GiB. Never more than 128 GiB.
    pub blocks: u64,
    /// Bytes of the extended attributes of one file as they are stored. Default 65,536; 2,880 for a layer's
    /// root, whatever stands here.
    pub xattr_bytes: usize,
    /// Bytes that are kept until the end beside names: extended attributes of directories, and the paths of
    /// implied directories. Default 8 MiB.
    pub held_bytes: usize,
}

impl Default for ErofsLimits {
    fn default() -> Self {
        Self { entries: 2_000_000, blocks: 8 << 20, xattr_bytes: 65_536, held_bytes: 8 << 20 }
    }
}
