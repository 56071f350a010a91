//! The firmware's own log, crypto agile (TCG PC Client Platform Firmware Profile, section 10): a TPM's, and a TDX
//! guest's CCEL, where register 0 is MRTD and 1 to 4 are RTMR0 to RTMR3.
//!
//! Little-endian. First a Spec-ID event in the old form: `u32 register | u32 3 | 20 x 00 | u32 size | data`, whose
//! data is `"Spec ID Event03\0" | 8 bytes | u32 nalg | nalg x (u16 alg, u16 size) | u8 n | n bytes`. Then events:
//! `u32 register | u32 type | u32 count | count x (u16 alg, digest) | u32 size | data`. Behind the last one there may
//! be bytes 0xFF alone, or 0x00 alone: tables handed over in memory are longer than the log.

use crate::register::{HashAlg, RegisterValue};

/// EV_NO_ACTION: informative, never extended.
pub const EV_NO_ACTION: u32 = 3;
/// The longest log, in bytes.
pub const MAX_LOG: usize = 1024 * 1024;
/// The most events.
const MAX_EVENTS: usize = 16_384;
/// Algorithms a platform may log.
const MAX_ALGORITHMS: u32 = 16;
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";

/// Bytes that are no such log, or a log that cannot be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the firmware's log is malformed: {0}")]
pub struct TcgLogError(pub &'static str);

/// One digest of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// TCG algorithm id.
    pub alg: u16,
    /// As long as the header says for the algorithm.
    pub bytes: Vec<u8>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The register: a PCR, or 1 to 4 for RTMR0 to RTMR3.
    pub register: u32,
    /// Its type, see [`EV_NO_ACTION`].
    pub kind: u32,
    /// What the register was extended with, per algorithm. Not checked against [`Event::data`]: for most types it is
    /// the digest of something else.
    pub digests: Vec<Digest>,
    /// What it says.
    pub data: Vec<u8>,
}

/// A well-formed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcgLog {
    header: Vec<u8>,
    algorithms: Vec<(u16, u16)>,
    events: Vec<Event>,
}

impl TcgLog {
    /// Reads a log and the padding behind it.
    ///
    /// # Errors
    /// [`TcgLogError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TcgLogError> {
        if bytes.len() > MAX_LOG {
            return Err(TcgLogError("longer than a megabyte"));
        }
        let mut reader = Reader { rest: bytes };
        let algorithms = spec_id(&mut reader)?;
        let header = bytes.get(..bytes.len() - reader.rest.len()).unwrap_or_default().to_vec();
        let mut events = Vec::new();
        while !is_padding(reader.rest) {
            if events.len() == MAX_EVENTS {
                return Err(TcgLogError("too many events"));
            }
            events.push(event(&mut reader, &algorithms)?);
        }
        Ok(Self { header, algorithms, events })
    }

    /// The log without padding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.header.clone();
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        for event in &self.events {
            out.extend_from_slice(&event.register.to_le_bytes());
            out.extend_from_slice(&event.kind.to_le_bytes());
            out.extend_from_slice(&length(event.digests.len()));
            for digest in &event.digests {
                out.extend_from_slice(&digest.alg.to_le_bytes());
                out.extend_from_slice(&digest.bytes);
            }
            out.extend_from_slice(&length(event.data.len()));
            out.extend_from_slice(&event.data);
        }
        out
    }

    /// The events in their order, without the header.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The value that `register` has after all events, when it starts at zero.
    ///
    /// # Errors
    /// [`TcgLogError`] when the algorithm is not logged, for the log as a whole or for an event of the register.
    pub fn replay(&self, register: u32, alg: HashAlg) -> Result<RegisterValue, TcgLogError> {
        if !self.algorithms.iter().any(|(id, _)| *id == alg.tcg_id()) {
            return Err(TcgLogError("the bank is not logged"));
        }
        let mut value = alg.zero();
        for event in self.events.iter().filter(|event| event.register == register && event.kind != EV_NO_ACTION) {
            let digest = event.digests.iter().find(|digest| digest.alg == alg.tcg_id());
            let digest = digest.ok_or(TcgLogError("an event without a digest of the bank"))?;
            value = RegisterValue::from_bytes(alg, &digest.bytes)
                .and_then(|digest| value.extend(&digest))
                .ok_or(TcgLogError("a digest of another length"))?;
        }
        Ok(value)
    }
}

fn is_padding(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0xFF) || rest.iter().all(|byte| *byte == 0)
}

fn event(reader: &mut Reader<'_>, algorithms: &[(u16, u16)]) -> Result<Event, TcgLogError> {
    let register = reader.u32()?;
    let kind = reader.u32()?;
    let count = reader.u32()?;
    if count > MAX_ALGORITHMS {
        return Err(TcgLogError("too many digests"));
    }
    let mut digests: Vec<Digest> = Vec::new();
    for _ in 0..count {
        let alg = reader.u16()?;
        if digests.iter().any(|digest| digest.alg == alg) {
            return Err(TcgLogError("two digests of one algorithm"));
        }
        let size = algorithms.iter().find(|(id, _)| *id == alg).map(|(_, size)| usize::from(*size));
        let bytes = reader.take(size.ok_or(TcgLogError("unknown algorithm"))?)?.to_vec();
        digests.push(Digest { alg, bytes });
    }
    let size = reader.size()?;
    Ok(Event { register, kind, digests, data: reader.take(size)?.to_vec() })
}

fn spec_id(reader: &mut Reader<'_>) -> Result<Vec<(u16, u16)>, TcgLogError> {
    reader.u32()?;
    if reader.u32()? != EV_NO_ACTION {
        return Err(TcgLogError("no Spec-ID event"));
    }
    reader.take(20)?;
    let size = reader.size()?;
    let mut event = Reader { rest: reader.take(size)? };
    if event.take(SIGNATURE.len())? != SIGNATURE {
        return Err(TcgLogError("not a crypto agile log"));
    }
    event.take(8)?;
    let count = event.u32()?;
    if count > MAX_ALGORITHMS {
        return Err(TcgLogError("too many algorithms"));
    }
    let algorithms: Vec<(u16, u16)> =
        (0..count).map(|_| Ok((event.u16()?, event.u16()?))).collect::<Result<_, TcgLogError>>()?;
    let known = |(id, size): &(u16, u16)| HashAlg::from_tcg_id(*id).is_none_or(|alg| alg.size() == usize::from(*size));
    if !algorithms.iter().all(known) {
        return Err(TcgLogError("an algorithm of another length than it has"));
    }
    Ok(algorithms)
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], TcgLogError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(TcgLogError("cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TcgLogError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(TcgLogError("cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, TcgLogError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, TcgLogError> {
        self.array().map(u32::from_le_bytes)
    }

    fn size(&mut self) -> Result<usize, TcgLogError> {
        usize::try_from(self.u32()?).map_err(|_| TcgLogError("length"))
    }
}

#[cfg(test)]
mod tests;
