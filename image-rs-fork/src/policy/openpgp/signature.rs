//! One signature, of version 4, and what its maker has said in it.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::packet::Input;

/// Kinds of signatures.
pub(super) const BINARY: u8 = 0x00;
pub(super) const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
pub(super) const SUBKEY_BINDING: u8 = 0x18;
pub(super) const PRIMARY_BINDING: u8 = 0x19;
pub(super) const DIRECT: u8 = 0x1f;
pub(super) const KEY_REVOCATION: u8 = 0x20;
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;
pub(super) const CERTIFICATION_REVOCATION: u8 = 0x30;

/// Hash algorithms with which nobody can make two texts of one digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// A signature as it was written; nothing in it is checked.
#[derive(Debug, Clone)]
pub(in super::super) struct Signature {
    kind: u8,
    algorithm: u8,
    hash: u8,
    /// From the version to the end of the signed subpackets.
    hashed: Vec<u8>,
    /// The digest's first bytes.
    left: [u8; 2],
    material: Vec<u8>,
    said: Said,
    /// Hints at the maker, signed or not: ends of fingerprints in lower-case hex.
    issuers: Vec<String>,
    embedded: Option<Box<Self>>,
}

/// What stands in the signed subpackets.
#[derive(Debug, Clone, Default)]
struct Said {
    created: Option<u32>,
    ends: Option<u32>,
    key_ends: Option<u32>,
    flags: Option<u8>,
    demands_more: bool,
}

impl Signature {
    /// Reads the body of a packet.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        Self::read(body, true).ok_or_else(|| "a signature that cannot be read, or is not of version 4".to_owned())
    }

    fn read(body: &[u8], may_embed: bool) -> Option<Self> {
        let mut input = Input(body);
        let [version, kind, algorithm, hash] = input.array()?;
        if version != 4 {
            return None;
        }
        let length = usize::from(input.short()?);
        let signed = input.take(length)?;
        let hashed = body.get(..length.checked_add(6)?)?.to_vec();
        let length = usize::from(input.short()?);
        let unsigned = input.take(length)?;
        let left = input.array()?;
        let (mut said, mut issuers, mut embedded) = (Said::default(), Vec::new(), None);
        for (subpackets, is_signed) in [(signed, true), (unsigned, false)] {
            let mut subpackets = Input(subpackets);
            while !subpackets.is_empty() {
                let (critical, name, value) = subpacket(&mut subpackets)?;
                match (name, value) {
                    (16, id) | (33, [4, id @ ..]) => issuers.push(hex::encode(id)),
                    _ => {}
                }
                // An embedded signature vouches for itself, wherever it stands.
                if name == 32 {
                    if !may_embed || embedded.is_some() {
                        return None;
                    }
                    embedded = Some(Box::new(Self::read(value, false)?));
                } else if is_signed {
                    said.take(critical, name, value)?;
                }
            }
        }
        Some(Self { kind, algorithm, hash, hashed, left, material: input.0.to_vec(), said, issuers, embedded })
    }

    pub(super) const fn kind(&self) -> u8 {
        self.kind
    }

    pub(super) const fn algorithm(&self) -> u8 {
        self.algorithm
    }

    pub(super) const fn left(&self) -> &[u8] {
        &self.left
    }

    pub(super) fn material(&self) -> &[u8] {
        &self.material
    }

    /// The hash algorithm, where it is one that is taken.
    pub(super) const fn hash(&self) -> Option<Hash> {
        match self.hash {
            8 => Some(Hash::Sha256),
            9 => Some(Hash::Sha384),
            10 => Some(Hash::Sha512),
            _ => None,
        }
    }

    /// The hash algorithm, for people.
    pub(super) fn hash_name(&self) -> String {
        match self.hash {
            1 => "MD5".to_owned(),
            2 => "SHA-1".to_owned(),
            3 => "RIPEMD-160".to_owned(),
            11 => "SHA-224".to_owned(),
            other => format!("hash algorithm {other}"),
        }
    }

    /// Seconds since 1970.
    pub(super) fn created(&self) -> Option<u64> {
        self.said.created.map(u64::from)
    }

    /// When the signature ends, in seconds since 1970.
    pub(super) fn ends(&self) -> Option<u64> {
        end(self.created()?, self.said.ends)
    }

    /// When a key that was made at `created` ends by this signature.
    pub(super) fn key_ends(&self, created: u64) -> Option<u64> {
        end(created, self.said.key_ends)
    }

    /// Whether it says anything of what the key is for, or until when.
    pub(super) const fn speaks_of_the_key(&self) -> bool {
        self.said.flags.is_some() || self.said.key_ends.is_some()
    }

    /// Whether the key is for signing.
    pub(super) fn allows_signing(&self) -> bool {
        self.said.flags.is_some_and(|flags| flags & 2 != 0)
    }

    /// Whether its maker demands to be understood in something we do not understand.
    pub(super) const fn demands_more(&self) -> bool {
        self.said.demands_more
    }

    /// A subkey's own word.
    pub(super) fn embedded(&self) -> Option<&Self> {
        self.embedded.as_deref()
    }

    /// Whether it may be meant as one of the key with this fingerprint; nothing is checked.
    pub(super) fn may_be_by(&self, fingerprint: &str) -> bool {
        self.issuers.is_empty() || self.issuers.iter().any(|end| fingerprint.ends_with(end.as_str()))
    }

    /// The digest over `parts` and what of the signature itself is signed, by a hash algorithm that is taken.
    pub(super) fn digest(&self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        let length = u32::try_from(self.hashed.len()).unwrap_or(u32::MAX).to_be_bytes();
        let all = || parts.iter().copied().chain([self.hashed.as_slice(), &[4, 0xff], &length]);
        Some(match self.hash()? {
            Hash::Sha256 => all().fold(Sha256::new(), |hasher, part| hasher.chain_update(part)).finalize().to_vec(),
            Hash::Sha384 => all().fold(Sha384::new(), |hasher, part| hasher.chain_update(part)).finalize().to_vec(),
            Hash::Sha512 => all().fold(Sha512::new(), |hasher, part| hasher.chain_update(part)).finalize().to_vec(),
        })
    }
}

