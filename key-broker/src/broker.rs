//! The attestor without HTTP: its parts, challenges and sessions. What sessions then ask for has modules of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use appraisal::{Appraisal, Question};
use audit_log::Event;
use broker_store::{ChallengeUse, Store};
use p256::ecdsa::VerifyingKey;
use protocols::digest::Sha256Digest;
use protocols::events::Init;
use protocols::guest::GuestId;
use protocols::jwe::PublicKey;
use protocols::jws::{self, JwsError, Signer};
use protocols::kbs::{self, Attestation, Tee};
use protocols::reason::{self, Refusal};
use protocols::register::RegisterKind;
use protocols::tcl::{Hello, HelloReply, VerdictRecord};
use protocols::time::Timestamp;
use registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use verifier::{EvidenceClaims, LogState, bind_log, guest_of};

use crate::admin::{Administrator, Audit, Needed, Shown};
use crate::audit::Auditor;
use crate::challenge::{Challenge, Sealer, random};
use crate::config::Settings;
use crate::devices::{Beside, Device};
use crate::error::BrokerError;
use crate::evidence::Seen;
use crate::http::Rooms;
use crate::initdata;
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::refusals::Strangers;
use crate::rules::Rules;
use crate::sessions::{Known, Sessions};
use crate::token::{NewSession, Session};

/// The version of our additions to the handshake.
const TCL_VERSION: u32 = 1;
/// What a refusal of another version of the protocol is about.
pub(crate) const VERSION_SUBJECT: &str = "protocol version";
/// How often a change is tried again when another request came first.
pub(crate) const ATTEMPTS: usize = 8;

/// The attestor: settings, store, registry and a clock.
pub struct Broker {
    pub(crate) rules: RwLock<Arc<Rules>>,
    /// One reload at a time.
    pub(crate) reloading: tokio::sync::Mutex<()>,
    pub(crate) signing: Arc<Signer>,
    pub(crate) sessions: Sessions,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) rooms: Rooms,
    pub(crate) seen: Seen,
    pub(crate) audit: Auditor,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limiter: Limiter,
    draining: AtomicBool,
    pub(crate) strangers: Strangers,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    sealer: Sealer,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("rules", &self.rules).field("store", &self.store).finish_non_exhaustive()
    }
}

/// A challenge as it is answered.
#[derive(Debug)]
pub(crate) struct Challenged {
    pub(crate) body: kbs::Challenge,
    pub(crate) cookie: String,
}

impl Broker {
    /// A broker of these parts. `clock` is the only source of time.
    ///
    /// # Errors
    /// [`BrokerError::Internal`] when no sealing key can be derived; `reference.rollback` and `reference.conflict` when
    /// later reference values were accepted before; `attestor.audit` when the stored audit log is none that this key
    /// signed; [`BrokerError::Store`].
    pub async fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        registry: Arc<dyn Registry>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Result<Self, BrokerError> {
        let sealer = Sealer::new(&settings.signing)?;
        let signing =
            Signer::new(&settings.signing).map_err(|_| BrokerError::Internal("a signing key that does not sign"))?;
        let signing = Arc::new(signing);
        let rules = RwLock::new(Self::first_rules(settings, &*store, clock()).await?);
        let audit = Auditor::open(Arc::clone(&store) as _, Arc::clone(&signing), Arc::clone(&clock)).await?;
        let start = {
            let rules = rules.read().unwrap_or_else(PoisonError::into_inner);
            Event::Start { policy: rules.policy(), environment: rules.settings.evidence.environment }
        };
        audit.append(start).await?;
        let reloading = tokio::sync::Mutex::default();
        Ok(Self {
            rules,
            reloading,
            signing,
            sessions: Sessions::default(),
            store,
            registry,
            rooms: Rooms::new(),
            seen: Seen::default(),
            audit,
            metrics: Arc::default(),
            limiter: Limiter::new(),
            draining: AtomicBool::new(false),
            strangers: Strangers::default(),
            clock,
            sealer,
        })
    }

