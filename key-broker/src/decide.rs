//! Decisions: the golden value is fetched here, judged by the same function as in the guest, and answered signed.

use std::time::Duration;

use audit_log::Event;
use broker_store::{Commit, Raise};
use protocols::digest::Sha256Digest;
use protocols::events::{GoldenRef, hash_str};
use protocols::jws;
use protocols::reason::{self, Refusal, Source};
use protocols::register::RegisterValue;
use protocols::tcl::{
    DECIDE_TYP, DecideRequest, DecideResponse, GoldenResource, Outcome, Place, RECEIPT_TYP, Receipt, VERDICT_TYP,
    Verdict as Claims, VerdictRecord,
};
use protocols::time::Timestamp;
use registry::ImageReference;
use verifier::log::Stage;
use verifier::{
    AuthenticatedGolden, HighWater, LogState, Policy, TrustedSigners, Verdict, appraise, authenticate, process_digest,
};

use crate::broker::{ATTEMPTS, Broker, signed};
use crate::challenge::random;
use crate::config::Settings;
use crate::error::BrokerError;
use crate::record;
use crate::refusals::cut;
use crate::token::Session;

/// Seconds after which a verdict is stale for anyone who trusts a clock.
const VERDICT_SECONDS: u64 = 120;
/// The registry must answer before an agent, with its default of 10 s, gives us up.
const GOLDEN_DEADLINE: Duration = Duration::from_secs(7);
/// The longest container id, in bytes.
const MAX_CID: usize = 256;
/// The longest image reference, in bytes: as long as any that can be parsed.
const MAX_REFERENCE: usize = 512;

/// One judgement, before it is signed.
struct Judged {
    outcome: Outcome,
    raise: Option<Raise>,
    /// The mark it was made with.
    high_water: HighWater,
    /// What policy would have refused, where it is only watched.
    observed: Option<Refusal>,
}

/// What the storage showed of an image's golden values, and what memory adds.
pub(crate) struct Found {
    pub(crate) envelopes: Vec<Vec<u8>>,
    pub(crate) revocations: Option<Vec<u8>>,
    /// Why it could not be read.
    pub(crate) unavailable: Option<Refusal>,
    /// The payload that was revoked before, whatever list is shown now.
    pub(crate) revoked: Option<Sha256Digest>,
    /// What of it counts.
    pub(crate) golden: Result<AuthenticatedGolden, Refusal>,
}

impl Found {
    fn unavailable(refusal: Refusal) -> Self {
        let unavailable = Some(refusal.clone());
        Self { envelopes: Vec::new(), revocations: None, unavailable, revoked: None, golden: Err(refusal) }
    }
}

impl Judged {
    fn refused(refusal: Refusal, golden: Option<GoldenRef>) -> Self {
        let refusal = cut(refusal.by(Source::Attestor));
        let outcome = Outcome::Refused { refusal: Box::new(refusal), golden };
        Self { outcome, raise: None, high_water: HighWater::None, observed: None }
    }
}

impl Broker {
    /// Answers POST `/tcl/v1/decide`. A refused launch is a signed answer too; an error means that nothing was
    /// decided.
    pub(crate) async fn decide(&self, session: &Session, body: &str) -> Result<DecideResponse, BrokerError> {
        let request: DecideRequest = signed(DECIDE_TYP, body, session)?;
        if request.cid.is_empty() || request.cid.len() > MAX_CID || !request.cid.bytes().all(|b| b.is_ascii_graphic()) {
            let expected = "1 to 256 printable characters";
            return Err(BrokerError::refused(reason::ATTESTOR_PROTOCOL, "container id", expected, "something else"));
        }
        if request.reference.len() > MAX_REFERENCE {
            let expected = format!("at most {MAX_REFERENCE} bytes");
            return Err(BrokerError::refused(reason::ATTESTOR_PROTOCOL, "image reference", expected, "more"));
        }
        let process = process_digest(&request.process)
            .map_err(|_| BrokerError::Internal("a process without a canonical form"))?;
        let now = self.now();
        measured(&self.held(session, &request.receipted).await?, &request)?;
        let rules = self.rules();
        let settings = &*rules.settings;
        let found = self.golden(settings, &request, now).await?;
        for _ in 0..ATTEMPTS {
            let Judged { outcome, raise, high_water, observed } = match &found.golden {
                Ok(golden) => self.judge(settings, &request, golden, now).await?,
                Err(refusal) => Judged::refused(refusal.clone(), None),
            };
            let claims = Claims {
                nonce: request.nonce.clone(),
                guest: request.receipted.guest,
                cid: request.cid.clone(),
                seq: request.seq,
                manifest: request.image.manifest,
                config: request.image.config,
                rootfs: request.image.rootfs.digest,
                process,
                outcome,
                head: request.receipted.head,
                count: request.receipted.count,
                policy: rules.policy(),
                environment: settings.evidence.environment,
                observe: settings.observe,
                issued_at: now,
                expires: now.plus(VERDICT_SECONDS),
            };
            let verdict = self.sign(VERDICT_TYP, &claims)?;
            let id = hex::encode(random::<16>()?);
            tell(&id, session, &claims);
            let event = audited(&id, &claims);
            let decided = match &claims.outcome {
                Outcome::Pass(_) => "pass",
                Outcome::Refused { refusal, .. } => refusal.code.as_str(),
            };
            let record = VerdictRecord {
                id: id.clone(),
                reference: request.reference.clone(),
                verdict: claims,
                signed: verdict.clone(),
            };
            if self.store.record_verdict(record, raise).await? == Commit::Done {
                self.audit.append(event).await?;
                self.metrics.decided(decided);
                self.observed(observed, Some(session), "POST /tcl/v1/decide").await;
                if let Some(recording) = &settings.recording {
                    let question = record::question(recording, settings, &request, (&found, high_water), now);
                    record::write(recording, &id, &question).await;
                }
                return Ok(DecideResponse { verdict, id: Some(id) });
            }
        }
        Err(BrokerError::Internal("a high-water mark that changes under every request"))
    }

