//! `reference sign | show | verify`.

mod compute;

use std::collections::BTreeMap;
use std::path::Path;

use protocols::digest::Sha256Digest;
use protocols::dsse::Envelope;
use protocols::time::Timestamp;
use reference_values::corim::{self, CorimKey};
use reference_values::document::{PAYLOAD_TYPE, TYPE};
use reference_values::{CheckedReferences, Document, References, SignerConfig, Signers, Trust};
use serde_json::json;
use verifier::HighWater;
use zeroize::Zeroizing;

pub(crate) use self::compute::compute;
use crate::artifact::private_key;
use crate::cli::{ReferenceFormat, ReferenceShowArguments, ReferenceSignArguments, ReferenceVerifyArguments};
use crate::files::{create, read, whole};
use crate::issue;
use crate::outcome::Failure;
use crate::output::Output;

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
const DAY: u64 = 86_400;

/// Signs values that somebody computed or wrote down.
pub(crate) fn sign(arguments: &ReferenceSignArguments, output: &Output) -> Result<(), Failure> {
    let mut values = References::default();
    for file in &arguments.values {
        values.extend(&listed(file)?);
    }
    let issued_at = arguments.issued_at.as_deref().map(|text| issue::time("--issued-at", text)).transpose()?;
    let issued_at = issued_at.unwrap_or_else(Timestamp::now);
    let expires = match (&arguments.expires, arguments.days) {
        (Some(text), _) => issue::time("--expires", text)?,
        (None, days) => issued_at.plus(days.unwrap_or(0).saturating_mul(DAY)),
    };
    let document = Document {
        document_type: TYPE.to_owned(),
        issuer: arguments.issuer.clone(),
        series: arguments.series.clone(),
        version: arguments.version,
        issued_at,
        expires,
        environment: arguments.environment.into(),
        values,
    };
    let unusable = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let (bytes, keyid) = match arguments.format {
        ReferenceFormat::Json => {
            let key = private_key(&arguments.key)?;
            let payload = document.payload().map_err(|error| unusable(&error))?;
            (Envelope::sign(PAYLOAD_TYPE, payload, &key).to_bytes(), key.verifying_key().keyid())
        }
        ReferenceFormat::Corim => {
            let key = corim_key(&arguments.key)?;
            (corim::sign(&document, &key).map_err(|error| unusable(&error))?, key.public().keyid().hex())
        }
    };
    create(&arguments.out, 0o644, &bytes)?;
    let digest = Sha256Digest::of(&bytes);
    output.tell(
        || json!({"file": arguments.out, "digest": digest, "keyid": keyid, "document": document}),
        || {
            let mut lines = described(&document);
            lines.push(format!("{}: {digest}, signed by key {keyid}", arguments.out.display()));
            lines
        },
    )
}

fn corim_key(path: &Path) -> Result<CorimKey, Failure> {
    let pem = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| Failure::file(path, error))?;
    let wrong = "not a PKCS#8 PEM private key on P-256 or P-384";
    CorimKey::from_pem(&pem).map_err(|_| Failure::Usage(format!("{}: {wrong}", path.display())))
}

/// Names with their values, any JSON.
fn listed(file: &Path) -> Result<References, Failure> {
    let bytes = if file == Path::new("-") { whole(std::io::stdin(), file, MAX_FILE)? } else { read(file, MAX_FILE)? };
    let wrong = |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", file.display()));
    let names: BTreeMap<String, Vec<String>> = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    let mut values = References::default();
    for (name, list) in names {
        for value in list {
            values.add(&name, &value.to_ascii_lowercase()).map_err(|error| wrong(&error))?;
        }
    }
    Ok(values)
}

/// What a file says, and by whose key; nothing is believed.
struct Shown {
    documents: Vec<Document>,
    ignored: Vec<String>,
    /// Key ids; `None`: unsigned.
    keyids: Option<Vec<String>>,
}

