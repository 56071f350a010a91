//! The report of Azure's paravisor (the "HCL report", NV index 0x01400001 of its vTPM): the hardware report, and
//! the JSON whose hash is that report's data. Strict; nothing is believed here.
//!
//! Integers are little-endian. All that is not named must be zero.
//!
//! | offset | field |
//! |---|---|
//! | 0x000 | `HCLA` |
//! | 0x004 | version u32: 1 or 2 |
//! | 0x008 | size u32 of header, hardware report and runtime claims |
//! | 0x00C | request type u32: 2 |
//! | 0x010 | status u32: 0, then 12 reserved |
//! | 0x020 | hardware report, 1184 bytes: an SNP report, or a TDREPORT of 1024 bytes and zeros |
//! | 0x4C0 | runtime claims: size u32 of themselves, version u32: 1, hardware report type u32: 2 SNP, 4 TDX, hash u32: 1 SHA-256, size u32 of the JSON |
//! | 0x4D4 | the JSON (`var_data`), then zeros to the end |

use serde::Deserialize;
use serde_json::Value;

use crate::digest::Sha256Digest;
use crate::encoding;
use crate::tdx::LOCAL_REPORT_SIZE;

const MAGIC: [u8; 4] = *b"HCLA";
const REQUEST_TYPE: u32 = 2;
const HARDWARE_SIZE: usize = 1184;
const HEADER_SIZE: usize = 0x20;
const CLAIMS_HEADER: usize = 20;
const CLAIMS_VERSION: u32 = 1;
const TYPE_SNP: u32 = 2;
const TYPE_TDX: u32 = 4;
const HASH_SHA256: u32 = 1;
/// The most bytes a report may have; NV indices hold less.
pub const MAX_SIZE: usize = 8192;
/// Size of the user data in the JSON.
pub const USER_DATA_SIZE: usize = 64;
/// The `kid` of the vTPM's attestation key.
const AK: &str = "HCLAkPub";
/// The most keys the JSON may name.
const MAX_KEYS: usize = 16;