    /// The state of what is held of the guest that asks, which has receipted the place it asks over.
    async fn held(&self, session: &Session, asked: &Place) -> Result<LogState, BrokerError> {
        let guest = self.guest(session)?;
        if asked.guest != guest {
            let expected = guest.to_string();
            return Err(BrokerError::refused(reason::EVIDENCE_GUEST, "question", expected, asked.guest.to_string()));
        }
        let held = self.store.history(guest).await?;
        let state = held.ok_or(BrokerError::Internal("a session of a guest of whom nothing is held"))?.state;
        let head = if state.count() == asked.count { Some(state.head()) } else { self.receipted(asked).await? };
        if head == Some(asked.head) {
            return Ok(state);
        }
        let subject = format!("log of guest {guest}");
        let actual = format!("{} records, {}", asked.count, asked.head);
        Err(BrokerError::refused(reason::LOG_GAP, subject, "a place that was receipted", &actual)
            .holding(state.count()))
    }

    /// The head after the first records of a guest, where a receipt was given for exactly as many.
    async fn receipted(&self, asked: &Place) -> Result<Option<RegisterValue>, BrokerError> {
        let Some(before) = asked.count.checked_sub(1) else { return Ok(None) };
        let receipts = self.store.receipts_after(asked.guest, before, 1).await?;
        let Some(receipt) = receipts.first() else { return Ok(None) };
        let receipt: Receipt = jws::verify(RECEIPT_TYP, receipt, self.key())
            .map_err(|_| BrokerError::Internal("a stored receipt that is none of ours"))?;
        Ok((receipt.count == asked.count).then_some(receipt.head))
    }

    async fn judge(
        &self,
        settings: &Settings,
        request: &DecideRequest,
        golden: &AuthenticatedGolden,
        now: Timestamp,
    ) -> Result<Judged, BrokerError> {
        let reference = golden.reference();
        let high_water = self.store.high_water(reference.series_h).await?;
        let policy = Policy {
            signers: &settings.signers,
            environment: settings.evidence.environment,
            process: &request.process,
        };
        let (golden, observed) = match appraise(&request.image, golden, &policy, now, &high_water) {
            Verdict::Passed(pass) => (pass.golden().clone(), None),
            // The last check, and the only one of them that is policy: all the others have passed.
            Verdict::Refused(refusal) if settings.observe && refusal.code == reason::POLICY_PROCESS => {
                (reference, Some(refusal))
            }
            Verdict::Refused(refusal) => {
                return Ok(Judged { high_water, ..Judged::refused(refusal, Some(reference)) });
            }
        };
        let raise =
            Raise { series: golden.series_h, from: high_water, version: golden.version, payload: golden.payload };
        let known = HighWater::Accepted { version: golden.version, payload: golden.payload } == high_water;
        Ok(Judged { outcome: Outcome::Pass(golden), raise: (!known).then_some(raise), high_water, observed })
    }

    /// Finds the golden value: in the image's registry, else among our own resources. What an issuer ever revoked
    /// stays revoked, whatever list the storage shows now.
    async fn golden(&self, settings: &Settings, request: &DecideRequest, now: Timestamp) -> Result<Found, BrokerError> {
        let manifest = &request.image.manifest;
        let own = self.own_golden(manifest).await?;
        if let Some(list) = own.as_ref().and_then(|own| own.revocations.as_ref()) {
            self.remember_revoked(&settings.signers, manifest, &list.0).await?;
        }
        let found = self.fetch(&request.reference, manifest).await;
        if let Ok((_, Some(list))) = &found {
            self.remember_revoked(&settings.signers, manifest, list).await?;
        }
        let (envelopes, revocations) = match (found, own) {
            (Ok((envelopes, revocations)), _) if !envelopes.is_empty() => (envelopes, revocations),
            (other, Some(own)) => {
                let revocations = other.ok().and_then(|(_, revocations)| revocations);
                let envelopes = own.envelopes.into_iter().map(|bytes| bytes.0).collect();
                (envelopes, own.revocations.map(|bytes| bytes.0).or(revocations))
            }
            (Ok(found), None) => found,
            (Err(refusal), None) => return Ok(Found::unavailable(refusal)),
        };
        let authentic = authenticate(manifest, &envelopes, revocations.as_deref(), &settings.signers, now);
        let (golden, revoked) = match authentic {
            Ok(golden) => {
                let payload = golden.reference().payload;
                match self.store.is_revoked(hash_str(golden.issuer()), payload).await? {
                    true => (Err(verifier::golden::revoked(&golden)), Some(payload)),
                    false => (Ok(golden), None),
                }
            }
            Err(refusal) => (Err(refusal), None),
        };
        Ok(Found { envelopes, revocations, unavailable: None, revoked, golden })
    }

