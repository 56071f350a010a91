//! Which compression a media type names, and which the first bytes show.

/// A compression of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None.
    None,
    /// gzip, RFC 1952.
    Gzip,
    /// Zstandard, RFC 8878.
    Zstd,
}

impl Compression {
    /// What a layer's media type (OCI or Docker, without `+encrypted`) says; `None` for those of no layer we
    /// know.
    #[must_use]
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Some(Self::None),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Magic number of a zstd frame, and of skippable frames without its last four bits; little-endian.
pub(super) const ZSTD_MAGIC: u32 = 0xfd2f_b528;
pub(super) const ZSTD_SKIPPABLE: u32 = 0x184d_2a50;

/// What a blob's first bytes show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detected {
    Gzip,
    Zstd,
    Plain,
    /// Four bytes are needed; fewer at the blob's end are plain.
    TooShort,
}

/// Looks at the first bytes, four of them at most.
pub(super) fn detect(head: &[u8]) -> Detected {
    if head.starts_with(&[0x1f, 0x8b, 8]) {
        return Detected::Gzip;
    }
    let Some(magic) = head.first_chunk().copied().map(u32::from_le_bytes) else { return Detected::TooShort };
    if magic == ZSTD_MAGIC || magic & !0xf == ZSTD_SKIPPABLE { Detected::Zstd } else { Detected::Plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_name_a_compression_or_none_we_know() {
        let of = Compression::of_media_type;
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar"), Some(Compression::None));
        assert_eq!(of("application/vnd.docker.image.rootfs.diff.tar.gzip"), Some(Compression::Gzip));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+zstd"), Some(Compression::Zstd));
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+lz4"), None);
        assert_eq!(of("application/vnd.oci.image.config.v1+json"), None);
    }

    #[test]
    fn the_first_bytes_tell() {
        assert_eq!(detect(b"\x1f\x8b\x08"), Detected::Gzip);
        assert_eq!(detect(b"\x1f\x8b\x09\0"), Detected::Plain);
        assert_eq!(detect(b"\x28\xb5\x2f\xfd"), Detected::Zstd);
        assert_eq!(detect(b"\x5e\x2a\x4d\x18"), Detected::Zstd);
        assert_eq!(detect(b"\x60\x2a\x4d\x18"), Detected::Plain);
        assert_eq!(detect(b"\x28\xb5\x2f"), Detected::TooShort);
        assert_eq!(detect(b""), Detected::TooShort);
        assert_eq!(detect(b"usr/"), Detected::Plain);
    }
}
