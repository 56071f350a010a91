//! A second reader of EROFS images, written from the kernel's `erofs_fs.h` alone, and the digest that
//! `docs/measurement.md` gives to what it finds: so the two layouts can be compared without a mount.

use std::collections::BTreeMap;

use protocols::digest::Sha256Digest;

const BLOCK: usize = 4096;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `f`, `d`, `l`, `c`, `b`, `p`; `w` for a character device 0:0.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// A file's content, a link's target.
    pub data: Vec<u8>,
    /// Major and minor of a device.
    pub device: (u32, u32),
    /// The mark of overlayfs is set.
    pub opaque: bool,
    /// All other extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The inode.
    pub nid: u64,
    /// Its names, as it says.
    pub links: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// All names of an image by path; the root's is empty.
///
/// # Panics
/// When the image is damaged, or a link count is wrong.
#[must_use]
pub fn read(image: &[u8]) -> BTreeMap<Vec<u8>, Node> {
    assert_eq!(u32_at(image, 1024), 0xe0f5_e1e2);
    let mut found = BTreeMap::new();
    let mut waiting = vec![(Vec::new(), u64::from(u16_at(image, 1024 + 14)))];
    while let Some((path, nid)) = waiting.pop() {
        let node = inode(image, nid);
        if node.kind == 'd' {
            for (name, nid) in names(&node.data) {
                if !matches!(name, b"." | b"..") {
                    let below = if path.is_empty() { name.to_vec() } else { [&path, name].join(&b'/') };
                    waiting.push((below, nid));
                }
            }
        }
        assert!(found.insert(path, node).is_none(), "a name twice in one directory");
    }
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    found.values().for_each(|node| *counts.entry(node.nid).or_default() += 1);
    for (path, node) in &found {
        if node.kind != 'd' {
            assert_eq!(node.links, counts[&node.nid], "{}", path.escape_ascii());
        }
    }
    found
}

fn inode(image: &[u8], nid: u64) -> Node {
    let at = usize::try_from(nid * 32).unwrap();
    let bytes = &image[at..at + 64];
    let count = usize::from(u16_at(bytes, 2));
    let xattr_bytes = if count == 0 { 0 } else { 12 + 4 * (count - 1) };
    let size = usize::try_from(u64_at(bytes, 8)).unwrap();
    let raw = u32_at(bytes, 16);
    let mode = u32::from(u16_at(bytes, 4));
    let device = ((raw >> 8) & 0xfff, (raw & 0xff) | ((raw >> 12) & 0xf_ff00));
    let (mut kind, has_data) = match mode & 0o170_000 {
        0o100_000 => ('f', true),
        0o040_000 => ('d', true),
        0o120_000 => ('l', true),
        0o020_000 => ('c', false),
        0o060_000 => ('b', false),
        0o010_000 => ('p', false),
        other => panic!("type {other:o}"),
    };
    if kind == 'c' && raw == 0 {
        kind = 'w';
    }
    let behind = at + 64 + xattr_bytes;
    let data = match (has_data, u16_at(bytes, 0)) {
        (false, _) => Vec::new(),
        // Plain: blocks from `raw` on.
        (true, 1) if size == 0 => Vec::new(),
        (true, 1) => image[raw as usize * BLOCK..raw as usize * BLOCK + size].to_vec(),
        // Inline: whole blocks, then the rest behind the inode, in the same block.
        (true, 5) => {
            let whole = size / BLOCK * BLOCK;
            let start = if whole == 0 { 0 } else { raw as usize * BLOCK };
            let tail = &image[behind..behind + size - whole];
            assert_eq!(behind / BLOCK, (behind + tail.len().max(1) - 1) / BLOCK, "inline data within a block");
            [&image[start..start + whole], tail].concat()
        }
        (true, format) => panic!("format {format}"),
    };
    let mut xattrs = xattrs(&image[at + 64..behind]);
    let opaque = xattrs.remove(&b"trusted.overlay.opaque"[..]).is_some_and(|value| value == b"y");
    Node {
        kind,
        mode: mode & 0o7777,
        owner: (u32_at(bytes, 24), u32_at(bytes, 28)),
        mtime: (u64_at(bytes, 32).cast_signed(), u32_at(bytes, 40)),
        data,
        device: if has_data { (0, 0) } else { device },
        opaque,
        xattrs,
        nid,
        links: u32_at(bytes, 44),
    }
}

fn xattrs(bytes: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut at = 12;
    while at < bytes.len() {
        let prefix: &[u8] = match bytes[at + 1] {
            1 => b"user.",
            2 => b"system.posix_acl_access",
            3 => b"system.posix_acl_default",
            4 => b"trusted.",
            6 => b"security.",
            other => panic!("attribute index {other}"),
        };
        let middle = at + 4 + usize::from(bytes[at]);
        let end = middle + usize::from(u16_at(bytes, at + 2));
        found.insert([prefix, &bytes[at + 4..middle]].concat(), bytes[middle..end].to_vec());
        at = end.next_multiple_of(4);
    }
    found
}

fn names(data: &[u8]) -> Vec<(&[u8], u64)> {
    let mut found = Vec::new();
    for block in data.chunks(BLOCK) {
        let count = usize::from(u16_at(block, 8)) / 12;
        for n in 0..count {
            let start = usize::from(u16_at(block, n * 12 + 8));
            let end = if n + 1 < count { usize::from(u16_at(block, n * 12 + 20)) } else { block.len() };
            let name = block[start..end].split(|byte| *byte == 0).next().unwrap();
            found.push((name, u64_at(block, n * 12)));
        }
    }
    assert!(found.is_sorted(), "names in the order of their bytes");
    found
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The layer digest of `docs/measurement.md`.
#[must_use]
pub fn tree_digest(listing: &BTreeMap<Vec<u8>, Node>) -> Sha256Digest {
    let mut out = b"tcl-layer tree-v1\0".to_vec();
    out.extend_from_slice(&(listing.len() as u64).to_be_bytes());
    let mut first: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for (path, node) in listing {
        put(&mut out, path);
        if node.kind == 'w' {
            out.push(b'w');
        } else if let Some(first) = first.get(&node.nid) {
            out.push(b'h');
            put(&mut out, first);
        } else {
            first.insert(node.nid, path);
            out.push(b'e');
            out.extend_from_slice(Sha256Digest::of(&record(node)).as_bytes());
        }
    }
    Sha256Digest::of(&out)
}

fn record(node: &Node) -> Vec<u8> {
    let mut out = node.kind.to_string().into_bytes();
    for number in [node.mode, node.owner.0, node.owner.1] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&node.mtime.0.to_be_bytes());
    out.extend_from_slice(&node.mtime.1.to_be_bytes());
    match node.kind {
        'f' => {
            out.extend_from_slice(&(node.data.len() as u64).to_be_bytes());
            out.extend_from_slice(Sha256Digest::of(&node.data).as_bytes());
        }
        'd' => out.push(u8::from(node.opaque)),
        'l' => put(&mut out, &node.data),
        'c' | 'b' => {
            out.extend_from_slice(&node.device.0.to_be_bytes());
            out.extend_from_slice(&node.device.1.to_be_bytes());
        }
        _ => {}
    }
    out.extend_from_slice(&(node.xattrs.len() as u64).to_be_bytes());
    for (name, value) in &node.xattrs {
        put(&mut out, name);
        put(&mut out, value);
    }
    out
}