impl Said {
    /// Takes one subpacket; what decides something may be there once only.
    fn take(&mut self, critical: bool, name: u8, value: &[u8]) -> Option<()> {
        let place = match name {
            2 => &mut self.created,
            3 => &mut self.ends,
            9 => &mut self.key_ends,
            27 => {
                let first = value.first().copied().unwrap_or(0);
                return self.flags.replace(first).is_none().then_some(());
            }
            // Issuer, preferences, primary name, features, reasons, fingerprints: they restrict nothing.
            11 | 16 | 21..=26 | 28..=30 | 33..=35 => return Some(()),
            _ => {
                self.demands_more |= critical;
                return Some(());
            }
        };
        let value = u32::from_be_bytes(value.try_into().ok()?);
        place.replace(value).is_none().then_some(())
    }
}

fn subpacket<'a>(input: &mut Input<'a>) -> Option<(bool, u8, &'a [u8])> {
    let length = match input.byte()? {
        short @ 0..=191 => usize::from(short),
        255 => usize::try_from(input.long()?).ok()?,
        high => ((usize::from(high) - 192) << 8).checked_add(usize::from(input.byte()?))?.checked_add(192)?,
    };
    let (name, value) = input.take(length)?.split_first()?;
    Some((name & 0x80 != 0, name & 0x7f, value))
}

/// `created` and a length in seconds as an end; zero and nothing are no end.
fn end(created: u64, seconds: Option<u32>) -> Option<u64> {
    seconds.filter(|it| *it > 0).map(|seconds| created.saturating_add(u64::from(seconds)))
}
