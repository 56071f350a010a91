//! What the kernel's command line says of the root file system: `tcl.root=HASH,BLOCKS`.

use crate::error::InitError;

/// The word on the command line.
const NAME: &str = "tcl.root";
/// The most blocks of 4096 bytes that a root may have: 64 GiB.
const MAX_BLOCKS: u64 = 1 << 24;

/// A root file system by its dm-verity root hash: SHA-256 over blocks of 4096 bytes, without salt. The hash tree
/// follows the data on the same disk, without a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    /// The root hash.
    pub(crate) hash: [u8; 32],
    /// Blocks of data.
    pub(crate) blocks: u64,
}

impl Root {
    /// Reads a command line; `None` where the initrd itself is the root.
    pub(crate) fn parse(line: &str) -> Result<Option<Self>, InitError> {
        let wrong = |what| InitError::Parameter { name: NAME, what };
        let words = line.split_ascii_whitespace().take_while(|word| *word != "--");
        let mut values = words.filter_map(|word| word.strip_prefix(NAME)?.strip_prefix('='));
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(wrong("is there twice"));
        }
        let (hash, blocks) = value.split_once(',').ok_or(wrong("must be HASH,BLOCKS"))?;
        let mut root = Self { hash: [0; 32], blocks: 0 };
        hex::decode_to_slice(hash, &mut root.hash).map_err(|_| wrong("the hash must be 64 hex digits"))?;
        root.blocks = blocks
            .parse()
            .ok()
            .filter(|blocks| (1..=MAX_BLOCKS).contains(blocks))
            .ok_or(wrong("must have from 1 to 16777216 blocks"))?;
        Ok(Some(root))
    }

    /// Bytes of data and tree: what a disk has at least.
    pub(crate) const fn size(&self) -> u64 {
        let mut total = self.blocks;
        let mut level = self.blocks;
        while level > 1 {
            level = level.div_ceil(128);
            total += level;
        }
        total * 4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_read() {
        let hash = "ab".repeat(32);
        let root = Root { hash: [0xab; 32], blocks: 7000 };
        assert_eq!(Root::parse(&format!("quiet tcl.root={hash},7000 agent.log=error\n")).unwrap(), Some(root));
        assert_eq!(Root::parse("quiet tcl.rooted=x -- tcl.root=x").unwrap(), None);
        // 7000 + 55 + 1 blocks.
        assert_eq!(root.size(), 7056 * 4096);
    }

    #[test]
    fn what_names_no_root_stops_the_start() {
        let hash = "ab".repeat(32);
        for value in [
            String::new(),
            hash.clone(),
            format!("{hash},"),
            format!("{hash},0"),
            format!("{hash},16777217"),
            format!("{hash},-1"),
            format!("{},1", "ab".repeat(31)),
            format!("{},1", "xy".repeat(32)),
            format!("{hash},1 tcl.root={hash},1"),
        ] {
            let error = Root::parse(&format!("quiet tcl.root={value}")).unwrap_err();
            assert_eq!(error.code(), protocols::reason::BOOT_PARAMETER, "{value}");
        }
    }
}
