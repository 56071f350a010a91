//! A guest's identity: the name its history is kept under.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Sha256Digest;

/// 32 bytes, written as 64 hex digits.
///
/// - SNP: the report's REPORT_ID as it is.
/// - TPM: SHA-256("tcl-guest-tpm-v1" || SHA-256(AK as SPKI DER) || resetCount as u32 big-endian || boot nonce).
/// - TDX: SHA-256("tcl-guest-tdx-v1" || RTMR0 || RTMR1 || RTMR2 || boot nonce).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId([u8; 32]);

impl GuestId {
    /// Takes the 32 bytes as they are.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The identity of a guest with a TPM.
    #[must_use]
    pub fn of_tpm(ak_spki_der: &[u8], reset_count: u32, boot_nonce: &[u8; 32]) -> Self {
        let ak_name = Sha256Digest::of(ak_spki_der);
        let digest =
            Sha256Digest::of_parts(&[b"tcl-guest-tpm-v1", ak_name.as_bytes(), &reset_count.to_be_bytes(), boot_nonce]);
        Self(*digest.as_bytes())
    }

    /// The identity of a TDX guest: the registers that its firmware and kernel extend, as the log's first record found
    /// them. They do not change any more when the agent runs.
    #[must_use]
    pub fn of_tdx(boot_rtmrs: &[[u8; 48]; 3], boot_nonce: &[u8; 32]) -> Self {
        let [firmware, loader, kernel] = boot_rtmrs;
        Self(*Sha256Digest::of_parts(&[b"tcl-guest-tdx-v1", firmware, loader, kernel, boot_nonce]).as_bytes())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for GuestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for GuestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The text was not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a guest is named by 64 lower-case hex digits")]
pub struct GuestIdError;

impl FromStr for GuestId {
    type Err = GuestIdError;

    fn from_str(text: &str) -> Result<Self, GuestIdError> {
        let digest: Sha256Digest = format!("sha256:{text}").parse().map_err(|_| GuestIdError)?;
        Ok(Self(*digest.as_bytes()))
    }
}

impl Serialize for GuestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GuestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
