//! Policies that administrators post, where `[policy] posted` says that they may: kept in the store for every replica,
//! and in force in place of the files'.

use std::sync::{Arc, PoisonError};

use appraisal::{AppraisalPolicy, Tier};
use audit_log::Event;
use broker_store::Store;
use protocols::digest::Sha256Digest;
use protocols::resource::ResourcePath;
use protocols::{jcs, reason};
use release::ReleasePolicy;
use serde::Serialize;

use crate::admin::{Administrator, Policies};
use crate::broker::Broker;
use crate::config::Settings;
use crate::error::BrokerError;
use crate::release::Release;

/// The repository of the store that holds them, which no resource is put into or read from.
pub(crate) const REPOSITORY: &str = "tcl-posted";

/// Which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Grades evidence.
    Appraisal,
    /// Releases resources.
    Release,
}

impl Kind {
    /// As the audit log and refusals name it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Appraisal => "attestation policy",
            Self::Release => "resource policy",
        }
    }

    fn path(self) -> Result<ResourcePath, BrokerError> {
        let name = match self {
            Self::Appraisal => "appraisal",
            Self::Release => "release",
        };
        let path = format!("{REPOSITORY}/policy/{name}").parse();
        path.map_err(|_| BrokerError::Internal("a name that the store does not take"))
    }
}

/// Posted policies, compiled; `None` where the file's counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Posted {
    pub(crate) appraisal: Option<Arc<AppraisalPolicy>>,
    pub(crate) release: Option<Arc<Release>>,
}

impl Posted {
    /// Names what decides: the configuration's digest where nothing was posted.
    pub(crate) fn policy(&self, configured: Sha256Digest) -> Result<Sha256Digest, BrokerError> {
        #[derive(Serialize)]
        struct Deciding {
            v: u32,
            configured: Sha256Digest,
            appraisal: Option<Sha256Digest>,
            release: Option<Sha256Digest>,
        }
        let (appraisal, release) = self.digests();
        if appraisal.is_none() && release.is_none() {
            return Ok(configured);
        }
        let deciding = jcs::canonical(&Deciding { v: 1, configured, appraisal, release });
        Ok(Sha256Digest::of(&deciding.map_err(|_| BrokerError::Internal("policies without a canonical form"))?))
    }

    fn digests(&self) -> (Option<Sha256Digest>, Option<Sha256Digest>) {
        (self.appraisal.as_ref().map(|policy| policy.digest()), self.release.as_ref().map(|release| release.digest()))
    }

    /// What the store holds now; what is known already is not compiled again.
    pub(crate) async fn read(store: &dyn Store, settings: &Settings, known: &Self) -> Result<Self, BrokerError> {
        if !settings.posted {
            return Ok(Self::default());
        }
        let (appraisal, release) = known.digests();
        let mut posted = Self::default();
        if let Some(text) = text(store, Kind::Appraisal).await? {
            posted.appraisal = match known.appraisal.as_ref() {
                Some(same) if appraisal == Some(Sha256Digest::of(text.as_bytes())) => Some(Arc::clone(same)),
                _ => Some(Arc::new(appraisal_policy(&text)?)),
            };
        }
        if let Some(text) = text(store, Kind::Release).await? {
            posted.release = match known.release.as_ref() {
                Some(same) if release == Some(Sha256Digest::of(text.as_bytes())) => Some(Arc::clone(same)),
                _ => Some(Arc::new(release_policy(&text, settings)?)),
            };
        }
        Ok(posted)
    }
}

async fn text(store: &dyn Store, kind: Kind) -> Result<Option<String>, BrokerError> {
    let Some(bytes) = store.resource(kind.path()?).await? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| BrokerError::Internal("a posted policy that is no text"))?;
    Ok(Some(text))
}

fn appraisal_policy(text: &str) -> Result<AppraisalPolicy, BrokerError> {
    AppraisalPolicy::compile(text).map_err(|error| wrong(Kind::Appraisal, error.to_string()))
}

fn release_policy(text: &str, settings: &Settings) -> Result<Release, BrokerError> {
    let policy = ReleasePolicy::compile(text).map_err(|error| wrong(Kind::Release, error.to_string()))?;
    Ok(Release::new(policy, vec![Tier::Affirming], settings.evidence.environment))
}

fn wrong(kind: Kind, why: String) -> BrokerError {
    BrokerError::refused(reason::ATTESTOR_PROTOCOL, kind.as_str(), "Rego that compiles, of the package it is for", why)
}

impl Broker {
    /// Puts a policy in force here, and on every other replica when it looks next.
    pub(crate) async fn put_policy(
        &self,
        by: &Administrator<Policies>,
        kind: Kind,
        text: String,
    ) -> Result<(), BrokerError> {
        let settings = self.may_post(kind)?;
        let digest = match kind {
            Kind::Appraisal => appraisal_policy(&text)?.digest(),
            Kind::Release => release_policy(&text, &settings)?.digest(),
        };
        self.posts(by, "policy.put", kind, Some(digest)).await?;
        self.store.put_resource(kind.path()?, text.into_bytes()).await?;
        self.refresh_posted().await
    }

    /// Puts the file's policy back in force.
    pub(crate) async fn delete_policy(&self, by: &Administrator<Policies>, kind: Kind) -> Result<(), BrokerError> {
        self.may_post(kind)?;
        self.posts(by, "policy.delete", kind, None).await?;
        if !self.store.delete_resource(kind.path()?).await? {
            return Err(crate::broker::missing(kind.as_str()));
        }
        self.refresh_posted().await
    }

    fn may_post(&self, kind: Kind) -> Result<Arc<Settings>, BrokerError> {
        let settings = Arc::clone(&self.rules().settings);
        if settings.posted {
            return Ok(settings);
        }
        let expected = "a configuration with [policy] posted = true";
        Err(BrokerError::refused(reason::POLICY_POSTED, kind.as_str(), expected, "policies that are files alone"))
    }

    async fn posts(
        &self,
        by: &Administrator<Policies>,
        action: &str,
        kind: Kind,
        digest: Option<Sha256Digest>,
    ) -> Result<(), BrokerError> {
        tracing::info!(
            by = by.name(),
            policy = kind.as_str(),
            digest = digest.map(tracing::field::display),
            "{action}"
        );
        let (who, subject) = (by.name().to_owned(), kind.as_str().to_owned());
        self.audit.append(Event::Administration { who, action: action.to_owned(), subject, digest }).await
    }

    /// Takes over what was posted to whichever replica. To be called every now and then.
    ///
    /// # Errors
    /// [`BrokerError::Store`]; `attestor.protocol` when what is stored does not compile here: what was in force stays.
    pub async fn refresh_posted(&self) -> Result<(), BrokerError> {
        let _one = self.reloading.lock().await;
        let rules = self.rules();
        let posted = Posted::read(&*self.store, &rules.settings, rules.posted()).await?;
        if posted.digests() == rules.posted().digests() {
            return Ok(());
        }
        let policy = posted.policy(rules.settings.policy)?;
        self.audit.append(Event::Reload { policy }).await?;
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(current.with_posted(posted, policy));
        tracing::info!(%policy, "other posted policies are in force");
        Ok(())
    }
}
