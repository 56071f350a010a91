//! The configuration file: parsed whole and strictly before anything starts.

mod admin;
mod appraise;
mod azure;
mod endorsements;
mod hardware;
mod mode;
mod operations;
mod reference;
mod release;
mod sample;
mod store;
mod tdx;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use appraisal::AppraisalPolicy;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::jcs;
use protocols::keys::{SigningKey, VerifyingKey};
use protocols::reason::Refusal;
use protocols::register::RegisterKind;
use reference_values::{CheckedReferences, References};
use registry::RegistryConfig;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use verifier::{EnrolledAk, Enrolment, EvidencePolicy, SignerConfig, TpmPolicy, TrustedSigners};
use zeroize::Zeroizing;

use crate::admin::Administrators;
use crate::endorse::Endorser;
use crate::record::Recording;
use crate::release::Release;
use crate::tls::Identity;

pub(crate) use self::admin::admin_token;
pub use self::admin::{AdminConfig, CertificateConfig, JwtConfig, TokenConfig};
pub use self::appraise::AppraisalConfig;
pub use self::azure::{AzureConfig, AzureTdxConfig};
pub use self::endorsements::EndorsementsConfig;
pub use self::hardware::{AmdConfig, ArkConfig, ProductConfig, SnpConfig, TcbConfig};
pub use self::mode::PolicyMode;
pub use self::operations::{Limits, LimitsConfig, LogFormat, OperationsConfig, TracesConfig};
pub use self::reference::ReferenceConfig;
pub use self::release::ReleaseConfig;
pub use self::sample::SampleConfig;
pub use self::store::{PostgresConfig, StoreConfig, StoreKeyConfig, StoreSettings};
pub use self::tdx::{Demands, RootConfig, TdxConfig};
pub use self::tls::{Front, OwnTls, TlsConfig};

/// The largest file the configuration may name, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The PCR that holds event logs where the configuration names none.
const DEFAULT_PCR: u32 = 14;
/// PCRs 16 to 23 can be reset or are bound to a locality: they hold no log.
const HIGHEST_PCR: u32 = 15;

/// The file as it is written; unknown fields are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Absent means production.
    #[serde(default)]
    pub environment: Environment,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Who ends TLS; needed in production beyond loopback.
    pub tls: Option<TlsConfig>,
    /// Where everything lasts: a file, or a database.
    pub store: StoreConfig,
    /// The key that the store's secrets are sealed under.
    pub store_key: StoreKeyConfig,
    /// PKCS#8 PEM, ECDSA P-256: signs verdicts, receipts and tokens.
    pub signing_key: PathBuf,
    /// Seconds between challenge and evidence, 1 to 3600.
    pub challenge_seconds: u64,
    /// Seconds a session lasts, 1 to 86400.
    pub token_seconds: u64,
    /// Seconds for which what a registry says of golden values and revocations is used again, 0 to 3600: the longest a
    /// revocation takes to be noticed here. 0 asks for every decision.
    pub revocation_seconds: u64,
    /// File with the bearer token of an administrator with every role.
    pub admin_token: Option<PathBuf>,
    /// Administrators; where none is configured, the first start makes a token.
    #[serde(default)]
    pub admin: AdminConfig,
    /// How log lines are written.
    #[serde(default)]
    pub log_format: LogFormat,
    /// A listener for whoever runs the attestor; absent: `/metrics` is served beside the rest.
    pub operations: Option<OperationsConfig>,
    /// How often one source may ask before it has shown anything.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Where spans go; absent: nowhere.
    pub traces: Option<TracesConfig>,
    /// Directory in which every decision's question is written for `tclctl appraise`; refused in production.
    pub record: Option<PathBuf>,
    /// The attestor's own signers, never those a guest names.
    pub signers: Vec<SignerConfig>,
    /// How registries are reached.
    #[serde(default)]
    pub registry: RegistryConfig,
    /// What counts besides signatures.
    pub policy: PolicyConfig,
    /// TPMs.
    #[serde(default)]
    pub tpm: TpmConfig,
    /// SEV-SNP.
    #[serde(default)]
    pub snp: SnpConfig,
    /// Azure's confidential VMs; absent: none counts.
    pub azure: Option<AzureConfig>,
    /// Intel TDX.
    #[serde(default)]
    pub tdx: TdxConfig,
    /// Sample evidence; absent: it does not count.
    #[serde(default)]
    pub sample: SampleConfig,
    /// Where endorsements come from that evidence does not bring; absent: from nowhere.
    pub endorsements: Option<EndorsementsConfig>,
    /// How verified evidence is graded.
    #[serde(default)]
    pub appraisal: AppraisalConfig,
    /// Which resources are released to whom.
    #[serde(default)]
    pub release: ReleaseConfig,
    /// What evidence is expected to have measured, beside the measurements listed per platform.
    #[serde(default)]
    pub reference: ReferenceConfig,
}

