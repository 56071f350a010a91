//! The memory a pull takes. Alone in its file, because a process has one peak.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use image_rs_fork::Limits;
use image_rs_fork::registry::{Descriptor, oci};
use protocols::digest::Sha256Digest;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use support::tar::{dir, file};
use support::{World, image, run};

/// The most a pull may add, in KiB, with two zstd windows of 8 MiB at once; the whole agent has 40 MB.
const MOST: u64 = 24 * 1024;

/// Counts and hashes what is written.
struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    fn digest(&self) -> Sha256Digest {
        Sha256Digest::new(self.hasher.clone().finalize().into())
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A layer of `files` files of 1 MiB and as many small ones, half of which compresses.
fn write_tar(out: &mut dyn Write, layer: u64, files: u64) {
    let mut state = layer + 1;
    let mut content = vec![0u8; 1 << 20];
    out.write_all(&dir("d").bytes()).unwrap();
    for number in 0..files {
        for word in content.chunks_exact_mut(16) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word[..8].copy_from_slice(&state.to_le_bytes());
        }
        out.write_all(&file(&format!("d/large-{layer}-{number}"), &content).bytes()).unwrap();
        for small in 0..50 {
            out.write_all(&file(&format!("d/small-{layer}-{number}-{small}"), &content[..100]).bytes()).unwrap();
        }
    }
    out.write_all(&[0; 1024]).unwrap();
}

/// Writes a layer to `path`: its descriptor and diffID.
fn write_layer(path: &Path, layer: u64, files: u64) -> (Descriptor, Sha256Digest) {
    let mut blob = Hashed::new(File::create(path).unwrap());
    let diff_id = if layer.is_multiple_of(2) {
        let mut tar = Hashed::new(flate2::write::GzEncoder::new(&mut blob, flate2::Compression::fast()));
        write_tar(&mut tar, layer, files);
        let diff_id = tar.digest();
        tar.inner.finish().unwrap();
        diff_id
    } else {
        // The window of high levels, the largest that is accepted.
        let mut encoder = zstd::Encoder::new(&mut blob, 1).unwrap();
        encoder.window_log(23).unwrap();
        let mut tar = Hashed::new(encoder);
        write_tar(&mut tar, layer, files);
        let diff_id = tar.digest();
        tar.inner.finish().unwrap();
        diff_id
    };
    let mut descriptor = Descriptor::of(if layer.is_multiple_of(2) { image::GZIP } else { image::ZSTD }, b"");
    (descriptor.digest, descriptor.size) = (blob.digest(), blob.size);
    (descriptor, diff_id)
}

/// Uploads a file that is too large to be held in memory.
fn upload(world: &World, path: &Path, digest: &Sha256Digest) {
    let script = r#"set -e
        location=$(curl -sS -X POST -D - -o /dev/null "http://$1/v2/$2/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
        curl -sS -f -X PUT -T "$3" -H 'Content-Type: application/octet-stream' "$location&digest=$4""#;
    let status = Command::new("sh")
        .args(["-c", script, "sh", &world.server.host(), world.repository.name()])
        .arg(path)
        .arg(digest.to_string())
        .status()
        .expect("curl must be installed");
    assert!(status.success());
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// User and system time of this process.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn a_pull_of_300_mb_stays_within_its_memory() {
    let world = World::new();
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for layer in 0..4 {
        let path = world.home.path().join(format!("layer-{layer}"));
        let (descriptor, diff_id) = write_layer(&path, layer, 75);
        upload(&world, &path, &descriptor.digest);
        std::fs::remove_file(&path).unwrap();
        layers.push(descriptor);
        diff_ids.push(diff_id.to_string());
    }
    let config = json!({ "architecture": image::architecture(), "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = serde_json::to_vec(&config).unwrap();
    let path = world.home.path().join("config");
    std::fs::write(&path, &config).unwrap();
    upload(&world, &path, &Sha256Digest::of(&config));
    let config = Descriptor::of("application/vnd.oci.image.config.v1+json", &config);
    let manifest = json!({ "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": layers });
    image::push_document(&world.client, &world.repository, "v1", oci::MANIFEST, &manifest).await;

    // From here on the peak is the pull's.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_kib();
    let started = cpu_ticks();
    world.pull("v1").await.unwrap();
    let peak = peak_kib();
    println!("peak {peak} KiB, {before} KiB before, {} CPU ticks of 10 ms", cpu_ticks() - started);
    assert!(peak < before + MOST, "peak {peak} KiB, {before} KiB before");

    // Measuring the stored layers again takes no more.
    run(&world.reference("v1"), &world.client, &world.store, &Limits::default()).await.unwrap();
    let peak = peak_kib();
    assert!(peak < before + MOST, "peak {peak} KiB when measured again, {before} KiB before");
}
