//! The session's steps as types.

use std::sync::{Arc, PoisonError, RwLock};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::jwe::{self, KeyAlgorithm, SecretKey};
use protocols::kbs::{Attestation, InitData, RuntimeData, Tee, TeeEvidence};
use protocols::resource::ResourcePath;
use protocols::tcl::{
    DECIDE_PATH, DecideResponse, Delivery, EVENTS_PATH, EventsResponse, GoldenResource, LogBinding, RECEIPTS_PATH,
    ReceiptsResponse,
};
use protocols::time::Timestamp;
use reqwest::Method;
use zeroize::Zeroizing;

use crate::cache::{Cache, Resource};
use crate::config::{Attestor, ConfigError};
use crate::error::ClientError;
use crate::http::{Body, Credential, Shell};
use crate::messages::{self, Question, Step, Token, json_of, judge};
use crate::passport::Passport;
use crate::retry::Retry;
use crate::verified::{Asked, ReceiptState, VerifiedReceipt, VerifiedVerdict};

/// One attestor and the connections to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    attestor: Attestor,
    shell: Shell,
}

impl Client {
    /// A client of one attestor.
    ///
    /// # Errors
    /// [`ConfigError::Root`] or [`ConfigError::Tls`] when no TLS client can be made of the configuration.
    pub fn new(attestor: Attestor) -> Result<Self, ConfigError> {
        let shell = Shell::new(&attestor)?;
        Ok(Self { inner: Arc::new(Inner { attestor, shell }) })
    }

    /// The same client, which makes requests again after trouble on the way: handshakes and resources, never what is
    /// delivered or decided.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn retrying(self, retry: Retry) -> Result<Self, ConfigError> {
        let attestor = self.inner.attestor.clone();
        let mut shell = Shell::new(&attestor)?;
        shell.retry = retry;
        Ok(Self { inner: Arc::new(Inner { attestor, shell }) })
    }

    /// The attestor this client talks to.
    #[must_use]
    pub fn attestor(&self) -> &Attestor {
        &self.inner.attestor
    }

    /// Asks for a challenge and makes a fresh session key. With our own attestor the answer must say that it
    /// binds the log's head; anything else is [`ClientError::Protocol`], never a weaker session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn challenge(&self, tee: Tee) -> Result<Challenged, ClientError> {
        let secret = jwe::generate().map_err(|_| ClientError::Request { what: "the system gives no randomness" })?;
        self.challenge_for(tee, SecretKey::P256(secret)).await
    }

    /// As [`Client::challenge`], for a session key of another kind: a stock KBS takes them all, our own protocol P-256
    /// alone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn challenge_with(&self, tee: Tee, algorithm: KeyAlgorithm) -> Result<Challenged, ClientError> {
        if self.attestor().decides() && algorithm != KeyAlgorithm::P256 {
            return Err(ClientError::Request { what: "sessions of an attestor of ours have P-256 keys" });
        }
        let secret = SecretKey::generate(algorithm);
        let secret = secret.map_err(|_| ClientError::Request { what: "the system gives no randomness" })?;
        self.challenge_for(tee, secret).await
    }

    /// Goes on with what another session attested: for resources of a stock KBS, or of ours asked as one.
    ///
    /// # Errors
    /// [`ClientError::Request`] with an attestor of ours, whose sessions are bound to a log.
    pub fn session_of(&self, passport: Passport) -> Result<Session, ClientError> {
        if self.attestor().decides() {
            return Err(ClientError::Request { what: "a passport is for resources, not for a log" });
        }
        let Passport { token, key } = passport;
        let keys = Keys { nonce: String::new(), secret: key };
        Ok(Session { inner: Arc::clone(&self.inner), keys, token: RwLock::new(token), cache: Cache::default() })
    }

    async fn challenge_for(&self, tee: Tee, secret: SecretKey) -> Result<Challenged, ClientError> {
        let tcl = self.attestor().decides();
        let body = to_json(&messages::auth(tee, tcl))?;
        let answer = self.inner.shell.ask(Method::POST, "/kbs/v0/auth", Credential::None, Body::Json(body)).await?;
        let cookie = answer.cookie.clone();
        let challenge = messages::challenge(&judge(Step::Challenge, answer)?, tcl)?;
        let cookie = cookie.ok_or_else(|| ClientError::protocol("a challenge without a session cookie"))?;
        let keys = Keys { nonce: challenge.nonce, secret };
        Ok(Challenged { inner: Arc::clone(&self.inner), cookie, keys, tee })
    }
}

/// The session's nonce and key: what every evidence of it is bound to.
struct Keys {
    nonce: String,
    secret: SecretKey,
}

impl Keys {
    fn runtime_data(&self, log: Option<&LogBinding>) -> RuntimeData {
        RuntimeData { nonce: self.nonce.clone(), tee_pubkey: self.secret.public_key().jwk(), log: log.cloned() }
    }

    fn binding(&self, log: Option<&LogBinding>, additional: &str) -> Result<Sha384Digest, ClientError> {
        self.runtime_data(log).digest(additional).map_err(|_| NO_FORM)
    }