impl Shown {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        if corim::looks_like(bytes) {
            let (contents, kid) = corim::show(bytes).map_err(|error| error.to_string())?;
            let documents = contents.told.into_iter().map(|told| told.document).collect();
            return Ok(Self { documents, ignored: contents.ignored, keyids: kid.map(|kid| vec![hex::encode(kid)]) });
        }
        let (document, keyids) = match Envelope::parse(bytes) {
            Ok(envelope) => {
                let keyids = envelope.signatures.iter().map(|signature| signature.keyid.clone()).collect();
                (Document::parse(&envelope.payload), Some(keyids))
            }
            Err(_) => (Document::from_json(bytes), None),
        };
        Ok(Self { documents: vec![document.map_err(|error| error.to_string())?], ignored: Vec::new(), keyids })
    }
}

/// Prints what is there.
pub(crate) fn show(arguments: &ReferenceShowArguments, output: &Output) -> Result<(), Failure> {
    let shown = Shown::read(&read(&arguments.file, MAX_FILE)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}", arguments.file.display())))?;
    let Shown { documents, ignored, keyids } = &shown;
    output.tell(
        || json!({"checked": false, "keyids": keyids, "documents": documents, "ignored": ignored}),
        || {
            let mut lines: Vec<String> = documents.iter().flat_map(described).collect();
            lines.extend(ignored.iter().map(|what| format!("  ignored: {what}")));
            lines.push(match keyids {
                Some(keyids) => format!("says to be signed by key {}, NOT checked here", keyids.join(", ")),
                None => "UNSIGNED".to_owned(),
            });
            lines
        },
    )
}

fn described(document: &Document) -> Vec<String> {
    let Document { issuer, series, version, issued_at, expires, environment, .. } = document;
    let mut lines =
        vec![format!("version {version} of `{series}` by {issuer}, {issued_at} to {expires}, {environment}")];
    for (name, values) in document.values.values() {
        lines.extend(values.iter().map(|value| format!("  {name} {value}")));
    }
    lines
}

