//! What is written down.

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::reason::Code;
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::AuditError;

/// The longest entry, in bytes: names in it are bounded where they are made.
pub const MAX_ENTRY: usize = 4096;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its place, from 0: an entry counts at its own place alone.
    pub seq: u64,
    /// The time of the replica that wrote it.
    pub time: Timestamp,
    /// Which running attestor wrote it: 16 hexadecimal digits, new with each start.
    pub replica: String,
    /// What happened.
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Event {
    /// An attestor began to serve.
    Start {
        /// SHA-256 of everything that decides, as verdicts name it.
        policy: Sha256Digest,
        /// Production or development.
        environment: Environment,
    },
    /// Other settings were put in force.
    Reload {
        /// As above.
        policy: Sha256Digest,
    },
    /// Evidence was accepted and a session made.
    Attested {
        /// The token's `jti`.
        session: String,
        /// What kind of evidence.
        tee: Tee,
        /// `ear.status`.
        status: String,
        /// Whether a simulated platform gave it.
        simulated: bool,
        /// Whose, where that was known.
        guest: Option<GuestId>,
    },
    /// A launch was decided.
    Verdict {
        /// Name of the whole record.
        id: String,
        /// Whose launch.
        guest: GuestId,
        /// Which.
        launch: u64,
        /// Of which platform manifest.
        manifest: Sha256Digest,
        /// How.
        outcome: Outcome,
        /// SHA-256 of the golden value's payload, where there was one.
        golden: Option<Sha256Digest>,
        /// SHA-256 of everything that decides.
        policy: Sha256Digest,
    },
    /// A resource was given out, encrypted to a session's key.
    Release {
        /// The token's `jti`.
        session: String,
        /// `repository/type/tag`.
        path: String,
        /// Whose session, where that was known.
        guest: Option<GuestId>,
    },
    /// A guest showed a history that cannot be.
    Alarm {
        /// Whose.
        guest: GuestId,
        /// Why.
        code: Code,
    },
    /// An administrator changed something; written before the change.
    Administration {
        /// Who, by the name the configuration or the identity provider gives.
        who: String,
        /// `resource.put`, `resource.delete`, `policy.resource` and so on.
        action: String,
        /// Which one.
        subject: String,
        /// SHA-256 of what was put there, except of secrets.
        digest: Option<Sha256Digest>,
    },
}

/// How a launch was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It may run.
    Pass,
    /// It may not.
    Refused(Code),
}

impl Entry {
    /// The bytes that are stored and hashed: JSON, fields in the order above.
    ///
    /// # Errors
    /// [`AuditError::Entry`] when it is longer than [`MAX_ENTRY`].
    pub fn encode(&self) -> Result<Vec<u8>, AuditError> {
        let refused = |what| AuditError::Entry { place: self.seq, what };
        let bytes = serde_json::to_vec(self).map_err(|_| refused("it has no JSON form"))?;
        if bytes.len() > MAX_ENTRY { Err(refused("it is too long")) } else { Ok(bytes) }
    }

    /// Reads the entry at a place; only bytes that it encodes to again are one.
    ///
    /// # Errors
    /// [`AuditError::Entry`].
    pub fn decode(bytes: &[u8], place: u64) -> Result<Self, AuditError> {
        let refused = |what| AuditError::Entry { place, what };
        if bytes.len() > MAX_ENTRY {
            return Err(refused("it is too long"));
        }
        let entry: Self = serde_json::from_slice(bytes).map_err(|_| refused("not an entry"))?;
        if entry.seq != place {
            return Err(refused("it names another place"));
        }
        if entry.encode()? != bytes {
            return Err(refused("it is written in another way than entries are"));
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn entry(seq: u64, path: &str) -> Entry {
        let event = Event::Release { session: "00ff".into(), path: path.into(), guest: None };
        Entry { seq, time: Timestamp(1_800_000_000), replica: "0123456789abcdef".into(), event }
    }

    /// Auditors keep what they fetched: the bytes of released entries never change.
    #[test]
    fn an_entry_is_written_in_one_way() {
        let bytes = entry(7, "default/key/1").encode().unwrap();
        let text = r#"{"seq":7,"time":"2027-01-15T08:00:00Z","replica":"0123456789abcdef","event":{"kind":"release","session":"00ff","path":"default/key/1","guest":null}}"#;
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), text);
        assert_eq!(Entry::decode(&bytes, 7).unwrap(), entry(7, "default/key/1"));
        let refused = Event::Verdict {
            id: "a".into(),
            guest: GuestId::new([1; 32]),
            launch: 3,
            manifest: Sha256Digest::of(b"m"),
            outcome: Outcome::Refused(protocols::reason::GOLDEN_ROLLBACK),
            golden: None,
            policy: Sha256Digest::of(b"p"),
        };
        let text = serde_json::to_string(&refused).unwrap();
        assert!(text.contains(r#""outcome":{"refused":"golden.rollback"}"#), "{text}");
    }

    #[test]
    fn other_bytes_or_another_place_are_no_entry() {
        let bytes = entry(7, "default/key/1").encode().unwrap();
        assert!(Entry::decode(&bytes, 8).is_err());
        let text = String::from_utf8(bytes).unwrap();
        for other in [
            text.replace("\"seq\":7,", "\"seq\": 7,"),
            text.replace(",\"guest\":null", ""),
            text.replace("\"seq\":7", "\"seq\":7,\"more\":1"),
            text.replace("release", "unknown"),
            format!("{text}\n"),
            String::new(),
        ] {
            assert!(Entry::decode(other.as_bytes(), 7).is_err(), "{other}");
        }
        assert!(entry(0, &"x".repeat(MAX_ENTRY)).encode().is_err());
    }
}
