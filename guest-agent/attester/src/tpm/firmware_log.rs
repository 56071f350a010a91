//! The firmware's own log (TCG PC Client Platform Firmware Profile, crypto agile), read only to learn what
//! a PCR must hold before the first record of ours.
//!
//! Little-endian. First a Spec-ID event in the old form: `u32 pcr | u32 3 | 20 x 00 | u32 size | data`, whose
//! data is `"Spec ID Event03\0" | 8 bytes | u32 nalg | nalg x (u16 alg, u16 size) | u8 n | n bytes`. Then
//! events: `u32 pcr | u32 type | u32 count | count x (u16 alg, digest) | u32 size | data`.

use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use protocols::register::HashAlg;

const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
/// EV_NO_ACTION: informative, never extended.
const EV_NO_ACTION: u32 = 3;
/// Algorithms a platform may log.
const MAX_ALGORITHMS: u32 = 16;

/// The firmware's log could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the firmware's log is malformed: {0}")]
pub(crate) struct FirmwareLogError(&'static str);

/// Where the kernel keeps the log of `/dev/tpmN` or `/dev/tpmrmN`.
pub(crate) fn path_of(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?.to_str()?;
    let number = name.strip_prefix("tpmrm").or_else(|| name.strip_prefix("tpm"))?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| PathBuf::from(format!("/sys/kernel/security/tpm{number}/binary_bios_measurements")))
}

/// The value of SHA-256 PCR `pcr` after all events of the log.
///
/// # Errors
/// [`FirmwareLogError`] when the log is not well formed or has no SHA-256 digests.
pub(crate) fn replay_sha256(log: &[u8], pcr: u32) -> Result<Sha256Digest, FirmwareLogError> {
    let mut value = Sha256Digest::new([0; 32]);
    for_each_digest(log, HashAlg::Sha256.tcg_id(), |index, digest| {
        if index == pcr {
            value = Sha256Digest::of_parts(&[value.as_bytes(), digest]);
        }
    })?;
    Ok(value)
}

/// Calls `each` with register and digest of every extended event.
fn for_each_digest(log: &[u8], bank: u16, mut each: impl FnMut(u32, &[u8])) -> Result<(), FirmwareLogError> {
    let mut reader = Reader { rest: log };
    let algorithms = spec_id(&mut reader)?;
    if !algorithms.iter().any(|(alg, _)| *alg == bank) {
        return Err(FirmwareLogError("the bank is not logged"));
    }
    // Tables handed over in memory are padded behind the last event.
    while reader.rest.iter().any(|b| *b != 0xFF) && reader.rest.iter().any(|b| *b != 0) {
        let register = reader.u32()?;
        let kind = reader.u32()?;
        let count = reader.u32()?;
        if count > MAX_ALGORITHMS {
            return Err(FirmwareLogError("too many digests"));
        }
        let mut found = None;
        for _ in 0..count {
            let alg = reader.u16()?;
            let size = algorithms.iter().find(|(id, _)| *id == alg).map(|(_, size)| usize::from(*size));
            let digest = reader.take(size.ok_or(FirmwareLogError("unknown algorithm"))?)?;
            if alg == bank {
                found = Some(digest);
            }
        }
        let size = reader.size()?;
        reader.take(size)?;
        match (kind, found) {
            (EV_NO_ACTION, _) => {}
            (_, Some(digest)) => each(register, digest),
            (_, None) => return Err(FirmwareLogError("an event without a digest of the bank")),
        }
    }
    Ok(())
}

