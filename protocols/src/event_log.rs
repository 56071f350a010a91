//! The event log's bytes: AAEL records in a TCG2 crypto-agile log. Encoding, strict parsing, replay.
//!
//! All integers are little-endian.
//!
//! - Header (Spec-ID event): `u32 0 | u32 3 | 20 x 00 | u32 size | 24 x 00 | u32 nalg | nalg x (u16 alg, u16 size) | u8 0`,
//!   declaring SHA-256 (0x000B, 32) and SHA-384 (0x000C, 48).
//! - Record: `u32 mr | u32 6 (EV_EVENT_TAG) | u32 1 | u16 alg | digest | u32 8+L | u32 0x4141454C | u32 L | text[L]`.
//! - digest = H(from the tag id to the end of the text); the register is extended with it.
//! - text = `domain SP operation SP canonical JSON`, bytes 0x20..=0x7E, at most 8192.
//! - End mark, on export only: 8 x 0xFF.
//!
//! `mr` is 4 for RTMR3 and for the software chain (SHA-384), the PCR's number for a TPM (SHA-256).

use serde_json::Value;

use crate::jcs;
use crate::reason::{self, Code, Refusal};
use crate::register::{HashAlg, RegisterValue};

/// EV_EVENT_TAG of the TCG PC Client Platform Firmware Profile.
pub const EV_EVENT_TAG: u32 = 6;
/// The tagged event's id: bytes `4C 45 41 41`.
pub const TAG_ID: u32 = 0x4141_454C;
/// The longest text of one record, in bytes.
pub const MAX_TEXT: usize = 8192;
/// The most records a log may hold.
pub const MAX_RECORDS: usize = 65_536;
/// The mark after the last record of an exported log.
pub const END_MARK: [u8; 8] = [0xFF; 8];
/// Register number of RTMR3 and of the software chain.
pub const MR_RTMR3: u32 = 4;

/// What is wrong with a log; `record` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The header is not the one we write.
    #[error("the log's header is not a Spec-ID event of ours")]
    Header,
    /// A record's structure is not exactly ours.
    #[error("record {record}: {what}")]
    Malformed {
        /// The record's place.
        record: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A record's digest is not that of its bytes.
    #[error("record {record}: the digest is not that of the record's bytes")]
    Digest {
        /// The record's place.
        record: usize,
    },
    /// More than [`MAX_RECORDS`].
    #[error("more than {MAX_RECORDS} records")]
    Full,
}

impl LogError {
    /// The refusal's code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Header | Self::Malformed { .. } => reason::LOG_MALFORMED,
            Self::Digest { .. } => reason::LOG_DIGEST,
            Self::Full => reason::LOG_FULL,
        }
    }

    /// The refusal for this error.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.code(), "event log", "a strictly well-formed log", self.to_string())
    }
}

/// One record: what happened, and the exact bytes that are stored and hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    mr: u32,
    digest: RegisterValue,
    domain: String,
    operation: String,
    content: Value,
    bytes: Vec<u8>,
}

impl Record {
    /// Encodes a record. `content` is written as canonical JSON.
    ///
    /// # Errors
    /// [`LogError::Malformed`] when domain or operation is empty or holds a space, the text leaves
    /// 0x20..=0x7E or exceeds [`MAX_TEXT`], or a number is not an integer below 2^53.
    pub fn encode(mr: u32, alg: HashAlg, domain: &str, operation: &str, content: &Value) -> Result<Self, LogError> {
        let refused = |what| LogError::Malformed { record: 0, what };
        if !is_word(domain) || !is_word(operation) {
            return Err(refused("domain and operation must be words"));
        }
        check_numbers(content).map_err(refused)?;
        let json = jcs::canonical(content).map_err(|_| refused("the content has no canonical form"))?;
        let mut text = format!("{domain} {operation} ").into_bytes();
        text.extend_from_slice(&json);
        if text.len() > MAX_TEXT {
            return Err(refused("the text is longer than 8192 bytes"));
        }
        if !text.iter().all(|b| (0x20..=0x7E).contains(b)) {
            return Err(refused("the text leaves printable ASCII"));
        }
        let length = u32::try_from(text.len()).map_err(|_| refused("length"))?;
        let mut event = Vec::with_capacity(text.len() + 8);
        event.extend_from_slice(&TAG_ID.to_le_bytes());
        event.extend_from_slice(&length.to_le_bytes());
        event.extend_from_slice(&text);
        let digest = alg.hash(&[&event]);

        let mut bytes = Vec::with_capacity(event.len() + 18 + alg.size());
        bytes.extend_from_slice(&mr.to_le_bytes());
        bytes.extend_from_slice(&EV_EVENT_TAG.to_le_bytes());
        bytes.extend_from_slice(&1u32.to_le_bytes());
        bytes.extend_from_slice(&alg.tcg_id().to_le_bytes());
        bytes.extend_from_slice(digest.as_bytes());
        bytes.extend_from_slice(&(length + 8).to_le_bytes());
        bytes.extend_from_slice(&event);
        Ok(Self {
            mr,
            digest,
            domain: domain.to_owned(),
            operation: operation.to_owned(),
            content: content.clone(),
            bytes,
        })
    }

