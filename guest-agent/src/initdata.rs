//! Initdata in force: found on a disk, bound into the platform's evidence, and then what of it the measured
//! configuration takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use attester::Attester;
use boot::{Initdata, InitdataDigest};
use kbs_client::AttestorConfig;
use protocols::digest::Sha256Digest;
use protocols::kbs::InitData;
use protocols::reason::{self, Refusal};
use protocols::register::{HashAlg, RegisterValue};
use serde::Deserialize;
use verifier::SignerConfig;

use crate::config::{Brings, InitdataRules};
use crate::error::AgentError;

/// The file of an initdata that holds tables of the configuration.
const CONFIGURATION: &str = "guest-agent.toml";
/// The file that holds the policy.
const POLICY: &str = "policy.rego";
/// The whole text among the written files; the last one to be written.
const WHOLE: &str = "initdata.toml";
/// How often a disk is looked for that has not appeared yet.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// An initdata that this guest's evidence tells. Only [`BoundInitdata::bind`] makes one.
///
/// ```compile_fail,E0451
/// fn forge(bound: guest_agent::BoundInitdata) -> guest_agent::BoundInitdata {
///     guest_agent::BoundInitdata { ..bound }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct BoundInitdata {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    initdata: Initdata,
    digest: RegisterValue,
}

impl BoundInitdata {
    /// Compares the initdata's digest with what the platform was started with; a TPM measures it. `pinned` is the
    /// digest that the measured configuration names, where it names one.
    ///
    /// # Errors
    /// `evidence.initdata_algorithm`: its digest is not as long as the platform's field, and nothing is cut or padded;
    /// `evidence.initdata`.
    pub fn bind(
        initdata: Initdata,
        attester: &dyn Attester,
        pinned: Option<RegisterValue>,
    ) -> Result<Self, AgentError> {
        let alg = attester.initdata_alg();
        let digest = match initdata.digest() {
            InitdataDigest::Sha256(digest) if alg == HashAlg::Sha256 => RegisterValue::Sha256(digest),
            InitdataDigest::Sha384(digest) if alg == HashAlg::Sha384 => RegisterValue::Sha384(digest),
            _ => {
                let expected = format!("{alg:?}").to_lowercase();
                let actual = format!("{:?}", initdata.algorithm()).to_lowercase();
                let code = reason::EVIDENCE_INITDATA_ALGORITHM;
                return Err(Refusal::new(code, "initdata", expected, actual).into());
            }
        };
        is_pinned(&initdata, pinned)?;
        attester.bind_initdata(&digest)?;
        Ok(Self { inner: Arc::new(Inner { initdata, digest }) })
    }

    /// Digest of the text, as the evidence tells it.
    #[must_use]
    pub fn digest(&self) -> RegisterValue {
        self.inner.digest
    }

    /// The text, as it goes to the attestor with the evidence.
    #[must_use]
    pub fn shown(&self) -> InitData {
        InitData { format: "toml".to_owned(), body: self.inner.initdata.text().to_owned() }
    }

    /// Writes its files into `folder`, unless an earlier life of the agent in this guest has.
    ///
    /// # Errors
    /// `boot.io`.
    pub fn write(&self, folder: &Path) -> Result<(), AgentError> {
        match std::fs::read_to_string(folder.join(WHOLE)) {
            Ok(text) if text == self.inner.initdata.text() => Ok(()),
            _ => Ok(self.inner.initdata.write_to(folder)?),
        }
    }

    /// [`brings`].
    ///
    /// # Errors
    /// As that.
    pub(crate) fn brings(&self, rules: &InitdataRules) -> Result<Brought, AgentError> {
        brings(&self.inner.initdata, rules)
    }
}

