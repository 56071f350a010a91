//! Builds archives byte by byte, odd ones too.

/// The form of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    V7,
    Ustar,
    Gnu,
    Star,
}

/// How a header's sum is stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    Unsigned,
    Signed,
    Wrong,
}

/// One header; start from [`file`], [`dir`], [`link`] and the like, and change what the case is about.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) form: Form,
    pub(crate) typeflag: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) prefix: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u64,
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    /// As stated; the data's length where `None`.
    pub(crate) size: Option<i64>,
    pub(crate) mtime: i64,
    pub(crate) device: Option<(i64, i64)>,
    /// Bytes written over the header before its sum is taken.
    pub(crate) patch: Vec<(usize, Vec<u8>)>,
    pub(crate) sum: Sum,
}

/// Any header, ustar, mtime 1.
pub(crate) fn head(typeflag: u8, name: impl AsRef<[u8]>) -> Head {
    Head {
        form: Form::Ustar,
        typeflag,
        name: name.as_ref().to_vec(),
        prefix: Vec::new(),
        link: Vec::new(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: None,
        mtime: 1,
        device: None,
        patch: Vec::new(),
        sum: Sum::Unsigned,
    }
}

pub(crate) fn file(name: impl AsRef<[u8]>) -> Head {
    head(b'0', name)
}

pub(crate) fn dir(name: impl AsRef<[u8]>) -> Head {
    head(b'5', name).mode(0o755)
}

pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Head {
    head(b'2', name).mode(0o777).link(target)
}

pub(crate) fn hardlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Head {
    head(b'1', name).link(target)
}

pub(crate) fn device(typeflag: u8, name: impl AsRef<[u8]>, major: i64, minor: i64) -> Head {
    Head { device: Some((major, minor)), ..head(typeflag, name) }
}

impl Head {
    pub(crate) fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    pub(crate) fn typeflag(self, typeflag: u8) -> Self {
        Self { typeflag, ..self }
    }

    pub(crate) fn prefix(self, prefix: impl AsRef<[u8]>) -> Self {
        Self { prefix: prefix.as_ref().to_vec(), ..self }
    }

    pub(crate) fn link(self, link: impl AsRef<[u8]>) -> Self {
        Self { link: link.as_ref().to_vec(), ..self }
    }

    pub(crate) fn mode(self, mode: u64) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: i64, gid: i64) -> Self {
        Self { uid, gid, ..self }
    }

    pub(crate) fn size(self, size: i64) -> Self {
        Self { size: Some(size), ..self }
    }

    pub(crate) fn mtime(self, mtime: i64) -> Self {
        Self { mtime, ..self }
    }

    pub(crate) fn patch(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patch.push((at, bytes.as_ref().to_vec()));
        self
    }

    pub(crate) fn sum(self, sum: Sum) -> Self {
        Self { sum, ..self }
    }

    /// The block, stating `size` unless the head says another.
    pub(crate) fn block(&self, size: usize) -> [u8; 512] {
        let mut block = [0; 512];
        put(&mut block, 0, 100, &self.name);
        number(&mut block, 100, 8, self.mode.try_into().unwrap());
        number(&mut block, 108, 8, self.uid);
        number(&mut block, 116, 8, self.gid);
        number(&mut block, 124, 12, self.size.unwrap_or(size.try_into().unwrap()));
        number(&mut block, 136, 12, self.mtime);
        block[156] = self.typeflag;
        put(&mut block, 157, 100, &self.link);
        match self.form {
            Form::V7 => {}
            Form::Ustar | Form::Star => block[257..265].copy_from_slice(b"ustar\x0000"),
            Form::Gnu => block[257..265].copy_from_slice(b"ustar  \0"),
        }
        if let Some((major, minor)) = self.device {
            number(&mut block, 329, 8, major);
            number(&mut block, 337, 8, minor);
        }
        put(&mut block, 345, 155, &self.prefix);
        if self.form == Form::Star {
            block[508..].copy_from_slice(b"tar\0");
        }
        for (at, bytes) in &self.patch {
            block[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        block[148..156].fill(b' ');
        let sum: i64 = match self.sum {
            Sum::Unsigned => block.iter().map(|b| i64::from(*b)).sum(),
            Sum::Signed => block.iter().map(|b| i64::from(b.cast_signed())).sum(),
            Sum::Wrong => block.iter().map(|b| i64::from(*b)).sum::<i64>() + 1,
        };
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

fn put(block: &mut [u8; 512], at: usize, room: usize, bytes: &[u8]) {
    assert!(bytes.len() <= room, "{} does not fit its field", bytes.escape_ascii());
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Octal where it fits, else base-256.
fn number(block: &mut [u8; 512], at: usize, room: usize, value: i64) {
    let digits = room - 1;
    if value >= 0 && value < 1 << (3 * digits) {
        block[at..at + digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    } else {
        base256(&mut block[at..at + room], value);
    }
}

/// Two's complement over the whole field, its first bit set.
pub(crate) fn base256(field: &mut [u8], value: i64) {
    let fill = if value < 0 { 0xff } else { 0 };
    let bytes = value.to_be_bytes();
    let count = field.len();
    for (i, byte) in field.iter_mut().rev().enumerate() {
        *byte = if i < 8 { bytes[7 - i] } else { fill };
    }
    assert!(count > 8 || (-1 << 55..1 << 55).contains(&value));
    field[0] |= 0x80;
}

/// An archive in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A header and its data, padded.
    pub(crate) fn entry(mut self, head: Head, data: impl AsRef<[u8]>) -> Self {
        let data = data.as_ref();
        self.0.extend_from_slice(&head.block(data.len()));
        self.0.extend_from_slice(data);
        self.pad()
    }

    /// A header without data, whatever size it states.
    pub(crate) fn head(mut self, head: Head) -> Self {
        self.0.extend_from_slice(&head.block(0));
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// Zeros up to the next block.
    pub(crate) fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.entry(head(b'x', "PaxHeaders/x"), pax_body(records))
    }

    /// A global PAX header.
    pub(crate) fn global(self, records: &[(&str, &[u8])]) -> Self {
        self.entry(head(b'g', "pax_global_header"), pax_body(records))
    }

    /// A GNU long name for the next entry.
    pub(crate) fn long_name(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(head(b'L', "././@LongLink").form(Form::Gnu), [name.as_ref(), b"\0"].concat())
    }

    /// A GNU long link target for the next entry.
    pub(crate) fn long_link(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(head(b'K', "././@LongLink").form(Form::Gnu), [name.as_ref(), b"\0"].concat())
    }

    /// The two blocks of zeros at the end.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw([0; 1024]).0
    }
}

/// PAX records, each with its length in front.
pub(crate) fn pax_body(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

/// A GNU 'S' header: size when unpacked, up to four pieces, whether more follow.
pub(crate) fn gnu_sparse(name: &str, real: i64, pieces: &[(i64, i64)], more: bool) -> Head {
    let mut map = gnu_pairs(pieces);
    map.resize(96, 0);
    map.push(u8::from(more));
    let mut size = [0; 512];
    number(&mut size, 0, 12, real);
    let stored = pieces.iter().map(|(_, length)| length).sum();
    head(b'S', name).form(Form::Gnu).size(stored).patch(386, map).patch(483, &size[..12])
}

/// Pairs of an old GNU sparse map.
pub(crate) fn gnu_pairs(pieces: &[(i64, i64)]) -> Vec<u8> {
    let mut map = Vec::new();
    for (offset, length) in pieces {
        let mut pair = [0; 512];
        number(&mut pair, 0, 12, *offset);
        number(&mut pair, 12, 12, *length);
        map.extend_from_slice(&pair[..24]);
    }
    map
}
