//! How large an archive and its parts may be.

/// The parser's bounds; every one is enforced before what it bounds reaches memory or the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarLimits {
    /// Bytes of the whole archive, those after its end included. Default 16 GiB.
    pub archive_bytes: u64,
    /// Bytes of all files when unpacked, holes included. Default 16 GiB.
    pub file_bytes: u64,
    /// Entries. Default 2,000,000.
    pub entries: u64,
    /// Bytes of one PAX record block, long name or sparse map; also bounds the parser's memory. Default 1 MiB,
    /// as Go has it.
    pub record_bytes: u32,
    /// Bytes of a path or link target. Default 4,095: PATH_MAX without its NUL.
    pub name_bytes: u32,
    /// Bytes of one component of a path. Default 255: NAME_MAX.
    pub component_bytes: u32,
    /// Components of a path, which a file system walks one by one. Default 256; real images stay below 40.
    pub components: u32,
    /// Pieces of data in one sparse file, 16 bytes of memory each. Default 65,536.
    pub sparse_pieces: u32,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self {
            archive_bytes: 16 << 30,
            file_bytes: 16 << 30,
            entries: 2_000_000,
            record_bytes: 1 << 20,
            name_bytes: 4095,
            component_bytes: 255,
            components: 256,
            sparse_pieces: 65_536,
        }
    }
}