/// Why bytes are not an HCL report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HclError {
    /// The structure ends early, or is larger than it may be.
    #[error("{0}: not of its size")]
    Size(&'static str),
    /// A field has a value that is not allowed there.
    #[error("{0}: unexpected value")]
    Value(&'static str),
    /// The JSON is not what the paravisor writes.
    #[error("the runtime claims: {0}")]
    Claims(&'static str),
}

/// The hardware report inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware<'b> {
    /// An SNP report, 1184 bytes; see [`crate::snp::Report::parse`].
    Snp(&'b [u8; HARDWARE_SIZE]),
    /// A TDREPORT_STRUCT, which only its own machine could verify; see [`crate::tdx::parse_local`].
    Tdx(&'b [u8; LOCAL_REPORT_SIZE]),
}

/// A well-formed HCL report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HclReport<'b> {
    hardware: Hardware<'b>,
    var_data: &'b [u8],
    claims: RuntimeClaims,
}

impl<'b> HclReport<'b> {
    /// Reads a report.
    ///
    /// # Errors
    /// [`HclError`].
    pub fn parse(bytes: &'b [u8]) -> Result<Self, HclError> {
        if bytes.len() > MAX_SIZE {
            return Err(HclError::Size("HCL report"));
        }
        let mut reader = Reader { rest: bytes };
        if reader.array::<4>("header")? != MAGIC {
            return Err(HclError::Value("signature"));
        }
        if !matches!(reader.u32("header")?, 1 | 2) {
            return Err(HclError::Value("version"));
        }
        let size = reader.u32("header")?;
        reader.expect("request type", REQUEST_TYPE)?;
        reader.expect("status", 0)?;
        if reader.array::<12>("header")? != [0; 12] {
            return Err(HclError::Value("reserved bytes"));
        }
        let hardware: &[u8; HARDWARE_SIZE] = reader.chunk("hardware report")?;
        let claims_size = reader.u32("runtime claims")?;
        reader.expect("runtime claims version", CLAIMS_VERSION)?;
        let kind = reader.u32("runtime claims")?;
        reader.expect("hash of the runtime claims", HASH_SHA256)?;
        let json_size = usize::try_from(reader.u32("runtime claims")?).unwrap_or(usize::MAX);
        let (var_data, rest) = reader.rest.split_at_checked(json_size).ok_or(HclError::Size("runtime claims"))?;
        let expected = CLAIMS_HEADER.saturating_add(json_size);
        if usize::try_from(claims_size).ok() != Some(expected) {
            return Err(HclError::Value("size of the runtime claims"));
        }
        if usize::try_from(size).ok() != Some(HEADER_SIZE + HARDWARE_SIZE + expected) {
            return Err(HclError::Value("size"));
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(HclError::Value("bytes after the runtime claims"));
        }
        let hardware = match kind {
            TYPE_SNP => Hardware::Snp(hardware),
            TYPE_TDX => {
                let (report, rest) = hardware.split_first_chunk().ok_or(HclError::Size("TD report"))?;
                if rest.iter().any(|byte| *byte != 0) {
                    return Err(HclError::Value("bytes after the TD report"));
                }
                Hardware::Tdx(report)
            }
            _ => return Err(HclError::Value("type of the hardware report")),
        };
        let claims = serde_json::from_slice(var_data).map_err(|_| HclError::Claims("not their JSON"))?;
        Ok(Self { hardware, var_data, claims })
    }

    /// The hardware report.
    #[must_use]
    pub const fn hardware(&self) -> Hardware<'b> {
        self.hardware
    }

    /// The JSON as it was received.
    #[must_use]
    pub const fn var_data(&self) -> &'b [u8] {
        self.var_data
    }

    /// What the hardware report's data must be: SHA-256 of the JSON, right-padded with zeros.
    #[must_use]
    pub fn report_data(&self) -> [u8; 64] {
        let mut out = [0; 64];
        for (to, from) in out.iter_mut().zip(Sha256Digest::of(self.var_data).as_bytes()) {
            *to = *from;
        }
        out
    }

    /// Modulus and exponent, big-endian, of the vTPM's attestation key: the one RSA signing key named `HCLAkPub`.
    ///
    /// # Errors
    /// [`HclError::Claims`] where there is none, or more than one.
    pub fn attestation_key(&self) -> Result<(Vec<u8>, Vec<u8>), HclError> {
        if self.claims.keys.len() > MAX_KEYS {
            return Err(HclError::Claims("too many keys"));
        }
        let mut named = self.claims.keys.iter().filter(|key| key.kid == AK);
        let (Some(key), None) = (named.next(), named.next()) else {
            return Err(HclError::Claims("not one attestation key"));
        };
        if key.kty != "RSA" || key.key_ops != ["sign"] {
            return Err(HclError::Claims("the attestation key is not an RSA signing key"));
        }
        let read = |text: &str| encoding::un_b64url(text).map_err(|_| HclError::Claims("not base64url"));
        Ok((read(&key.n)?, read(&key.e)?))
    }

    /// The user data that the guest had put into the report; zeros where it put none.
    ///
    /// # Errors
    /// [`HclError::Claims`] where it is not 64 bytes in hex.
    pub fn user_data(&self) -> Result<[u8; USER_DATA_SIZE], HclError> {
        let wrong = HclError::Claims("user data that is not 64 bytes in hex");
        let bytes = hex::decode(&self.claims.user_data).map_err(|_| wrong)?;
        bytes.try_into().map_err(|_| wrong)
    }

    /// `vm-configuration`: what the paravisor says of the VM.
    #[must_use]
    pub const fn configuration(&self) -> &Value {
        &self.claims.configuration
    }
}

/// The JSON. A key that is there twice is refused by the reader; members of a later paravisor are let through,
/// since all of it is under the hash.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RuntimeClaims {
    keys: Vec<Key>,
    #[serde(rename = "vm-configuration")]
    configuration: Value,
    #[serde(rename = "user-data")]
    user_data: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Key {
    kid: String,
    kty: String,
    key_ops: Vec<String>,
    n: String,
    e: String,
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn chunk<const N: usize>(&mut self, what: &'static str) -> Result<&'b [u8; N], HclError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(HclError::Size(what))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], HclError> {
        self.chunk(what).copied()
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, HclError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn expect(&mut self, what: &'static str, value: u32) -> Result<(), HclError> {
        if self.u32(what)? == value { Ok(()) } else { Err(HclError::Value(what)) }
    }
}

#[cfg(test)]
mod tests;
