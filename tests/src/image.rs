//! Small images made of busybox, built and pushed by `tclctl image push`.

use std::fs;
use std::path::Path;

use crate::command::{run, tclctl};
use crate::process::program;

/// An image in the registry.
#[derive(Debug, Clone)]
pub struct Image {
    /// Repository without the registry.
    pub repository: String,
    /// Tag.
    pub tag: String,
    /// Digest of the manifest.
    pub manifest: String,
    /// Digest of the config blob.
    pub config: String,
    /// Digests of the layer blobs, lowest first.
    pub layers: Vec<String>,
}

/// Where the workload leaves its mark when it runs.
pub const MARKER: &str = "/marker";

/// What to put into an image.
#[derive(Debug, Clone)]
pub struct Recipe {
    script: String,
    files: Vec<(String, Vec<u8>)>,
    layers: Vec<Vec<(String, Vec<u8>)>>,
    env: Vec<String>,
}

impl Recipe {
    /// An image whose shell leaves the mark, then runs `script`.
    #[must_use]
    pub fn new(script: &str) -> Self {
        Self { script: script.to_owned(), files: Vec::new(), layers: Vec::new(), env: Vec::new() }
    }

    /// With a file in the first layer.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// With one more layer, holding one file.
    #[must_use]
    pub fn layer(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.layers.push(vec![(path.to_owned(), content.into())]);
        self
    }

    /// With an environment entry.
    #[must_use]
    pub fn env(mut self, entry: &str) -> Self {
        self.env.push(entry.to_owned());
        self
    }

    /// The image's own arguments.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        let script = format!("echo ran > {MARKER}/ran; {}", self.script);
        vec!["/bin/sh".to_owned(), "-c".to_owned(), script]
    }

    /// Builds in `folder` and pushes to `registry` (`host:port`).
    ///
    /// # Panics
    /// When the push fails.
    #[must_use]
    pub fn push(&self, folder: &Path, registry: &str, repository: &str, tag: &str) -> Image {
        self.push_as(folder, registry, repository, tag, &[])
    }

    /// As [`Recipe::push`], with more arguments.
    ///
    /// # Panics
    /// When the push fails.
    #[must_use]
    pub fn push_as(&self, folder: &Path, registry: &str, repository: &str, tag: &str, more: &[String]) -> Image {
        let scratch = tempfile::tempdir_in(folder).unwrap();
        let rootfs = scratch.path().join("rootfs");
        base(&rootfs);
        for (path, content) in &self.files {
            put(&rootfs, path, content);
        }
        let reference = format!("{registry}/{repository}:{tag}");
        let mut arguments: Vec<String> =
            ["--json", "image", "push", "--plain-http", registry, "--rootfs"].map(str::to_owned).to_vec();
        arguments.push(rootfs.display().to_string());
        for (number, layer) in self.layers.iter().enumerate() {
            let folder = scratch.path().join(format!("layer{number}"));
            fs::create_dir_all(&folder).unwrap();
            for (path, content) in layer {
                put(&folder, path, content);
            }
            arguments.extend(["--layer".to_owned(), folder.display().to_string()]);
        }
        for argument in self.args() {
            arguments.push(format!("--cmd={argument}"));
        }
        for entry in &self.env {
            arguments.push(format!("--env={entry}"));
        }
        arguments.extend(more.iter().cloned());
        arguments.push(reference);
        let told = run(tclctl(&arguments)).ok().json();
        Image {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            manifest: told["manifest"].as_str().unwrap().to_owned(),
            config: told["config"].as_str().unwrap().to_owned(),
            layers: told["layers"].as_array().unwrap().iter().map(|d| d.as_str().unwrap().to_owned()).collect(),
        }
    }
}

/// Busybox, a shell and the folder for the marker.
fn base(rootfs: &Path) {
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::create_dir_all(rootfs.join(MARKER.trim_start_matches('/'))).unwrap();
    fs::copy(program("busybox"), rootfs.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "echo", "id", "pwd", "env", "sleep", "seq", "head", "wc", "true", "ps", "ip"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name)).unwrap();
    }
    put(rootfs, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nworker:x:1000:1000:worker:/:/bin/sh\n");
    put(rootfs, "etc/group", b"root:x:0:\nworker:x:1000:\n");
}

fn put(folder: &Path, path: &str, content: &[u8]) {
    let path = folder.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