/// Checks a file as an attestor that has seen no version before.
pub(crate) fn verify(arguments: &ReferenceVerifyArguments, output: &Output) -> Result<(), Failure> {
    let key = std::fs::read_to_string(&arguments.signer).map_err(|error| Failure::file(&arguments.signer, error))?;
    let at = arguments.at.as_deref().map(|text| issue::time("--at", text)).transpose()?.unwrap_or_else(Timestamp::now);
    let signer = SignerConfig {
        issuer: arguments.issuer.clone(),
        key,
        min_version: arguments.min_version,
        series: BTreeMap::new(),
    };
    let signers = Signers::new(&[signer]).map_err(|error| Failure::Usage(error.to_string()))?;
    let trust = Trust { signers: &signers, environment: arguments.environment.into(), unsigned: false };
    let name = arguments.file.display().to_string();
    let checked =
        reference_values::read(&name, &read(&arguments.file, MAX_FILE)?, &trust).map_err(Failure::by_command)?;
    for one in &checked {
        let accepted = one.clone().accept(&HighWater::None).map_err(Failure::by_command)?;
        accepted.values(at).map_err(Failure::by_command)?;
    }
    let told = |one: &CheckedReferences| json!({"payload_digest": one.payload(), "keyid": one.signer(), "document": one.document()});
    output.tell(
        || checked.iter().map(told).collect(),
        || {
            let mut lines = vec![format!("verified: {name}")];
            lines.extend(checked.iter().flat_map(|one| described(one.document())));
            lines
        },
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::artifact::keygen;
    use crate::cli::{EnvironmentArgument, KeygenArguments};

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            for name in ["key", "other"] {
                keygen(&KeygenArguments { file: files.path(name), ed25519: false }, &Output::new(true)).unwrap();
            }
            std::fs::write(files.path("a"), format!("{{\"tpm.pcr4\": [\"{}\"]}}", "AB".repeat(32))).unwrap();
            std::fs::write(files.path("b"), format!("{{\"tpm.pcr4\": [\"{}\"]}}", "cd".repeat(32))).unwrap();
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn signing(&self, out: &str) -> ReferenceSignArguments {
            ReferenceSignArguments {
                values: vec![self.path("a"), self.path("b")],
                key: self.path("key"),
                issuer: "platform".into(),
                series: "guest".into(),
                version: 3,
                issued_at: Some("2026-01-01T00:00:00Z".into()),
                expires: None,
                days: Some(30),
                environment: EnvironmentArgument::Production,
                format: ReferenceFormat::Json,
                out: self.path(out),
            }
        }

        fn verifying(&self, file: &str) -> ReferenceVerifyArguments {
            ReferenceVerifyArguments {
                file: self.path(file),
                signer: self.path("key.pub"),
                issuer: "platform".into(),
                min_version: 1,
                at: Some("2026-01-30T23:59:59Z".into()),
                environment: EnvironmentArgument::Production,
            }
        }
    }

    fn code(result: Result<(), Failure>) -> String {
        match result.unwrap_err() {
            Failure::Coded { refusal, .. } => refusal.code.to_string(),
            other => other.status().to_string(),
        }
    }

    #[test]
    fn the_same_values_are_signed_to_the_same_bytes_and_verify() {
        let (files, output) = (Files::new(), Output::new(true));
        sign(&files.signing("one"), &output).unwrap();
        sign(&files.signing("two"), &output).unwrap();
        assert_eq!(std::fs::read(files.path("one")).unwrap(), std::fs::read(files.path("two")).unwrap());
        assert_eq!(code(sign(&files.signing("two"), &output)), "74", "nothing is overwritten");
        let corim = |out| ReferenceSignArguments { format: ReferenceFormat::Corim, ..files.signing(out) };
        sign(&corim("three"), &output).unwrap();
        sign(&corim("four"), &output).unwrap();
        assert_eq!(std::fs::read(files.path("three")).unwrap(), std::fs::read(files.path("four")).unwrap());
        for file in ["one", "three"] {
            show(&ReferenceShowArguments { file: files.path(file) }, &output).unwrap();
            verify(&files.verifying(file), &output).unwrap();
        }
        let document = Document::parse(&Envelope::parse(&std::fs::read(files.path("one")).unwrap()).unwrap().payload);
        assert_eq!(document.unwrap().values.of("tpm.pcr4").collect::<Vec<_>>(), ["ab".repeat(32), "cd".repeat(32)]);
    }

    #[test]
    fn a_file_that_an_attestor_would_refuse_is_refused_with_its_code() {
        let (files, output) = (Files::new(), Output::new(true));
        sign(&files.signing("one"), &output).unwrap();
        let development =
            ReferenceSignArguments { environment: EnvironmentArgument::Development, ..files.signing("development") };
        sign(&development, &output).unwrap();
        std::fs::copy(files.path("a"), files.path("bare")).unwrap();
        let good = || files.verifying("one");
        for (arguments, expected) in [
            (ReferenceVerifyArguments { at: Some("2026-01-31T00:00:00Z".into()), ..good() }, "reference.expired"),
            (ReferenceVerifyArguments { min_version: 4, ..good() }, "reference.rollback"),
            (ReferenceVerifyArguments { issuer: "another".into(), ..good() }, "reference.signer"),
            (ReferenceVerifyArguments { signer: files.path("other.pub"), ..good() }, "reference.signer"),
            (files.verifying("bare"), "reference.malformed"),
            (files.verifying("development"), "policy.environment"),
            (files.verifying("missing"), "74"),
        ] {
            assert_eq!(code(verify(&arguments, &output)), expected);
        }
        std::fs::write(files.path("a"), "{\"tpm.pcr4\": [\"00\"]}").unwrap();
        assert_eq!(code(sign(&files.signing("three"), &output)), "64");
        assert!(!files.path("three").exists());
    }
}