    /// What was counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The digest by which verdicts name what they are made under.
    #[must_use]
    pub fn policy(&self) -> Sha256Digest {
        self.rules().policy()
    }

    /// From now on it tells that it ends.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the store answers.
    pub(crate) async fn ready(&self) -> Result<(), BrokerError> {
        self.store.verdict("-").await?;
        Ok(())
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn key(&self) -> &VerifyingKey {
        self.signing.verifying_key()
    }

    /// Answers POST `/kbs/v0/auth`.
    pub(crate) fn challenge(&self, body: &[u8]) -> Result<Challenged, BrokerError> {
        let request: kbs::Request = json_of(body, "a request of the KBS protocol")?;
        if request.version != kbs::VERSION {
            let actual: String = request.version.chars().take(32).collect();
            return Err(BrokerError::refused(reason::ATTESTOR_PROTOCOL, VERSION_SUBJECT, kbs::VERSION, actual));
        }
        let tcl = hello(&request.extra_params)?;
        // Its challenge has a form of its own, which needs the host's key.
        if request.tee == Tee::Se {
            let expected = "a kind of evidence that is challenged by a nonce";
            return Err(BrokerError::refused(reason::ATTESTOR_PROTOCOL, "tee", expected, request.tee.as_str()));
        }
        let challenge = Challenge::new(request.tee, tcl, self.now().plus(self.rules().settings.challenge_seconds))?;
        let extra_params = if tcl { json!({ "tcl": HelloReply { version: TCL_VERSION } }) } else { json!("") };
        let body = kbs::Challenge { nonce: challenge.nonce_text(), extra_params };
        Ok(Challenged { body, cookie: self.sealer.seal(&challenge)? })
    }

    /// Answers POST `/kbs/v0/attest`. Nothing is stored before the evidence holds, so that nobody fills the store.
    pub(crate) async fn attest(&self, cookie: Option<&str>, body: &[u8]) -> Result<String, BrokerError> {
        let mut verified = None;
        let attested = self.attested(cookie, body, &mut verified).await;
        match (attested, verified) {
            // The challenge is used up by it: one quote makes one record, however often it is shown.
            (Err(error @ BrokerError::Refused { .. }), Some(Challenge { nonce, expires, .. }))
                if self.store.use_challenge(ChallengeUse { nonce, expires }, self.now()).await? =>
            {
                Err(error.by_verified())
            }
            (attested, _) => attested,
        }
    }

    /// `verified` gets the challenge once the evidence for it holds.
    async fn attested(
        &self,
        cookie: Option<&str>,
        body: &[u8],
        verified: &mut Option<Challenge>,
    ) -> Result<String, BrokerError> {
        let now = self.now();
        let cookie = cookie.ok_or_else(|| BrokerError::session("no cookie"))?;
        let challenge = self.sealer.open(cookie, now)?;
        let counted = self.metrics.handshake(challenge.tee);
        let Attestation { init_data, runtime_data, tee_evidence } =
            json_of(body, "an attestation of the KBS protocol")?;
        if runtime_data.nonce != challenge.nonce_text() {
            let actual = "another nonce in the runtime data";
            return Err(BrokerError::refused(reason::EVIDENCE_NONCE, "evidence", "this challenge's nonce", actual));
        }
        let key = PublicKey::of(&runtime_data.tee_pubkey)
            .map_err(|error| malformed("a key that resources can be encrypted to", error.to_string()))?;
        if runtime_data.log.is_some() != challenge.tcl {
            return Err(malformed("the log's head exactly where the handshake said so", "otherwise".to_owned()));
        }
        if challenge.tcl && key.p256().is_none() {
            return Err(malformed("a P-256 key, which signs this protocol's requests", "another".to_owned()));
        }
        let rules = self.rules();
        let beside = Beside::read(&tee_evidence, &runtime_data)?;
        let claims = self.evidence(&rules, challenge.tee, &tee_evidence, &runtime_data, now).await?;
        *verified = Some(challenge.clone());
        let devices = self.devices(&rules, beside, &runtime_data, now).await?;
        let initdata = init_data.as_ref().map(|init_data| initdata::check(&claims, init_data)).transpose()?;
        let (guest, init) = match &runtime_data.log {
            Some(log) => {
                let kinds = &rules.settings.evidence.registers;
                let refused = |expected, kind: RegisterKind| {
                    Err(BrokerError::refused(reason::POLICY_REGISTER, "register", expected, kind.as_str()))
                };
                // Kinds are judged by what stands behind the evidence, not by what the guest says of itself.
                let (Some(kind), Some(told)) = (claims.register(), claims.told()) else {
                    let (expected, actual) = ("evidence that a register stands behind", challenge.tee.as_str());
                    return Err(BrokerError::refused(reason::POLICY_REGISTER, "register", expected, actual));
                };
                if !kinds.contains(&kind) {
                    let expected = kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" or ");
                    return refused(expected, kind);
                }
                if log.kind != told {
                    return refused(told.to_string(), log.kind);
                }
                // A guest that is not held yet is named by its first delivery, not here.
                match self.store.history(log.guest).await? {
                    Some(held) => {
                        let guest = if held.state.count() == log.count {
                            bind_log(&claims, &held.state, log, rules.judge.policy())?
                        } else {
                            same_guest(&claims, &held.state, log.guest)?
                        };
                        (Some(guest), Some(held.state.init().clone()))
                    }
                    None => (None, None),
                }
            }
            None => (None, None),
        };
        let (mut appraisal, watched) = appraise(&rules, challenge.tee, &claims, init.as_ref())?;
        let mut observed = vec![watched];
        for Device { component, tee, claims } in &devices {
            let (device, watched) = appraise(&rules, *tee, claims, None)?;
            appraisal = appraisal.with_device(component.clone(), device);
            observed.push(watched);
        }
        if let Some(initdata) = initdata {
            appraisal = initdata.told_in(appraisal);
        }
        let new = NewSession {
            jti: hex::encode(random::<16>()?),
            tee: challenge.tee,
            environment: rules.settings.evidence.environment,
            simulated: claims.simulated() || devices.iter().any(|device| device.claims.simulated()),
            observe: rules.settings.observe,
            register: claims.register(),
            guest,
            data: runtime_data,
        };
        let session = Session::new(new, &appraisal, now, rules.settings.token_seconds);
        let status = appraisal.status().as_str();
        let attested = Event::Attested {
            session: session.jti.clone(),
            tee: session.tee,
            status: status.to_owned(),
            simulated: session.simulated,
            guest: session.guest,
        };
        let Challenge { nonce, expires, .. } = challenge;
        if !self.audit.append_once(attested, ChallengeUse { nonce, expires }).await? {
            return Err(BrokerError::session("a challenge that was used before"));
        }
        tracing::info!(
            session = session.jti,
            tee = session.tee.as_str(),
            simulated = session.simulated,
            status,
            "attested"
        );
        for refusal in observed {
            self.observed(refusal, None, "POST /kbs/v0/attest").await;
        }
        counted.attested();
        session.sign(&self.signing)
    }

