//! Commands and their answers. Authorisation is always by the empty password.

use super::attest::ClockInfo;
use super::public::ak_template;
use super::{ALG_SHA256, ALL_PCRS, PCR_COUNT, PcrSelection, Public, Reader, TpmError};
use crate::digest::Sha256Digest;

pub(super) const TPM_ST_NO_SESSIONS: u16 = 0x8001;
pub(super) const TPM_ST_SESSIONS: u16 = 0x8002;
const TPM_RS_PW: u32 = 0x4000_0009;
pub(super) const TPM_RH_ENDORSEMENT: u32 = 0x4000_000B;
pub(super) const TPM_ALG_NULL: u16 = 0x0010;
pub(super) const CC_CREATE_PRIMARY: u32 = 0x131;
const CC_QUOTE: u32 = 0x158;
const CC_FLUSH_CONTEXT: u32 = 0x165;
const CC_GET_CAPABILITY: u32 = 0x17A;
const CC_PCR_READ: u32 = 0x17E;
const CC_READ_CLOCK: u32 = 0x181;
const CC_PCR_EXTEND: u32 = 0x182;
const TPM_CAP_HANDLES: u32 = 1;
const TRANSIENT_FIRST: u32 = 0x8000_0000;
/// The largest answer we read, in bytes.
pub(super) const MAX_ANSWER: usize = 4096;

/// A marshalled command and how to read its answer.
#[derive(Debug, Clone)]
pub struct Command<T> {
    bytes: Vec<u8>,
    read: fn(&[u8]) -> Result<T, TpmError>,
}

impl<T> Command<T> {
    /// What is sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads what came back: one whole response, header included.
    ///
    /// # Errors
    /// [`TpmError::Code`] with the TPM's response code, other [`TpmError`] for bytes that are no answer.
    pub fn answer(&self, bytes: &[u8]) -> Result<T, TpmError> {
        (self.read)(bytes)
    }

    pub(super) fn plain(code: u32, body: &[&[u8]], read: fn(&[u8]) -> Result<T, TpmError>) -> Self {
        Self { bytes: frame(TPM_ST_NO_SESSIONS, code, body), read }
    }

    /// With one password session after the handles.
    pub(super) fn authorised(
        code: u32,
        handles: &[u32],
        body: &[&[u8]],
        read: fn(&[u8]) -> Result<T, TpmError>,
    ) -> Self {
        Self::with_sessions(code, handles, &password_session(), body, read)
    }

    /// With `sessions`, marshalled, after the handles.
    pub(super) fn with_sessions(
        code: u32,
        handles: &[u32],
        sessions: &[u8],
        body: &[&[u8]],
        read: fn(&[u8]) -> Result<T, TpmError>,
    ) -> Self {
        let handles: Vec<u8> = handles.iter().flat_map(|handle| handle.to_be_bytes()).collect();
        let size = u32::try_from(sessions.len()).unwrap_or_default().to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![&handles, &size, sessions];
        parts.extend_from_slice(body);
        Self { bytes: frame(TPM_ST_SESSIONS, code, &parts), read }
    }
}

/// TPMS_AUTH_COMMAND of the empty password: empty nonce, no attributes.
pub(super) fn password_session() -> Vec<u8> {
    [TPM_RS_PW.to_be_bytes().as_slice(), &[0; 5]].concat()
}

fn frame(tag: u16, code: u32, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let mut out = Vec::with_capacity(10 + body.len());
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(&u32::try_from(10 + body.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// A TPM2B of a short, fixed content.
pub(super) fn sized(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::from(u16::try_from(content.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(content);
    out
}

fn selection(select: [u8; 3]) -> Vec<u8> {
    let mut out = Vec::from(1u32.to_be_bytes());
    out.extend_from_slice(&ALG_SHA256.to_be_bytes());
    out.push(3);
    out.extend_from_slice(&select);
    out
}

/// Size of a whole response from its first 10 bytes, for readers of a stream.
///
/// # Errors
/// [`TpmError::Value`] outside 10..=4096.
pub fn answer_size(header: &[u8; 10]) -> Result<usize, TpmError> {
    let [_, _, size @ .., _, _, _, _] = *header;
    usize::try_from(u32::from_be_bytes(size))
        .ok()
        .filter(|size| (10..=MAX_ANSWER).contains(size))
        .ok_or(TpmError::Value("response size"))
}

/// Checks a response's header and gives its body.
pub(super) fn body<'b>(bytes: &'b [u8], tag: u16, what: &'static str) -> Result<Reader<'b>, TpmError> {
    let mut reader = Reader::new(bytes, what);
    let found = reader.u16()?;
    if usize::try_from(reader.u32()?).ok() != Some(bytes.len()) || bytes.len() > MAX_ANSWER {
        return Err(TpmError::Value("response size"));
    }
    match reader.u32()? {
        0 if found == tag => Ok(reader),
        0 => Err(TpmError::Value("response tag")),
        code => Err(TpmError::Code(code)),
    }
}

/// The parameters of a response with one password session; `reader` stands behind the handle, if any.
pub(super) fn parameters<'b>(mut reader: Reader<'b>) -> Result<Reader<'b>, TpmError> {
    let size = usize::try_from(reader.u32()?).map_err(|_| TpmError::Value("parameter size"))?;
    let parameters = reader.take(size)?;
    // Empty nonce, continueSession or not, empty acknowledgement.
    let [nonce_high, nonce_low, _, ack_high, ack_low] = reader.array::<5>()?;
    if [nonce_high, nonce_low, ack_high, ack_low] != [0; 4] {
        return Err(TpmError::Value("response session"));
    }
    reader.end()?;
    Ok(Reader::new(parameters, reader.what))
}

/// Values of SHA-256 PCRs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrValues {
    /// Grows with every change of any PCR.
    pub update_counter: u32,
    /// Number and value of each PCR read, in order. A TPM gives at most 8 at once.
    pub values: Vec<(u32, Sha256Digest)>,
}

/// TPM2_PCR_Read of the SHA-256 PCRs in `select` (bit n of byte n/8).
#[must_use]
pub fn pcr_read(select: [u8; 3]) -> Command<PcrValues> {
    Command::plain(CC_PCR_READ, &[&selection(select)], |bytes| {
        let mut reader = body(bytes, TPM_ST_NO_SESSIONS, "TPM2_PCR_Read")?;
        let update_counter = reader.u32()?;
        let selections = PcrSelection::read_list(&mut reader)?;
        let [PcrSelection { hash: ALG_SHA256, select }] = selections.as_slice() else {
            return Err(TpmError::Value("TPM2_PCR_Read selection"));
        };
        let numbers: Vec<u32> = (0u32..)
            .zip(select.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)))
            .filter_map(|(number, selected)| selected.then_some(number))
            .collect();
        if numbers.len() > PCR_COUNT || usize::try_from(reader.u32()?).ok() != Some(numbers.len()) {
            return Err(TpmError::Value("TPM2_PCR_Read count"));
        }
        let mut values = Vec::with_capacity(numbers.len());
        for number in numbers {
            let value = reader.sized(32)?.try_into().map_err(|_| TpmError::Value("TPM2_PCR_Read digest"))?;
            values.push((number, Sha256Digest::new(value)));
        }
        reader.end()?;
        Ok(PcrValues { update_counter, values })
    })
}

