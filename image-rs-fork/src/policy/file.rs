//! A policy as it is written (containers-policy.json(5)), and the checks that make a [`SignaturePolicy`] of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use protocols::encoding;
use serde::Deserialize;

use super::error::PolicyError;
use super::identity::{IdentityFile, SignedIdentity};
use super::json::{Unique, given, named};
use super::key::SigstoreKey;
use super::openpgp::Certificate;
use super::scope::docker_scope;
use super::signed_by::SignedBy;
use super::sigstore::Sigstore;
use super::{MAX_POLICY, Requirement, SignaturePolicy};

/// The most keys of one requirement.
const MAX_KEYS: usize = 64;
/// Transports other tools have, whose rules cannot apply to an image from a registry.
const OTHER_TRANSPORTS: [&str; 10] = [
    "atomic",
    "containers-storage",
    "dir",
    "docker-archive",
    "docker-daemon",
    "oci",
    "oci-archive",
    "ostree",
    "sif",
    "tarball",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Vec<RequirementFile>,
    #[serde(default)]
    transports: Unique<Unique<Vec<RequirementFile>>>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
enum RequirementFile {
    InsecureAcceptAnything {},
    Reject {},
    SigstoreSigned(Box<SigstoreFile>),
    SignedBy(Box<SignedByFile>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SigstoreFile {
    #[serde(default, deserialize_with = "given")]
    key_path: Option<PathBuf>,
    #[serde(default, deserialize_with = "given")]
    key_paths: Option<Vec<PathBuf>>,
    #[serde(default, deserialize_with = "given")]
    key_data: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key_datas: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    signed_identity: Option<IdentityFile>,
    #[serde(default, deserialize_with = "named")]
    fulcio: bool,
    #[serde(default, deserialize_with = "named")]
    pki: bool,
    #[serde(default, deserialize_with = "named")]
    rekor_public_key_path: bool,
    #[serde(default, deserialize_with = "named")]
    rekor_public_key_paths: bool,
    #[serde(default, deserialize_with = "named")]
    rekor_public_key_data: bool,
    #[serde(default, deserialize_with = "named")]
    rekor_public_key_datas: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignedByFile {
    key_type: String,
    #[serde(default, deserialize_with = "given")]
    key_path: Option<PathBuf>,
    #[serde(default, deserialize_with = "given")]
    key_paths: Option<Vec<PathBuf>>,
    #[serde(default, deserialize_with = "given")]
    key_data: Option<String>,
    #[serde(default, deserialize_with = "given")]
    signed_identity: Option<IdentityFile>,
}

/// The members that say where keys are.
struct KeySources {
    path: Option<PathBuf>,
    paths: Option<Vec<PathBuf>>,
    data: Option<String>,
    datas: Option<Vec<String>>,
}

/// What reads a key file.
pub(super) type ReadKey<'r> = &'r dyn Fn(&Path) -> std::io::Result<Vec<u8>>;

pub(super) fn parse(bytes: &[u8], read: ReadKey<'_>) -> Result<SignaturePolicy, PolicyError> {
    if bytes.len() > MAX_POLICY {
        return Err(PolicyError::TooLarge { limit: MAX_POLICY });
    }
    let file: File = serde_json::from_slice(bytes)?;
    let default = requirements("default", file.default, read)?;
    let mut scopes = BTreeMap::new();
    for (transport, rules) in file.transports.0 {
        if transport != "docker" && !OTHER_TRANSPORTS.contains(&transport.as_str()) {
            return Err(rule(format!("transport `{transport}`"), "no such transport"));
        }
        for (scope, rules) in rules.0 {
            let place = format!("{transport} `{scope}`");
            let rules = requirements(&place, rules, read)?;
            if transport != "docker" {
                continue;
            }
            let name = docker_scope(&scope).ok_or_else(|| rule(place.clone(), "no image can fall under this scope"))?;
            if scopes.insert(name, rules).is_some() {
                return Err(rule(place, "the same scope in another spelling"));
            }
        }
    }
    Ok(SignaturePolicy::new(default, scopes))
}

fn rule(place: impl Into<String>, problem: impl Into<String>) -> PolicyError {
    PolicyError::Rule { place: place.into(), problem: problem.into() }
}

fn requirements(place: &str, file: Vec<RequirementFile>, read: ReadKey<'_>) -> Result<Vec<Requirement>, PolicyError> {
    if file.is_empty() {
        return Err(rule(place, "no requirement: write insecureAcceptAnything or reject"));
    }
    file.into_iter().map(|it| requirement(place, it, read)).collect()
}

fn requirement(place: &str, file: RequirementFile, read: ReadKey<'_>) -> Result<Requirement, PolicyError> {
    match file {
        RequirementFile::InsecureAcceptAnything {} => Ok(Requirement::AcceptAnything),
        RequirementFile::Reject {} => Ok(Requirement::Reject),
        RequirementFile::SigstoreSigned(file) => sigstore(place, *file, read).map(Requirement::Sigstore),
        RequirementFile::SignedBy(file) => signed_by(place, *file, read).map(Requirement::SignedBy),
    }
}

fn signed_by(place: &str, file: SignedByFile, read: ReadKey<'_>) -> Result<SignedBy, PolicyError> {
    if file.key_type != "GPGKeys" {
        return Err(rule(place, format!("keyType `{}` is not supported: write GPGKeys", file.key_type)));
    }
    let identity = SignedIdentity::of(file.signed_identity).map_err(|problem| rule(place, problem))?;
    if identity.is_any() {
        return Err(rule(place, "matchDigest is for sigstoreSigned: an OpenPGP signature always carries a name"));
    }
    let sources = KeySources { path: file.key_path, paths: file.key_paths, data: file.key_data, datas: None };
    let mut keys: Vec<Certificate> = Vec::new();
    for (source, bytes) in key_bytes(place, sources, read)? {
        keys.extend(Certificate::parse_all(&bytes).map_err(|problem| rule(place, format!("{source}: {problem}")))?);
    }
    if keys.len() > MAX_KEYS {
        return Err(rule(place, format!("more than {MAX_KEYS} keys in the key files")));
    }
    let mut seen = BTreeSet::new();
    // One of two copies could lack the revocation.
    if let Some(twice) = keys.iter().find(|key| !seen.insert(key.fingerprint())) {
        return Err(rule(place, format!("OpenPGP key {} is there twice", twice.fingerprint())));
    }
    Ok(SignedBy { keys, identity })
}

fn sigstore(place: &str, file: SigstoreFile, read: ReadKey<'_>) -> Result<Sigstore, PolicyError> {
    for (member, there) in [
        ("fulcio", file.fulcio),
        ("pki", file.pki),
        ("rekorPublicKeyPath", file.rekor_public_key_path),
        ("rekorPublicKeyPaths", file.rekor_public_key_paths),
        ("rekorPublicKeyData", file.rekor_public_key_data),
        ("rekorPublicKeyDatas", file.rekor_public_key_datas),
    ] {
        if there {
            return Err(rule(place, format!("`{member}` is not supported: signatures are checked by key")));
        }
    }
    let sources = KeySources { path: file.key_path, paths: file.key_paths, data: file.key_data, datas: file.key_datas };
    let mut keys = Vec::new();
    let mut ids = BTreeSet::new();
    for (source, bytes) in key_bytes(place, sources, read)? {
        let key = SigstoreKey::parse(&bytes).map_err(|problem| rule(place, format!("{source}: {problem}")))?;
        if ids.insert(*key.id()) {
            keys.push(key);
        }
    }
    let identity = SignedIdentity::of(file.signed_identity).map_err(|problem| rule(place, problem))?;
    Ok(Sigstore { keys, identity })
}

/// The bytes of every key, each with what names it in errors.
fn key_bytes(place: &str, sources: KeySources, read: ReadKey<'_>) -> Result<Vec<(String, Vec<u8>)>, PolicyError> {
    let (paths, datas) = match sources {
        KeySources { path: Some(path), paths: None, data: None, datas: None } => (vec![path], Vec::new()),
        KeySources { path: None, paths: Some(paths), data: None, datas: None } => (paths, Vec::new()),
        KeySources { path: None, paths: None, data: Some(data), datas: None } => (Vec::new(), vec![data]),
        KeySources { path: None, paths: None, data: None, datas: Some(datas) } => (Vec::new(), datas),
        _ => return Err(rule(place, "exactly one of keyPath, keyPaths, keyData and keyDatas must be there")),
    };
    if !(1..=MAX_KEYS).contains(&paths.len().saturating_add(datas.len())) {
        return Err(rule(place, format!("from 1 to {MAX_KEYS} keys must be there")));
    }
    let mut all = Vec::new();
    for path in paths {
        // Relative to what, nobody could say who reads the measured policy.
        if !path.is_absolute() {
            return Err(rule(place, format!("the key's path {} must be absolute", path.display())));
        }
        let bytes = read(&path).map_err(|source| PolicyError::Read { path: path.clone(), source })?;
        all.push((path.display().to_string(), bytes));
    }
    for (place_in_list, data) in datas.iter().enumerate() {
        let source = format!("key {}", place_in_list.saturating_add(1));
        let bytes = encoding::un_b64(data).map_err(|problem| rule(place, format!("{source}: {problem}")))?;
        all.push((source, bytes));
    }
    Ok(all)
}
