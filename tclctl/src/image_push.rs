//! `image push`: a reproducible image from folders, for demonstrations and tests.

use bytes::Bytes;
use protocols::digest::Sha256Digest;
use protocols::image::Platform;
use registry::oci::{self, Descriptor};
use registry::{RegistryPush as _, Target};
use serde_json::json;

use crate::cli::ImagePushArguments;
use crate::issue;
use crate::layer;
use crate::outcome::Failure;
use crate::output::Output;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Builds and pushes.
pub(crate) async fn push(arguments: &ImagePushArguments, output: &Output) -> Result<(), Failure> {
    let reference = issue::reference(&arguments.reference)?;
    let registry = issue::client(&arguments.registry, &reference)?;
    let tag = match (reference.digest(), reference.tag()) {
        (None, Some(tag)) => tag.to_owned(),
        _ => return Err(Failure::Usage("an image is pushed to a tag, not to a digest".to_owned())),
    };
    let created = issue::time("--created", &arguments.created)?;
    let platform = platform(arguments.platform.as_deref())?;
    let repository = reference.repository();
    let coded = |error: registry::RegistryError| Failure::by_command(error.refusal());

    let mut layers: Vec<Descriptor> = Vec::new();
    let mut diff_ids: Vec<Sha256Digest> = Vec::new();
    for folder in std::iter::once(&arguments.rootfs).chain(&arguments.layer) {
        let layer = layer::pack(folder).map_err(|error| Failure::file(folder, error))?;
        diff_ids.push(layer.diff_id);
        layers.push(registry.push_blob(repository, LAYER, Bytes::from(layer.blob)).await.map_err(coded)?);
    }
    let config = json!({
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "User": arguments.user,
            "Env": arguments.env,
            "Entrypoint": arguments.entrypoint,
            "Cmd": arguments.cmd,
            "WorkingDir": arguments.workdir,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = registry.push_blob(repository, CONFIG, Bytes::from(config.to_string())).await.map_err(coded)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": oci::MANIFEST,
        "config": config,
        "layers": layers,
    });
    let manifest = Bytes::from(manifest.to_string());
    let digest = Sha256Digest::of(&manifest);
    registry.push_manifest(repository, &Target::Tag(tag), oci::MANIFEST, manifest).await.map_err(coded)?;
    let blobs: Vec<Sha256Digest> = layers.iter().map(|layer| layer.digest).collect();
    output.tell(
        || json!({"reference": reference, "manifest": digest, "config": config.digest, "layers": blobs}),
        || vec![format!("{reference} is {digest}")],
    )
}

fn platform(text: Option<&str>) -> Result<Platform, Failure> {
    let Some(text) = text else { return Ok(image_rs_fork::host_platform()) };
    match text.split_once('/') {
        Some((os, architecture)) if !os.is_empty() && !architecture.is_empty() => {
            Ok(Platform { os: os.to_owned(), architecture: architecture.to_owned(), variant: None })
        }
        _ => Err(Failure::Usage(format!("--platform {text}: expected os/architecture"))),
    }
}