/// TPM2_PCR_Extend of the SHA-256 bank.
#[must_use]
pub fn pcr_extend(pcr: u32, digest: &Sha256Digest) -> Command<()> {
    let count = 1u32.to_be_bytes();
    Command::authorised(CC_PCR_EXTEND, &[pcr], &[&count, &ALG_SHA256.to_be_bytes(), digest.as_bytes()], |bytes| {
        parameters(body(bytes, TPM_ST_SESSIONS, "TPM2_PCR_Extend")?)?.end()
    })
}

/// A primary object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// Its transient handle, to be flushed.
    pub handle: u32,
    /// Its public key.
    pub public: Public,
    /// Its whole public area, TPMT_PUBLIC, as the TPM gave it.
    pub area: Vec<u8>,
}

/// TPM2_CreatePrimary of our attestation key: restricted ECDSA P-256 with SHA-256, in the endorsement
/// hierarchy. There its quotes carry reset counts as they are (part 1, 36.7: others are obfuscated), and
/// the key outlives a TPM2_Clear.
#[must_use]
pub fn create_primary_ak() -> Command<Primary> {
    // Empty authorisation and no data; template; no outside info; no creation PCRs.
    let sensitive = sized(&[0; 4]);
    let template = sized(&ak_template());
    Command::authorised(CC_CREATE_PRIMARY, &[TPM_RH_ENDORSEMENT], &[&sensitive, &template, &[0; 6]], |bytes| {
        let mut reader = body(bytes, TPM_ST_SESSIONS, "TPM2_CreatePrimary")?;
        let handle = reader.u32()?;
        let area = parameters(reader)?.sized(MAX_ANSWER)?.to_vec();
        Ok(Primary { handle, public: Public::parse(&area)?, area })
    })
}

/// A quote as the TPM gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteAnswer {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

/// TPM2_Quote of SHA-256 PCRs 0 to 23 by the key's own scheme, with `nonce` as qualifying data: at most 64 bytes.
#[must_use]
pub fn quote(key: u32, nonce: &[u8]) -> Command<QuoteAnswer> {
    let scheme = TPM_ALG_NULL.to_be_bytes();
    Command::authorised(CC_QUOTE, &[key], &[&sized(nonce), &scheme, &selection(ALL_PCRS)], |bytes| {
        let mut reader = parameters(body(bytes, TPM_ST_SESSIONS, "TPM2_Quote")?)?;
        let attest = reader.sized(MAX_ANSWER)?.to_vec();
        Ok(QuoteAnswer { attest, signature: reader.rest.to_vec() })
    })
}

/// TPM2_FlushContext of a transient object.
#[must_use]
pub fn flush_context(handle: u32) -> Command<()> {
    Command::plain(CC_FLUSH_CONTEXT, &[&handle.to_be_bytes()], |bytes| {
        body(bytes, TPM_ST_NO_SESSIONS, "TPM2_FlushContext")?.end()
    })
}

/// TPM2_ReadClock.
#[must_use]
pub fn read_clock() -> Command<ClockInfo> {
    Command::plain(CC_READ_CLOCK, &[], |bytes| {
        let mut reader = body(bytes, TPM_ST_NO_SESSIONS, "TPM2_ReadClock")?;
        reader.u64()?;
        let clock = ClockInfo::read(&mut reader)?;
        reader.end()?;
        Ok(clock)
    })
}

/// TPM2_GetCapability: the transient objects that are loaded.
#[must_use]
pub fn transient_handles() -> Command<Vec<u32>> {
    let [capability, first, count] = [TPM_CAP_HANDLES, TRANSIENT_FIRST, 64].map(u32::to_be_bytes);
    Command::plain(CC_GET_CAPABILITY, &[&capability, &first, &count], |bytes| {
        let mut reader = body(bytes, TPM_ST_NO_SESSIONS, "TPM2_GetCapability")?;
        reader.u8()?;
        let count = if reader.u32()? == TPM_CAP_HANDLES { reader.u32()? } else { u32::MAX };
        if count > 64 {
            return Err(TpmError::Value("TPM2_GetCapability"));
        }
        let handles = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(handles)
    })
}
