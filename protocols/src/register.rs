//! Measurement registers: kinds, algorithms and the one extend rule.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Sha256Digest, Sha384Digest};

/// What stands behind a register; policies name kinds exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegisterKind {
    /// Intel TDX RTMR, inside the quote.
    Rtmr,
    /// Azure vTPM bound by the HCL report.
    VtpmHcl,
    /// SVSM vTPM bound by its manifest.
    VtpmSvsm,
    /// TPM whose AK was activated against an endorsed EK.
    TpmEk,
    /// TPM whose AK the attestor's configuration lists.
    TpmListed,
    /// A chain kept by the agent, bound only through report data.
    Software,
}

impl RegisterKind {
    /// The name in policies, logs and claims.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtmr => "rtmr",
            Self::VtpmHcl => "vtpm-hcl",
            Self::VtpmSvsm => "vtpm-svsm",
            Self::TpmEk => "tpm-ek",
            Self::TpmListed => "tpm-listed",
            Self::Software => "software",
        }
    }
}

impl std::fmt::Display for RegisterKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hash algorithm of a register bank and of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlg {
    /// TPM_ALG_SHA256 (0x000B), 32 bytes: TPM PCRs.
    Sha256,
    /// TPM_ALG_SHA384 (0x000C), 48 bytes: RTMR3 and the software chain.
    Sha384,
}

impl HashAlg {
    /// The TCG algorithm id.
    #[must_use]
    pub const fn tcg_id(self) -> u16 {
        match self {
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
        }
    }

    /// Digest size in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }

    /// The algorithm of a TCG id we know.
    #[must_use]
    pub const fn from_tcg_id(id: u16) -> Option<Self> {
        match id {
            0x000B => Some(Self::Sha256),
            0x000C => Some(Self::Sha384),
            _ => None,
        }
    }

    /// Hashes the concatenation of `parts`.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> RegisterValue {
        match self {
            Self::Sha256 => RegisterValue::Sha256(Sha256Digest::of_parts(parts)),
            Self::Sha384 => RegisterValue::Sha384(Sha384Digest::of_parts(parts)),
        }
    }

    /// The register's value after reset: all zero.
    #[must_use]
    pub const fn zero(self) -> RegisterValue {
        match self {
            Self::Sha256 => RegisterValue::Sha256(Sha256Digest::new([0; 32])),
            Self::Sha384 => RegisterValue::Sha384(Sha384Digest::new([0; 48])),
        }
    }
}

/// A register's value, or a digest of its algorithm; text form `sha256:…` or `sha384:…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RegisterValue {
    /// 32 bytes.
    Sha256(Sha256Digest),
    /// 48 bytes.
    Sha384(Sha384Digest),
}

impl RegisterValue {
    /// Its algorithm.
    #[must_use]
    pub const fn alg(&self) -> HashAlg {
        match self {
            Self::Sha256(_) => HashAlg::Sha256,
            Self::Sha384(_) => HashAlg::Sha384,
        }
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(digest) => digest.as_bytes(),
            Self::Sha384(digest) => digest.as_bytes(),
        }
    }

    /// Takes bytes of exactly the algorithm's length.
    #[must_use]
    pub fn from_bytes(alg: HashAlg, bytes: &[u8]) -> Option<Self> {
        Some(match alg {
            HashAlg::Sha256 => Self::Sha256(Sha256Digest::new(bytes.try_into().ok()?)),
            HashAlg::Sha384 => Self::Sha384(Sha384Digest::new(bytes.try_into().ok()?)),
        })
    }

    /// `H(self || digest)`, the extend rule of PCRs and RTMRs. `None` for a digest of another algorithm.
    #[must_use]
    pub fn extend(&self, digest: &Self) -> Option<Self> {
        (self.alg() == digest.alg()).then(|| self.alg().hash(&[self.as_bytes(), digest.as_bytes()]))
    }
}

impl From<Sha256Digest> for RegisterValue {
    fn from(digest: Sha256Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl From<Sha384Digest> for RegisterValue {
    fn from(digest: Sha384Digest) -> Self {
        Self::Sha384(digest)
    }
}

impl std::fmt::Display for RegisterValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sha256(digest) => std::fmt::Display::fmt(digest, f),
            Self::Sha384(digest) => std::fmt::Display::fmt(digest, f),
        }
    }
}

impl std::fmt::Debug for RegisterValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for RegisterValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RegisterValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(digest) = text.parse() {
            return Ok(Self::Sha256(digest));
        }
        text.parse().map(Self::Sha384).map_err(serde::de::Error::custom)
    }
}
