//! `TPMT_PUBLIC` of attestation keys, and the template ours is made from.

use p256::pkcs8::EncodePublicKey as _;

use super::attest::coordinate;
use super::{ALG_SHA256, Reader, TpmError};
use crate::digest::Sha256Digest;

const ALG_RSA: u16 = 0x0001;
const ALG_NULL: u16 = 0x0010;
const ALG_RSASSA: u16 = 0x0014;
const ALG_ECDSA: u16 = 0x0018;
const ALG_ECC: u16 = 0x0023;
const ECC_NIST_P256: u16 = 0x0003;

/// TPMA_OBJECT: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign.
/// Restricted: the key signs only what the TPM itself made, so a quote cannot be forged with it.
const AK_ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 16 | 1 << 18;
/// What makes a key an attestation key: fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign; not decrypt.
const AK_REQUIRED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 18;
const DECRYPT: u32 = 1 << 17;

/// The key of a TPMT_PUBLIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Public {
    /// A restricted ECDSA P-256 signing key with SHA-256.
    EcdsaP256 {
        /// X coordinate, big-endian.
        x: [u8; 32],
        /// Y coordinate, big-endian.
        y: [u8; 32],
    },
    /// A restricted RSASSA signing key with SHA-256.
    Rsassa {
        /// Modulus, big-endian: 256, 384 or 512 bytes.
        modulus: Vec<u8>,
        /// Public exponent.
        exponent: u32,
    },
}

impl Public {
    /// Reads the public area of a restricted signing key.
    ///
    /// # Errors
    /// [`TpmError`] for any other kind of object, or when it is not exactly one structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes, "TPMT_PUBLIC");
        let kind = reader.u16()?;
        reader.expect_u16(ALG_SHA256)?;
        let attributes = reader.u32()?;
        if attributes & (AK_REQUIRED | DECRYPT) != AK_REQUIRED {
            return Err(TpmError::Value("TPMT_PUBLIC attributes"));
        }
        reader.sized(64)?;
        reader.expect_u16(ALG_NULL)?;
        let public = match kind {
            ALG_ECC => {
                reader.expect_u16(ALG_ECDSA)?;
                reader.expect_u16(ALG_SHA256)?;
                reader.expect_u16(ECC_NIST_P256)?;
                reader.expect_u16(ALG_NULL)?;
                Self::EcdsaP256 { x: coordinate(&mut reader)?, y: coordinate(&mut reader)? }
            }
            ALG_RSA => {
                reader.expect_u16(ALG_RSASSA)?;
                reader.expect_u16(ALG_SHA256)?;
                let bits = reader.u16()?;
                // Exponent 0 stands for the default.
                let exponent = match reader.u32()? {
                    0 => 65537,
                    other => other,
                };
                let modulus = reader.sized(512)?.to_vec();
                if !matches!(bits, 2048 | 3072 | 4096) || modulus.len() * 8 != usize::from(bits) {
                    return Err(TpmError::Value("TPMT_PUBLIC size"));
                }
                Self::Rsassa { modulus, exponent }
            }
            _ => return Err(TpmError::Value("TPMT_PUBLIC type")),
        };
        reader.end()?;
        Ok(public)
    }

    /// SubjectPublicKeyInfo DER.
    ///
    /// # Errors
    /// [`TpmError::Value`] when the coordinates are not a point of the curve.
    pub fn to_spki_der(&self) -> Result<Vec<u8>, TpmError> {
        match self {
            Self::EcdsaP256 { x, y } => {
                let mut point = vec![4];
                point.extend_from_slice(x);
                point.extend_from_slice(y);
                let key = p256::PublicKey::from_sec1_bytes(&point).map_err(|_| TpmError::Value("TPMS_ECC_POINT"))?;
                let der = key.to_public_key_der().map_err(|_| TpmError::Value("TPMS_ECC_POINT"))?;
                Ok(der.as_bytes().to_vec())
            }
            Self::Rsassa { modulus, exponent } => {
                let key = der(0x30, &[integer(modulus), integer(&exponent.to_be_bytes())].concat());
                // rsaEncryption 1.2.840.113549.1.1.1 with NULL parameters.
                let algorithm =
                    [0x30, 0x0D, 0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01, 0x05, 0x00];
                let bits = der(0x03, &[&[0], key.as_slice()].concat());
                Ok(der(0x30, &[algorithm.as_slice(), &bits].concat()))
            }
        }
    }
}

/// The name of an object with nameAlg SHA-256, from its public area: what a credential is bound to.
#[must_use]
pub fn object_name(area: &[u8]) -> Vec<u8> {
    [ALG_SHA256.to_be_bytes().as_slice(), Sha256Digest::of(area).as_bytes()].concat()
}

/// The template of our attestation key: the same seed gives the same key each time.
pub(super) fn ak_template() -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&ALG_ECC.to_be_bytes());
    out.extend_from_slice(&ALG_SHA256.to_be_bytes());
    out.extend_from_slice(&AK_ATTRIBUTES.to_be_bytes());
    // No policy; symmetric NULL, ECDSA with SHA-256, P-256, KDF NULL; empty x and y.
    for value in [0, ALG_NULL, ALG_ECDSA, ALG_SHA256, ECC_NIST_P256, ALG_NULL, 0, 0] {
        out.extend_from_slice(&value.to_be_bytes());
    }
    out
}

/// A DER element with definite length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let size = content.len().to_be_bytes();
    let significant: Vec<u8> = size.iter().copied().skip_while(|b| *b == 0).collect();
    match (significant.as_slice(), significant.len()) {
        ([], _) => out.push(0),
        ([only], _) if *only < 0x80 => out.push(*only),
        (bytes, count) => {
            out.push(0x80 | u8::try_from(count).unwrap_or_default());
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A DER INTEGER of an unsigned big-endian number.
fn integer(big: &[u8]) -> Vec<u8> {
    let mut value: Vec<u8> = big.iter().copied().skip_while(|b| *b == 0).collect();
    if value.first().is_none_or(|b| *b >= 0x80) {
        value.insert(0, 0);
    }
    der(0x02, &value)
}
