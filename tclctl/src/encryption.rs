//! `image encrypt`, and the keys of encrypted images that other commands read.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use image_rs_fork::Limits;
use image_rs_fork::framing::Compression;
use image_rs_fork::ocicrypt::{DecryptionKey, KeyRing, LayerEncryptor, RecipientKey, Recipients, WrappingKey, key_id};
use protocols::digest::Sha256Digest;
use protocols::resource::ResourcePath;
use registry::oci::{self, Descriptor, Document};
use registry::{HttpRegistry, Registry as _, RegistryPush as _, Repository, Target};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::attestor::Administration;
use crate::cli::{DecryptionArguments, ImageEncryptArguments};
use crate::issue::{self, PlatformManifest};
use crate::outcome::Failure;
use crate::output::Output;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const PROVIDER: &str = "attestation-agent:";

fn coded(error: registry::RegistryError) -> Failure {
    Failure::by_command(error.refusal())
}

fn fault(error: impl std::fmt::Display) -> Failure {
    Failure::Fault(error.to_string())
}

/// The keys that arguments name.
pub(crate) fn ring(arguments: &DecryptionArguments) -> Result<KeyRing, Failure> {
    let mut ring = KeyRing::default();
    for argument in &arguments.decryption_key {
        match argument.split_once('=').filter(|(path, _)| path.starts_with("kbs://")) {
            Some((path, file)) => {
                let (path, key) = (kid(path)?, wrapping_key(Path::new(file))?.0);
                ring.add_wrapping(path, key);
            }
            None => {
                let file = Path::new(argument);
                let pem = Zeroizing::new(fs::read_to_string(file).map_err(|error| Failure::file(file, error))?);
                ring.add_private(DecryptionKey::from_pem(&pem).map_err(|error| unusable(file, &error))?);
            }
        }
    }
    Ok(ring)
}

fn unusable(file: &Path, error: &image_rs_fork::ocicrypt::EncryptionError) -> Failure {
    Failure::Usage(format!("{}: {error}", file.display()))
}

fn kid(text: &str) -> Result<ResourcePath, Failure> {
    key_id(text).map_err(|error| Failure::Usage(error.to_string()))
}

/// A wrapping key and its bytes.
fn wrapping_key(file: &Path) -> Result<(WrappingKey, Zeroizing<Vec<u8>>), Failure> {
    let bytes = Zeroizing::new(fs::read(file).map_err(|error| Failure::file(file, error))?);
    let key = WrappingKey::new(&bytes).map_err(|error| unusable(file, &error))?;
    Ok((key, bytes))
}

/// Encrypts every layer of an image, or of every image of an index, and pushes the result.
pub(crate) async fn encrypt(arguments: &ImageEncryptArguments, output: &Output) -> Result<(), Failure> {
    let from = issue::reference(&arguments.source)?;
    let registry = issue::client(&arguments.registry, &from)?;
    let to = issue::reference(&arguments.destination)?;
    let tag = match (to.digest(), to.tag()) {
        (None, Some(tag)) => Target::Tag(tag.to_owned()),
        _ => return Err(Failure::Usage("an image is pushed to a tag, not to a digest".to_owned())),
    };
    let recipients = recipients(arguments).await?;
    let index = match Document::parse(&registry.manifest(from.repository(), &from.target()).await.map_err(coded)?.bytes)
    {
        Ok(Document::Index(_)) => true,
        Ok(Document::Manifest(_)) => false,
        Err(error) => return Err(Failure::Usage(format!("{from} is no image manifest or index: {error}"))),
    };
    let mut entries: Vec<Descriptor> = Vec::new();
    let mut layers: Vec<Sha256Digest> = Vec::new();
    for source in issue::manifests(&registry, &from).await? {
        let (manifest, blobs) = image(&registry, &source, to.repository(), &recipients).await?;
        layers.extend(blobs);
        let mut entry = Descriptor::of(oci::MANIFEST, &manifest);
        let target = if index { Target::Digest(entry.digest) } else { tag.clone() };
        registry.push_manifest(to.repository(), &target, oci::MANIFEST, manifest).await.map_err(coded)?;
        entry.platform = source.index_platform();
        entries.push(entry);
    }
    let digest = if index {
        let document = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": entries });
        let document = Bytes::from(document.to_string());
        let digest = Sha256Digest::of(&document);
        registry.push_manifest(to.repository(), &tag, oci::INDEX, document).await.map_err(coded)?;
        Some(digest)
    } else {
        entries.first().map(|entry| entry.digest)
    };
    output.tell(
        || json!({"reference": to, "manifest": digest, "layers": layers}),
        || {
            vec![format!(
                "{to} is {}, {} layers encrypted",
                digest.map(|d| d.to_string()).unwrap_or_default(),
                layers.len()
            )]
        },
    )
}

