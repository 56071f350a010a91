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

use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// Every field of a report, in the shape of the `sev` crate. Not checked: see [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// 2 to 5.
    pub version: u32,
    /// The guest's security version.
    pub guest_svn: u32,
    /// Guest policy bits, see [`POLICY_DEBUG`] and [`POLICY_MIGRATE_MA`].
    pub policy: u64,
    /// Family id of the ID block.
    pub family_id: [u8; 16],
    /// Image id of the ID block.
    pub image_id: [u8; 16],
    /// The privilege level that asked for the report.
    pub vmpl: u32,
    /// [`SIG_ALGO_ECDSA_P384_SHA384`].
    pub sig_algo: u32,
    /// TCB in use.
    pub current_tcb: TcbVersion,
    /// Platform information bits.
    pub plat_info: u64,
    /// Bit 0 AUTHOR_KEY_EN, bit 1 MASK_CHIP_KEY, bits 2-4 signing key (0 VCEK, 1 VLEK, 7 none).
    pub key_info: u32,
    /// What the guest asked to be signed.
    #[serde(with = "array")]
    pub report_data: [u8; 64],
    /// Launch measurement.
    #[serde(with = "array")]
    pub measurement: [u8; 48],
    /// What the host gave at launch; here the digest of the initdata.
    pub host_data: [u8; 32],
    /// Digest of the ID key.
    #[serde(with = "array")]
    pub id_key_digest: [u8; 48],
    /// Digest of the author key.
    #[serde(with = "array")]
    pub author_key_digest: [u8; 48],
    /// This guest's identity, random per launch.
    pub report_id: [u8; 32],
    /// The migration agent's identity; all ones without one.
    pub report_id_ma: [u8; 32],
    /// TCB that the signing key is derived from.
    pub reported_tcb: TcbVersion,
    /// CPUID family; from version 3.
    pub cpuid_fam_id: Option<u8>,
    /// CPUID model; from version 3.
    pub cpuid_mod_id: Option<u8>,
    /// CPUID stepping; from version 3.
    pub cpuid_step: Option<u8>,
    /// The chip's identity, zero when masked; Turin uses the first 8 bytes.
    #[serde(with = "array")]
    pub chip_id: [u8; 64],
    /// TCB below which the platform cannot go.
    pub committed_tcb: TcbVersion,
    /// Firmware in use.
    pub current: FirmwareVersion,
    /// Firmware committed.
    pub committed: FirmwareVersion,
    /// TCB when the guest was launched.
    pub launch_tcb: TcbVersion,
    /// Mitigations verified at launch; from version 5.
    pub launch_mit_vector: Option<u64>,
    /// Mitigations verified now; from version 5.
    pub current_mit_vector: Option<u64>,
    /// Over the first [`SIGNED_SIZE`] bytes.
    pub signature: Signature,
}

impl Fields {
    fn generation(&self) -> Result<Generation, SnpError> {
        match (self.version, self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step) {
            (2, None, None, None) => Generation::of_chip_id(&self.chip_id),
            (3..=5, Some(family), Some(model), Some(_)) => Generation::of_cpuid(family, model),
            (2..=5, ..) => return Err(SnpError::Field("cpuid")),
            (version, ..) => return Err(SnpError::Version(version)),
        }
        .ok_or(SnpError::Generation)
    }

    fn encode(&self, generation: Generation) -> Result<Box<[u8; REPORT_SIZE]>, SnpError> {
        let mut w = Writer { bytes: Box::new([0; REPORT_SIZE]), at: 0 };
        w.put(&self.version.to_le_bytes());
        w.put(&self.guest_svn.to_le_bytes());
        w.put(&self.policy.to_le_bytes());
        w.put(&self.family_id);
        w.put(&self.image_id);
        w.put(&self.vmpl.to_le_bytes());
        w.put(&self.sig_algo.to_le_bytes());
        w.put(&self.current_tcb.write(generation)?);
        w.put(&self.plat_info.to_le_bytes());
        w.put(&self.key_info.to_le_bytes());
        w.put(&[0; 4]);
        w.put(&self.report_data);
        w.put(&self.measurement);
        w.put(&self.host_data);
        w.put(&self.id_key_digest);
        w.put(&self.author_key_digest);
        w.put(&self.report_id);
        w.put(&self.report_id_ma);
        w.put(&self.reported_tcb.write(generation)?);
        w.put(&[self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step].map(Option::unwrap_or_default));
        w.put(&[0; 21]);
        w.put(&self.chip_id);
        w.put(&self.committed_tcb.write(generation)?);
        for version in [self.current, self.committed] {
            w.put(&[version.build, version.minor, version.major, 0]);
        }
        w.put(&self.launch_tcb.write(generation)?);
        match (self.version, self.launch_mit_vector, self.current_mit_vector) {
            (5, Some(launch), Some(current)) => {
                w.put(&launch.to_le_bytes());
                w.put(&current.to_le_bytes());
            }
            (2..=4, None, None) => w.put(&[0; 16]),
            _ => return Err(SnpError::Field("mit_vector")),
        }
        w.put(&[0; 152]);
        w.put(&self.signature.r);
        w.put(&self.signature.s);
        Ok(w.bytes)
    }

