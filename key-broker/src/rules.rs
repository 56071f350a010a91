//! What is judged by, as one value: a reload puts another in its place, and a question is answered under one of them.

use std::sync::{Arc, PoisonError};

use appraisal::AppraisalPolicy;
use audit_log::Event;
use broker_store::{Commit, Raise, Store};
use p256::ecdsa::SigningKey;
use protocols::digest::Sha256Digest;
use protocols::time::Timestamp;
use reference_values::{AcceptedReferences, CheckedReferences, References, names};
use verifier::{EvidencePolicy, ExpectedMeasurement, Judge, TdxCollateral, TdxMeasurements};

use crate::broker::{ATTEMPTS, Broker};
use crate::config::Settings;
use crate::error::BrokerError;
use crate::posted::Posted;
use crate::release::Release;

/// Settings, and what follows from them at a time.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) settings: Arc<Settings>,
    pub(crate) judge: Arc<Judge>,
    /// Listed ones, and those of accepted documents that have not expired.
    pub(crate) references: References,
    accepted: Arc<[AcceptedReferences]>,
    posted: Posted,
    /// Names all that decides, posted policies too.
    policy: Sha256Digest,
    /// When the first document begins or ends to count; from then on these rules are not asked.
    until: Option<Timestamp>,
}

impl Rules {
    fn at(
        settings: Arc<Settings>,
        accepted: Arc<[AcceptedReferences]>,
        (posted, policy): (Posted, Sha256Digest),
        now: Timestamp,
    ) -> Self {
        let mut references = settings.references.clone();
        let mut until: Option<Timestamp> = None;
        for document in accepted.iter() {
            until = [until, document.changes(now)].into_iter().flatten().min();
            match document.values(now) {
                Ok(values) => references.extend(values),
                Err(refusal) => tracing::warn!(code = %refusal.code, "{refusal}"),
            }
        }
        let judge = Arc::new(Judge::new(expecting(settings.evidence.clone(), &references)));
        Self { settings, judge, references, accepted, posted, policy, until }
    }

    /// Grades verified evidence.
    pub(crate) fn appraisal(&self) -> &AppraisalPolicy {
        self.posted.appraisal.as_deref().unwrap_or(&self.settings.appraisal)
    }

    /// Decides which resources are released to whom.
    pub(crate) fn release(&self) -> &Release {
        self.posted.release.as_deref().unwrap_or(&self.settings.release)
    }

    /// The digest by which verdicts name what they were made under.
    pub(crate) const fn policy(&self) -> Sha256Digest {
        self.policy
    }

    pub(crate) const fn posted(&self) -> &Posted {
        &self.posted
    }

    /// The same, with other posted policies.
    pub(crate) fn with_posted(&self, posted: Posted, policy: Sha256Digest) -> Self {
        Self { posted, policy, ..self.again() }
    }

    /// The same, with one platform's collateral more.
    fn with_collateral(&self, collateral: &TdxCollateral) -> Self {
        Self { judge: Arc::new(self.judge.with_collateral(collateral)), ..self.again() }
    }

    fn again(&self) -> Self {
        Self {
            settings: Arc::clone(&self.settings),
            judge: Arc::clone(&self.judge),
            references: self.references.clone(),
            accepted: Arc::clone(&self.accepted),
            posted: self.posted.clone(),
            policy: self.policy,
            until: self.until,
        }
    }
}

/// The verifier's own lists of measurements take in reference values; a list that is absent in development accepts any
/// measurement as before, which the appraisal policy then grades.
pub(crate) fn expecting(mut policy: EvidencePolicy, references: &References) -> EvidencePolicy {
    let others = [(names::SNP, &mut policy.snp.measurements), (names::AZURE, &mut policy.azure.snp.measurements)];
    let tds = names::TDX.into_iter().zip(of_td(&mut policy.tdx.measurements));
    let azure = names::AZURE_TDX.into_iter().zip(of_td(&mut policy.azure_tdx.tdx.measurements));
    for (name, expected) in others.into_iter().chain(tds).chain(azure) {
        let ExpectedMeasurement::Listed(list) = expected else { continue };
        for value in references.of(name) {
            let mut bytes = [0u8; 48];
            if hex::decode_to_slice(value, &mut bytes).is_ok() && !list.contains(&bytes) {
                list.push(bytes);
            }
        }
    }
    policy
}

const fn of_td(measurements: &mut TdxMeasurements) -> [&mut ExpectedMeasurement; 4] {
    let [rtmr0, rtmr1, rtmr2] = &mut measurements.rtmr;
    [&mut measurements.mr_td, rtmr0, rtmr1, rtmr2]
}

