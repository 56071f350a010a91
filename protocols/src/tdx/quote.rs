//! The quote around them.

use super::report::{QeReport, REPORT_10_SIZE, REPORT_15_SIZE, TdReport};
use super::{KEY_TYPE_ECDSA_P256, PckChain, QE_VENDOR_INTEL, Reader, TEE_TYPE_TDX, TdxError};

const TYPE_REPORT_10: u16 = 2;
const TYPE_REPORT_15: u16 = 3;
const TYPE_PCK_CHAIN: u16 = 5;
const TYPE_QE_REPORT: u16 = 6;
/// Size of the QE's authentication data in bytes.
const AUTHENTICATION_SIZE: u16 = 32;
const HEADER_SIZE: usize = 48;
const BODY_HEAD_SIZE: usize = 6;
const SIZE_SIZE: usize = 4;

/// Which layout a quote has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteVersion {
    /// Version 4: always TD report 1.0.
    V4,
    /// Version 5: the report's type is stated.
    V5,
}

/// What the header says and is not always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The quote's version.
    pub version: QuoteVersion,
    /// Reserved; the security versions of QE and PCE in older quotes.
    pub reserved: u32,
    /// The quoting enclave's own; the first 16 bytes name the platform.
    pub user_data: [u8; 20],
}

/// Everything behind the TD report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureData {
    /// r and s of the attestation key over [`Quote::signed_bytes`].
    pub signature: [u8; 64],
    /// x and y of the attestation key, on P-256.
    pub attestation_key: [u8; 64],
    /// The quoting enclave's report.
    pub qe_report: QeReport,
    /// r and s of the PCK over the report's bytes.
    pub qe_signature: [u8; 64],
    /// Hashed into the QE report with the attestation key.
    pub authentication: [u8; 32],
    /// The PCK's certificates.
    pub pck_chain: PckChain,
}

/// A well-formed quote: fields and bytes determine each other. No signature is checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The header.
    pub header: Header,
    /// What the quote is about.
    pub report: TdReport,
    /// What it is signed with.
    pub signature: SignatureData,
}

impl Quote {
    /// Reads exactly one quote.
    ///
    /// # Errors
    /// [`TdxError`] at the first byte that [`Quote::encode`] would not write so.
    pub fn parse(bytes: &[u8]) -> Result<Self, TdxError> {
        let end = end_of(bytes)?;
        if bytes.len() > end {
            return Err(TdxError::Trailing(bytes.len() - end));
        }
        let mut r = Reader::new(bytes);
        let header = read_header(&mut r)?;
        let (_, report) = body(&mut r, header.version)?;
        let report = TdReport::read(report)?;
        r.size_of_rest("signature")?;
        let signature = r.array()?;
        let attestation_key = r.array()?;
        let outer = r.u16()?;
        if outer != TYPE_QE_REPORT {
            return Err(TdxError::CertificationType(outer));
        }
        r.size_of_rest("QE report with its certification data")?;
        let qe_report = QeReport::read(&mut r)?;
        let qe_signature = r.array()?;
        if r.u16()? != AUTHENTICATION_SIZE {
            return Err(TdxError::Length("QE's authentication data"));
        }
        let authentication = r.array()?;
        let inner = r.u16()?;
        if inner != TYPE_PCK_CHAIN {
            return Err(TdxError::CertificationType(inner));
        }
        r.size_of_rest("PCK chain")?;
        let pck_chain = PckChain::parse(r.rest)?;
        let signature =
            SignatureData { signature, attestation_key, qe_report, qe_signature, authentication, pck_chain };
        Ok(Self { header, report, signature })
    }

