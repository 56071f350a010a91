//! What a quote is made of: `TPMS_ATTEST` and `TPMT_SIGNATURE`.

use super::{ALG_SHA256, ALL_PCRS, Reader, TpmError};

const TPM_GENERATED_VALUE: u32 = 0xFF54_4347;
const TPM_ST_ATTEST_QUOTE: u16 = 0x8018;
const ALG_RSASSA: u16 = 0x0014;
const ALG_ECDSA: u16 = 0x0018;
/// The largest TPM2B_NAME: an algorithm id and a SHA-512 digest.
const MAX_NAME: usize = 66;
/// The largest digest, SHA-512.
const MAX_DIGEST: usize = 64;
/// The largest TPM2B_DATA: a TPMT_HA of SHA-512.
const MAX_DATA: usize = 66;
/// Banks a TPM may have.
const MAX_SELECTIONS: u32 = 16;
/// The largest RSA signature we read: 4096 bits.
const MAX_RSA: usize = 512;

/// TPMS_CLOCK_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds the TPM has been powered.
    pub clock: u64,
    /// TPM resets since the last TPM2_Clear.
    pub reset_count: u32,
    /// TPM restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether no greater clock was reported before.
    pub safe: bool,
}

impl ClockInfo {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, TpmError> {
        Ok(Self {
            clock: reader.u64()?,
            reset_count: reader.u32()?,
            restart_count: reader.u32()?,
            safe: match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err(TpmError::Value("TPMS_CLOCK_INFO")),
            },
        })
    }
}

/// TPMS_PCR_SELECTION: PCRs of one bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrSelection {
    /// The bank's TPM_ALG_ID.
    pub hash: u16,
    /// One bit per PCR, PCR 0 in the lowest bit of the first byte.
    pub select: Vec<u8>,
}

impl PcrSelection {
    /// SHA-256 PCRs 0 to 23: the only selection we quote.
    #[must_use]
    pub fn all_sha256() -> Self {
        Self { hash: ALG_SHA256, select: ALL_PCRS.to_vec() }
    }

    pub(super) fn read_list(reader: &mut Reader<'_>) -> Result<Vec<Self>, TpmError> {
        let count = reader.u32()?;
        if count > MAX_SELECTIONS {
            return Err(TpmError::Value("TPML_PCR_SELECTION"));
        }
        (0..count)
            .map(|_| {
                let hash = reader.u16()?;
                let size = usize::from(reader.u8()?);
                // PCR_SELECT_MIN and PCR_SELECT_MAX of the PC Client profile and of every TPM with up to 32 PCRs.
                if !(1..=4).contains(&size) {
                    return Err(TpmError::Value("TPMS_PCR_SELECTION"));
                }
                Ok(Self { hash, select: reader.take(size)?.to_vec() })
            })
            .collect()
    }
}

/// TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE. Read strictly; what it says is for the verifier to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the signing key.
    pub qualified_signer: Vec<u8>,
    /// The qualifying data of whoever asked.
    pub extra_data: Vec<u8>,
    /// Clock and reset counts.
    pub clock_info: ClockInfo,
    /// Vendor's firmware version.
    pub firmware_version: u64,
    /// The quoted PCRs, in the order of the digest.
    pub pcr_select: Vec<PcrSelection>,
    /// Digest over the values of the quoted PCRs, by the signature's hash algorithm.
    pub pcr_digest: Vec<u8>,
}

impl Attest {
    /// Reads a quote.
    ///
    /// # Errors
    /// [`TpmError`] when it was not made inside a TPM (magic), is not a quote, or is not exactly one structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes, "TPMS_ATTEST");
        if reader.u32()? != TPM_GENERATED_VALUE {
            return Err(TpmError::Value("TPMS_ATTEST magic"));
        }
        if reader.u16()? != TPM_ST_ATTEST_QUOTE {
            return Err(TpmError::Value("TPMS_ATTEST type"));
        }
        let attest = Self {
            qualified_signer: reader.sized(MAX_NAME)?.to_vec(),
            extra_data: reader.sized(MAX_DATA)?.to_vec(),
            clock_info: ClockInfo::read(&mut reader)?,
            firmware_version: reader.u64()?,
            pcr_select: PcrSelection::read_list(&mut reader)?,
            pcr_digest: reader.sized(MAX_DIGEST)?.to_vec(),
        };
        reader.end()?;
        Ok(attest)
    }

    /// Whether exactly SHA-256 PCRs 0 to 23 are quoted, in one selection.
    #[must_use]
    pub fn selects_all_sha256(&self) -> bool {
        self.pcr_select == [PcrSelection::all_sha256()]
    }
}

/// TPMT_SIGNATURE of the two schemes attestation keys use, both with SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// TPM_ALG_ECDSA on P-256; 32 bytes big-endian each.
    EcdsaP256 {
        /// R.
        r: [u8; 32],
        /// S.
        s: [u8; 32],
    },
    /// TPM_ALG_RSASSA (PKCS #1 v1.5), 2048 to 4096 bits.
    Rsassa(Vec<u8>),
}

impl Signature {
    /// Reads a signature.
    ///
    /// # Errors
    /// [`TpmError`] for another scheme or hash, or when it is not exactly one structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes, "TPMT_SIGNATURE");
        let scheme = reader.u16()?;
        reader.expect_u16(ALG_SHA256)?;
        let signature = match scheme {
            ALG_ECDSA => Self::EcdsaP256 { r: coordinate(&mut reader)?, s: coordinate(&mut reader)? },
            ALG_RSASSA => {
                let bytes = reader.sized(MAX_RSA)?;
                if bytes.len() < 256 {
                    return Err(TpmError::Value("TPMT_SIGNATURE"));
                }
                Self::Rsassa(bytes.to_vec())
            }
            _ => return Err(TpmError::Value("TPMT_SIGNATURE scheme")),
        };
        reader.end()?;
        Ok(signature)
    }

    /// R || S of ECDSA, as PKCS #11 and JOSE write it; `None` for RSASSA.
    #[must_use]
    pub fn ecdsa_raw(&self) -> Option<[u8; 64]> {
        let Self::EcdsaP256 { r, s } = self else { return None };
        let mut out = [0; 64];
        for (to, from) in out.iter_mut().zip(r.iter().chain(s)) {
            *to = *from;
        }
        Some(out)
    }
}

/// A TPM2B_ECC_PARAMETER as 32 bytes: TPMs may leave out leading zeros.
pub(super) fn coordinate(reader: &mut Reader<'_>) -> Result<[u8; 32], TpmError> {
    let bytes = reader.sized(32)?;
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().rev().zip(bytes.iter().rev()) {
        *to = *from;
    }
    Ok(out)
}
