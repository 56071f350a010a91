//! The hash tree of Linux's dm-verity, as `veritysetup format --no-superblock` makes it.
//!
//! Version 1, SHA-256, data and hash blocks of 4 KiB, any salt: a hash is `SHA-256(salt || block)`. Hash blocks
//! hold 128 hashes and are padded with zeros; the top level comes first, the leaves' level last. The root hash
//! is the hash of the top level's one block, or of the data where they are one block themselves.
//! Source: Linux `Documentation/admin-guide/device-mapper/verity.rst`, cryptsetup `lib/verity/verity_hash.c`.
//!
//! [`TreeBuilder`] takes the leaves in any order while data are written; [`RootHasher`] reads data in order and
//! keeps nothing.

mod block;
mod leaves;
mod root;
mod tree;

pub use block::{BlockIn, BlockOut, Blocks};
pub use root::{RootHasher, root_hash};
pub use sys::sha256_lanes::{BLOCK, SaltedSha256};
pub use tree::{Tree, TreeBuilder};

/// One 4 KiB block.
pub type Block = [u8; BLOCK];

/// The bytes of a hash.
pub type Hash = [u8; 32];

/// Hashes in one hash block.
pub const HASHES_PER_BLOCK: usize = BLOCK / size_of::<Hash>();

/// How many hash blocks a tree over `data_blocks` has.
///
/// ```
/// use image_rs_fork::verity::tree_blocks;
/// assert_eq!([0, 1, 2, 128, 129].map(tree_blocks), [0, 0, 1, 1, 3]);
/// ```
#[must_use]
pub fn tree_blocks(data_blocks: u64) -> u64 {
    let mut total = 0u64;
    let mut level = data_blocks;
    while level > 1 {
        level = level.div_ceil(HASHES_PER_BLOCK as u64);
        total = total.saturating_add(level);
    }
    total
}
