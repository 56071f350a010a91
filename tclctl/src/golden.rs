//! `measure` and `golden push | show | verify | revoke`.

use protocols::digest::Sha256Digest;
use protocols::dsse::Envelope;
use protocols::golden::{
    GoldenValue, PAYLOAD_TYPE, REVOCATION_PREDICATE_TYPE, RevocationList, STATEMENT_TYPE, Statement, Subject,
};
use protocols::keys::SigningKey;
use protocols::reason::{self, Refusal};
use protocols::tcl::{GoldenResource, RecordBytes};
use protocols::time::Timestamp;
use registry::golden;
use registry::{HttpRegistry, RegistryError};
use serde_json::{Value, json};
use verifier::{RevocationRule, SignerConfig, TrustedSigners, authenticate};

use crate::artifact::{private_key, public_key};
use crate::attestor::Administration;
use crate::cli::{
    GoldenPublishArguments, GoldenPushArguments, GoldenRevokeArguments, GoldenShowArguments, GoldenVerifyArguments,
    MeasureArguments,
};
use crate::encryption;
use crate::issue::{self, PlatformManifest};
use crate::outcome::Failure;
use crate::output::Output;

fn coded(error: RegistryError) -> Failure {
    Failure::by_command(error.refusal())
}

/// Prints the payload that would be signed, one line per platform manifest.
pub(crate) async fn measure(arguments: &MeasureArguments, output: &Output) -> Result<(), Failure> {
    let (registry, reference) = issue::source(&arguments.source)?;
    let keys = encryption::ring(&arguments.source.access.decryption)?;
    let signatures = issue::signatures(&arguments.source.access.signatures)?;
    let mut lines = Vec::new();
    let mut values = Vec::new();
    for manifest in issue::manifests(&*registry, &reference).await? {
        let image = issue::measure(&*registry, &manifest, &signatures, &keys).await?;
        let statement = issue::issue(&image, &arguments.issuer, arguments.version, &arguments.issue)?;
        let payload = statement.payload().map_err(|error| Failure::Fault(error.to_string()))?;
        values.push(json!({
            "manifest": manifest.descriptor.digest,
            "platform": statement.predicate.platform.to_string(),
            "payload_digest": Sha256Digest::of(&payload),
            "measurement": image.measurement(),
            "statement": statement,
        }));
        lines.push(payload);
    }
    if output.json() {
        return output.tell(|| Value::Array(values), Vec::new);
    }
    for line in &lines {
        output.raw(line)?;
        output.raw(b"\n")?;
    }
    Ok(())
}

/// Measures, signs and stores.
pub(crate) async fn push(arguments: &GoldenPushArguments, output: &Output) -> Result<(), Failure> {
    let key = private_key(&arguments.key)?;
    let reference = issue::reference(&arguments.reference)?;
    let registry = issue::client(&arguments.access.registry, &reference)?;
    let keys = encryption::ring(&arguments.access.decryption)?;
    let mut lines = Vec::new();
    let mut values = Vec::new();
    let signatures = issue::signatures(&arguments.access.signatures)?;
    for manifest in issue::manifests(&registry, &reference).await? {
        let image = issue::measure(&registry, &manifest, &signatures, &keys).await?;
        let statement = issue::issue(&image, &arguments.issuer, arguments.version, &arguments.issue)?;
        if statement.predicate.expires <= Timestamp::now() {
            let text = format!("it would have expired at {}: give --days or --expires", statement.predicate.expires);
            return Err(Failure::Usage(text));
        }
        let payload = statement.payload().map_err(|error| Failure::Fault(error.to_string()))?;
        let digest = Sha256Digest::of(&payload);
        let envelope = Envelope::sign(PAYLOAD_TYPE, payload, &key).to_bytes();
        let repository = manifest.reference.repository();
        let artifact = golden::push(&registry, repository, &manifest.descriptor, &envelope).await.map_err(coded)?;
        let value = &statement.predicate;
        lines.push(format!("{} {}", value.platform, manifest.descriptor.digest));
        lines.push(format!("  golden value {digest}, version {} of `{}`", value.version, value.series));
        lines.push(format!("  by {} (key {}), until {}", value.issuer, key.verifying_key().keyid(), value.expires));
        lines.push(format!("  stored as {}", artifact.digest));
        values.push(json!({
            "manifest": manifest.descriptor.digest, "platform": value.platform.to_string(), "payload_digest": digest,
            "keyid": key.verifying_key().keyid(), "series": value.series, "version": value.version,
            "expires": value.expires, "artifact": artifact.digest,
        }));
    }
    output.tell(|| Value::Array(values), || lines)
}