    fn signing(&self) -> Result<p256::ecdsa::SigningKey, ClientError> {
        match &self.secret {
            SecretKey::P256(secret) => Ok(p256::ecdsa::SigningKey::from(secret)),
            SecretKey::P521(_) | SecretKey::Rsa(_) => {
                Err(ClientError::Request { what: "its session's key signs nothing" })
            }
        }
    }
}

const NO_FORM: ClientError = ClientError::Request { what: "its runtime data has no canonical form" };

/// A nonce from the attestor and a session key of ours; nothing is attested yet.
pub struct Challenged {
    inner: Arc<Inner>,
    cookie: String,
    keys: Keys,
    tee: Tee,
}

impl std::fmt::Debug for Challenged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenged").field("tee", &self.tee).finish_non_exhaustive()
    }
}

impl Challenged {
    /// Which evidence was announced.
    #[must_use]
    pub const fn tee(&self) -> Tee {
        self.tee
    }

    /// What the evidence is bound to: nonce, session key and, with our own attestor, the log's head.
    #[must_use]
    pub fn runtime_data(&self, log: Option<&LogBinding>) -> RuntimeData {
        self.keys.runtime_data(log)
    }

    /// SHA-384 that the evidence must carry: [`protocols::kbs::report_data`] for SNP and TDX,
    /// [`protocols::kbs::tpm_nonce`] for a TPM.
    ///
    /// # Errors
    /// [`ClientError::Request`] never happens for these types; it is passed on, not hidden.
    pub fn binding(&self, log: Option<&LogBinding>) -> Result<Sha384Digest, ClientError> {
        self.keys.binding(log, "")
    }

    /// SHA-384 that the platform's evidence must carry where `additional`, the evidence of devices, stands beside it: with
    /// a stock KBS alone.
    ///
    /// # Errors
    /// As [`Challenged::binding`].
    pub fn composite_binding(&self, additional: &str) -> Result<Sha384Digest, ClientError> {
        self.keys.binding(None, additional)
    }

    /// SHA-384 that the evidence of each device beside the platform must carry.
    ///
    /// # Errors
    /// As [`Challenged::binding`].
    pub fn device_binding(&self) -> Result<Sha384Digest, ClientError> {
        self.keys.runtime_data(None).device_digest().map_err(|_| NO_FORM)
    }

    /// Shows the evidence. `log` must be the value the binding was made of, and with an attestor of ours
    /// `evidence.additional_evidence` must be `""`, as the binding says.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] says why the attestor did not accept the evidence.
    pub async fn attest(
        self,
        evidence: TeeEvidence,
        log: Option<LogBinding>,
        init_data: Option<InitData>,
    ) -> Result<Session, ClientError> {
        if log.is_some() {
            alone(&evidence)?;
        }
        if log.is_some() != self.inner.attestor.decides() {
            return Err(ClientError::Request {
                what: "the log's head is bound with an attestor of ours, and only there",
            });
        }
        let attestation =
            Attestation { init_data, runtime_data: self.keys.runtime_data(log.as_ref()), tee_evidence: evidence };
        let body = to_json(&attestation)?;
        let credential = Credential::Cookie(&self.cookie);
        let answer = self.inner.shell.ask(Method::POST, "/kbs/v0/attest", credential, Body::Json(body)).await?;
        let token = messages::token(&judge(Step::Attest, answer)?)?;
        Ok(Session { inner: self.inner, keys: self.keys, token: RwLock::new(token), cache: Cache::default() })
    }
}

/// An attested session. Its key leaves it as a [`Passport`] alone.
pub struct Session {
    inner: Arc<Inner>,
    keys: Keys,
    /// Replaced when the first delivery has shown whose session it is.
    token: RwLock<Token>,
    cache: Cache,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("expires", &self.token().expires).finish_non_exhaustive()
    }
}

impl Session {
    /// SHA-384 that fresh evidence over a new head must carry. The session's nonce and key stay the same.
    ///
    /// # Errors
    /// As [`Challenged::binding`].
    pub fn binding(&self, log: &LogBinding) -> Result<Sha384Digest, ClientError> {
        self.keys.binding(Some(log), "")
    }

