//! `kbs`: any key broker of the KBS protocol, as a guest and as its administrator.

use std::path::Path;

use kbs_client::{Attestor, AttestorConfig, Challenged, Client, ClientError, Passport, Retry, Session};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::encoding::{b64, b64url};
use protocols::environment::Environment;
use protocols::jwe::KeyAlgorithm;
use protocols::kbs::{InitData, Tee, TeeEvidence};
use protocols::resource::ResourcePath;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::attestor::Administration;
use crate::cli::{
    KbsAdministration, KbsAttestArguments, KbsCommand, KbsGetArguments, KbsServer, KbsSetPolicyArguments, KbsShown,
    KeyArgument, PolicyArgument, TeeArgument,
};
use crate::evidence::platform;
use crate::files;
use crate::outcome::Failure;
use crate::output::Output;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 2 * 1024 * 1024;

pub(crate) async fn kbs(command: &KbsCommand, output: &Output) -> Result<(), Failure> {
    match command {
        KbsCommand::Attest(arguments) => attest(arguments, output).await,
        KbsCommand::GetResource(arguments) => get(arguments, output).await,
        KbsCommand::PutResource(arguments) => {
            let path = resource_path(&arguments.path)?;
            let bytes = read(&arguments.file)?;
            let told = json!({ "path": path.as_str(), "bytes": bytes.len() });
            let administration = administration(&arguments.administration)?;
            administration.post(&format!("/kbs/v0/resource/{path}"), path.as_str(), bytes.to_vec()).await?;
            output.tell(|| told, || vec![format!("stored {path}")])
        }
        KbsCommand::DeleteResource(arguments) => {
            let path = resource_path(&arguments.path)?;
            let administration = administration(&arguments.administration)?;
            administration.delete(&format!("/kbs/v0/resource/{path}"), path.as_str()).await?;
            output.tell(|| json!({ "path": path.as_str() }), || vec![format!("removed {path}")])
        }
        KbsCommand::SetPolicy(arguments) => set_policy(arguments, output).await,
        KbsCommand::GetPolicy(arguments) => {
            let administration = administration(&arguments.administration)?;
            let policy = administration.get("/kbs/v0/resource-policy", "the resource policy").await?;
            let policy: Value = serde_json::from_slice(&policy)
                .map_err(|error| Failure::Unavailable(format!("the answer is not JSON: {error}")))?;
            output.tell(|| policy.clone(), || vec![policy.to_string()])
        }
    }
}

async fn attest(arguments: &KbsAttestArguments, output: &Output) -> Result<(), Failure> {
    let session = session(&client(&arguments.server)?, &arguments.shown, output).await?;
    let passport = session.into_passport();
    let written = passport.to_json().map_err(refused)?;
    match &arguments.out {
        None => output.raw(format!("{}\n", written.as_str()).as_bytes()),
        Some(path) => {
            keep(path, written.as_bytes())?;
            let expires = passport.expires();
            let place = path.display().to_string();
            output.tell(|| json!({ "passport": place, "expires": expires }), || vec![format!("wrote {place}")])
        }
    }
}

async fn get(arguments: &KbsGetArguments, output: &Output) -> Result<(), Failure> {
    let path = resource_path(&arguments.path)?;
    let client = client(&arguments.server)?;
    let session = match &arguments.passport {
        Some(file) => client.session_of(Passport::from_json(&read(file)?).map_err(refused)?).map_err(refused)?,
        None => session(&client, &arguments.shown, output).await?,
    };
    let resource = session.resource(path.as_str()).await.map_err(refused)?;
    match &arguments.out {
        Some(file) => {
            keep(file, &resource)?;
            let place = file.display().to_string();
            output.tell(|| json!({ "path": path.as_str(), "out": place }), || vec![format!("wrote {place}")])
        }
        None if output.json() => output.tell(|| json!({ "path": path.as_str(), "resource": b64(&resource) }), Vec::new),
        None => output.raw(&resource),
    }
}

