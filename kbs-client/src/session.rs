//! The session's steps as types.

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::kbs::{InitData, RuntimeData, Tee, TeeEvidence};
use protocols::tcl::{Delivery, GoldenResource, LogBinding};
use protocols::time::Timestamp;
use zeroize::Zeroizing;

use crate::config::{Attestor, ConfigError};
use crate::error::ClientError;
use crate::messages::Question;
use crate::verified::{ReceiptState, VerifiedReceipt, VerifiedVerdict};

const STUB: ClientError = ClientError::Request { what: "not built yet" };

/// One attestor and the connections to it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    attestor: std::sync::Arc<Attestor>,
}

impl Client {
    /// A client of one attestor.
    ///
    /// # Errors
    /// [`ConfigError::Root`] or [`ConfigError::Tls`] when no TLS client can be made of the configuration.
    pub fn new(attestor: Attestor) -> Result<Self, ConfigError> {
        Ok(Self { attestor: std::sync::Arc::new(attestor) })
    }

    /// The attestor this client talks to.
    #[must_use]
    pub fn attestor(&self) -> &Attestor {
        &self.attestor
    }

    /// Asks for a challenge and makes a fresh session key. With our own attestor the answer must say that it
    /// binds the log's head; anything else is [`ClientError::Protocol`], never a weaker session.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn challenge(&self, _tee: Tee) -> Result<Challenged, ClientError> {
        Err(STUB)
    }
}

/// A nonce from the attestor and a session key of ours; nothing is attested yet.
#[derive(Debug)]
pub struct Challenged {}

impl Challenged {
    /// What the evidence is bound to: nonce, session key and, with our own attestor, the log's head.
    #[must_use]
    pub fn runtime_data(&self, _log: Option<&LogBinding>) -> RuntimeData {
        unimplemented!()
    }

    /// SHA-384 that the evidence must carry: [`protocols::kbs::report_data`] for SNP and TDX,
    /// [`protocols::kbs::tpm_nonce`] for a TPM.
    ///
    /// # Errors
    /// [`ClientError::Request`] never happens for these types; it is passed on, not hidden.
    pub fn binding(&self, _log: Option<&LogBinding>) -> Result<Sha384Digest, ClientError> {
        Err(STUB)
    }

    /// Shows the evidence. `log` must be the value the binding was made of; `evidence.additional_evidence` must
    /// be `""`, as the binding says.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] says why the attestor did not accept the evidence.
    pub async fn attest(
        self,
        _evidence: TeeEvidence,
        _log: Option<LogBinding>,
        _init_data: Option<InitData>,
    ) -> Result<Session, ClientError> {
        Err(STUB)
    }
}

/// An attested session. Its key never leaves it.
#[derive(Debug)]
pub struct Session {}

impl Session {
    /// SHA-384 that fresh evidence over a new head must carry. The session's nonce and key stay the same.
    ///
    /// # Errors
    /// As [`Challenged::binding`].
    pub fn binding(&self, _log: &LogBinding) -> Result<Sha384Digest, ClientError> {
        Err(STUB)
    }

    /// Whether the token has run out at `now`: a hint, the attestor decides ([`ClientError::Session`]).
    #[must_use]
    pub fn expired(&self, _now: Timestamp) -> bool {
        true
    }

    /// Asks for the decision on one launch and delivers the log up to its `Image` record.
    ///
    /// The verdict may be a refusal: look at [`VerifiedVerdict::outcome`]. Both answers are verified against the
    /// pinned key, this request's nonce, and everything that was sent.
    ///
    /// # Errors
    /// [`ClientError`]; after [`ClientError::Session`] attest again, once.
    pub async fn decide(
        &self,
        _question: &Question,
        _delivery: Delivery,
        _receipts: &ReceiptState,
    ) -> Result<(VerifiedVerdict, VerifiedReceipt), ClientError> {
        Err(STUB)
    }

    /// Delivers records with fresh evidence over the head they lead to.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::count`] says where to send from after `log.gap`.
    pub async fn deliver(&self, _delivery: Delivery, _receipts: &ReceiptState) -> Result<VerifiedReceipt, ClientError> {
        Err(STUB)
    }

    /// Fetches a resource, `repository/type/tag`, and decrypts it with the session key.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Denied`] and the rest of [`ClientError`].
    pub async fn resource(&self, _path: &str) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        Err(STUB)
    }

    /// Fetches the golden values stored for a manifest as a resource; `None` when there are none. Nothing in
    /// them is verified yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn golden(&self, _manifest: &Sha256Digest) -> Result<Option<GoldenResource>, ClientError> {
        Err(STUB)
    }
}