/// Holds documents against what was accepted before, and remembers the highest versions.
async fn accept(store: &dyn Store, documents: &[CheckedReferences]) -> Result<Arc<[AcceptedReferences]>, BrokerError> {
    for _ in 0..ATTEMPTS {
        let mut accepted = Vec::with_capacity(documents.len());
        let mut raises = Vec::new();
        for checked in documents {
            let Some(series) = checked.series() else {
                accepted.push(checked.clone().accept(&verifier::HighWater::None)?);
                continue;
            };
            let from = store.reference_mark(series).await?;
            accepted.push(checked.clone().accept(&from)?);
            if from != checked.mark() {
                raises.push(Raise { series, from, version: checked.document().version, payload: checked.payload() });
            }
        }
        if store.raise_reference_marks(raises).await? == Commit::Done {
            return Ok(accepted.into());
        }
    }
    Err(BrokerError::Internal("reference values that change under every request"))
}

/// Why other settings were not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They differ in what only a start reads.
    #[error("{0} differs: it needs a restart")]
    Restart(&'static str),
    /// Their reference values are not accepted, or the store failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl Broker {
    /// The first rules of a broker.
    pub(crate) async fn first_rules(
        settings: Settings,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<Arc<Rules>, BrokerError> {
        let accepted = accept(store, &settings.documents).await?;
        tell(&accepted);
        let posted = Posted::read(store, &settings, &Posted::default()).await?;
        let policy = posted.policy(settings.policy)?;
        Ok(Arc::new(Rules::at(Arc::new(settings), accepted, (posted, policy), now)))
    }

    /// What is judged by now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        let now = self.now();
        let rules = Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner));
        if rules.until.is_none_or(|until| now < until) {
            return rules;
        }
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        // Another request, or a reload, may have come first.
        if current.until.is_some_and(|until| now >= until) {
            let posted = (current.posted.clone(), current.policy);
            *current = Arc::new(Rules::at(Arc::clone(&current.settings), Arc::clone(&current.accepted), posted, now));
        }
        Arc::clone(&current)
    }

    /// Judges by this collateral too, which the verifier accepted, until other rules are put in force: those find it where
    /// it is kept.
    pub(crate) fn adopt(&self, collateral: &TdxCollateral) {
        let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(current.with_collateral(collateral));
    }

    /// Puts other settings in force whole, or leaves those that are: requests in work end under the old ones. Gives the
    /// digest of the policy, by which verdicts name it.
    ///
    /// # Errors
    /// [`ReloadError`]: the old ones are in force.
    pub async fn reload(&self, settings: Settings) -> Result<Sha256Digest, ReloadError> {
        let _one = self.reloading.lock().await;
        let old = Arc::clone(&self.rules().settings);
        let same = |a: &SigningKey, b: &SigningKey| a.verifying_key() == b.verifying_key();
        for (field, equal) in [
            ("listen", old.listen == settings.listen),
            ("tls", old.tls.is_some() == settings.tls.is_some()),
            ("log_format", old.log_format == settings.log_format),
            ("[operations]", old.operations == settings.operations),
            ("[traces]", old.traces == settings.traces),
            ("store", old.store.same(&settings.store)),
            ("signing_key", same(&old.signing, &settings.signing)),
            ("environment", old.evidence.environment == settings.evidence.environment),
            ("[registry]", old.registry == settings.registry),
            ("revocation_seconds", old.revocation_seconds == settings.revocation_seconds),
        ] {
            if !equal {
                return Err(ReloadError::Restart(field));
            }
        }
        let accepted = accept(&*self.store, &settings.documents).await?;
        tell(&accepted);
        let posted = Posted::read(&*self.store, &settings, self.rules().posted()).await?;
        let policy = posted.policy(settings.policy)?;
        let rules = Arc::new(Rules::at(Arc::new(settings), accepted, (posted, policy), self.now()));
        self.audit.append(Event::Reload { policy }).await?;
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(policy)
    }
}

fn tell(accepted: &[AcceptedReferences]) {
    for one in accepted {
        let document = one.checked().document();
        let (issuer, series, version, expires) =
            (&document.issuer, &document.series, document.version, document.expires);
        match one.checked().signer() {
            Some(_) => tracing::info!(issuer, series, version, %expires, "reference values"),
            None => tracing::warn!(issuer, series, version, %expires, "UNSIGNED reference values"),
        }
    }
}