    fn decode(bytes: &[u8; REPORT_SIZE]) -> Result<Self, SnpError> {
        let mut r = Reader { bytes, at: 0 };
        let version = u32::from_le_bytes(r.take()?);
        if !(2..=5).contains(&version) {
            return Err(SnpError::Version(version));
        }
        let guest_svn = u32::from_le_bytes(r.take()?);
        let policy = u64::from_le_bytes(r.take()?);
        let family_id = r.take()?;
        let image_id = r.take()?;
        let vmpl = u32::from_le_bytes(r.take()?);
        let sig_algo = u32::from_le_bytes(r.take()?);
        let current_tcb = r.take()?;
        let plat_info = u64::from_le_bytes(r.take()?);
        let key_info = u32::from_le_bytes(r.take()?);
        r.zero::<4>()?;
        let report_data = r.take()?;
        let measurement = r.take()?;
        let host_data = r.take()?;
        let id_key_digest = r.take()?;
        let author_key_digest = r.take()?;
        let report_id = r.take()?;
        let report_id_ma = r.take()?;
        let reported_tcb = r.take()?;
        let cpuid = if version == 2 {
            r.zero::<3>()?;
            None
        } else {
            Some(r.take::<3>()?)
        };
        r.zero::<21>()?;
        let chip_id = r.take()?;
        let committed_tcb = r.take()?;
        let current = r.firmware()?;
        let committed = r.firmware()?;
        let launch_tcb = r.take()?;
        let (launch_mit_vector, current_mit_vector) = if version == 5 {
            (Some(u64::from_le_bytes(r.take()?)), Some(u64::from_le_bytes(r.take()?)))
        } else {
            r.zero::<16>()?;
            (None, None)
        };
        r.zero::<152>()?;
        let signature = Signature { r: r.take()?, s: r.take()? };
        r.zero::<368>()?;
        let generation = match cpuid {
            Some([family, model, _]) => Generation::of_cpuid(family, model),
            None => Generation::of_chip_id(&chip_id),
        }
        .ok_or(SnpError::Generation)?;
        Ok(Self {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            sig_algo,
            current_tcb: TcbVersion::read(current_tcb, generation),
            plat_info,
            key_info,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb: TcbVersion::read(reported_tcb, generation),
            cpuid_fam_id: cpuid.map(|[family, _, _]| family),
            cpuid_mod_id: cpuid.map(|[_, model, _]| model),
            cpuid_step: cpuid.map(|[_, _, step]| step),
            chip_id,
            committed_tcb: TcbVersion::read(committed_tcb, generation),
            current,
            committed,
            launch_tcb: TcbVersion::read(launch_tcb, generation),
            launch_mit_vector,
            current_mit_vector,
            signature,
        })
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

struct Writer {
    bytes: Box<[u8; REPORT_SIZE]>,
    at: usize,
}

impl Writer {
    fn put(&mut self, part: &[u8]) {
        for (to, from) in self.bytes.iter_mut().skip(self.at).zip(part) {
            *to = *from;
        }
        self.at += part.len();
    }
}

struct Reader<'b> {
    bytes: &'b [u8; REPORT_SIZE],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnpError> {
        let part = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>);
        self.at += N;
        part.copied().ok_or(SnpError::Size { actual: REPORT_SIZE })
    }

    fn zero<const N: usize>(&mut self) -> Result<(), SnpError> {
        let start = self.at;
        match self.take::<N>()?.iter().position(|b| *b != 0) {
            Some(place) => Err(SnpError::Reserved { offset: start + place }),
            None => Ok(()),
        }
    }

    fn firmware(&mut self) -> Result<FirmwareVersion, SnpError> {
        let [build, minor, major] = self.take()?;
        self.zero::<1>()?;
        Ok(FirmwareVersion { major, minor, build })
    }
}

/// Byte arrays as JSON arrays of numbers, of exactly their length.
mod array {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        <[u8; N]>::try_from(bytes).map_err(|bytes| D::Error::invalid_length(bytes.len(), &"the field's exact length"))
    }
}
