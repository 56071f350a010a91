//! Initdata shown with evidence: it must be what the evidence is bound to, under an algorithm that fits. What it says is
//! told in tokens then.

use std::collections::BTreeMap;

use appraisal::Appraisal;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::encoding::b64;
use protocols::kbs::InitData;
use protocols::reason::{self, Refusal};
use protocols::register::RegisterValue;
use protocols::tpm;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::Digest as _;
use verifier::{EvidenceClaims, TpmClaims};

/// The most of its files that a token tells whole, in bytes: a token must fit a request's head.
const MAX_TOLD: usize = 4 * 1024;
/// The most files.
const MAX_FILES: usize = 32;
/// The longest name of a file, in bytes.
const MAX_NAME: usize = 64;

/// The members beside the platform's claims in a token that tell of the initdata.
pub(crate) const MEMBERS: [&str; 2] = ["init_data", "init_data_claims"];

#[derive(Deserialize)]
struct Document {
    algorithm: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// Initdata that belongs to the evidence.
#[derive(Debug)]
pub(crate) struct Checked {
    digest: Vec<u8>,
    claims: Value,
}

impl Checked {
    /// The result with what the initdata says, under the names that real servers give it.
    pub(crate) fn told_in(self, appraisal: Appraisal) -> Appraisal {
        let [digest, claims] = MEMBERS;
        appraisal.with_member(digest, b64(&self.digest).into()).with_member(claims, self.claims)
    }
}

/// Checks that the evidence is bound to this text.
pub(crate) fn check(claims: &EvidenceClaims, init_data: &InitData) -> Result<Checked, Refusal> {
    let refuse = |code, expected: &str, actual: String| Refusal::new(code, "initdata", expected, actual);
    if init_data.format != "toml" {
        let actual: String = init_data.format.chars().take(32).collect();
        return Err(refuse(reason::EVIDENCE_INITDATA, "format toml", actual));
    }
    let document: Document = toml::from_str(&init_data.body)
        .map_err(|_| refuse(reason::EVIDENCE_INITDATA, "TOML with an algorithm", "something else".to_owned()))?;
    let text = init_data.body.as_bytes();
    let bound = bound(claims, text);
    // Each place holds a digest of one length: another would have to be cut or padded.
    let algorithm = document.algorithm.as_str();
    let fits = bound.as_ref().map_or_else(
        || ["sha256", "sha384", "sha512"].contains(&algorithm),
        |Bound { algorithm: fits, .. }| *fits == algorithm,
    );
    if !fits {
        let actual: String = algorithm.chars().take(32).collect();
        let expected = bound.map_or("sha256, sha384 or sha512", |bound| bound.algorithm);
        return Err(refuse(reason::EVIDENCE_INITDATA_ALGORITHM, expected, actual));
    }
    if let Some(Bound { expected, actual, .. }) = bound
        && actual != Some(expected)
    {
        let actual = actual.map_or_else(|| "nothing".to_owned(), |actual| actual.to_string());
        return Err(refuse(reason::EVIDENCE_INITDATA, &expected.to_string(), actual));
    }
    let names = || document.data.keys();
    if document.data.len() > MAX_FILES || names().any(|name| name.len() > MAX_NAME) {
        let expected = format!("at most {MAX_FILES} files of names of at most {MAX_NAME} bytes");
        return Err(refuse(reason::EVIDENCE_INITDATA, &expected, format!("{} files", document.data.len())));
    }
    Ok(Checked { digest: digest(algorithm, text), claims: told(&document.data) })
}

/// Where a platform binds initdata.
struct Bound {
    algorithm: &'static str,
    expected: RegisterValue,
    actual: Option<RegisterValue>,
}

/// `None` where evidence binds none: sample evidence, which is bound to nothing anyhow.
fn bound(claims: &EvidenceClaims, text: &[u8]) -> Option<Bound> {
    let quoted = |claims: &TpmClaims| Bound {
        algorithm: "sha256",
        expected: RegisterValue::Sha256(tpm::initdata_pcr(&Sha256Digest::of(text))),
        actual: claims.pcr(tpm::INITDATA_PCR).map(RegisterValue::Sha256),
    };
    Some(match claims {
        EvidenceClaims::Snp(claims) => Bound {
            algorithm: "sha256",
            expected: RegisterValue::Sha256(Sha256Digest::of(text)),
            actual: Some(RegisterValue::Sha256(Sha256Digest::new(*claims.host_data()))),
        },
        EvidenceClaims::Tpm(claims) => quoted(claims),
        EvidenceClaims::Azure(claims) => quoted(claims.tpm()),
        EvidenceClaims::Tdx(claims) => Bound {
            algorithm: "sha384",
            expected: RegisterValue::Sha384(Sha384Digest::of(text)),
            actual: Some(RegisterValue::Sha384(Sha384Digest::new(*claims.mr_config_id()))),
        },
        EvidenceClaims::Sample(_) => return None,
    })
}

fn digest(algorithm: &str, text: &[u8]) -> Vec<u8> {
    match algorithm {
        "sha256" => sha2::Sha256::digest(text).to_vec(),
        "sha384" => sha2::Sha384::digest(text).to_vec(),
        _ => sha2::Sha512::digest(text).to_vec(),
    }
}

/// Every file: TOML and JSON as JSON, others as text, and by digest what is a policy or no longer fits.
fn told(files: &BTreeMap<String, String>) -> Value {
    let mut room = MAX_TOLD;
    let mut claims = Map::new();
    for (name, text) in files {
        let (_, kind) = name.rsplit_once('.').unwrap_or_default();
        let whole = match kind {
            "toml" => toml::from_str::<Value>(text).ok(),
            "json" => serde_json::from_str(text).ok(),
            "rego" => None,
            _ => Some(text.clone().into()),
        };
        let size = whole.as_ref().map_or(usize::MAX, |value| value.to_string().len());
        let value = match (whole, room.checked_sub(size)) {
            (Some(value), Some(rest)) => {
                room = rest;
                value
            }
            _ => json!({ "sha256": hex::encode(sha2::Sha256::digest(text)) }),
        };
        claims.insert(name.clone(), value);
    }
    Value::Object(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_as_what_they_are_as_long_as_they_fit() {
        let files =
            |pairs: &[(&str, String)]| pairs.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
        let hash = |text: &str| json!({ "sha256": hex::encode(sha2::Sha256::digest(text)) });
        let said = told(&files(&[
            ("aa.toml", "a = 1\n".into()),
            ("b.json", "{\"c\":[]}".into()),
            ("broken.toml", "= =".into()),
            ("cdh.toml", "socket = \"x\"".into()),
            ("policy.rego", "package agent_policy".into()),
            ("text", "hello".into()),
        ]));
        let expected = json!({
            "aa.toml": { "a": 1 }, "b.json": { "c": [] }, "broken.toml": hash("= ="), "cdh.toml": { "socket": "x" },
            "policy.rego": hash("package agent_policy"), "text": "hello",
        });
        assert_eq!(said, expected);
        let long = "x".repeat(MAX_TOLD);
        let said = told(&files(&[("a", long.clone()), ("b", "short".into())]));
        assert_eq!(said, json!({ "a": hash(&long), "b": "short" }));
    }
}
