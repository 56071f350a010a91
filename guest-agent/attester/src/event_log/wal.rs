//! The write-ahead record: what is about to be extended, so that a crash at any point can be resolved.
//!
//! Big-endian: `"TCLWAL01" | u64 place | u16 alg | register before | digest | u32 size | record bytes |
//! SHA-256 of all before it`.

use protocols::digest::Sha256Digest;
use protocols::event_log::Record;
use protocols::register::{HashAlg, RegisterValue};

const MAGIC: &[u8; 8] = b"TCLWAL01";

/// A record that may or may not be in the register, and may or may not be in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wal {
    /// The record's place, from 0.
    pub(super) place: u64,
    /// The register before it.
    pub(super) before: RegisterValue,
    /// The record.
    pub(super) record: Record,
}

impl Wal {
    /// The register after the record; `None` for a digest of another algorithm.
    pub(super) fn after(&self) -> Option<RegisterValue> {
        self.before.extend(&self.record.digest())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let bytes = self.record.bytes();
        let mut out = Vec::with_capacity(bytes.len() + 160);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.place.to_be_bytes());
        out.extend_from_slice(&self.before.alg().tcg_id().to_be_bytes());
        out.extend_from_slice(self.before.as_bytes());
        out.extend_from_slice(self.record.digest().as_bytes());
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
        out.extend_from_slice(bytes);
        let checksum = Sha256Digest::of(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// Reads exactly what [`Wal::encode`] writes.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<32>()?;
        let rest = body.strip_prefix(MAGIC)?;
        let (place, rest) = rest.split_first_chunk::<8>()?;
        let (alg, rest) = rest.split_first_chunk::<2>()?;
        let alg = HashAlg::from_tcg_id(u16::from_be_bytes(*alg))?;
        let (before, rest) = rest.split_at_checked(alg.size())?;
        let (_, rest) = rest.split_at_checked(alg.size())?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (record, used) = Record::parse(rest, 0).ok()?;
        let wal = Self { place: u64::from_be_bytes(*place), before: RegisterValue::from_bytes(alg, before)?, record };
        // Digest, size and checksum follow from the rest: one comparison checks them all.
        let whole = used == rest.len() && Sha256Digest::of(body).as_bytes() == checksum && wal.encode() == bytes;
        whole.then_some(wal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocols::events::{Event, Started};

    use super::*;

    fn wal(alg: HashAlg) -> Wal {
        let record = Event::from(Started { seq: 7 }).record(14, alg).unwrap();
        Wal { place: 3, before: alg.hash(&[b"before"]), record }
    }

    #[test]
    fn what_is_written_is_read() {
        for alg in [HashAlg::Sha256, HashAlg::Sha384] {
            let wal = wal(alg);
            assert_eq!(Wal::parse(&wal.encode()), Some(wal.clone()));
            assert_eq!(wal.after(), Some(alg.hash(&[wal.before.as_bytes(), wal.record.digest().as_bytes()])));
        }
        let mut mixed = wal(HashAlg::Sha256);
        mixed.before = HashAlg::Sha384.zero();
        assert_eq!(mixed.after(), None);
        assert_eq!(Wal::parse(&mixed.encode()), None);
    }

    #[test]
    fn any_other_bytes_are_not() {
        let bytes = wal(HashAlg::Sha384).encode();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[place] ^= 1 << bit;
                assert_eq!(Wal::parse(&other), None, "bit {bit} of byte {place}");
            }
            assert_eq!(Wal::parse(&bytes[..place]), None, "cut at {place}");
        }
        assert_eq!(Wal::parse(&[bytes.as_slice(), &[0]].concat()), None);
    }

    #[test]
    fn a_checksum_does_not_excuse_a_wrong_field() {
        // The stored digest (behind magic, place, algorithm and register before) names another record.
        let mut bytes = wal(HashAlg::Sha256).encode();
        bytes.truncate(bytes.len() - 32);
        bytes[8 + 8 + 2 + 32] ^= 1;
        let checksum = Sha256Digest::of(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        assert_eq!(Wal::parse(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Wal::parse(&bytes), None);
        }
    }
}
