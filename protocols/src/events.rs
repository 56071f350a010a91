//! What the records say: one type per event of ours, strictly typed both ways.
//!
//! User strings never enter the log as they are: they are hashed ([`hash_str`], [`hash_list`]) or base64url.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Sha256Digest, Sha384Digest};
use crate::environment::Environment;
use crate::event_log::{LogError, Record};
use crate::image::{Layout, RootfsMeasurement};
use crate::jcs;
use crate::reason::Code;
use crate::register::{HashAlg, RegisterKind, RegisterValue};
use crate::tcl::Mode;

/// First word of every record of ours.
pub const DOMAIN: &str = "trusted-container-launcher";
/// Domain of the record that other verifiers look for at an image pull.
pub const COCO_DOMAIN: &str = "github.com/confidential-containers";

/// SHA-384 of a user string.
#[must_use]
pub fn hash_str(text: &str) -> Sha384Digest {
    Sha384Digest::of(text.as_bytes())
}

/// SHA-384 over a list, each entry preceded by its length as u64 little-endian.
#[must_use]
pub fn hash_list<S: AsRef<str>>(items: &[S]) -> Sha384Digest {
    let mut bytes = Vec::new();
    for item in items {
        let item = item.as_ref().as_bytes();
        bytes.extend_from_slice(&(item.len() as u64).to_le_bytes());
        bytes.extend_from_slice(item);
    }
    Sha384Digest::of(&bytes)
}

/// First record: who measures what into which register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Version of the event set: 1.
    pub v: u32,
    /// 32 random bytes of this boot, hex.
    #[serde(with = "hex::serde")]
    pub boot_nonce: [u8; 32],
    /// What stands behind the register.
    pub register_kind: RegisterKind,
    /// The register's value before this record.
    pub reg0: RegisterValue,
    /// Release of the agent.
    pub agent: String,
    /// SHA-256 of the agent's executable.
    pub agent_h: Sha256Digest,
    /// Digest of the initdata the guest found, of the platform's algorithm, or null where there is none.
    pub initdata: Option<RegisterValue>,
    /// SHA-256 of the configuration's bytes.
    pub config: Sha256Digest,
    /// Production or development.
    pub environment: Environment,
    /// Whether the platform is simulated.
    pub simulated: bool,
}

/// An image was pulled, verified and measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Launch number.
    pub seq: u64,
    /// SHA-384 of the reference as given.
    pub ref_h: Sha384Digest,
    /// Platform manifest.
    pub manifest: Sha256Digest,
    /// Config blob.
    pub config: Sha256Digest,
    /// Measured root file system.
    pub rootfs: RootfsMeasurement,
}

/// The record other verifiers look for: `github.com/confidential-containers PullImage`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullImage {
    /// Platform manifest digest.
    pub digest: Sha256Digest,
    /// The reference as given.
    pub image: String,
}

/// Where the version floor of an appraisal came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// This guest's own log and the configured minimum.
    Log,
    /// A TPM NV counter.
    TpmNv,
    /// The attestor's store.
    Attestor,
}

/// A verdict was reached; refusals are recorded too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Launch number.
    pub seq: u64,
    /// Platform manifest.
    pub manifest: Sha256Digest,
    /// Where it was decided.
    pub mode: Mode,
    /// `pass`, or the refusal's code.
    pub verdict: VerdictWord,
    /// The golden value that decided, null where none was found or authentic.
    pub golden: Option<GoldenRef>,
    /// Where the version floor came from.
    pub floor: Floor,
    /// Which clock judged the expiry.
    pub time_source: TimeSource,
}

/// Which clock judged an expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeSource {
    /// The attestor's.
    Attestor,
    /// The latest of the host's clock, the last attestor-signed time, the newest issue time, the build time.
    LatestKnown,
}

/// `pass` or a reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictWord {
    /// All checks passed.
    Pass,
    /// The first check that failed.
    Refused(Code),
}

impl Serialize for VerdictWord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Pass => serializer.serialize_str("pass"),
            Self::Refused(code) => code.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for VerdictWord {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "pass" {
            return Ok(Self::Pass);
        }
        Code::parse(&text).map(Self::Refused).ok_or_else(|| serde::de::Error::custom("unknown reason code"))
    }
}

/// Names one golden value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenRef {
    /// SHA-256 of the signed payload.
    pub payload: Sha256Digest,
    /// The signing key's id.
    pub signer: Sha256Digest,
    /// SHA-384 of `issuer` and `series` as a list.
    pub series_h: Sha384Digest,
    /// Its version.
    pub version: u64,
}