fn spec_id(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, FirmwareLogError> {
    reader.u32()?;
    if reader.u32()? != EV_NO_ACTION {
        return Err(FirmwareLogError("no Spec-ID event"));
    }
    reader.take(20)?;
    let size = reader.size()?;
    let mut event = Reader { rest: reader.take(size)? };
    if event.take(SIGNATURE.len())? != SIGNATURE {
        return Err(FirmwareLogError("not a crypto agile log"));
    }
    event.take(8)?;
    let count = event.u32()?;
    if count > MAX_ALGORITHMS {
        return Err(FirmwareLogError("too many algorithms"));
    }
    (0..count).map(|_| Ok((event.u16()?, event.u16()?))).collect()
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], FirmwareLogError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(FirmwareLogError("cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FirmwareLogError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(FirmwareLogError("cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, FirmwareLogError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FirmwareLogError> {
        self.array().map(u32::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, FirmwareLogError> {
        usize::try_from(self.u32()?).map_err(|_| FirmwareLogError("length"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA256: u16 = 0x000B;
    const SHA384: u16 = 0x000C;

    fn spec(algorithms: &[(u16, u16)]) -> Vec<u8> {
        let mut data = [SIGNATURE.as_slice(), &[0, 0, 0, 0, 0, 2, 0, 2]].concat();
        data.extend_from_slice(&u32::try_from(algorithms.len()).unwrap().to_le_bytes());
        for (alg, size) in algorithms {
            data.extend_from_slice(&alg.to_le_bytes());
            data.extend_from_slice(&size.to_le_bytes());
        }
        data.push(0);
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &size, &data].concat()
    }

    fn event(pcr: u32, kind: u32, digests: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = [pcr.to_le_bytes(), kind.to_le_bytes()].concat();
        out.extend_from_slice(&u32::try_from(digests.len()).unwrap().to_le_bytes());
        for (alg, digest) in digests {
            out.extend_from_slice(&alg.to_le_bytes());
            out.extend_from_slice(digest);
        }
        out.extend_from_slice(&[3, 0, 0, 0, b'a', b'b', b'c']);
        out
    }

    fn chain(digests: &[[u8; 32]]) -> Sha256Digest {
        let zero = Sha256Digest::new([0; 32]);
        digests.iter().fold(zero, |value, digest| Sha256Digest::of_parts(&[value.as_bytes(), digest]))
    }

    #[test]
    fn a_pcr_is_replayed_from_its_own_extended_events() {
        let log = [
            spec(&[(SHA256, 32), (SHA384, 48)]),
            event(14, 13, &[(SHA256, &[1; 32]), (SHA384, &[9; 48])]),
            event(7, 13, &[(SHA256, &[2; 32]), (SHA384, &[9; 48])]),
            event(14, EV_NO_ACTION, &[(SHA256, &[3; 32]), (SHA384, &[9; 48])]),
            event(14, 4, &[(SHA384, &[9; 48]), (SHA256, &[4; 32])]),
        ]
        .concat();
        assert_eq!(replay_sha256(&log, 14), Ok(chain(&[[1; 32], [4; 32]])));
        assert_eq!(replay_sha256(&log, 7), Ok(chain(&[[2; 32]])));
        assert_eq!(replay_sha256(&log, 15), Ok(chain(&[])));
        for padding in [vec![0; 9], vec![0xFF; 64]] {
            assert_eq!(replay_sha256(&[log.clone(), padding].concat(), 14), Ok(chain(&[[1; 32], [4; 32]])));
        }
    }

    #[test]
    fn a_cut_log_is_refused_between_events_only() {
        let head = spec(&[(SHA256, 32)]);
        let log = [head.clone(), event(14, 13, &[(SHA256, &[1; 32])])].concat();
        for end in 0..log.len() {
            let whole = end == head.len();
            assert_eq!(replay_sha256(log.get(..end).unwrap(), 14).is_ok(), whole, "{end}");
        }
    }

    #[test]
    fn a_log_without_the_bank_tells_nothing() {
        let sha384 = [spec(&[(SHA384, 48)]), event(14, 13, &[(SHA384, &[1; 48])])].concat();
        assert_eq!(replay_sha256(&sha384, 14), Err(FirmwareLogError("the bank is not logged")));
        let missing = [spec(&[(SHA256, 32), (SHA384, 48)]), event(14, 13, &[(SHA384, &[1; 48])])].concat();
        assert_eq!(replay_sha256(&missing, 14), Err(FirmwareLogError("an event without a digest of the bank")));
        let unknown = [spec(&[(SHA256, 32)]), event(14, 13, &[(0x0004, &[1; 20])])].concat();
        assert_eq!(replay_sha256(&unknown, 14), Err(FirmwareLogError("unknown algorithm")));
        let mut old = spec(&[(SHA256, 32)]);
        old[32] ^= 1;
        assert_eq!(replay_sha256(&old, 14), Err(FirmwareLogError("not a crypto agile log")));
    }

    #[test]
    fn only_tpm_devices_have_a_log() {
        let path = Path::new("/sys/kernel/security/tpm0/binary_bios_measurements");
        for device in ["/dev/tpm0", "/dev/tpmrm0"] {
            assert_eq!(path_of(Path::new(device)).as_deref(), Some(path));
        }
        for device in ["/dev/tpm", "/dev/tpmrm", "/dev/tpmx", "/dev/null", "/dev/tpm0/.."] {
            assert_eq!(path_of(Path::new(device)), None, "{device}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(tail in prop::collection::vec(any::<u8>(), 0..200), raw: bool) {
            let log = if raw { tail } else { [spec(&[(SHA256, 32)]), tail].concat() };
            let _ = replay_sha256(&log, 14);
        }
    }
}
