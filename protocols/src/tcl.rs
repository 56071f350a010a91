//! Our own additions to the attestor's protocol: the log's head in the handshake, launch decisions
//! (`POST /tcl/v1/decide`), event delivery (`POST /tcl/v1/events`), verdicts and receipts.
//!
//! A decision is asked for over a head that the attestor has receipted: records are delivered before, one delivery after
//! another, and any number of decisions may then be awaited at once.
//!
//! Both requests carry `Authorization: Bearer <token of the attested session>` and as body
//! (`content-type: application/jose`) a compact JWS signed by the session's TEE key. Answers are JSON;
//! the verdict and the receipt in them are compact JWS signed by the attestor's pinned key.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::encoding;
use crate::environment::Environment;
use crate::events::GoldenRef;
use crate::guest::GuestId;
use crate::image::{ImageMeasurement, ProcessRequest};
use crate::kbs::TeeEvidence;
use crate::reason::Refusal;
use crate::register::{HashAlg, RegisterKind, RegisterValue};
use crate::time::Timestamp;

/// Path of launch decisions.
pub const DECIDE_PATH: &str = "/tcl/v1/decide";
/// Path of event delivery.
pub const EVENTS_PATH: &str = "/tcl/v1/events";
/// Path of a guest's receipts, for an agent that lost answers: `GET`, `?after=<count>`.
pub const RECEIPTS_PATH: &str = "/tcl/v1/receipts";
/// Path of the audit records of decisions, for administrators: `GET <path>/<id>`.
pub const VERDICTS_PATH: &str = "/tcl/v1/verdicts";
/// Path of the records of refusals, for administrators: `GET <path>/<id>`.
pub const REFUSALS_PATH: &str = "/tcl/v1/refusals";
/// JWS `typ` of a decide request.
pub const DECIDE_TYP: &str = "tcl-decide+jwt";
/// JWS `typ` of an events request.
pub const EVENTS_TYP: &str = "tcl-events+jwt";
/// JWS `typ` of a verdict.
pub const VERDICT_TYP: &str = "tcl-verdict+jwt";
/// JWS `typ` of a receipt.
pub const RECEIPT_TYP: &str = "tcl-receipt+jwt";
/// The most records one request may carry.
pub const MAX_RECORDS_PER_REQUEST: usize = 1024;

/// Where a launch is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the guest, under a boot state the measured configuration names.
    Local,
    /// By the remote attestor.
    Remote,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Remote => "remote",
        })
    }
}

/// `extra-params.tcl` of the request: the client insists on our protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// 1.
    pub version: u32,
}

/// `extra-params.tcl` of the challenge: the server binds the log's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HelloReply {
    /// 1.
    pub version: u32,
}

/// The log's head, hashed into report data together with nonce and session key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogBinding {
    /// The register's algorithm.
    pub alg: HashAlg,
    /// Records in the log.
    pub count: u64,
    /// Whose log it is.
    pub guest: GuestId,
    /// The register after `count` records.
    pub head: RegisterValue,
    /// What stands behind the register.
    pub kind: RegisterKind,
}

/// Records from a place on, with fresh evidence over the head they lead to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Place of the first record, from 0. Records the attestor has already must be identical.
    pub from: u64,
    /// The records' exact bytes, standard base64.
    pub records: Vec<RecordBytes>,
    /// The head after the last record.
    pub log: LogBinding,
    /// Evidence over the session's nonce, key and `log`.
    pub evidence: TeeEvidence,
}

/// One record's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordBytes(#[serde(with = "encoding::standard")] pub Vec<u8>);

/// Claims of a decide request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    /// 32 random bytes of the agent, standard base64; the answer names it.
    pub nonce: String,
    /// The container.
    pub cid: String,
    /// Launch number.
    pub seq: u64,
    /// The image reference as the agent resolved it; where the attestor looks for the golden value.
    pub reference: String,
    /// What was measured.
    pub image: ImageMeasurement,
    /// What will run.
    pub process: ProcessRequest,
    /// A place of the log that the attestor has receipted: what the verdict is over. The `Image` record must be held.
    pub receipted: Place,
}

/// A place in a guest's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Whose history.
    pub guest: GuestId,
    /// Records before it.
    pub count: u64,
    /// The register after them.
    pub head: RegisterValue,
}

