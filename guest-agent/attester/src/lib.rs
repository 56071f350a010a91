//! Evidence and measurement registers, one file per platform, and the event log's only writer.
//!
//! Everything here blocks: callers in an async runtime use `spawn_blocking`. A backend is named in the
//! configuration and opened by [`open`]; nothing falls back to a weaker one. Simulated backends are
//! stamped as such and refused in production.

pub mod azure;
mod config;
pub mod detect;
mod error;
pub mod event_log;
pub mod fault;
pub mod sev;
mod software;
pub mod tdx;
mod tpm;
pub mod tsm;

use std::fmt::Debug;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};

pub use azure::AzureAttester;
pub use config::{AttesterConfig, DEFAULT_PCR, TpmAddress, open};
pub use error::{AttesterError, Poison};
pub use event_log::{Appended, EventLog, InitFacts, Opened};
pub use sev::SevAttester;
pub use tdx::TdxAttester;
pub use tpm::{TpmAttester, answer_challenge, enrolment_request};

/// The measurement register of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterInfo {
    /// What stands behind it.
    pub kind: RegisterKind,
    /// Its number in the log's records: the PCR, or 4 for RTMR3 and the software chain.
    pub mr: u32,
    /// Its algorithm.
    pub alg: HashAlg,
    /// Whether the platform is simulated.
    pub simulated: bool,
}

/// A platform that measures and attests. Blocking.
pub trait Attester: Send + Sync + Debug {
    /// The evidence's name in the KBS protocol.
    fn tee(&self) -> Tee;

    /// The measurement register.
    fn register(&self) -> RegisterInfo;

    /// The value the register must have before the first record: zero, or the firmware log's replay of it.
    ///
    /// # Errors
    /// [`AttesterError::RegisterUnavailable`] when the firmware log is there but cannot be read.
    fn register_start(&self) -> Result<RegisterValue, AttesterError>;

    /// The register's value now.
    ///
    /// # Errors
    /// [`AttesterError::RegisterUnavailable`].
    fn read_register(&self) -> Result<RegisterValue, AttesterError>;

    /// Extends the register with `digest`: the new value is H(old || digest).
    ///
    /// # Errors
    /// [`AttesterError::RegisterExtend`]; whether the register moved must then be read.
    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError>;

    /// Evidence bound to `binding`, which is `protocols::kbs::RuntimeData::digest` or another
    /// domain-separated digest of ours; never bytes of a caller's choice.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`].
    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError>;

    /// The guest's identity, given the boot nonce of its `Init` record.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`].
    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError>;

    /// SHA-256 PCR `index` (0 to 23), or `None` where the platform has no PCRs.
    ///
    /// # Errors
    /// [`AttesterError::RegisterUnavailable`].
    fn boot_pcr(&self, index: u32) -> Result<Option<Sha256Digest>, AttesterError>;

    /// The algorithm whose digest the platform binds whole: nothing is cut or padded.
    fn initdata_alg(&self) -> HashAlg;

    /// The initdata digest that the platform was started with and binds into its evidence, where it binds one.
    fn initdata_bound(&self) -> Option<RegisterValue>;

    /// Sees to it that all evidence from now on tells this initdata: a platform that was started with a digest
    /// compares it, a TPM is extended in [`protocols::tpm::INITDATA_PCR`], once.
    ///
    /// # Errors
    /// [`AttesterError::Initdata`] when the evidence tells something else, or is of another algorithm; [`AttesterError::RegisterUnavailable`],
    /// [`AttesterError::RegisterExtend`].
    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError>;
}

impl<T: Attester + ?Sized> Attester for std::sync::Arc<T> {
    fn tee(&self) -> Tee {
        (**self).tee()
    }

    fn register(&self) -> RegisterInfo {
        (**self).register()
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        (**self).register_start()
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        (**self).read_register()
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        (**self).extend(digest)
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        (**self).evidence(binding)
    }

    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        (**self).guest(boot_nonce)
    }

    fn boot_pcr(&self, index: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        (**self).boot_pcr(index)
    }

    fn initdata_alg(&self) -> HashAlg {
        (**self).initdata_alg()
    }

    fn initdata_bound(&self) -> Option<RegisterValue> {
        (**self).initdata_bound()
    }

    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        (**self).bind_initdata(digest)
    }
}