/// Reads the recipients' keys, and stores the key broker's there where that is asked for.
async fn recipients(arguments: &ImageEncryptArguments) -> Result<Recipients, Failure> {
    let mut recipients = Recipients::default();
    for recipient in &arguments.recipient {
        let file = recipient.strip_prefix("jwe:").map(Path::new);
        let file = file.ok_or_else(|| Failure::Usage(format!("--recipient {recipient}: expected jwe:FILE")))?;
        let pem = fs::read_to_string(file).map_err(|error| Failure::file(file, error))?;
        recipients.add_public(RecipientKey::from_pem(&pem).map_err(|error| unusable(file, &error))?);
    }
    if let (Some(provider), Some(file)) = (&arguments.provider, &arguments.key) {
        let path = provider.strip_prefix(PROVIDER);
        let expected =
            || Failure::Usage(format!("--provider {provider}: expected {PROVIDER}kbs:///REPOSITORY/TYPE/TAG"));
        let path = kid(path.ok_or_else(expected)?)?;
        let (key, bytes) = wrapping_key(file)?;
        if let (Some(attestor), Some(token)) = (&arguments.attestor, &arguments.admin_token) {
            let broker = Administration::new(attestor, token)?;
            let (url, what) = (format!("/kbs/v0/resource/{path}"), format!("the resource {path}"));
            broker.post(&url, &what, bytes.to_vec()).await?;
        }
        recipients.add_wrapping(path, key);
    }
    if recipients.is_empty() {
        return Err(Failure::Usage("nobody could decrypt it: give --recipient, or --provider with --key".to_owned()));
    }
    Ok(recipients)
}

/// Encrypts one image's layers into `to`; gives its new manifest and their digests.
async fn image(
    registry: &HttpRegistry,
    source: &PlatformManifest,
    to: &Repository,
    recipients: &Recipients,
) -> Result<(Bytes, Vec<Sha256Digest>), Failure> {
    let from = source.reference.repository();
    let found = registry.manifest(from, &Target::Digest(source.descriptor.digest)).await.map_err(coded)?;
    if found.digest != source.descriptor.digest {
        return Err(fault("the registry gives another manifest than before"));
    }
    let Ok(Document::Manifest(manifest)) = Document::parse(&found.bytes) else {
        return Err(Failure::Usage(format!("{} is no image manifest", source.descriptor.digest)));
    };
    let limit = Limits::default().blob_bytes;
    let config = registry.small_blob(from, &manifest.config, limit).await.map_err(coded)?;
    let config = registry.push_blob(to, CONFIG, Bytes::from(config)).await.map_err(coded)?;
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        let media_type = encrypted_type(&layer.media_type)
            .ok_or_else(|| Failure::Usage(format!("a layer of media type {} cannot be encrypted", layer.media_type)))?;
        // In memory as a whole: a blob is pushed in one piece.
        let mut blob = registry.small_blob(from, layer, limit).await.map_err(coded)?;
        let mut encryptor = LayerEncryptor::new(&layer.digest).map_err(fault)?;
        encryptor.apply(&mut blob);
        let mut pushed = registry.push_blob(to, &media_type, Bytes::from(blob)).await.map_err(coded)?;
        pushed.annotations.clone_from(&layer.annotations);
        pushed.annotations.extend(encryptor.finish(recipients).map_err(fault)?);
        layers.push(pushed);
    }
    let digests = layers.iter().map(|layer| layer.digest).collect();
    // Whatever else the manifest says, it still says.
    let mut document: Value = serde_json::from_slice(&found.bytes).map_err(fault)?;
    if let Some(members) = document.as_object_mut() {
        members.insert("mediaType".to_owned(), oci::MANIFEST.into());
        members.insert("config".to_owned(), json!(config));
        members.insert("layers".to_owned(), json!(layers));
    }
    Ok((Bytes::from(document.to_string()), digests))
}

/// The media type of a layer encrypted; `None` for what is no layer, or encrypted already. Docker's types have no
/// encrypted form, so they become OCI's.
fn encrypted_type(media_type: &str) -> Option<String> {
    Some(match Compression::of_media_type(media_type)? {
        Compression::None => format!("{LAYER}+encrypted"),
        Compression::Gzip => format!("{LAYER}+gzip+encrypted"),
        Compression::Zstd => format!("{LAYER}+zstd+encrypted"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_keep_their_compression_and_are_encrypted_once() {
        let of = |media_type: &str| encrypted_type(media_type).unwrap_or_default();
        let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert_eq!(of(docker), "application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
        assert_eq!(of(LAYER), "application/vnd.oci.image.layer.v1.tar+encrypted");
        assert_eq!(of("application/vnd.oci.image.layer.v1.tar+zstd"), format!("{LAYER}+zstd+encrypted"));
        assert_eq!(of(&of(LAYER)), "");
        assert_eq!(of("application/vnd.oci.image.config.v1+json"), "");
    }

    #[test]
    fn keys_are_read_by_what_stands_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        fs::write(&file, [0xff; 32]).unwrap();
        let status = |text: String| ring(&DecryptionArguments { decryption_key: vec![text] }).map_err(|f| f.status());
        assert!(status(format!("kbs:///a/b/c={}", file.display())).is_ok());
        assert_eq!(status(format!("kbs:///a/b={}", file.display())).unwrap_err(), 64);
        assert_eq!(status(file.display().to_string()).unwrap_err(), 74, "not text, so no PEM");
        fs::write(&file, "short").unwrap();
        assert_eq!(status(file.display().to_string()).unwrap_err(), 64);
        assert_eq!(status(format!("kbs:///a/b/c={}", file.display())).unwrap_err(), 64);
    }
}