impl GoldenRef {
    /// The name a version floor is kept under.
    #[must_use]
    pub fn series_hash(issuer: &str, series: &str) -> Sha384Digest {
        hash_list(&[issuer, series])
    }
}

/// The pod's pause container is about to be launched: from a bundle of the guest image, without a golden value.
///
/// It stands where another launch has `Image` and `Golden`. Agent and attestor pin [`Pause::bundle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Launch number.
    pub seq: u64,
    /// Measured root file system.
    pub rootfs: RootfsMeasurement,
    /// Arguments as a list.
    pub args_h: Sha384Digest,
    /// Environment as a list.
    pub env_h: Sha384Digest,
    /// SHA-384 of the working directory.
    pub cwd_h: Sha384Digest,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

impl Pause {
    /// What configuration and policy pin: SHA-256 of the canonical JSON of every field but `seq`.
    ///
    /// # Errors
    /// [`LogError::Malformed`] when the fields have no canonical form.
    pub fn bundle(&self) -> Result<Sha256Digest, LogError> {
        #[derive(Serialize)]
        struct Bundle<'p> {
            rootfs: &'p RootfsMeasurement,
            args_h: &'p Sha384Digest,
            env_h: &'p Sha384Digest,
            cwd_h: &'p Sha384Digest,
            uid: u32,
            gid: u32,
        }
        let Self { seq: _, rootfs, args_h, env_h, cwd_h, uid, gid } = self;
        let bundle = Bundle { rootfs, args_h, env_h, cwd_h, uid: *uid, gid: *gid };
        let what = "the bundle has no canonical form";
        Ok(Sha256Digest::of(&jcs::canonical(&bundle).map_err(|_| LogError::Malformed { record: 0, what })?))
    }
}

/// An appraised image's root file system is about to be handed to another agent in this guest.
///
/// It ends the launch: what that agent runs from it stands in no record of this log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provided {
    /// Launch number.
    pub seq: u64,
    /// SHA-384 of the id of the container it is for.
    pub cid_h: Sha384Digest,
    /// Platform manifest.
    pub image_manifest: Sha256Digest,
    /// Measured root file system, in the layout that is mounted.
    pub rootfs: RootfsMeasurement,
    /// Digest of the policy in force.
    pub policy_h: Sha256Digest,
}

/// Everything about to run, extended before anything executes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Launch number.
    pub seq: u64,
    /// SHA-384 of the container's id.
    pub cid_h: Sha384Digest,
    /// Platform manifest; null for a bundle without an image (the pause container).
    pub image_manifest: Option<Sha256Digest>,
    /// Measured root file system.
    pub rootfs: RootfsMeasurement,
    /// Arguments as a list.
    pub args_h: Sha384Digest,
    /// Environment as a list.
    pub env_h: Sha384Digest,
    /// SHA-384 of the working directory.
    pub cwd_h: Sha384Digest,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// All capability sets as a list, each entry `SET:CAP`.
    pub caps_h: Sha384Digest,
    /// Mounts as a list of canonical JSON.
    pub mounts_h: Sha384Digest,
    /// SHA-384 of the final OCI spec's canonical JSON, after every edit.
    pub oci_h: Sha384Digest,
    /// Digest of the policy in force.
    pub policy_h: Sha256Digest,
    /// SHA-256 of the runtime's executable.
    pub runtime: Sha256Digest,
}

/// The runtime made the container; its process has not run yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Created {
    /// Launch number.
    pub seq: u64,
    /// SHA-256 of `config.json` as the runtime read it, by descriptor.
    pub config_h: Sha256Digest,
    /// The layout whose bytes the kernel or this agent enforces.
    pub rootfs_enforced: Layout,
    /// SHA-256 of the runtime's executable, hashed by the descriptor it was run from.
    pub runtime_h: Sha256Digest,
    /// The runtime's arguments as a list.
    pub argv_h: Sha384Digest,
}

/// The container's process was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// Launch number.
    pub seq: u64,
}

/// Another process is about to run in a started container.
///
/// Probes run the same process every few seconds: it is recorded when its count in this container is a power of two
/// ([`Exec::is_due`]). Anything that differs, if only in one variable of the environment, is another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The container's launch number.
    pub seq: u64,
    /// SHA-384 of the container's id.
    pub cid_h: Sha384Digest,
    /// Arguments as a list.
    pub args_h: Sha384Digest,
    /// Environment as a list.
    pub env_h: Sha384Digest,
    /// SHA-384 of the working directory.
    pub cwd_h: Sha384Digest,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// SHA-384 of the final OCI process's canonical JSON, after every edit: by it processes are told apart.
    pub process_h: Sha384Digest,
    /// How often this process was asked for in this container, this time included; a power of two.
    pub n: u64,
}