    /// Reads the record at the start of `bytes` and gives it with its length.
    /// `place` only names the record in errors.
    ///
    /// # Errors
    /// [`LogError`] unless every byte is what [`Record::encode`] would write.
    pub fn parse(bytes: &[u8], place: usize) -> Result<(Self, usize), LogError> {
        let refused = |what| LogError::Malformed { record: place, what };
        let mut reader = Reader { rest: bytes };
        let mr = reader.u32().ok_or(refused("cut short"))?;
        if reader.u32() != Some(EV_EVENT_TAG) {
            return Err(refused("not an EV_EVENT_TAG event"));
        }
        if reader.u32() != Some(1) {
            return Err(refused("not exactly one digest"));
        }
        let alg = reader.u16().and_then(HashAlg::from_tcg_id).ok_or(refused("unknown algorithm"))?;
        let digest =
            reader.take(alg.size()).and_then(|b| RegisterValue::from_bytes(alg, b)).ok_or(refused("cut short"))?;
        let size = usize::try_from(reader.u32().ok_or(refused("cut short"))?).map_err(|_| refused("length"))?;
        if !(8..=MAX_TEXT + 8).contains(&size) {
            return Err(refused("event length out of range"));
        }
        let event = reader.take(size).ok_or(refused("cut short"))?;
        let mut inner = Reader { rest: event };
        if inner.u32() != Some(TAG_ID) {
            return Err(refused("unknown tag"));
        }
        if inner.u32().and_then(|l| usize::try_from(l).ok()) != Some(size - 8) {
            return Err(refused("text length differs from event length"));
        }
        if alg.hash(&[event]) != digest {
            return Err(LogError::Digest { record: place });
        }
        let text = std::str::from_utf8(inner.rest).map_err(|_| refused("the text leaves printable ASCII"))?;
        let mut words = text.splitn(3, ' ');
        let (Some(domain), Some(operation), Some(json)) = (words.next(), words.next(), words.next()) else {
            return Err(refused("the text is not `domain operation content`"));
        };
        let content: Value = serde_json::from_str(json).map_err(|_| refused("the content is not JSON"))?;
        let record = Self::encode(mr, alg, domain, operation, &content).map_err(|error| match error {
            LogError::Malformed { what, .. } => refused(what),
            other => other,
        })?;
        let used = bytes.len() - reader.rest.len();
        if bytes.get(..used) != Some(record.bytes.as_slice()) {
            return Err(refused("the content is not canonical JSON"));
        }
        Ok((record, used))
    }

    /// The register this record extends.
    #[must_use]
    pub const fn mr(&self) -> u32 {
        self.mr
    }

    /// The digest the register is extended with.
    #[must_use]
    pub const fn digest(&self) -> RegisterValue {
        self.digest
    }

    /// First word of the text.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Second word of the text.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The text's JSON.
    #[must_use]
    pub const fn content(&self) -> &Value {
        &self.content
    }

    /// The stored bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The header every log of ours starts with.
#[must_use]
pub fn header() -> Vec<u8> {
    let mut event = vec![0u8; 24];
    event.extend_from_slice(&2u32.to_le_bytes());
    for alg in [HashAlg::Sha256, HashAlg::Sha384] {
        event.extend_from_slice(&alg.tcg_id().to_le_bytes());
        event.extend_from_slice(&(if alg.size() == 32 { 32u16 } else { 48u16 }).to_le_bytes());
    }
    event.push(0);
    let mut out = Vec::with_capacity(64 + event.len());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&3u32.to_le_bytes());
    out.extend_from_slice(&[0u8; 20]);
    out.extend_from_slice(&u32::try_from(event.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(&event);
    out
}

/// Reads a whole log: header, records, and nothing after them but an optional end mark.
///
/// # Errors
/// [`LogError`] at the first byte that is not as [`header`] and [`Record::encode`] write it.
pub fn parse(bytes: &[u8]) -> Result<Vec<Record>, LogError> {
    let mut rest = bytes.strip_prefix(header().as_slice()).ok_or(LogError::Header)?;
    let mut records = Vec::new();
    while !rest.is_empty() && rest != END_MARK {
        if records.len() >= MAX_RECORDS {
            return Err(LogError::Full);
        }
        let (record, used) = Record::parse(rest, records.len())?;
        records.push(record);
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(records)
}

/// A whole log as it is exported: header, records, end mark.
#[must_use]
pub fn export(records: &[Record]) -> Vec<u8> {
    let mut out = header();
    for record in records {
        out.extend_from_slice(record.bytes());
    }
    out.extend_from_slice(&END_MARK);
    out
}

/// The register's value after `records`, starting at `start`. `None` when a record is of another
/// register or algorithm.
#[must_use]
pub fn replay<'r>(
    start: RegisterValue,
    mr: u32,
    records: impl IntoIterator<Item = &'r Record>,
) -> Option<RegisterValue> {
    let mut value = start;
    for record in records {
        if record.mr != mr {
            return None;
        }
        value = value.extend(&record.digest)?;
    }
    Some(value)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x21..=0x7E).contains(&b))
}

fn check_numbers(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(n), _) if n < 1 << 53 => Ok(()),
            (_, Some(n)) if n.unsigned_abs() < 1 << 53 => Ok(()),
            _ => Err("numbers must be integers below 2^53"),
        },
        Value::Array(items) => items.iter().try_for_each(check_numbers),
        Value::Object(members) => members.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }
}
