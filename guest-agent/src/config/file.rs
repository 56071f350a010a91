//! The file as it is written, and the checks that make a [`Config`] of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use attester::AttesterConfig;
use image_disk::ImageDiskSettings;
use image_rs_fork::registry::RegistryConfig;
use image_rs_fork::{Limits, MAX_POLICY, SignaturePolicy};
use kbs_client::{Attestor, AttestorConfig};
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::image::Layout;
use protocols::tcl::{MAX_RECORDS_PER_REQUEST, Mode};
use serde::Deserialize;
use verifier::{SignerConfig, TrustedSigners};

use super::boot::{BootFile, InitdataRules};
use super::image_service::{self, ImageServiceFile};
use super::kata::{self, KataFile};
use super::{BootState, Config, ConfigError, GoldenFrom, Listen, Local, Modes, Receipts, Vsock};
use crate::gate::METHODS;
use crate::initdata::{BoundInitdata, Brought};

/// The longest path of a unix socket, in bytes.
pub(super) const MAX_SOCKET_PATH: usize = 107;
/// How long a disk may take to appear where nothing else is said.
const DEVICE_TIME: Duration = Duration::from_secs(3);
/// Records that may wait for the attestor where the configuration names no number.
const DEFAULT_QUEUE: u64 = MAX_QUEUE;
/// The most records that may be configured to wait: one delivery must carry them, because no evidence can be had
/// for a head that the register has left.
const MAX_QUEUE: u64 = MAX_RECORDS_PER_REQUEST as u64;
/// What of one delivery is kept free for the records of restarts and of the end.
const SPARE: u64 = 24;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) environment: Environment,
    pub(super) state_dir: PathBuf,
    image_dir: PathBuf,
    listen: ListenFile,
    pub(super) attester: AttesterConfig,
    /// Absent only where initdata brings it.
    attestor: Option<AttestorConfig>,
    modes: ModesFile,
    local: Option<LocalFile>,
    /// Absent only where initdata brings them.
    signers: Option<Vec<SignerConfig>>,
    #[serde(default)]
    registry: RegistryConfig,
    #[serde(default)]
    images: ImagesFile,
    image_disk: Option<ImageDiskSettings>,
    #[serde(default)]
    limits: Limits,
    runtime: RuntimeFile,
    kata: Option<KataFile>,
    image_service: Option<ImageServiceFile>,
    pub(super) initdata: Option<InitdataRules>,
    pub(super) boot: Option<BootFile>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ImagesFile {
    signature_policy: Option<PathBuf>,
    signature_policy_digest: Option<Sha256Digest>,
    signature_policy_json: Option<String>,
    layout: Option<Layout>,
    quota_bytes: Option<u64>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenFile {
    unix: PathBuf,
    vsock: Option<VsockFile>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct VsockFile {
    port: u32,
    allow: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModesFile {
    permitted: Vec<Mode>,
    default: Mode,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalFile {
    boot_state: BootStateFile,
    receipts: ReceiptsFile,
    queue_max: Option<u64>,
    golden_from: GoldenFrom,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BootStateFile {
    Unmeasured(bool),
    Pcrs(BTreeMap<String, String>),
    Initdata(bool),
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReceiptsFile {
    Wait,
    Queue,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuntimeFile {
    path: PathBuf,
}

impl File {
    /// Checks everything, with what the initdata brings in place of the file's own.
    pub(super) fn check(
        mut self,
        digest: Sha256Digest,
        initdata: Option<BoundInitdata>,
        brought: Brought,
    ) -> Result<Config, ConfigError> {
        let environment = self.environment;
        let attestor = brought.attestor.or(self.attestor.take());
        let attestor = attestor.ok_or_else(|| field("attestor", "stands neither here nor in an initdata"))?;
        let signers = brought.signers.or(self.signers.take());
        let signers = signers.ok_or_else(|| field("signers", "stand neither here nor in an initdata"))?;
        for (path, digest) in brought.roots {
            self.registry.roots.push(path.clone());
            self.registry.file_digests.insert(path, digest);
        }
        let development = |field, needed: bool| match environment {
            Environment::Production if needed => Err(ConfigError::Production { field }),
            _ => Ok(()),
        };
        for (name, path) in [
            ("state_dir", &self.state_dir),
            ("image_dir", &self.image_dir),
            ("listen.unix", &self.listen.unix),
            ("runtime.path", &self.runtime.path),
        ] {
            if !path.is_absolute() {
                return Err(field(name, "must be an absolute path"));
            }
        }
        development("attester", self.attester.simulated())?;
        let (http, unmeasured_root) = match &attestor {
            AttestorConfig::Tcl { url, root, root_digest, .. } => {
                (url.starts_with("http:"), root.is_some() && root_digest.is_none())
            }
            AttestorConfig::Trustee { .. } => {
                return Err(field("attestor.kind", "must be \"tcl\": a stock KBS keeps no event logs"));
            }
        };
        development("attestor.url with http", http)?;
        development("attestor.root without root_digest", unmeasured_root)?;
        development("plain HTTP in [registry]", self.registry.uses_plain_http())?;
        // What a file says is measured by its digest, which stands in the measured configuration.
        development("a file in [registry] without file_digests", self.registry.undigested_file().is_some())?;
        let digested = self.images.signature_policy.is_none() || self.images.signature_policy_digest.is_some();
        development("images.signature_policy without signature_policy_digest", !digested)?;

        if let Some(rules) = &self.initdata {
            rules.check()?;
            // Nothing binds a TPM guest's initdata when it is launched: without an attestor nobody would look at it.
            let by_tpm = matches!(
                self.attester,
                AttesterConfig::Tpm { .. } | AttesterConfig::AzSnpVtpm { .. } | AttesterConfig::AzTdxVtpm { .. }
            );
            let alone = by_tpm && rules.digest.is_none();
            development("initdata without digest beside a TPM and mode local", alone && self.local.is_some())?;
        }
        if let Some(disk) = &self.image_disk {
            disk.check().map_err(|(name, what)| field(name, what))?;
            // Named, so that a kernel without it is refused and gets no other layout.
            match self.images.layout.get_or_insert(Layout::ErofsV1) {
                Layout::ErofsV1 => {}
                Layout::TreeV1 => {
                    let what = "takes the layout erofs-v1 alone: the host can alter what lies there";
                    return Err(field("image_disk", what));
                }
            }
        }
        let modes = check_modes(self.modes)?;
        let local = match (modes.permitted.contains(&Mode::Local), self.local) {
            (true, Some(local)) => Some(check_local(local)?),
            (false, None) => None,
            (true, None) => return Err(field("local", "is required when mode local is permitted")),
            (false, Some(_)) => return Err(field("local", "has no meaning unless mode local is permitted")),
        };
        let unmeasured = local.as_ref().is_some_and(|local| local.boot_state == BootState::Unmeasured);
        development("local.boot_state = { unmeasured = true }", unmeasured)?;
        Ok(Config {
            digest,
            environment,
            listen: check_listen(self.listen)?,
            initdata,
            attester: self.attester,
            attestor: Attestor::new(&attestor, environment).map_err(|error| field("attestor", error))?,
            modes,
            local,
            signers: TrustedSigners::new(signers).map_err(|error| field("signers", error))?,
            registry: self.registry,
            signatures: check_signatures(environment, &self.images)?,
            limits: self.limits,
            image_layout: self.images.layout,
            image_quota: self.images.quota_bytes,
            image_disk: self.image_disk,
            device_time: DEVICE_TIME,
            runtime: self.runtime.path,
            image_service: self.image_service.map(image_service::check).transpose()?,
            kata: self.kata.map(|file| kata::check(file, environment, brought.policy)).transpose()?,
            pull_time: None,
            state_dir: self.state_dir,
            image_dir: self.image_dir,
        })
    }
}

pub(super) fn field(field: &'static str, what: impl ToString) -> ConfigError {
    ConfigError::Field { field, what: what.to_string() }
}

/// A policy file is read here and not again: what is in force does not change under a running agent. In production
/// its keys stand in it, since key files are not measured.
fn check_signatures(environment: Environment, images: &ImagesFile) -> Result<SignaturePolicy, ConfigError> {
    let bytes = match (&images.signature_policy, &images.signature_policy_json) {
        (Some(path), None) => {
            if !path.is_absolute() {
                return Err(field("images.signature_policy", "must be an absolute path"));
            }
            let named = |source| ConfigError::Read { path: path.clone(), source };
            let bytes = read_bounded(path, MAX_POLICY).map_err(named)?;
            let actual = Sha256Digest::of(&bytes);
            if images.signature_policy_digest.is_some_and(|expected| expected != actual) {
                return Err(field("images.signature_policy_digest", format!("the file's is {actual}")));
            }
            bytes
        }
        (None, Some(_)) if images.signature_policy_digest.is_some() => {
            return Err(field("images.signature_policy_digest", "is of no use beside signature_policy_json"));
        }
        (None, Some(json)) => json.clone().into_bytes(),
        (None, None) => {
            let choice = "or signature_policy_json must say whose images are taken; every image, signed or not: \
                          signature_policy_json = '{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}'";
            return Err(field("images.signature_policy", choice));
        }
        (Some(_), Some(_)) => return Err(field("images.signature_policy", "and signature_policy_json: one of them")),
    };
    let policy = match environment {
        Environment::Development => SignaturePolicy::parse(&bytes),
        Environment::Production => SignaturePolicy::parse_with(&bytes, |_| {
            Err(std::io::Error::other(
                "production takes keyData in place of keyPath: what a file holds is not measured",
            ))
        }),
    };
    policy.map_err(|error| field("images.signature_policy", error))
}

/// One byte above the limit is enough for the parser to refuse it.
pub(super) fn read_bounded(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_listen(file: ListenFile) -> Result<Listen, ConfigError> {
    if file.unix.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(field("listen.unix", "longer than 107 bytes"));
    }
    let vsock = file.vsock.map(|vsock| {
        let allow: BTreeSet<String> = vsock.allow.into_iter().collect();
        if let Some(unknown) = allow.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(field("listen.vsock.allow", format!("`{unknown}` is no method of the service")));
        }
        Ok(Vsock { port: vsock.port, allow })
    });
    Ok(Listen { unix: file.unix, vsock: vsock.transpose()? })
}

fn check_modes(file: ModesFile) -> Result<Modes, ConfigError> {
    let permitted: BTreeSet<Mode> = file.permitted.into_iter().collect();
    if !permitted.contains(&file.default) {
        return Err(field("modes.default", "must be one of modes.permitted"));
    }
    Ok(Modes { permitted, default: file.default })
}

fn check_local(file: LocalFile) -> Result<Local, ConfigError> {
    let boot_state = match file.boot_state {
        BootStateFile::Unmeasured(true) => BootState::Unmeasured,
        BootStateFile::Initdata(true) => BootState::Initdata,
        BootStateFile::Unmeasured(false) | BootStateFile::Initdata(false) => {
            return Err(field("local.boot_state", "`false` names no state"));
        }
        BootStateFile::Pcrs(pcrs) => BootState::Pcrs(check_pcrs(&pcrs)?),
    };
    let receipts = match (file.receipts, file.queue_max) {
        (ReceiptsFile::Wait, _) => Receipts::Wait,
        (ReceiptsFile::Queue, max) => {
            let max = max.unwrap_or(DEFAULT_QUEUE);
            if !(1..=MAX_QUEUE).contains(&max) {
                return Err(field("local.queue_max", format!("must be from 1 to {MAX_QUEUE}")));
            }
            Receipts::Queue(max.min(MAX_QUEUE - SPARE))
        }
    };
    Ok(Local { boot_state, receipts, golden_from: file.golden_from })
}

fn check_pcrs(pcrs: &BTreeMap<String, String>) -> Result<BTreeMap<u32, Sha256Digest>, ConfigError> {
    let pcr = |(index, value): (&String, &String)| {
        let index = index.parse::<u32>().ok().filter(|i| *i < 24 && i.to_string() == *index);
        let value = format!("sha256:{value}").parse().ok();
        index.zip(value).ok_or_else(|| field("local.boot_state.pcrs", "PCRs 0 to 23 with 64 lower-case hex digits"))
    };
    if pcrs.is_empty() {
        return Err(field("local.boot_state.pcrs", "names no PCR"));
    }
    pcrs.iter().map(pcr).collect()
}
