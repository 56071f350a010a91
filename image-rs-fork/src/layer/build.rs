//! Makes archives for tests, well-formed and otherwise. Integration tests include this file too.

const BLOCK: usize = 512;

/// One header, changed by its methods and finished with [`Item::bytes`].
#[derive(Clone)]
pub(crate) struct Item {
    block: [u8; BLOCK],
    content: Vec<u8>,
}

pub(crate) fn item(typeflag: u8, name: &str) -> Item {
    let mut item = Item { block: [0; BLOCK], content: Vec::new() };
    item.put(0, name.as_bytes());
    item.put(100, b"0000644\0");
    item.put(108, b"0000000\0");
    item.put(116, b"0000000\0");
    item.put(124, b"00000000000\0");
    item.put(136, b"00000000000\0");
    item.block[156] = typeflag;
    item.put(257, b"ustar\x0000");
    item
}

pub(crate) fn file(name: &str, content: &[u8]) -> Item {
    item(b'0', name).content(content)
}

pub(crate) fn dir(name: &str) -> Item {
    item(b'5', name).mode(0o755)
}

pub(crate) fn symlink(name: &str, target: &str) -> Item {
    item(b'2', name).link(target)
}

pub(crate) fn hardlink(name: &str, target: &str) -> Item {
    item(b'1', name).link(target)
}

/// A PAX header with these records.
pub(crate) fn pax(records: &[(&str, &[u8])]) -> Item {
    pax_typed(b'x', records)
}

pub(crate) fn pax_typed(typeflag: u8, list: &[(&str, &[u8])]) -> Item {
    item(typeflag, "pax").content(&records(list))
}

/// PAX records with their lengths.
pub(crate) fn records(list: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in list {
        // The length counts its own digits.
        let base = key.len() + value.len() + 3;
        let mut length = base + base.to_string().len();
        if base + length.to_string().len() != length {
            length = base + length.to_string().len();
        }
        content.extend_from_slice(format!("{length} {key}=").as_bytes());
        content.extend_from_slice(value);
        content.push(b'\n');
    }
    content
}

impl Item {
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.put(at, bytes);
        self
    }

    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.put(124, format!("{:011o}\0", content.len()).as_bytes());
        self.content = content.to_vec();
        self
    }

    pub(crate) fn link(self, target: &str) -> Self {
        self.with(157, target.as_bytes())
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.with(100, format!("{mode:07o}\0").as_bytes())
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        self.with(108, format!("{uid:07o}\0{gid:07o}\0").as_bytes())
    }

    pub(crate) fn mtime(self, mtime: u64) -> Self {
        self.with(136, format!("{mtime:011o}\0").as_bytes())
    }

    pub(crate) fn device(self, major: u32, minor: u32) -> Self {
        self.with(329, format!("{major:07o}\0{minor:07o}\0").as_bytes())
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.put(148, b"        ");
        let sum: u32 = self.block.iter().map(|b| u32::from(*b)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        let mut out = self.block.to_vec();
        out.extend_from_slice(&self.content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }
}

/// The items and the archive's end.
pub(crate) fn archive(items: impl IntoIterator<Item = Item>) -> Vec<u8> {
    let mut out = open_archive(items);
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// The items without the archive's end.
pub(crate) fn open_archive(items: impl IntoIterator<Item = Item>) -> Vec<u8> {
    items.into_iter().flat_map(Item::bytes).collect()
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let field = |start: usize| self.block[start..start + 100].split(|b| *b == 0).next().unwrap().escape_ascii();
        write!(f, "{} {} -> {}", char::from(self.block[156]), field(0), field(157))
    }
}