/// `[policy]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// Register kinds that count, exactly.
    pub registers: Vec<RegisterKind>,
    /// Whether policy refuses or is only watched; absent: it refuses.
    #[serde(default)]
    pub mode: PolicyMode,
    /// Pause bundles that may run without a golden value; absent: any in development, none in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Vec<Sha256Digest>>,
    /// Whether policies that administrators post count in place of the files'; absent: nobody may post any.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub posted: bool,
}

/// `[tpm]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TpmConfig {
    /// Enrolled attestation keys.
    pub ak: Vec<AkConfig>,
    /// The one PCR that holds event logs, 0 to 15; 14 when absent. In any other PCR a guest could begin a second
    /// history of the same boot.
    pub pcr: u32,
}

impl Default for TpmConfig {
    fn default() -> Self {
        Self { ak: Vec::new(), pcr: DEFAULT_PCR }
    }
}

/// `[[tpm.ak]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AkConfig {
    /// SPKI PEM, ECDSA P-256 or RSA of 2048 bits or more.
    pub key: String,
    /// A software TPM's; refused in production.
    #[serde(default)]
    pub simulated: bool,
    /// How it was enrolled, which is its register's kind: `tpm-listed` when absent, or `tpm-ek`.
    #[serde(default)]
    pub kind: Enrolment,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file it names, or itself, cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not the expected TOML.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// Something simulated in a configuration for production.
    #[error("{field}: {what} has no place in production (policy.environment)")]
    Environment {
        /// The field.
        field: &'static str,
        /// What it names.
        what: String,
    },
    /// Reference values that do not count.
    #[error("reference: {0}")]
    Refused(Box<Refusal>),
    /// A value cannot be used.
    #[error("{field}: {what}")]
    Value {
        /// The field.
        field: &'static str,
        /// Why.
        what: String,
    },
}

/// What is simulated, by configuration or by its own mark, counts in development only.
fn real(
    simulated: bool,
    environment: Environment,
    field: &'static str,
    what: impl ToString,
) -> Result<(), ConfigError> {
    if simulated && environment == Environment::Production {
        return Err(ConfigError::Environment { field, what: what.to_string() });
    }
    Ok(())
}

fn value(field: &'static str, what: impl ToString) -> ConfigError {
    ConfigError::Value { field, what: what.to_string() }
}