/// What is stored for one manifest, and what its envelopes say; nothing is believed.
pub(crate) async fn show(arguments: &GoldenShowArguments, output: &Output) -> Result<(), Failure> {
    let reference = issue::reference(&arguments.reference)?;
    let registry = issue::client(&arguments.registry, &reference)?;
    let mut lines = Vec::new();
    let mut values = Vec::new();
    for manifest in issue::manifests(&registry, &reference).await? {
        let stored = fetch(&registry, &manifest).await?;
        lines.push(format!("{}: {} stored, NOT checked here", manifest.descriptor.digest, stored.envelopes.len()));
        let mut envelopes = Vec::new();
        for bytes in &stored.envelopes {
            let (line, value) = described(bytes);
            lines.push(format!("  {line}"));
            envelopes.push(value);
        }
        let revocations = stored.revocations.as_deref().map(listed);
        if let Some(list) = &revocations {
            lines.push(format!("  revocation list: {list}"));
        }
        values.push(json!({"manifest": manifest.descriptor.digest, "golden": envelopes, "revocations": revocations}));
    }
    output.tell(|| Value::Array(values), || lines)
}

fn described(bytes: &[u8]) -> (String, Value) {
    let envelope = match Envelope::parse(bytes) {
        Ok(envelope) => envelope,
        Err(error) => return (error.to_string(), json!({"error": error.to_string()})),
    };
    let keyids: Vec<&str> = envelope.signatures.iter().map(|signature| signature.keyid.as_str()).collect();
    let digest = Sha256Digest::of(&envelope.payload);
    match Statement::<GoldenValue>::parse(&envelope.payload) {
        Ok(statement) => {
            let value = &statement.predicate;
            let line = format!(
                "{digest} version {} of `{}` by {} (key {}), {} to {}, {}",
                value.version,
                value.series,
                value.issuer,
                keyids.join(", "),
                value.issued_at,
                value.expires,
                value.environment
            );
            (line, json!({"payload_digest": digest, "keyids": keyids, "statement": statement}))
        }
        Err(error) => (format!("{digest}: {error}"), json!({"payload_digest": digest, "error": error.to_string()})),
    }
}

fn listed(bytes: &[u8]) -> Value {
    let read = Envelope::parse(bytes)
        .map_err(|error| error.to_string())
        .and_then(|envelope| Statement::<RevocationList>::parse(&envelope.payload).map_err(|error| error.to_string()));
    match read {
        Ok(statement) => json!(statement.predicate),
        Err(error) => json!({"error": error}),
    }
}

/// Checks every platform's golden value against one signer.
pub(crate) async fn verify(arguments: &GoldenVerifyArguments, output: &Output) -> Result<(), Failure> {
    let key = public_key(&arguments.signer)?.to_pem().map_err(|error| Failure::Fault(error.to_string()))?;
    let signer = SignerConfig {
        issuer: arguments.issuer.clone(),
        key,
        min_version: arguments.min_version,
        series: std::collections::BTreeMap::new(),
        revocations: RevocationRule::Optional,
    };
    let signers = TrustedSigners::new(vec![signer]).map_err(|error| Failure::Usage(error.to_string()))?;
    let reference = issue::reference(&arguments.reference)?;
    let registry = issue::client(&arguments.registry, &reference)?;
    let mut lines = Vec::new();
    let mut values = Vec::new();
    for manifest in issue::manifests(&registry, &reference).await? {
        let digest = manifest.descriptor.digest;
        let stored = fetch(&registry, &manifest).await?;
        let golden =
            authenticate(&digest, &stored.envelopes, stored.revocations.as_deref(), &signers, Timestamp::now())
                .map_err(Failure::by_command)?;
        let value = golden.value();
        if value.version < arguments.min_version {
            let expected = format!("version {} or higher", arguments.min_version);
            let refusal =
                Refusal::new(reason::GOLDEN_ROLLBACK, &value.series, expected, format!("version {}", value.version));
            return Err(Failure::by_command(refusal));
        }
        lines.push(format!("verified: {digest}"));
        lines.push(format!(
            "  version {} of `{}` by {}, until {}",
            value.version, value.series, value.issuer, value.expires
        ));
        values.push(json!({"manifest": digest, "golden": golden.reference(), "value": value}));
    }
    output.tell(|| Value::Array(values), || lines)
}

async fn fetch(registry: &HttpRegistry, manifest: &PlatformManifest) -> Result<golden::GoldenStorage, Failure> {
    golden::fetch(registry, manifest.reference.repository(), &manifest.descriptor.digest).await.map_err(coded)
}

