//! A TPM 2.0 behind a kernel device or swtpm's socket: one PCR as register, quotes as evidence.

mod enrolment;
mod firmware_log;
mod transport;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::{self, Tee, TpmEvidence, TpmQuote};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::tpm::{
    self, Attest, INITDATA_PCR, NV_CHUNK, NvReader, PCR_COUNT, Primary, Public, RC_OBJECT_MEMORY, TpmError,
};

use crate::{Attester, AttesterError, RegisterInfo, TpmAddress};
pub use enrolment::{answer_challenge, enrolment_request};
use transport::Connection;
pub(crate) use transport::TransportError;

/// The kernel's devices, the one that several may use first.
pub(crate) const DEVICES: [&str; 2] = ["/dev/tpmrm0", "/dev/tpm0"];
/// The highest PCR that may be the register: 16 and 23 can be reset, 17 to 22 belong to dynamic launch.
const MAX_PCR: u32 = 15;
/// Something else may extend a PCR between reading and quoting: then both are done again.
const QUOTE_ATTEMPTS: usize = 8;

/// Where the attestation key is.
#[derive(Debug, Clone, Copy)]
enum Key {
    /// A primary key made anew for each quote; the same seed gives the same key.
    Primary,
    /// The platform has left it at this persistent handle.
    Persistent(u32),
}

/// A TPM 2.0. Its attestation key is a primary key of its seed; platforms that bring a key are modules beside this one.
#[derive(Debug)]
pub struct TpmAttester {
    address: TpmAddress,
    key: Key,
    pcr: u32,
    firmware_log: Option<PathBuf>,
    ak_spki: Vec<u8>,
    // swtpm answers one client at a time: callers of ours queue here, not in its backlog.
    turn: Mutex<()>,
}

impl TpmAttester {
    /// Reaches the TPM and learns its attestation key.
    ///
    /// # Errors
    /// [`AttesterError::Config`] for a PCR above 15, [`AttesterError::RegisterUnavailable`] when the TPM
    /// does not answer, [`AttesterError::EvidenceUnavailable`] when it makes no attestation key.
    pub fn open(address: TpmAddress, pcr: u32) -> Result<Self, AttesterError> {
        let firmware_log = log_of(&address);
        Self::open_with_firmware_log(address, pcr, firmware_log)
    }

    /// As [`TpmAttester::open`], with the firmware's log at a given place (or none).
    ///
    /// # Errors
    /// As [`TpmAttester::open`].
    pub fn open_with_firmware_log(
        address: TpmAddress,
        pcr: u32,
        firmware_log: Option<PathBuf>,
    ) -> Result<Self, AttesterError> {
        Self::open_with(address, Key::Primary, pcr, firmware_log)
    }

    /// With the attestation key that the platform has left at a persistent handle.
    pub(crate) fn open_persistent(address: TpmAddress, handle: u32, pcr: u32) -> Result<Self, AttesterError> {
        let firmware_log = log_of(&address);
        Self::open_with(address, Key::Persistent(handle), pcr, firmware_log)
    }

    fn open_with(
        address: TpmAddress,
        key: Key,
        pcr: u32,
        firmware_log: Option<PathBuf>,
    ) -> Result<Self, AttesterError> {
        if pcr > MAX_PCR {
            return Err(AttesterError::Config { detail: format!("PCR {pcr} can be reset: use one from 0 to 15") });
        }
        let mut attester = Self { address, key, pcr, firmware_log, ak_spki: Vec::new(), turn: Mutex::new(()) };
        attester.read_pcr(pcr)?;
        attester.ak_spki = attester
            .transaction(|tpm| tpm.with_ak(key, |_, ak| Ok(ak.public.to_spki_der()?)))
            .map_err(|error| unavailable(&error))?;
        Ok(attester)
    }

    /// The attestation key as SubjectPublicKeyInfo DER: what an attestor enrols.
    #[must_use]
    pub fn ak_spki_der(&self) -> &[u8] {
        &self.ak_spki
    }