    /// A list that does not count revokes nothing; whether it is missed is for [`authenticate`] to say.
    async fn remember_revoked(
        &self,
        signers: &TrustedSigners,
        manifest: &Sha256Digest,
        list: &[u8],
    ) -> Result<(), BrokerError> {
        match verifier::golden::revocations(manifest, list, signers) {
            Ok(list) => Ok(self.store.revoke(hash_str(list.issuer()), list.revoked().to_vec()).await?),
            Err(_) => Ok(()),
        }
    }

    async fn fetch(
        &self,
        reference: &str,
        manifest: &Sha256Digest,
    ) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>), Refusal> {
        let reference: ImageReference = reference.parse().map_err(|error: registry::ReferenceError| error.refusal())?;
        let unavailable = |actual: String| {
            Refusal::new(reason::GOLDEN_UNAVAILABLE, manifest.to_string(), "an answer of the registry", actual)
        };
        let fetch = registry::golden::fetch(&*self.registry, reference.repository(), manifest);
        match tokio::time::timeout(GOLDEN_DEADLINE, fetch).await {
            Ok(Ok(found)) => Ok((found.envelopes, found.revocations)),
            // As in the guest: whatever keeps us from reading what is stored leaves the question open.
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(_) => Err(unavailable(format!("none within {} s", GOLDEN_DEADLINE.as_secs()))),
        }
    }

    async fn own_golden(&self, manifest: &Sha256Digest) -> Result<Option<GoldenResource>, BrokerError> {
        let path =
            GoldenResource::path(manifest).parse().map_err(|_| BrokerError::Internal("a digest makes no path"))?;
        let Some(bytes) = self.store.resource(path).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|_| BrokerError::Internal("a golden resource that is none"))
    }
}

/// The log must have measured exactly the launch that is asked about, and nothing may have been decided on it yet.
fn measured(state: &LogState, request: &DecideRequest) -> Result<(), BrokerError> {
    let refuse = |expected: String, actual: &str| {
        let subject = format!("launch {}", request.seq);
        Err(BrokerError::refused(reason::ATTESTOR_DENIED, subject, expected, actual).holding(state.count()))
    };
    let Some(launch) = state.open().get(&request.seq).filter(|launch| launch.stage == Stage::Measured) else {
        return refuse("an Image record of it, and nothing after".to_owned(), "no such launch is open in the log");
    };
    let image = &request.image;
    let Some(known) = launch.image() else {
        return refuse("an Image record of it".to_owned(), "the pause container, on which nothing is decided");
    };
    if known.manifest != image.manifest || known.config != image.config || launch.rootfs != image.rootfs {
        return refuse(format!("the image its log measured, {}", known.manifest), "another image");
    }
    // Revocations and golden values are looked for at the reference: it is not for the asking side to choose anew.
    if known.ref_h != hash_str(&request.reference) {
        return refuse("the reference its log names".to_owned(), "another reference");
    }
    Ok(())
}

/// The decision in the audit log; its record has the rest.
fn audited(id: &str, claims: &Claims) -> Event {
    let (outcome, golden) = match &claims.outcome {
        Outcome::Pass(golden) => (audit_log::Outcome::Pass, Some(golden.payload)),
        Outcome::Refused { refusal, golden } => {
            (audit_log::Outcome::Refused(refusal.code), golden.as_ref().map(|golden| golden.payload))
        }
    };
    Event::Verdict {
        id: id.to_owned(),
        guest: claims.guest,
        launch: claims.seq,
        manifest: claims.manifest,
        outcome,
        golden,
        policy: claims.policy,
    }
}

/// The decision in our own log, explained whole.
fn tell(id: &str, session: &Session, claims: &Claims) {
    let Claims { guest, cid, seq, manifest, outcome, .. } = claims;
    match outcome {
        Outcome::Pass(golden) => {
            tracing::info!(id, session = session.jti, %guest, cid, seq, %manifest, version = golden.version, "passed");
        }
        Outcome::Refused { refusal, .. } => {
            tracing::warn!(id, session = session.jti, %guest, cid, seq, %manifest, "{refusal}");
        }
    }
}
