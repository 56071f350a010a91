//! A store's whole content as rows that are the same for every kind of store.

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::tcl::{RefusalRecord, VerdictRecord};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{Alarm, History, StoreError};

/// Rows on their way, in the order below. Only [`Row::End`] says that all came.
pub type Rows = mpsc::Receiver<Result<Row, StoreError>>;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Row {
    /// The data key, wrapped by the store key; first, and once.
    DataKey {
        /// As the store key wrapped it.
        #[serde(with = "protocols::encoding::standard")]
        wrapped: Vec<u8>,
    },
    /// A challenge that was used.
    Challenge {
        /// Seconds since 1970.
        expires: u64,
        /// Its nonce.
        #[serde(with = "hex::serde")]
        nonce: [u8; 32],
    },
    /// What is held of a guest.
    History {
        /// Whose.
        guest: GuestId,
        /// State and last receipt.
        history: History,
    },
    /// A record of a guest's log.
    Record {
        /// Whose.
        guest: GuestId,
        /// Its place in the log.
        place: u64,
        /// Its bytes.
        #[serde(with = "protocols::encoding::standard")]
        record: Vec<u8>,
    },
    /// A receipt.
    Receipt {
        /// Whose.
        guest: GuestId,
        /// Records it is for.
        count: u64,
        /// Compact JWS.
        receipt: String,
    },
    /// The highest golden value accepted within a series.
    GoldenMark {
        /// Hash of issuer and series.
        series: Sha384Digest,
        /// Its version.
        version: u64,
        /// SHA-256 of its payload.
        payload: Sha256Digest,
    },
    /// The highest reference values accepted within a series.
    ReferenceMark {
        /// Hash of issuer and series.
        series: Sha384Digest,
        /// Their version.
        version: u64,
        /// SHA-256 of their payload.
        payload: Sha256Digest,
    },
    /// A golden value that its issuer revoked.
    Revoked {
        /// Hash of the issuer.
        issuer: Sha384Digest,
        /// SHA-256 of its payload.
        payload: Sha256Digest,
    },
    /// A launch that was passed.
    Pass {
        /// Whose.
        guest: GuestId,
        /// Launch number.
        seq: u64,
        /// SHA-256 of the golden value's payload.
        golden: Sha256Digest,
    },
    /// A resource, sealed by the data key.
    Resource {
        /// Its path.
        path: String,
        /// Sealed bytes.
        #[serde(with = "protocols::encoding::standard")]
        sealed: Vec<u8>,
    },
    /// A decision, oldest first.
    Verdict {
        /// All of it.
        record: VerdictRecord,
    },
    /// A refusal, oldest first.
    Refusal {
        /// All of it.
        record: RefusalRecord,
    },
    /// An alarm.
    Alarm {
        /// All of it.
        alarm: Alarm,
    },
    /// An entry of the audit log.
    Audit {
        /// Its place.
        place: u64,
        /// Its bytes.
        #[serde(with = "protocols::encoding::standard")]
        entry: Vec<u8>,
    },
    /// The end of the audit log, once it has entries.
    AuditTail {
        /// Entries.
        size: u64,
        /// As the last append gave it.
        #[serde(with = "protocols::encoding::standard")]
        frontier: Vec<u8>,
    },
    /// That was all.
    End,
}