async fn set_policy(arguments: &KbsSetPolicyArguments, output: &Output) -> Result<(), Failure> {
    let text = read(&arguments.file)?;
    let (path, body) = match arguments.kind {
        PolicyArgument::Resource => ("/kbs/v0/resource-policy", json!({ "policy": b64url(&text) })),
        PolicyArgument::Attestation => {
            let body = json!({ "type": "rego", "policy_id": arguments.id, "policy": b64url(&text) });
            ("/kbs/v0/attestation-policy", body)
        }
    };
    let administration = administration(&arguments.administration)?;
    administration.post(path, "the policy", body.to_string().into_bytes()).await?;
    let digest = Sha256Digest::of(&text);
    output.tell(|| json!({ "policy": digest }), || vec![format!("in force: {digest}")])
}

fn client(server: &KbsServer) -> Result<Client, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    let pins: Result<Vec<Sha256Digest>, _> = server.server_key.iter().map(|text| text.parse()).collect();
    let pins = pins.map_err(|_| Failure::Usage("--server-key: expected sha256: and 64 hex digits".to_owned()))?;
    let config = AttestorConfig::Trustee {
        url: server.url.clone(),
        timeout_seconds: None,
        root: server.cert.clone(),
        server_keys: (!pins.is_empty()).then_some(pins),
    };
    // Only what an attestor of ours signs depends on the environment.
    let attestor = Attestor::new(&config, Environment::Production).map_err(|error| wrong(&error))?;
    Client::new(attestor).and_then(|client| client.retrying(Retry::PATIENT)).map_err(|error| wrong(&error))
}

async fn session(client: &Client, shown: &KbsShown, output: &Output) -> Result<Session, Failure> {
    let algorithm = match shown.key {
        KeyArgument::P256 => KeyAlgorithm::P256,
        KeyArgument::P521 => KeyAlgorithm::P521,
        KeyArgument::Rsa => KeyAlgorithm::Rsa,
    };
    let init_data = shown.initdata.as_deref().map(initdata).transpose()?;
    let challenged = client.challenge_with(tee(shown), algorithm).await.map_err(refused)?;
    let evidence = match shown.tee {
        None => {
            output.note("SIMULATED: sample evidence proves nothing");
            sample(&challenged, shown.sample_device).map_err(refused)?
        }
        Some(tee) => {
            let binding = challenged.binding(None).map_err(refused)?;
            let primary_evidence = platform::evidence(tee, &shown.platform, binding, output).await?;
            TeeEvidence { primary_evidence, additional_evidence: String::new() }
        }
    };
    challenged.attest(evidence, None, init_data).await.map_err(refused)
}

const fn tee(shown: &KbsShown) -> Tee {
    match shown.tee {
        None => Tee::Sample,
        Some(TeeArgument::Snp) => Tee::Snp,
        Some(TeeArgument::Tdx) => Tee::Tdx,
        Some(TeeArgument::Tpm) => Tee::Tpm,
        Some(TeeArgument::AzSnpVtpm) => Tee::AzSnpVtpm,
        Some(TeeArgument::AzTdxVtpm) => Tee::AzTdxVtpm,
    }
}

/// What CoCo's agents send where they find no TEE, and the device that they make up beside it.
fn sample(challenged: &Challenged, device: bool) -> Result<TeeEvidence, ClientError> {
    let over = |svn: &str, digest: Sha384Digest| json!({ "svn": svn, "report_data": b64(digest.as_bytes()) });
    let additional_evidence = match device {
        true => json!({ "sampledevice": over("2", challenged.device_binding()?) }).to_string(),
        false => String::new(),
    };
    let primary_evidence = over("1", challenged.composite_binding(&additional_evidence)?);
    Ok(TeeEvidence { primary_evidence, additional_evidence })
}

fn initdata(path: &Path) -> Result<InitData, Failure> {
    let text = String::from_utf8(read(path)?.to_vec()).map_err(|error| Failure::file(path, error))?;
    Ok(InitData { format: "toml".to_owned(), body: text })
}

fn administration(arguments: &KbsAdministration) -> Result<Administration, Failure> {
    Administration::new(&arguments.url, &arguments.admin_token)
}

fn refused(error: ClientError) -> Failure {
    error.refusal().into()
}

fn resource_path(text: &str) -> Result<ResourcePath, Failure> {
    text.parse().map_err(|error| Failure::Usage(format!("--path {text}: {error}")))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    files::read(path, MAX_FILE).map(Zeroizing::new)
}

/// Secrets are never written over something else, nor for others to read.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    files::create(path, 0o600, bytes)
}