    /// The attested session of a bearer token.
    pub(crate) fn session(&self, token: Option<&str>) -> Result<Arc<Known>, BrokerError> {
        let token = token.ok_or_else(|| BrokerError::session("no token"))?;
        self.sessions.verified(token, self.key(), self.rules().settings.evidence.environment, self.now())
    }

    /// Whose session it is. The name in its log binding is the guest's own word; only where its log was held when it
    /// attested, or by what it delivered since, was it compared with evidence.
    pub(crate) fn guest(&self, session: &Session) -> Result<GuestId, BrokerError> {
        if session.log.is_none() {
            return Err(BrokerError::refused(reason::EVIDENCE_GUEST, "session", "one with a log", "one without"));
        }
        session.guest.ok_or_else(|| BrokerError::session("a session made before anything of this guest was held"))
    }

    /// An audit record.
    pub(crate) async fn verdict(&self, _by: &Administrator<Audit>, id: &str) -> Result<VerdictRecord, BrokerError> {
        self.store.verdict(id).await?.ok_or_else(|| missing("such decision"))
    }

    /// Whether the caller is an administrator of the role `R`.
    pub(crate) fn administrator<R: Needed>(&self, shown: Shown<'_>) -> Result<Administrator<R>, BrokerError> {
        self.rules().settings.admin.check(shown, self.now())
    }