    /// The bytes under the attestation key's signature.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_SIZE + BODY_HEAD_SIZE + REPORT_15_SIZE);
        let version: u16 = match self.header.version {
            QuoteVersion::V4 => 4,
            QuoteVersion::V5 => 5,
        };
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&KEY_TYPE_ECDSA_P256.to_le_bytes());
        out.extend_from_slice(&TEE_TYPE_TDX.to_le_bytes());
        out.extend_from_slice(&self.header.reserved.to_le_bytes());
        out.extend_from_slice(&QE_VENDOR_INTEL);
        out.extend_from_slice(&self.header.user_data);
        let report = self.report.encode();
        if self.header.version == QuoteVersion::V5 {
            let kind = if self.report.v15.is_some() { TYPE_REPORT_15 } else { TYPE_REPORT_10 };
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&size(report.len()));
        }
        out.extend_from_slice(&report);
        out
    }

    /// The whole quote.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let data = &self.signature;
        let chain = data.pck_chain.encode();
        let mut inner = data.qe_report.encode();
        inner.extend_from_slice(&data.qe_signature);
        inner.extend_from_slice(&AUTHENTICATION_SIZE.to_le_bytes());
        inner.extend_from_slice(&data.authentication);
        inner.extend_from_slice(&TYPE_PCK_CHAIN.to_le_bytes());
        inner.extend_from_slice(&size(chain.len()));
        inner.extend_from_slice(&chain);

        let mut rest = [data.signature, data.attestation_key].concat();
        rest.extend_from_slice(&TYPE_QE_REPORT.to_le_bytes());
        rest.extend_from_slice(&size(inner.len()));
        rest.extend_from_slice(&inner);

        let mut out = self.signed_bytes();
        out.extend_from_slice(&size(rest.len()));
        out.extend_from_slice(&rest);
        out
    }
}

/// The quote at the start of a buffer whose remaining bytes are zero: hosts hand out whole pages.
///
/// # Errors
/// [`TdxError`] when no quote can begin so, or a byte behind it is not zero.
pub fn trim(buffer: &[u8]) -> Result<&[u8], TdxError> {
    let (quote, padding) = buffer.split_at_checked(end_of(buffer)?).ok_or(TdxError::Short)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(TdxError::Trailing(padding.len()));
    }
    Ok(quote)
}

/// Where the quote ends by what its first lengths say.
fn end_of(bytes: &[u8]) -> Result<usize, TdxError> {
    let mut r = Reader::new(bytes);
    let header = read_header(&mut r)?;
    let (head, report) = body(&mut r, header.version)?;
    let rest = usize::try_from(r.u32()?).map_err(|_| TdxError::Length("signature"))?;
    [head, report.len(), SIZE_SIZE, rest]
        .iter()
        .try_fold(HEADER_SIZE, |sum, part| sum.checked_add(*part))
        .ok_or(TdxError::Length("signature"))
}

fn read_header(r: &mut Reader<'_>) -> Result<Header, TdxError> {
    let version = match r.u16()? {
        4 => QuoteVersion::V4,
        5 => QuoteVersion::V5,
        other => return Err(TdxError::Version(other)),
    };
    let key_type = r.u16()?;
    if key_type != KEY_TYPE_ECDSA_P256 {
        return Err(TdxError::KeyType(key_type));
    }
    let tee_type = r.u32()?;
    if tee_type != TEE_TYPE_TDX {
        return Err(TdxError::TeeType(tee_type));
    }
    let reserved = r.u32()?;
    if r.array()? != QE_VENDOR_INTEL {
        return Err(TdxError::Vendor);
    }
    Ok(Header { version, reserved, user_data: r.array()? })
}

/// Size of what stands before the TD report, and the report's bytes.
fn body<'b>(r: &mut Reader<'b>, version: QuoteVersion) -> Result<(usize, &'b [u8]), TdxError> {
    if version == QuoteVersion::V4 {
        return Ok((0, r.take(REPORT_10_SIZE)?));
    }
    let size = match r.u16()? {
        TYPE_REPORT_10 => REPORT_10_SIZE,
        TYPE_REPORT_15 => REPORT_15_SIZE,
        other => return Err(TdxError::ReportType(other)),
    };
    if usize::try_from(r.u32()?) != Ok(size) {
        return Err(TdxError::Length("TD report"));
    }
    Ok((BODY_HEAD_SIZE, r.take(size)?))
}

/// Lengths here are those of bounded parts: at most [`super::MAX_CHAIN`] and some hundreds.
fn size(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}