/// What it brings, all of which `rules` must allow. Names of files in it become paths in the rules' folder.
///
/// # Errors
/// `policy.initdata`: something that is not allowed, or not of its form.
pub(crate) fn brings(initdata: &Initdata, rules: &InitdataRules) -> Result<Brought, AgentError> {
    let refuse = |subject: &str, expected: &str, actual: String| {
        AgentError::from(Refusal::new(reason::POLICY_INITDATA, format!("initdata, {subject}"), expected, actual))
    };
    let policy = initdata.file(POLICY).map(str::to_owned);
    let mut file = match initdata.file(CONFIGURATION) {
        Some(text) => toml::from_str::<BroughtFile>(text).map_err(|error| {
            refuse(CONFIGURATION, "the tables attestor, signers and roots", error.message().to_owned())
        })?,
        None => BroughtFile::default(),
    };
    for (what, there) in [
        (Brings::Policy, policy.is_some()),
        (Brings::Attestor, file.attestor.is_some()),
        (Brings::Signers, file.signers.is_some()),
        (Brings::Roots, !file.roots.is_empty()),
    ] {
        if there && !rules.allow.contains(&what) {
            return Err(refuse("what it brings", "only what [initdata] allow names", what.name().to_owned()));
        }
    }
    let named = |name: &Path| {
        let text = name.to_str().and_then(|name| initdata.file(name));
        let text = text.ok_or_else(|| refuse("a root", "a file of the same initdata", name.display().to_string()))?;
        Ok::<_, AgentError>((rules.folder.join(name), Sha256Digest::of(text.as_bytes())))
    };
    if let Some(AttestorConfig::Tcl { root: Some(path), root_digest, .. }) = &mut file.attestor {
        let (place, digest) = named(path)?;
        (*path, *root_digest) = (place, Some(digest));
    }
    let roots = file.roots.iter().map(|name| named(name)).collect::<Result<_, _>>()?;
    Ok(Brought { policy, attestor: file.attestor, signers: file.signers, roots })
}

/// Compares an initdata's digest with the one that the measured configuration names, where it names one.
///
/// # Errors
/// `evidence.initdata`.
pub(crate) fn is_pinned(initdata: &Initdata, pinned: Option<RegisterValue>) -> Result<(), AgentError> {
    let digest = match initdata.digest() {
        InitdataDigest::Sha256(digest) => Some(RegisterValue::Sha256(digest)),
        InitdataDigest::Sha384(digest) => Some(RegisterValue::Sha384(digest)),
        InitdataDigest::Sha512(_) => None,
    };
    match pinned {
        Some(pinned) if digest != Some(pinned) => {
            let actual = digest.map_or_else(|| "a SHA-512".to_owned(), |digest| digest.to_string());
            Err(Refusal::new(reason::EVIDENCE_INITDATA, "initdata", pinned.to_string(), actual).into())
        }
        _ => Ok(()),
    }
}

/// What an initdata brings in place of the measured configuration's own.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    pub(crate) policy: Option<String>,
    pub(crate) attestor: Option<AttestorConfig>,
    pub(crate) signers: Option<Vec<SignerConfig>>,
    /// TLS roots for registries, each with its digest.
    pub(crate) roots: Vec<(PathBuf, Sha256Digest)>,
}

/// `guest-agent.toml` of an initdata.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BroughtFile {
    attestor: Option<AttestorConfig>,
    signers: Option<Vec<SignerConfig>>,
    #[serde(default)]
    roots: Vec<PathBuf>,
}

/// Finds the initdata on a disk in `rules.devices`; where there must be one, it may take `patience` to appear. Blocks.
///
/// # Errors
/// `boot.initdata`: a malformed one, two, or none where there must be one; `boot.io`.
pub(crate) fn find(rules: &InitdataRules, needed: bool, patience: Duration) -> Result<Option<Initdata>, AgentError> {
    let begun = Instant::now();
    loop {
        let found = boot::find(&rules.devices)?;
        if found.is_some() || !needed {
            return Ok(found);
        }
        if begun.elapsed() >= patience {
            let actual = format!("none in {}", rules.devices.display());
            return Err(Refusal::new(reason::BOOT_INITDATA, "initdata", "a disk with the initdata", actual).into());
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}