impl Exec {
    /// Whether the `n`th exec of the same process in a container is recorded.
    #[must_use]
    pub const fn is_due(n: u64) -> bool {
        n.is_power_of_two()
    }
}

/// What the host put into the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copied {
    /// A file: SHA-256 of its finished bytes.
    File(Sha256Digest),
    /// A symbolic link: SHA-384 of its target.
    Symlink(Sha384Digest),
    /// A directory.
    Directory,
}

/// A file, link or directory from the host is about to appear in the guest: a file when its last byte is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyFile {
    /// SHA-384 of the path as asked for.
    pub path_h: Sha384Digest,
    /// What it is.
    pub content: Copied,
    /// Permission bits, 0 for a link.
    pub mode: u32,
    /// Numeric owner.
    pub uid: i32,
    /// Numeric group.
    pub gid: i32,
}

/// Another policy is about to gate the host's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// SHA-256 of the text in force so far; null when the agent starts.
    pub old: Option<Sha256Digest>,
    /// SHA-256 of the text from now on.
    pub new: Sha256Digest,
}

/// The launch ended before its process ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Launch number.
    pub seq: u64,
    /// Why.
    pub code: Code,
}

/// Why a container's process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// It ended by itself or by a signal from outside the agent.
    Exited,
    /// The agent was asked to stop it.
    Stopped,
    /// The agent restarted and ended what it found.
    AgentRestart,
}

/// The container's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exit {
    /// Launch number; null when a restarted agent no longer knows it.
    pub seq: Option<u64>,
    /// SHA-384 of the container's id.
    pub cid_h: Sha384Digest,
    /// Exit status, 128 + signal after a signal; null when nobody saw it.
    pub status: Option<u32>,
    /// Why.
    pub reason: ExitReason,
}

/// A restarted agent found this many records and a register that agrees with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Records before this one.
    pub n: u64,
    /// SHA-256 of the configuration's bytes now.
    pub config: Sha256Digest,
    /// SHA-256 of the agent's executable now.
    pub agent_h: Sha256Digest,
}

/// Nothing is launched after this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Records before this one.
    pub n: u64,
    /// `shutdown` or `destroy_sandbox`.
    pub reason: String,
}

macro_rules! events {
    ($($name:ident $domain:expr;)*) => {
        /// An event of ours.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs, clippy::large_enum_variant)] // documented at each type; short-lived, never stored in bulk
        pub enum Event { $($name($name)),* }

        $(impl From<$name> for Event {
            fn from(event: $name) -> Self {
                Self::$name(event)
            }
        })*

        impl Event {
            /// The record's second word.
            #[must_use]
            pub const fn operation(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),* }
            }

            /// Encodes this event for register `mr` of algorithm `alg`.
            ///
            /// # Errors
            /// [`LogError::Malformed`] when the text would be too long or not printable ASCII.
            pub fn record(&self, mr: u32, alg: HashAlg) -> Result<Record, LogError> {
                let (domain, content) = match self {
                    $(Self::$name(event) => ($domain, serde_json::to_value(event))),*
                };
                let content = content.map_err(|_| LogError::Malformed { record: 0, what: "the event has no JSON form" })?;
                Record::encode(mr, alg, domain, self.operation(), &content)
            }

            /// Reads a record. Only our own events may be in our register: anything else is refused.
            ///
            /// # Errors
            /// [`LogError::Malformed`] with `place` as the record's number.
            pub fn of(record: &Record, place: usize) -> Result<Self, LogError> {
                let refused = |what| LogError::Malformed { record: place, what };
                let content = || Value::clone(record.content());
                let event = match (record.domain(), record.operation()) {
                    $((domain, stringify!($name)) if domain == $domain => {
                        Self::$name(serde_json::from_value(content()).map_err(|_| refused("fields are not those of the event"))?)
                    })*
                    _ => return Err(refused("unknown event")),
                };
                Ok(event)
            }
        }
    };
}

events! {
    Init DOMAIN;
    Image DOMAIN;
    PullImage COCO_DOMAIN;
    Golden DOMAIN;
    Pause DOMAIN;
    Provided DOMAIN;
    Launch DOMAIN;
    Created DOMAIN;
    Started DOMAIN;
    Exec DOMAIN;
    CopyFile DOMAIN;
    Policy DOMAIN;
    Failed DOMAIN;
    Exit DOMAIN;
    Restart DOMAIN;
    Seal DOMAIN;
}
