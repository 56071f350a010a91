//! Intel TDX quotes of versions 4 and 5 over TD reports 1.0 and 1.5.
//!
//! Sources: Intel's `sgx_quote_4.h` and `sgx_quote_5.h` of the DCAP quote library for the quote, Intel TDX
//! Module ABI 348551 for the TD report. Integers are little-endian, and every length is exact: nothing may
//! follow, and no inner length may differ from what it counts.
//!
//! | bytes | part |
//! |---|---|
//! | 48 | header: version u16, attestation key type u16 (2: ECDSA P-256), TEE type u32 (0x81), 4 reserved, QE vendor 16, user data 20 |
//! | 6 | from version 5: type of the TD report u16 (2: 1.0, 3: 1.5), its size u32 |
//! | 584 or 648 | the TD report, see [`TdReport`] |
//! | 4 | size of the rest |
//! | 64 | the attestation key's signature (r, s) over everything before the size |
//! | 64 | the attestation key (x, y) |
//! | 6 | type u16 (6), size of the rest u32 |
//! | 384 | the quoting enclave's report, see [`QeReport`] |
//! | 64 | the PCK's signature (r, s) over the QE report |
//! | 2 + 32 | size of the QE's authentication data, the data |
//! | 6 | type u16 (5), size of the rest u32 |
//! | | PCK, intermediate and root as PEM: lines of 64, LF, at the end perhaps one zero byte |

mod attributes;
mod local;
mod pem;
mod quote;
mod report;

pub use attributes::{TdAttributes, Xfam};
pub use local::{LOCAL_REPORT_SIZE, parse_local};
pub use pem::{MAX_CERTIFICATES, MAX_CHAIN, PckChain};
pub use quote::{Header, Quote, QuoteVersion, SignatureData, trim};
pub use report::{QeReport, REPORT_10_SIZE, REPORT_15_SIZE, TdReport, TdReport15};

/// `tee_type` of TDX.
pub const TEE_TYPE_TDX: u32 = 0x81;
/// `attestation_key_type` of ECDSA P-256 with SHA-256.
pub const KEY_TYPE_ECDSA_P256: u16 = 2;
/// Intel's quoting enclave: 939A7233-F79C-4CA9-940A-0DB3957F0607.
pub const QE_VENDOR_INTEL: [u8; 16] =
    [0x93, 0x9A, 0x72, 0x33, 0xF7, 0x9C, 0x4C, 0xA9, 0x94, 0x0A, 0x0D, 0xB3, 0x95, 0x7F, 0x06, 0x07];

/// Why bytes are not a TDX quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TdxError {
    /// The bytes end inside a field.
    #[error("cut short")]
    Short,
    /// Bytes follow the quote.
    #[error("{0} bytes follow the quote")]
    Trailing(usize),
    /// A length does not count what stands there.
    #[error("the {0} has another length than it says")]
    Length(&'static str),
    /// Neither version 4 nor 5.
    #[error("quote version {0} is not known")]
    Version(u16),
    /// Not a TDX quote.
    #[error("TEE type {0:#x} is not TDX")]
    TeeType(u32),
    /// Another kind of attestation key.
    #[error("attestation key type {0} is not known")]
    KeyType(u16),
    /// Another quoting enclave's.
    #[error("not a quote of Intel's quoting enclave")]
    Vendor,
    /// A TD report that is neither 1.0 nor 1.5.
    #[error("TD report type {0} is not known")]
    ReportType(u16),
    /// The signature's inner data are of another kind.
    #[error("certification data of type {0} is not known here")]
    CertificationType(u16),
    /// The certificates are not PEM in the one form that is taken.
    #[error("the PCK chain is not {MAX_CERTIFICATES} or fewer PEM certificates in plain form")]
    Chain,
    /// Not the report that a TDX module gives to its guest.
    #[error("the TD report's {0} is not what a TDX module writes")]
    Local(&'static str),
}

/// Reads fields one after the other.
struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    const fn new(rest: &'b [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], TdxError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(TdxError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TdxError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(TdxError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, TdxError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, TdxError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, TdxError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A size that must be that of all the rest.
    fn size_of_rest(&mut self, what: &'static str) -> Result<(), TdxError> {
        let size = usize::try_from(self.u32()?).map_err(|_| TdxError::Length(what))?;
        if size == self.rest.len() { Ok(()) } else { Err(TdxError::Length(what)) }
    }
}

#[cfg(test)]
mod tests;
