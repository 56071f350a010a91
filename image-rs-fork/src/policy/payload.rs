//! The payload of a simple signing signature (containers-signature(5)): which image it speaks of, and by what name.

use protocols::digest::Sha256Digest;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::json::Unique;

/// The largest payload we read, in bytes.
pub(super) const MAX_PAYLOAD: u64 = 64 * 1024;
/// `critical.type` of OpenPGP signatures.
pub(super) const OPENPGP: &str = "atomic container signature";
/// `critical.type` of sigstore's signatures.
pub(super) const SIGSTORE: &str = "cosign container image signature";

/// What a payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    /// `critical.image.docker-manifest-digest`.
    pub(super) digest: Sha256Digest,
    /// `critical.identity.docker-reference`.
    pub(super) reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    critical: Critical,
    #[serde(rename = "optional", deserialize_with = "nullable")]
    _optional: Option<Unique<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    r#type: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Sha256Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

/// `null` or an object, but there: cosign writes `null` where it has nothing to say.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Unique<IgnoredAny>>, D::Error> {
    Option::deserialize(deserializer)
}

impl Payload {
    /// Reads a payload whose `critical.type` is `kind`. `critical` is closed; `optional` says nothing we use.
    pub(super) fn parse(bytes: &[u8], kind: &str) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|e| format!("a payload that cannot be read: {e}"))?;
        if file.critical.r#type != kind {
            return Err(format!("a payload of type `{}`", file.critical.r#type));
        }
        Ok(Self {
            digest: file.critical.image.docker_manifest_digest,
            reference: file.critical.identity.docker_reference,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn payload(optional: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"h.example/app"}},"image":{{"docker-manifest-digest":"sha256:{HEX}"}},"type":"{SIGSTORE}"}},"optional":{optional}}}"#
        )
    }

    #[test]
    fn what_the_tools_write_is_read() {
        for optional in ["null", "{}", r#"{"creator":"c","timestamp":1,"more":[1]}"#] {
            let payload = Payload::parse(payload(optional).as_bytes(), SIGSTORE).unwrap();
            assert_eq!((payload.digest.hex().as_str(), payload.reference.as_str()), (HEX, "h.example/app"));
        }
    }

    #[test]
    fn two_meanings_other_types_and_unknown_members_are_refused() {
        let good = payload("{}");
        let parse = |text: &str| Payload::parse(text.as_bytes(), SIGSTORE);
        assert!(Payload::parse(good.as_bytes(), "atomic container signature").is_err());
        for (from, to) in [
            ("\"optional\":{}", "\"optional\":{\"a\":1,\"a\":2}"),
            ("\"optional\":{}", "\"optional\":{},\"optional\":{}"),
            (",\"optional\":{}", ""),
            ("\"optional\":{}", "\"optional\":{},\"more\":1"),
            ("\"docker-reference\":\"h.example/app\"", "\"docker-reference\":\"a\",\"docker-reference\":\"b\""),
            ("\"docker-manifest-digest\"", "\"Docker-manifest-digest\""),
            ("\"critical\":{", "\"critical\":{\"x\":1,"),
            ("sha256:", "sha512:"),
            ("\"type\":", "\"type\":\"x\",\"type\":"),
            ("}}", "}} x"),
        ] {
            let changed = good.replacen(from, to, 1);
            assert_ne!(changed, good, "{from}");
            assert!(parse(&changed).is_err(), "{changed}");
        }
    }
}