    pub(crate) fn transaction<T>(
        &self,
        run: impl FnOnce(&mut Session) -> Result<T, TransportError>,
    ) -> Result<T, TransportError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        run(&mut Session::open(&self.address)?)
    }

    /// Runs what opens the device by itself; ours wait meanwhile.
    #[cfg(feature = "azure")]
    pub(crate) fn exclusively<T>(&self, run: impl FnOnce() -> T) -> T {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        run()
    }

    fn read_pcr(&self, index: u32) -> Result<Sha256Digest, AttesterError> {
        self.transaction(|tpm| tpm.pcr(index))
            .map_err(|error| AttesterError::RegisterUnavailable { detail: self.detail(&error) })
    }

    pub(crate) fn detail(&self, error: &TransportError) -> String {
        format!("{}: {error}", self.address)
    }

    /// A quote over `nonce`, at most 64 bytes, by the key that was found at the start.
    pub(crate) fn quote(&self, nonce: &[u8]) -> Result<TpmEvidence, AttesterError> {
        self.transaction(|tpm| {
            for _ in 0..QUOTE_ATTEMPTS {
                if let Some(evidence) = self.try_quote(tpm, nonce)? {
                    return Ok(evidence);
                }
            }
            Err(TpmError::Value("PCRs change faster than they can be quoted").into())
        })
        .map_err(|error| AttesterError::EvidenceUnavailable { detail: self.detail(&error) })
    }

    fn try_quote(&self, tpm: &mut Session, nonce: &[u8]) -> Result<Option<TpmEvidence>, TransportError> {
        let pcrs = tpm.all_pcrs()?;
        let quote = tpm.with_ak(self.key, |connection, ak| {
            if ak.public.to_spki_der()? != self.ak_spki {
                return Err(TpmError::Value("the attestation key changed").into());
            }
            connection.run(&tpm::quote(ak.handle, nonce))
        })?;
        let attest = Attest::parse(&quote.attest)?;
        if attest.pcr_digest != tpm::pcr_digest(&pcrs).as_bytes() {
            return Ok(None);
        }
        let pcrs = pcrs.iter().map(Sha256Digest::hex).collect();
        let tpm_quote = TpmQuote { signature: quote.signature, message: quote.attest, pcrs };
        Ok(Some(TpmEvidence { tpm_quote, ak_public: self.ak_spki.clone() }))
    }
}

impl Attester for TpmAttester {
    fn tee(&self) -> Tee {
        Tee::Tpm
    }

    fn register(&self) -> RegisterInfo {
        RegisterInfo {
            kind: RegisterKind::TpmListed,
            mr: self.pcr,
            alg: HashAlg::Sha256,
            simulated: self.address.simulated(),
        }
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        let replayed = self.firmware_log.as_deref().map(|path| replay(path, self.pcr)).transpose()?;
        Ok(RegisterValue::Sha256(replayed.flatten().unwrap_or(Sha256Digest::new([0; 32]))))
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        self.read_pcr(self.pcr).map(RegisterValue::Sha256)
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        let refused = |detail: String| AttesterError::RegisterExtend { detail };
        let RegisterValue::Sha256(digest) = digest else {
            return Err(refused("the digest is not of the register's algorithm".to_owned()));
        };
        let (before, after) = self
            .transaction(|tpm| {
                let before = tpm.pcr(self.pcr)?;
                tpm.connection.run(&tpm::pcr_extend(self.pcr, digest))?;
                Ok((before, tpm.pcr(self.pcr)?))
            })
            .map_err(|error| refused(self.detail(&error)))?;
        let expected = Sha256Digest::of_parts(&[before.as_bytes(), digest.as_bytes()]);
        if after == expected {
            return Ok(());
        }
        Err(refused(format!("PCR {} reads {after} after the extend, not {expected}", self.pcr)))
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        let evidence = self.quote(&kbs::tpm_nonce(binding))?;
        serde_json::to_value(evidence).map_err(|error| AttesterError::EvidenceUnavailable { detail: error.to_string() })
    }

    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        let clock = self
            .transaction(|tpm| tpm.connection.run(&tpm::read_clock()))
            .map_err(|error| AttesterError::EvidenceUnavailable { detail: self.detail(&error) })?;
        Ok(GuestId::of_tpm(&self.ak_spki, clock.reset_count, boot_nonce))
    }

    fn boot_pcr(&self, index: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        self.read_pcr(index).map(Some)
    }

    fn initdata_alg(&self) -> HashAlg {
        HashAlg::Sha256
    }

    fn initdata_bound(&self) -> Option<RegisterValue> {
        None
    }

    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        let RegisterValue::Sha256(digest) = digest else {
            return Err(AttesterError::Initdata {
                expected: "a SHA-256 digest".to_owned(),
                actual: digest.to_string(),
            });
        };
        if self.pcr == INITDATA_PCR {
            let detail = format!("PCR {INITDATA_PCR} is the initdata's: the log's register must be another one");
            return Err(AttesterError::Config { detail });
        }
        let expected = tpm::initdata_pcr(digest);
        let found = self
            .transaction(|tpm| {
                let before = tpm.pcr(INITDATA_PCR)?;
                if before != Sha256Digest::new([0; 32]) {
                    return Ok(before);
                }
                tpm.connection.run(&tpm::pcr_extend(INITDATA_PCR, digest))?;
                tpm.pcr(INITDATA_PCR)
            })
            .map_err(|error| AttesterError::RegisterExtend { detail: self.detail(&error) })?;
        if found == expected {
            return Ok(());
        }
        let named = |value: Sha256Digest| format!("{value} in PCR {INITDATA_PCR}");
        Err(AttesterError::Initdata { expected: named(found), actual: named(expected) })
    }
}

/// One connection, and whether transient objects on it are ours to clear away.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    own: bool,
}

