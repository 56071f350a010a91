//! The SEV-SNP attestation report: 1184 bytes (AMD 56860, ATTESTATION_REPORT), versions 2 to 5, and the
//! JSON shape it travels in (the serde form of the `sev` crate's `AttestationReport`).
//!
//! Integers are little-endian. Reserved bytes must be zero. Only JSON travels, so a report is refused
//! unless bytes, fields and JSON determine each other exactly.
//!
//! | offset | field | | offset | field |
//! |---|---|---|---|---|
//! | 0x000 | version u32 | | 0x140 | report_id 32 |
//! | 0x004 | guest_svn u32 | | 0x160 | report_id_ma 32 |
//! | 0x008 | policy u64 | | 0x180 | reported_tcb 8 |
//! | 0x010 | family_id 16 | | 0x188 | CPUID family, model, stepping (from version 3), 21 reserved |
//! | 0x020 | image_id 16 | | 0x1A0 | chip_id 64 |
//! | 0x030 | vmpl u32 | | 0x1E0 | committed_tcb 8 |
//! | 0x034 | sig_algo u32 | | 0x1E8 | current build, minor, major, 1 reserved |
//! | 0x038 | current_tcb 8 | | 0x1EC | committed build, minor, major, 1 reserved |
//! | 0x040 | plat_info u64 | | 0x1F0 | launch_tcb 8 |
//! | 0x048 | key_info u32, 4 reserved | | 0x1F8 | launch, current mit_vector u64 each (from version 5) |
//! | 0x050 | report_data 64 | | 0x208 | 152 reserved; end of the signed bytes at 0x2A0 |
//! | 0x090 | measurement 48 | | 0x2A0 | signature R 72, S 72 |
//! | 0x0C0 | host_data 32 | | 0x330 | 368 reserved |
//! | 0x0E0 | id_key_digest 48 | | | |
//! | 0x110 | author_key_digest 48 | | | |

mod certificates;
mod fields;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use certificates::{CertificateTableError, read_certificates, write_certificates};
pub use fields::Fields;
use fields::array;

/// Size of a report in bytes.
pub const REPORT_SIZE: usize = 0x4A0;
/// The signature covers the first 0x2A0 bytes.
pub const SIGNED_SIZE: usize = 0x2A0;
/// `sig_algo` of ECDSA P-384 with SHA-384.
pub const SIG_ALGO_ECDSA_P384_SHA384: u32 = 1;
/// Policy bit 18: a migration agent may be associated.
pub const POLICY_MIGRATE_MA: u64 = 1 << 18;
/// Policy bit 19: the host may debug the guest.
pub const POLICY_DEBUG: u64 = 1 << 19;

/// Why bytes or JSON are not a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnpError {
    /// Not exactly [`REPORT_SIZE`] bytes.
    #[error("a report has 1184 bytes, not {actual}")]
    Size {
        /// Bytes given.
        actual: usize,
    },
    /// Not a version from 2 to 5.
    #[error("report version {0} is not known")]
    Version(u32),
    /// The chip's generation, and with it the TCB's layout, cannot be told.
    #[error("the processor is not of a known SEV-SNP generation")]
    Generation,
    /// A reserved byte is not zero.
    #[error("reserved byte at offset {offset:#x} is not zero")]
    Reserved {
        /// Its offset.
        offset: usize,
    },
    /// A field is present or absent against the version or generation.
    #[error("field {0} does not fit the report's version")]
    Field(&'static str),
    /// The JSON is not exactly what a report is written as.
    #[error("not the JSON of a report")]
    Json,
}

/// How a TCB version's eight bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// Milan, Genoa and their kin: bootloader, tee, 4 reserved, snp, microcode.
    Legacy,
    /// Turin and later: fmc, bootloader, tee, snp, 3 reserved, microcode; chip_id has 8 bytes.
    Turin,
}

impl Generation {
    /// From the CPUID family and model (extended and base combined) of report versions 3 and later.
    #[must_use]
    pub const fn of_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x1F | 0xA0..=0xAF) => Some(Self::Legacy),
            (0x1A, 0x00..=0x11 | 0x50..=0x57 | 0x90..=0xAF | 0xC0..=0xC7) => Some(Self::Turin),
            _ => None,
        }
    }

    /// From the chip id, which is all that version 2 has: Turin fills only its first 8 bytes.
    #[must_use]
    pub fn of_chip_id(chip_id: &[u8; 64]) -> Option<Self> {
        let (head, tail) = chip_id.split_at(8);
        match (head.iter().any(|b| *b != 0), tail.iter().any(|b| *b != 0)) {
            (_, true) => Some(Self::Legacy),
            (true, false) => Some(Self::Turin),
            (false, false) => None,
        }
    }
}