/// Everything the broker is built from, checked.
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What TLS connections are shown; `None`: plain HTTP.
    pub tls: Option<Identity>,
    /// Where everything lasts.
    pub store: StoreSettings,
    /// Signs verdicts, receipts and tokens.
    pub signing: p256::ecdsa::SigningKey,
    /// Seconds between challenge and evidence.
    pub challenge_seconds: u64,
    /// Seconds a session lasts.
    pub token_seconds: u64,
    /// Seconds for which a registry's answer is used again.
    pub revocation_seconds: u64,
    /// Who administers.
    pub admin: Administrators,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Where health and metrics are served by themselves.
    pub operations: Option<SocketAddr>,
    /// How often one source may ask.
    pub limits: Limits,
    /// Where spans go.
    pub traces: Option<TracesConfig>,
    /// Whether policy is only watched: what it would refuse is recorded, and served.
    pub observe: bool,
    /// Whether policies that administrators post count in place of the files'.
    pub posted: bool,
    /// Where decisions' questions are written; absent: nowhere.
    pub recording: Option<Recording>,
    /// The attestor's own signers.
    pub signers: TrustedSigners,
    /// What evidence and logs are judged by.
    pub evidence: EvidencePolicy,
    /// Grades verified evidence.
    pub appraisal: AppraisalPolicy,
    /// Decides which resources are released to whom.
    pub release: Release,
    /// What evidence is expected to have measured, as configuration lists it.
    pub references: References,
    /// Signed reference values beside them, before they were held against what was accepted earlier.
    pub documents: Vec<CheckedReferences>,
    /// Finds what evidence does not bring; absent: nothing is looked for.
    pub(crate) endorser: Option<Endorser>,
    /// Pause bundles that may run without a golden value; `None`, in development alone: any.
    pub pause: Option<Vec<Sha256Digest>>,
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// SHA-256 over the canonical JSON of everything that decides.
    pub policy: Sha256Digest,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("listen", &self.listen).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Config {
    /// Parses the file's text.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Ok(toml::from_str(text)?)
    }

    /// Reads and parses the file.
    ///
    /// # Errors
    /// [`ConfigError::File`], [`ConfigError::Syntax`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?)
    }

    /// Checks every value and reads every file it names, except the store.
    ///
    /// # Errors
    /// [`ConfigError`] names the field or file.
    pub fn settings(self) -> Result<Settings, ConfigError> {
        let environment = self.environment;
        if !(1..=3600).contains(&self.challenge_seconds) {
            return Err(value("challenge_seconds", "must be from 1 to 3600"));
        }
        if !(1..=86_400).contains(&self.token_seconds) {
            return Err(value("token_seconds", "must be from 1 to 86400"));
        }
        if self.revocation_seconds > 3600 {
            return Err(value("revocation_seconds", "must be from 0 to 3600"));
        }
        if self.policy.registers.is_empty() {
            return Err(value("policy.registers", "names no kind of register, so nothing could ever attest"));
        }
        if self.tpm.pcr > HIGHEST_PCR {
            return Err(value("tpm.pcr", "must be from 0 to 15"));
        }
        let signing = signing_key(&self.signing_key)?;
        let store = self.store()?;
        let endorser = self.endorsements.as_ref().map(EndorsementsConfig::endorser).transpose()?;
        let admin = self.admin.administrators(self.admin_token.as_deref(), self.store.file())?;
        let tls = TlsConfig::identity(self.tls.as_ref(), self.listen, environment, &admin)?;
        let limits = self.limits.limits(self.tls.as_ref())?;
        let observe = self.policy.mode == PolicyMode::Observe;
        real(observe, environment, "policy.mode", "a policy that is only observed")?;
        real(self.record.is_some(), environment, "record", "writing questions down")?;
        let recording = self.record.clone().map(|directory| Recording { directory, signers: self.signers.clone() });
        let signers = TrustedSigners::new(self.signers.clone()).map_err(|error| value("signers", error))?;
        let aks = self.tpm.ak.iter().map(|ak| enrolled(ak, environment)).collect::<Result<Vec<_>, _>>()?;
        let (snp, mut anchors) = self.snp.policy(environment)?;
        let (tdx, tdx_roots) = self.tdx.policy(environment)?;
        anchors.extend(tdx_roots);
        // Whoever is between could hide a revocation list and show all the rest.
        if environment == Environment::Production && self.registry.uses_plain_http() {
            return Err(value("registry.plain_http", "has no place in production"));
        }
        let appraisal = self.appraisal.policy()?;
        let release = self.release.release(environment)?;
        let documents = self.reference.documents(environment)?;
        let policy = self.policy_digest(&aks, anchors, &appraisal, &release, &documents)?;
        let evidence = EvidencePolicy {
            tpm: TpmPolicy { aks, pcr: self.tpm.pcr, environment },
            azure: azure::snp_policy(self.azure.as_ref(), &snp, environment)?,
            azure_tdx: azure::tdx_policy(self.azure.as_ref(), &tdx, environment)?,
            snp,
            tdx,
            sample: self.sample.policy(environment)?,
            registers: self.policy.registers.clone(),
            environment,
        };
        // After the platforms' own lists, so that a wrong value in one of them is told by its own name.
        let references = self.references()?;
        Ok(Settings {
            listen: self.listen,
            tls,
            store,
            signing,
            challenge_seconds: self.challenge_seconds,
            token_seconds: self.token_seconds,
            revocation_seconds: self.revocation_seconds,
            admin,
            log_format: self.log_format,
            operations: self.operations.map(|operations| operations.listen),
            limits,
            traces: self.traces,
            observe,
            posted: self.policy.posted,
            recording,
            signers,
            evidence,
            appraisal,
            release,
            references,
            documents,
            endorser,
            pause: match environment {
                Environment::Development => self.policy.pause,
                Environment::Production => Some(self.policy.pause.unwrap_or_default()),
            },
            registry: self.registry,
            policy,
        })
    }

    /// Names in one digest everything a decision depends on besides what a guest shows.
    fn policy_digest(
        &self,
        aks: &[EnrolledAk],
        anchors: Vec<Sha256Digest>,
        appraisal: &AppraisalPolicy,
        release: &Release,
        documents: &[CheckedReferences],
    ) -> Result<Sha256Digest, ConfigError> {
        #[derive(Serialize)]
        struct Ak {
            key: Sha256Digest,
            simulated: bool,
            kind: Enrolment,
        }
        #[derive(Serialize)]
        struct Deciding<'c> {
            v: u32,
            environment: Environment,
            signers: &'c [SignerConfig],
            policy: &'c PolicyConfig,
            aks: Vec<Ak>,
            pcr: u32,
            anchors: Vec<Sha256Digest>,
            snp: &'c SnpConfig,
            azure: &'c Option<AzureConfig>,
            tdx: &'c Demands,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            sample: bool,
            appraisal: Sha256Digest,
            release: crate::release::Deciding<'c>,
            challenge_seconds: u64,
            token_seconds: u64,
            revocation_seconds: u64,
            reference: &'c BTreeMap<String, Vec<String>>,
            reference_signers: &'c [reference_values::SignerConfig],
            reference_documents: BTreeSet<Sha256Digest>,
        }
        let named =
            |ak: &EnrolledAk| Ak { key: Sha256Digest::of(&ak.spki_der), simulated: ak.simulated, kind: ak.enrolment };
        let aks = aks.iter().map(named).collect();
        let deciding = Deciding {
            v: 2,
            environment: self.environment,
            signers: &self.signers,
            policy: &self.policy,
            aks,
            pcr: self.tpm.pcr,
            anchors,
            snp: &self.snp,
            azure: &self.azure,
            tdx: &self.tdx.require,
            sample: self.sample.accept,
            appraisal: appraisal.digest(),
            release: release.deciding(),
            challenge_seconds: self.challenge_seconds,
            token_seconds: self.token_seconds,
            revocation_seconds: self.revocation_seconds,
            reference: &self.reference.values,
            reference_signers: &self.reference.signer,
            reference_documents: documents.iter().map(CheckedReferences::payload).collect(),
        };
        Ok(Sha256Digest::of(&jcs::canonical(&deciding).map_err(|error| value("policy", error))?))
    }
}

