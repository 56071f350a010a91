//! An image as an OCI layout, of uncompressed layers.

use protocols::digest::Sha256Digest;
use serde_json::{Value, json};

/// The layout's files by path: `archives` are the layers, lowest first.
pub(crate) fn layout(archives: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut blob = |kind: &str, bytes: Vec<u8>| -> Value {
        let digest = Sha256Digest::of(&bytes);
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest.to_string(), "size": bytes.len(),
        });
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        descriptor
    };
    let layers: Vec<Value> = archives.iter().map(|archive| blob("layer.v1.tar", archive.clone())).collect();
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob("config.v1+json", config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
    });
    let manifest = blob("manifest.v1+json", manifest.to_string().into_bytes());
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
    });
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    files
}
