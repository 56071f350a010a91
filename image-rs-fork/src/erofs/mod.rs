//! The layout `erofs-v1`: a layer as one mountable EROFS image, written while its archive streams, with its
//! dm-verity tree behind it.
//!
//! [`LayerWriter`] is the sink of [`crate::tar`]. Contents of files leave as they arrive; inodes are packed with
//! the ends of their files; only names wait for the archive's end ([`StreamedLayer`]), and directories are written
//! last. A directory that a layer only implies takes the attributes that the layers below have for it, found with
//! [`LayerReader`] in their images. The same archive and the same inherited attributes give the same bytes.
//!
//! The layout is documented in `docs/measurement.md`; a change of any choice there is a new layout with a new name.

mod attributes;
mod directories;
mod error;
mod finish;
mod format;
mod image;
mod limits;
mod pack;
mod reader;
mod resolve;
mod tree;
mod writer;
mod xattrs;

pub use attributes::{DirAttributes, Inheritance};
pub use error::{ErofsError, Problem};
pub use finish::{Finished, StreamedLayer};
pub use limits::ErofsLimits;
pub(crate) use reader::shown;
pub use reader::{Found, LayerReader, inherited};
pub use writer::LayerWriter;
pub(crate) use xattrs::check as check_xattrs;

/// The layout's name, in golden values and as the image's volume name.
pub const LAYOUT: &str = "erofs-v1";

/// The salt of every dm-verity tree in this layout: SHA-256 of [`LAYOUT`].
#[rustfmt::skip]
pub const SALT: [u8; 32] = [
    0x72, 0x9e, 0xa7, 0xa7, 0x4e, 0xa2, 0xcf, 0x92, 0xfe, 0xce, 0xf1, 0xe8, 0xd5, 0x0e, 0xcc, 0xf4,
    0xe1, 0xc9, 0xc6, 0xfb, 0x90, 0x7d, 0x65, 0xa9, 0xb5, 0xee, 0xfa, 0x52, 0xbe, 0x98, 0x39, 0xb1,
];

#[cfg(test)]
mod tests {
    use protocols::digest::Sha256Digest;

    #[test]
    fn the_salt_is_the_layouts_name_hashed() {
        assert_eq!(super::SALT, *Sha256Digest::of(super::LAYOUT.as_bytes()).as_bytes());
    }
}