fn enrolled(config: &AkConfig, environment: Environment) -> Result<EnrolledAk, ConfigError> {
    real(config.simulated, environment, "tpm.ak", "a simulated TPM's key")?;
    let spki = SubjectPublicKeyInfoDer::from_pem_slice(config.key.as_bytes())
        .map_err(|_| value("tpm.ak", "not an SPKI PEM public key"))?;
    Ok(EnrolledAk { spki_der: spki.as_ref().to_vec(), simulated: config.simulated, enrolment: config.kind })
}

fn signing_key(path: &Path) -> Result<p256::ecdsa::SigningKey, ConfigError> {
    let pem = Zeroizing::new(read(path)?);
    match SigningKey::from_pem(&pem) {
        Ok(SigningKey::EcdsaP256(key)) => Ok(key),
        Ok(SigningKey::Ed25519(_)) => Err(value("signing_key", "must be ECDSA P-256")),
        Err(error) => Err(value("signing_key", error)),
    }
}

/// Reads the public half of the configured signing key as SPKI PEM: what agents pin.
///
/// # Errors
/// [`ConfigError`].
pub fn public_key_pem(signing: &p256::ecdsa::SigningKey) -> Result<String, ConfigError> {
    VerifyingKey::EcdsaP256(*signing.verifying_key()).to_pem().map_err(|error| value("signing_key", error))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let not_text = |_| ConfigError::File { path: path.to_owned(), error: std::io::ErrorKind::InvalidData.into() };
    String::from_utf8(read_bytes(path)?).map_err(not_text)
}

/// A whole file: one that is longer than any should be is refused, and never read in part.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    use std::io::Read as _;
    let named = |error| ConfigError::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(named)?.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(named(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
