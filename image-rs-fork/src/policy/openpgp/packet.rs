//! Packets of RFC 9580, the few kinds that keys and signed messages consist of.

use std::borrow::Cow;

/// Packet types.
pub(super) const SIGNATURE: u8 = 2;
pub(super) const ONE_PASS: u8 = 4;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const COMPRESSED: u8 = 8;
pub(super) const MARKER: u8 = 10;
pub(super) const LITERAL: u8 = 11;
pub(super) const TRUST: u8 = 12;
pub(super) const USER_ID: u8 = 13;
pub(super) const SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;

/// One packet.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    pub(super) kind: u8,
    pub(super) body: Cow<'a, [u8]>,
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A big number without its length.
    pub(super) fn mpi(&mut self) -> Option<&'a [u8]> {
        let bits = usize::from(self.short()?);
        self.take(bits.div_ceil(8))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads every packet, at most `most` of them; one that cannot be read spoils the whole.
pub(super) fn packets(bytes: &[u8], most: usize) -> Result<Vec<Packet<'_>>, String> {
    let mut input = Input(bytes);
    let mut all = Vec::new();
    while !input.is_empty() {
        if all.len() >= most {
            return Err(format!("more than {most} OpenPGP packets"));
        }
        all.push(packet(&mut input).ok_or("an OpenPGP packet that cannot be read")?);
    }
    Ok(all)
}

fn packet<'a>(input: &mut Input<'a>) -> Option<Packet<'a>> {
    let first = input.byte()?;
    if first & 0x80 == 0 {
        return None;
    }
    if first & 0x40 != 0 {
        return partial(input, first & 0x3f);
    }
    let kind = (first >> 2) & 0x0f;
    let length = match first & 3 {
        0 => usize::from(input.byte()?),
        1 => usize::from(input.short()?),
        2 => usize::try_from(input.long()?).ok()?,
        // To the end, as only what holds data may be.
        _ if matches!(kind, COMPRESSED | LITERAL) => input.0.len(),
        _ => return None,
    };
    Some(Packet { kind, body: Cow::Borrowed(input.take(length)?) })
}

/// A packet of the newer form, whose body may come in pieces.
fn partial<'a>(input: &mut Input<'a>, kind: u8) -> Option<Packet<'a>> {
    /// The least a first piece may hold, in bytes.
    const FIRST: usize = 512;
    let mut body: Cow<'a, [u8]> = Cow::Borrowed(&[]);
    loop {
        let (length, last) = match input.byte()? {
            short @ 0..=191 => (usize::from(short), true),
            high @ 192..=223 => {
                let low = usize::from(input.byte()?);
                (((usize::from(high) - 192) << 8).checked_add(low)?.checked_add(192)?, true)
            }
            255 => (usize::try_from(input.long()?).ok()?, true),
            piece if matches!(kind, COMPRESSED | LITERAL) => (1usize << (piece & 0x1f), false),
            _ => return None,
        };
        if !last && body.is_empty() && length < FIRST {
            return None;
        }
        let piece = input.take(length)?;
        if body.is_empty() {
            body = Cow::Borrowed(piece);
        } else {
            body.to_mut().extend_from_slice(piece);
        }
        if last {
            return Some(Packet { kind, body });
        }
    }
}