/// A TCB version. Each member only grows with security updates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbVersion {
    /// FMC firmware; only on [`Generation::Turin`].
    pub fmc: Option<u8>,
    /// PSP boot loader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl TcbVersion {
    const fn read(bytes: [u8; 8], generation: Generation) -> Self {
        match (generation, bytes) {
            (Generation::Legacy, [bootloader, tee, _, _, _, _, snp, microcode]) => {
                Self { fmc: None, bootloader, tee, snp, microcode }
            }
            (Generation::Turin, [fmc, bootloader, tee, snp, _, _, _, microcode]) => {
                Self { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
        }
    }

    const fn write(self, generation: Generation) -> Result<[u8; 8], SnpError> {
        match (generation, self.fmc) {
            (Generation::Legacy, None) => Ok([self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode]),
            (Generation::Turin, Some(fmc)) => Ok([fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode]),
            _ => Err(SnpError::Field("fmc")),
        }
    }

    /// Whether no member is below `minimum`'s. A minimum that names an FMC version is not met without one.
    #[must_use]
    pub fn is_at_least(&self, minimum: &Self) -> bool {
        self.fmc >= minimum.fmc
            && self.bootloader >= minimum.bootloader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl std::fmt::Display for TcbVersion {
    /// As in AMD's names of the components: `fmc` only where there is one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(fmc) = self.fmc {
            write!(f, "fmc {fmc} ")?;
        }
        write!(f, "bootloader {} tee {} snp {} microcode {}", self.bootloader, self.tee, self.snp, self.microcode)
    }
}

/// Which kind of key a report says it is signed with (KEY_INFO bits 2 to 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SigningKey {
    /// The chip's own key, 0.
    Vcek,
    /// A key that AMD gave a provider for all its chips, 1.
    Vlek,
}

impl SigningKey {
    /// The name, as certificate tables have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        }
    }
}

/// A firmware version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareVersion {
    /// Major.
    pub major: u8,
    /// Minor.
    pub minor: u8,
    /// Build.
    pub build: u8,
}

/// An ECDSA signature as the report carries it: integers little-endian, padded with zeros to 72 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// R.
    #[serde(with = "array")]
    pub r: [u8; 72],
    /// S.
    #[serde(with = "array")]
    pub s: [u8; 72],
}

impl Signature {
    /// No signature, as in a report that is yet to be signed.
    pub const ZERO: Self = Self { r: [0; 72], s: [0; 72] };

    /// From R and S of P-384, 48 bytes big-endian each.
    #[must_use]
    pub fn from_p384(r: &[u8; 48], s: &[u8; 48]) -> Self {
        fn little(big: &[u8; 48]) -> [u8; 72] {
            let mut out = [0; 72];
            for (to, from) in out.iter_mut().zip(big.iter().rev()) {
                *to = *from;
            }
            out
        }
        Self { r: little(r), s: little(s) }
    }

    /// R || S of P-384, 48 bytes big-endian each; `None` where a value does not fit 48 bytes.
    #[must_use]
    pub fn to_p384(&self) -> Option<[u8; 96]> {
        let mut out = [0; 96];
        let (r, s) = out.split_at_mut(48);
        for (to, from) in [(r, &self.r), (s, &self.s)] {
            let (value, padding) = from.split_at(48);
            if padding.iter().any(|b| *b != 0) {
                return None;
            }
            for (to, from) in to.iter_mut().zip(value.iter().rev()) {
                *to = *from;
            }
        }
        Some(out)
    }
}

/// A well-formed report: its bytes, fields and JSON determine each other. The signature is not checked here.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    generation: Generation,
    fields: Box<Fields>,
    bytes: Box<[u8; REPORT_SIZE]>,
}

impl Report {
    /// Reads the 1184 bytes of a report.
    ///
    /// # Errors
    /// [`SnpError`] for any other length, an unknown version or generation, or a reserved byte that is not zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, SnpError> {
        let array: &[u8; REPORT_SIZE] = bytes.try_into().map_err(|_| SnpError::Size { actual: bytes.len() })?;
        let fields = Fields::decode(array)?;
        // The TCBs' reserved bytes depend on the generation: writing the fields again shows a stray one.
        let report = Self::new(fields)?;
        match array.iter().zip(report.bytes.iter()).position(|(given, written)| given != written) {
            Some(offset) => Err(SnpError::Reserved { offset }),
            None => Ok(report),
        }
    }

    /// Makes a report of its fields.
    ///
    /// # Errors
    /// [`SnpError`] when a field is present or absent against the version, or the generation is unknown.
    pub fn new(fields: Fields) -> Result<Self, SnpError> {
        let generation = fields.generation()?;
        let bytes = fields.encode(generation)?;
        Ok(Self { generation, fields: Box::new(fields), bytes })
    }

    /// Reads the JSON of a report.
    ///
    /// # Errors
    /// [`SnpError::Json`] unless the value is exactly what [`Report::to_json`] writes for the report it names.
    pub fn from_json(value: &Value) -> Result<Self, SnpError> {
        let fields = Fields::deserialize(value).map_err(|_| SnpError::Json)?;
        let report = Self::new(fields)?;
        // An absent member that reads as null would be a second form of the same report.
        if report.to_json() == *value { Ok(report) } else { Err(SnpError::Json) }
    }

    /// The report in the `sev` crate's JSON shape.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(&self.fields).unwrap_or_default()
    }

    /// The 1184 bytes.
    #[must_use]
    pub const fn to_bytes(&self) -> &[u8; REPORT_SIZE] {
        &self.bytes
    }

    /// The bytes under the signature.
    #[must_use]
    pub fn signed_bytes(&self) -> &[u8] {
        self.bytes.split_at(SIGNED_SIZE).0
    }

    /// The fields.
    #[must_use]
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The generation, which tells the TCB's layout and the length of the hardware id.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fields.fmt(f)
    }
}

#[cfg(test)]
mod tests;
