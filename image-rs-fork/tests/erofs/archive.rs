//! Builds archives entry by entry, odd ones too.

/// An archive in the making; every entry has owner 1:2, mode 0644 (directories 0755) and mtime 1,700,000,000
/// unless it is given others.
#[derive(Default)]
pub(crate) struct Archive(Vec<u8>);

/// One entry's header.
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) typeflag: u8,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: i64,
    pub(crate) link: &'a str,
    pub(crate) device: (u32, u32),
    pub(crate) data: &'a [u8],
    pub(crate) pax: Vec<(&'a str, &'a [u8])>,
}

pub(crate) fn entry(name: &str, typeflag: u8) -> Entry<'_> {
    Entry {
        name,
        typeflag,
        mode: if typeflag == b'5' { 0o755 } else { 0o644 },
        owner: (1, 2),
        mtime: 1_700_000_000,
        link: "",
        device: (0, 0),
        data: &[],
        pax: Vec::new(),
    }
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref();
        self.add(Entry { data, ..entry(name, b'0') })
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.add(entry(name, b'5'))
    }

    pub(crate) fn symlink(self, name: &str, link: &str) -> Self {
        self.add(Entry { link, ..entry(name, b'2') })
    }

    pub(crate) fn hardlink(self, name: &str, link: &str) -> Self {
        self.add(Entry { link, ..entry(name, b'1') })
    }

    pub(crate) fn device(self, name: &str, typeflag: u8, device: (u32, u32)) -> Self {
        self.add(Entry { device, ..entry(name, typeflag) })
    }

    pub(crate) fn add(mut self, entry: Entry<'_>) -> Self {
        let mut records = Vec::new();
        for (key, value) in &entry.pax {
            let fixed = key.len() + value.len() + 3;
            let mut length = fixed + 1;
            while fixed + length.to_string().len() > length {
                length += 1;
            }
            records.extend_from_slice(format!("{length} {key}=").as_bytes());
            records.extend_from_slice(value);
            records.push(b'\n');
        }
        if !records.is_empty() {
            self.raw(&Entry { data: &records, pax: Vec::new(), ..super::archive::entry("pax", b'x') });
        }
        self.raw(&entry);
        self
    }

    fn raw(&mut self, entry: &Entry<'_>) {
        let mut header = [0u8; 512];
        let mut field = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        field(0, entry.name.as_bytes());
        field(100, format!("{:07o}", entry.mode).as_bytes());
        field(108, format!("{:07o}", entry.owner.0).as_bytes());
        field(116, format!("{:07o}", entry.owner.1).as_bytes());
        field(124, format!("{:011o}", entry.data.len()).as_bytes());
        field(136, format!("{:011o}", entry.mtime).as_bytes());
        field(148, b"        ");
        field(156, &[entry.typeflag]);
        field(157, entry.link.as_bytes());
        field(257, b"ustar\x0000");
        field(329, format!("{:07o}", entry.device.0).as_bytes());
        field(337, format!("{:07o}", entry.device.1).as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(entry.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