/// Copies the stored envelopes of every platform to the attestor's resources, as they are.
pub(crate) async fn publish(arguments: &GoldenPublishArguments, output: &Output) -> Result<(), Failure> {
    let attestor = Administration::new(&arguments.attestor, &arguments.admin_token)?;
    let reference = issue::reference(&arguments.reference)?;
    let registry = issue::client(&arguments.registry, &reference)?;
    let mut lines = Vec::new();
    let mut values = Vec::new();
    for manifest in issue::manifests(&registry, &reference).await? {
        let digest = manifest.descriptor.digest;
        let stored = fetch(&registry, &manifest).await?;
        let count = stored.envelopes.len();
        let resource = GoldenResource {
            envelopes: stored.envelopes.into_iter().map(RecordBytes).collect(),
            revocations: stored.revocations.map(RecordBytes),
        };
        let path = GoldenResource::path(&digest);
        let bytes = serde_json::to_vec(&resource).map_err(|error| Failure::Fault(error.to_string()))?;
        attestor.post(&format!("/kbs/v0/resource/{path}"), &format!("the resource {path}"), bytes).await?;
        lines.push(format!("{digest}: {count} golden values at {path}"));
        values.push(json!({"manifest": digest, "golden": count, "resource": path}));
    }
    output.tell(|| Value::Array(values), || lines)
}

/// Adds every golden value of this issuer for the image to the repository's revocation list.
pub(crate) async fn revoke(arguments: &GoldenRevokeArguments, output: &Output) -> Result<(), Failure> {
    let key = private_key(&arguments.key)?;
    let reference = issue::reference(&arguments.reference)?;
    let registry = issue::client(&arguments.registry, &reference)?;
    let repository = reference.repository();
    let mut list = match golden::fetch_revocations(&registry, repository).await.map_err(coded)? {
        Some(bytes) => own_list(&bytes, &key, &arguments.issuer)?,
        None => RevocationList {
            issuer: arguments.issuer.clone(),
            version: 0,
            issued_at: Timestamp(0),
            expires: Timestamp(0),
            revoked: Vec::new(),
        },
    };
    let mut added = Vec::new();
    for manifest in issue::manifests(&registry, &reference).await? {
        for bytes in fetch(&registry, &manifest).await?.envelopes {
            let Ok(envelope) = Envelope::parse(&bytes) else { continue };
            let digest = Sha256Digest::of(&envelope.payload);
            let by_us = Statement::<GoldenValue>::parse(&envelope.payload)
                .is_ok_and(|statement| statement.predicate.issuer == arguments.issuer);
            if by_us && !list.revoked.contains(&digest) {
                list.revoked.push(digest);
                added.push(digest);
            }
        }
    }
    if added.is_empty() {
        let text = format!("{reference} has no golden value by {} that is not revoked already", arguments.issuer);
        return Err(Failure::Usage(text));
    }
    list.revoked.sort_unstable();
    list.version = list.version.saturating_add(1);
    list.issued_at = Timestamp::now();
    list.expires = issue::end_of_day(list.issued_at, arguments.days);
    let (version, expires) = (list.version, list.expires);
    let statement = Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![subject(&repository.to_string())],
        predicate_type: REVOCATION_PREDICATE_TYPE.to_owned(),
        predicate: list,
    };
    let payload = statement.payload().map_err(|error| Failure::Fault(error.to_string()))?;
    let envelope = Envelope::sign(PAYLOAD_TYPE, payload, &key).to_bytes();
    golden::push_revocations(&registry, repository, &envelope).await.map_err(coded)?;
    output.tell(
        || json!({"version": version, "expires": expires, "added": added}),
        || {
            let mut lines = vec![format!("revocation list version {version} of {repository}, until {expires}")];
            lines.extend(added.iter().map(|digest| format!("  revoked {digest}")));
            lines
        },
    )
}

/// A list's subject is its repository's name, by digest because statements name digests.
fn subject(repository: &str) -> Subject {
    let digest = Sha256Digest::of(repository.as_bytes()).hex();
    Subject { name: repository.to_owned(), digest: std::collections::BTreeMap::from([("sha256".to_owned(), digest)]) }
}

/// A list is only extended by the key that signed it.
fn own_list(bytes: &[u8], key: &SigningKey, issuer: &str) -> Result<RevocationList, Failure> {
    let refused = |actual: String| {
        let refusal =
            Refusal::new(reason::GOLDEN_SIGNATURE, "the stored revocation list", format!("signed by {issuer}"), actual);
        Failure::by_command(refusal)
    };
    let envelope = Envelope::parse(bytes).map_err(|error| refused(error.to_string()))?;
    envelope.verify(&[&key.verifying_key()]).map_err(|error| refused(error.to_string()))?;
    let list =
        Statement::<RevocationList>::parse(&envelope.payload).map_err(|error| refused(error.to_string()))?.predicate;
    if list.issuer != issuer {
        return Err(refused(format!("by {}", list.issuer)));
    }
    Ok(list)
}
