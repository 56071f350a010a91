//! A report's fields, their places in the bytes, and their JSON.

use serde::{Deserialize, Serialize};

use super::{FirmwareVersion, Generation, REPORT_SIZE, Signature, SigningKey, SnpError, TcbVersion};

/// Every field of a report, in the shape of the `sev` crate. Not checked: see [`super::Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// 2 to 5.
    pub version: u32,
    /// The guest's security version.
    pub guest_svn: u32,
    /// Guest policy bits, see [`super::POLICY_DEBUG`] and [`super::POLICY_MIGRATE_MA`].
    pub policy: u64,
    /// Family id of the ID block.
    pub family_id: [u8; 16],
    /// Image id of the ID block.
    pub image_id: [u8; 16],
    /// The privilege level that asked for the report.
    pub vmpl: u32,
    /// [`super::SIG_ALGO_ECDSA_P384_SHA384`].
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
    /// Over the first [`super::SIGNED_SIZE`] bytes.
    pub signature: Signature,
}

impl Fields {
    /// The kind of key that signed; `None`: another one, or none (7).
    #[must_use]
    pub const fn signing_key(&self) -> Option<SigningKey> {
        match self.key_info >> 2 & 0b111 {
            0 => Some(SigningKey::Vcek),
            1 => Some(SigningKey::Vlek),
            _ => None,
        }
    }

    pub(super) fn generation(&self) -> Result<Generation, SnpError> {
        match (self.version, self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step) {
            (2, None, None, None) => Generation::of_chip_id(&self.chip_id),
            (3..=5, Some(family), Some(model), Some(_)) => Generation::of_cpuid(family, model),
            (2..=5, ..) => return Err(SnpError::Field("cpuid")),
            (version, ..) => return Err(SnpError::Version(version)),
        }
        .ok_or(SnpError::Generation)
    }

    pub(super) fn encode(&self, generation: Generation) -> Result<Box<[u8; REPORT_SIZE]>, SnpError> {
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

    pub(super) fn decode(bytes: &[u8; REPORT_SIZE]) -> Result<Self, SnpError> {
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
pub(super) mod array {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::snp) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(bytes)
    }

    pub(in crate::snp) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        <[u8; N]>::try_from(bytes).map_err(|bytes| D::Error::invalid_length(bytes.len(), &"the field's exact length"))
    }
}