    /// Whether the token has run out at `now`: a hint, the attestor decides ([`ClientError::Session`]).
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        self.token().expires.is_some_and(|expires| now.0 >= expires)
    }

    /// Asks for the decision on one launch whose `Image` record the attestor has receipted. Any number may be asked
    /// for at once.
    ///
    /// The verdict may be a refusal: look at [`VerifiedVerdict::outcome`]. It is verified against the pinned key, this
    /// request's nonce, the receipted head, and everything that was sent.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Session`] attest again, once.
    pub async fn decide(&self, question: &Question, receipts: &ReceiptState) -> Result<VerifiedVerdict, ClientError> {
        let attestor = &self.inner.attestor;
        let key = attestor.key()?;
        let receipted = receipts.place().ok_or(ClientError::Request { what: "nothing of the log is receipted" })?;
        let nonce = messages::nonce()?;
        let body = messages::decide(&nonce, question, receipted, &self.keys.signing()?)?;
        let answer: DecideResponse = json_of(&self.post(DECIDE_PATH, body).await?, "decision")?;
        let asked = Asked { nonce: &nonce, question, receipted: &receipted, environment: attestor.environment };
        VerifiedVerdict::check(key, &asked, answer.verdict, answer.id)
    }

    /// Delivers records with fresh evidence over the head they lead to.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::count`] says where to send from after `log.gap`.
    pub async fn deliver(&self, delivery: Delivery, receipts: &ReceiptState) -> Result<VerifiedReceipt, ClientError> {
        self.inner.attestor.key()?;
        alone(&delivery.evidence)?;
        let log = delivery.log.clone();
        let nonce = messages::nonce()?;
        let body = messages::events(&nonce, delivery, &self.keys.signing()?)?;
        let EventsResponse { receipt, token } = json_of(&self.post(EVENTS_PATH, body).await?, "receipt")?;
        if let Some(token) = token {
            *self.token.write().unwrap_or_else(PoisonError::into_inner) = messages::token_of(token)?;
        }
        self.receipt(receipt, &log, receipts).await
    }

    /// Fetches a resource, `repository/type/tag`, and decrypts it with the session key.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Denied`] and the rest of [`ClientError`].
    pub async fn resource(&self, path: &str) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let path: ResourcePath = path.parse().map_err(|_| ClientError::NotFound { what: path.to_owned() })?;
        let url = format!("/kbs/v0/resource/{path}");
        let credential = self.token().text;
        let answer = self.inner.shell.ask(Method::GET, &url, Credential::Bearer(&credential), Body::None).await?;
        let response = json_of(&judge(Step::Resource(path.as_str()), answer)?, "encrypted resource")?;
        jwe::decrypt(&self.keys.secret, &response).map_err(|error| ClientError::protocol(error.to_string()))
    }

    /// As [`Session::resource`], from memory where this session fetched it before and has not ended at `now`. What the
    /// attestor would refuse by now is given all the same until then.
    ///
    /// # Errors
    /// As [`Session::resource`].
    pub async fn cached(&self, path: &str, now: Timestamp) -> Result<Resource, ClientError> {
        let named: ResourcePath = path.parse().map_err(|_| ClientError::NotFound { what: path.to_owned() })?;
        if self.expired(now) {
            self.cache.clear();
        }
        if let Some(kept) = self.cache.get(&named) {
            return Ok(kept);
        }
        let fetched = self.resource(path).await;
        if fetched.as_ref().is_err_and(ClientError::session_ended) {
            self.cache.clear();
        }
        let resource = Resource::new(fetched?);
        self.cache.keep(named, &resource);
        Ok(resource)
    }

    /// The token and the session's key, for whoever asks for resources later.
    #[must_use]
    pub fn into_passport(self) -> Passport {
        let Self { inner: _, keys, token, cache: _ } = self;
        Passport { token: token.into_inner().unwrap_or_else(PoisonError::into_inner), key: keys.secret }
    }

    /// Fetches the golden values stored for a manifest as a resource; `None` when there are none. Nothing in
    /// them is verified yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn golden(&self, manifest: &Sha256Digest) -> Result<Option<GoldenResource>, ClientError> {
        match self.resource(&GoldenResource::path(manifest)).await {
            Ok(bytes) => json_of(&bytes, "golden resource").map(Some),
            Err(ClientError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn token(&self) -> Token {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn post(&self, path: &str, body: String) -> Result<Vec<u8>, ClientError> {
        let credential = self.token().text;
        let answer =
            self.inner.shell.send(Method::POST, path, Credential::Bearer(&credential), Body::Jose(body)).await?;
        judge(Step::Tcl, answer)
    }

    /// Checks a receipt; where answers were lost on the way it first fetches the receipts they carried.
    async fn receipt(
        &self,
        compact: String,
        log: &LogBinding,
        state: &ReceiptState,
    ) -> Result<VerifiedReceipt, ClientError> {
        let key = self.inner.attestor.key()?;
        let receipt = VerifiedReceipt::check(key, log, compact)?;
        if receipt.follows(state, &[]).is_ok() {
            return Ok(receipt);
        }
        let url = format!("{RECEIPTS_PATH}?after={}", state.count());
        let credential = self.token().text;
        let answer = self.inner.shell.send(Method::GET, &url, Credential::Bearer(&credential), Body::None).await?;
        let missed: ReceiptsResponse = json_of(&judge(Step::Tcl, answer)?, "list of receipts")?;
        let missed = VerifiedReceipt::missed(key, log, missed.receipts)?;
        receipt.follows(state, &missed)?;
        Ok(receipt)
    }
}

/// The binding names no additional evidence, so there must be none.
fn alone(evidence: &TeeEvidence) -> Result<(), ClientError> {
    if evidence.additional_evidence.is_empty() {
        return Ok(());
    }
    Err(ClientError::Request { what: "additional evidence is not bound by this client" })
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|_| ClientError::Request { what: "it has no JSON form" })
}