/// Claims of an events request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// 32 random bytes of the agent, standard base64; the receipt names it.
    pub nonce: String,
    /// The records.
    pub delivery: Delivery,
}

/// Answer to a decide request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideResponse {
    /// Compact JWS of a [`Verdict`].
    pub verdict: String,
    /// Name of the attestor's audit record of this decision; not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Answer to an events request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsResponse {
    /// Compact JWS of a [`Receipt`].
    pub receipt: String,
    /// The session's token from now on, where the one it had could not name the guest: nothing of it was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Answer to a request for the receipts after a count, of the guest whose session asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsResponse {
    /// Compact JWS of [`Receipt`]s, in the order they were issued.
    pub receipts: Vec<String>,
}

/// How a launch was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All checks passed; names the golden value.
    Pass(GoldenRef),
    /// The first check that failed, and the golden value it failed on where there was one.
    Refused {
        /// Why.
        refusal: Box<Refusal>,
        /// The golden value in question.
        golden: Option<GoldenRef>,
    },
}

/// The attestor's signed decision on one launch. Used once, for exactly what it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The request's nonce.
    pub nonce: String,
    /// The guest.
    pub guest: GuestId,
    /// The container.
    pub cid: String,
    /// Launch number.
    pub seq: u64,
    /// Platform manifest.
    pub manifest: Sha256Digest,
    /// Config blob.
    pub config: Sha256Digest,
    /// Root file system digest.
    pub rootfs: Sha256Digest,
    /// SHA-256 of the canonical JSON of the [`ProcessRequest`] that was judged.
    pub process: Sha256Digest,
    /// The decision.
    pub outcome: Outcome,
    /// Log head the decision was made over.
    pub head: RegisterValue,
    /// Records in that log.
    pub count: u64,
    /// SHA-256 of the attestor's policy.
    pub policy: Sha256Digest,
    /// The attestor's environment.
    pub environment: Environment,
    /// Whether the attestor only watched its policy: what policy would refuse has passed. Production takes none such.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub observe: bool,
    /// The attestor's time.
    pub issued_at: Timestamp,
    /// From this second on the verdict is stale for anyone who trusts a clock.
    pub expires: Timestamp,
}

/// The attestor's signed word that it durably holds a guest's history up to a head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The nonce of the request that first committed this head.
    pub nonce: String,
    /// The guest.
    pub guest: GuestId,
    /// Records held.
    pub count: u64,
    /// Register after them.
    pub head: RegisterValue,
    /// SHA-256 of the previous receipt's compact JWS; null for a guest's first.
    pub previous: Option<Sha256Digest>,
    /// The attestor's time.
    pub issued_at: Timestamp,
}

/// Error body of `/tcl/v1`: a code for the host's side, the whole refusal only inside signed verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TclError {
    /// The refusal.
    pub refusal: Refusal,
    /// Records the attestor holds of this guest, where that helps the sender to continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Name of the attestor's record of this refusal: all that the host's side needs besides the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// An attestor's record of one request that it did not serve, as an administrator reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalRecord {
    /// The record's name, as in [`TclError::id`].
    pub id: String,
    /// The attestor's time.
    pub time: Timestamp,
    /// Method and route of the request, such as `GET /kbs/v0/resource`.
    pub request: String,
    /// The session that asked, by its name in the attestor's log; null for strangers.
    pub session: Option<String>,
    /// Its guest, where that was known.
    pub guest: Option<GuestId>,
    /// Whether the request was served all the same: policy was only observed.
    pub observed: bool,
    /// Why.
    pub refusal: Refusal,
}

/// An attestor's audit record of one decision, as an administrator reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerdictRecord {
    /// The record's name, as in [`DecideResponse::id`].
    pub id: String,
    /// The image reference the agent named.
    pub reference: String,
    /// What was signed.
    pub verdict: Verdict,
    /// The compact JWS.
    pub signed: String,
}

/// Golden values as a KBS resource: what is stored at `golden/dsse/<64 hex of the manifest>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenResource {
    /// DSSE envelopes as they are stored with the image, standard base64.
    pub envelopes: Vec<RecordBytes>,
    /// The DSSE envelope of the newest revocation list, or null.
    pub revocations: Option<RecordBytes>,
}

impl GoldenResource {
    /// The resource path of a manifest's golden values.
    #[must_use]
    pub fn path(manifest: &Sha256Digest) -> String {
        format!("golden/dsse/{}", manifest.hex())
    }
}