impl Session {
    pub(crate) fn open(address: &TpmAddress) -> std::io::Result<Self> {
        Ok(Self { connection: Connection::open(address)?, own: !is_resource_manager(address) })
    }

    pub(crate) fn run<T>(&mut self, command: &tpm::Command<T>) -> Result<T, TransportError> {
        self.connection.run(command)
    }

    pub(crate) fn pcr(&mut self, index: u32) -> Result<Sha256Digest, TransportError> {
        match self.pcrs(1u32.checked_shl(index).unwrap_or_default())?.as_slice() {
            [value] => Ok(*value),
            _ => Err(TpmError::Value("there is no such SHA-256 PCR").into()),
        }
    }

    fn all_pcrs(&mut self) -> Result<Vec<Sha256Digest>, TransportError> {
        let values = self.pcrs((1 << PCR_COUNT) - 1)?;
        if values.len() == PCR_COUNT { Ok(values) } else { Err(TpmError::Value("PCRs are missing").into()) }
    }

    /// The PCRs of `bitmap` in order; a TPM gives at most 8 at once.
    fn pcrs(&mut self, mut bitmap: u32) -> Result<Vec<Sha256Digest>, TransportError> {
        let mut values = Vec::new();
        while bitmap != 0 {
            let [a, b, c, _] = bitmap.to_le_bytes();
            let answer = self.connection.run(&tpm::pcr_read([a, b, c]))?;
            let mut progress = false;
            for (number, value) in answer.values {
                let bit = 1u32.checked_shl(number).unwrap_or_default();
                // In order and as asked: anything else would put a value under another PCR's name.
                if bitmap & bit == 0 || bitmap & (bit - 1) != 0 {
                    return Err(TpmError::Value("other PCRs than asked for").into());
                }
                bitmap &= !bit;
                progress = true;
                values.push(value);
            }
            if !progress {
                break;
            }
        }
        Ok(values)
    }

    /// The whole content of an NV index; one of more than `max` bytes is refused.
    pub(crate) fn nv(&mut self, reader: NvReader, index: u32, max: usize) -> Result<Vec<u8>, TransportError> {
        let size = self.run(&tpm::nv_read_public(index))?.size;
        if usize::from(size) > max {
            return Err(TpmError::Value("size of the NV index").into());
        }
        let mut bytes = Vec::with_capacity(usize::from(size));
        let mut offset = 0;
        while offset < size {
            let count = NV_CHUNK.min(size - offset);
            let chunk = self.run(&tpm::nv_read(reader, index, count, offset))?;
            if chunk.len() != usize::from(count) {
                return Err(TpmError::Value("size of what was read").into());
            }
            bytes.extend(chunk);
            offset += count;
        }
        Ok(bytes)
    }

    /// Makes or finds the attestation key, uses it, and unloads what was made whatever happened.
    fn with_ak<T>(
        &mut self,
        key: Key,
        run: impl FnOnce(&mut Connection, &Primary) -> Result<T, TransportError>,
    ) -> Result<T, TransportError> {
        if let Key::Persistent(handle) = key {
            let area = self.connection.run(&tpm::read_public(handle))?;
            let key = Primary { handle, public: Public::parse(&area)?, area };
            return run(&mut self.connection, &key);
        }
        let ak = match self.connection.run(&tpm::create_primary_ak()) {
            // A process that died half-way left its objects: without a resource manager we clear them.
            Err(TransportError::Tpm(TpmError::Code(RC_OBJECT_MEMORY))) if self.own => {
                for handle in self.connection.run(&tpm::transient_handles())? {
                    self.connection.run(&tpm::flush_context(handle))?;
                }
                self.connection.run(&tpm::create_primary_ak())?
            }
            other => other?,
        };
        let result = run(&mut self.connection, &ak);
        let flushed = self.connection.run(&tpm::flush_context(ak.handle));
        let value = result?;
        flushed?;
        Ok(value)
    }
}

/// Where the kernel shows the firmware's log of a device.
fn log_of(address: &TpmAddress) -> Option<PathBuf> {
    match address {
        TpmAddress::Device(device) => firmware_log::path_of(device),
        TpmAddress::Unix(_) | TpmAddress::Tcp(_) => None,
    }
}

fn unavailable(error: &TransportError) -> AttesterError {
    AttesterError::EvidenceUnavailable { detail: error.to_string() }
}

/// `/dev/tpmrm*` keeps each client's objects apart.
fn is_resource_manager(address: &TpmAddress) -> bool {
    matches!(address, TpmAddress::Device(path)
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"tpmrm")))
}

/// The firmware log's replay of `pcr`; `None` where there is no firmware log.
fn replay(path: &Path, pcr: u32) -> Result<Option<Sha256Digest>, AttesterError> {
    let failed =
        |detail: String| AttesterError::RegisterUnavailable { detail: format!("{}: {detail}", path.display()) };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    firmware_log::replay_sha256(&bytes, pcr).map(Some).map_err(|error| failed(error.to_string()))
}