    pub(crate) fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String, BrokerError> {
        self.signing.sign(typ, None, claims).map_err(|_| BrokerError::Internal("claims without a JSON form"))
    }
}

/// Asks the appraisal policy about evidence that was verified; gives what it would refuse where it is only watched.
pub(crate) fn appraise(
    rules: &Rules,
    tee: Tee,
    claims: &EvidenceClaims,
    init: Option<&Init>,
) -> Result<(Appraisal, Option<Refusal>), BrokerError> {
    let evidence = &rules.settings.evidence;
    let question = Question {
        tee,
        claims,
        init,
        registers: &evidence.registers,
        references: &rules.references,
        environment: evidence.environment,
    };
    let policy = rules.appraisal();
    Ok(if rules.settings.observe { policy.observe(&question)? } else { (policy.appraise(&question)?, None) })
}

/// Whether this evidence is the stored guest's at all, wherever its log has got to: nobody else learns what is held
/// or raises an alarm about it. [`bind_log`] says the same of a log that agrees with its register.
pub(crate) fn same_guest(claims: &EvidenceClaims, held: &LogState, guest: GuestId) -> Result<GuestId, BrokerError> {
    let shown = guest_of(claims, held.init());
    if shown == guest {
        return Ok(guest);
    }
    Err(BrokerError::refused(reason::EVIDENCE_GUEST, "log binding", shown.to_string(), guest.to_string()))
}

/// Whether the request asks for our protocol. A version we do not speak is refused, not ignored.
fn hello(extra_params: &Value) -> Result<bool, BrokerError> {
    let Some(hello) = extra_params.get("tcl") else { return Ok(false) };
    match Hello::deserialize(hello) {
        Ok(Hello { version: TCL_VERSION }) => Ok(true),
        _ => Err(BrokerError::refused(reason::ATTESTOR_PROTOCOL, "extra-params.tcl", "version 1", "something else")),
    }
}

/// Reads the claims of a request that the session's key must have signed.
pub(crate) fn signed<T: for<'de> Deserialize<'de>>(typ: &str, body: &str, session: &Session) -> Result<T, BrokerError> {
    jws::verify(typ, body, &session.key()?).map_err(|error| match error {
        JwsError::Signature => {
            BrokerError::refused(reason::ATTESTOR_DENIED, "request", "a signature by the session's key", "another")
        }
        JwsError::Malformed(what) => {
            BrokerError::refused(reason::ATTESTOR_PROTOCOL, "request", format!("a JWS of type {typ}"), what)
        }
    })
}

pub(crate) fn json_of<T: for<'de> Deserialize<'de>>(body: &[u8], what: &'static str) -> Result<T, BrokerError> {
    serde_json::from_slice(body)
        .map_err(|_| BrokerError::refused(reason::ATTESTOR_PROTOCOL, "request", what, "something else"))
}

pub(crate) fn malformed(expected: &'static str, actual: String) -> BrokerError {
    BrokerError::refused(reason::EVIDENCE_MALFORMED, "attestation", expected, actual)
}

pub(crate) fn missing(what: &str) -> BrokerError {
    BrokerError::refused(reason::ATTESTOR_NOT_FOUND, what, "it is stored", "it is not")
}
