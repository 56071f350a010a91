//! GnuPG and skopeo as signers of images, and skopeo as a second judge of them.
#![allow(dead_code)] // each test crate uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use protocols::digest::Sha256Digest;
use serde_json::{Value, json};

/// A home of GnuPG that ends with the value, its agent included.
pub(crate) struct Gnupg {
    home: tempfile::TempDir,
}

impl Gnupg {
    pub(crate) fn new() -> Self {
        // The agent's socket is in it, and a socket's path is short.
        Self { home: tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap() }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn gpg(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]);
        let output = with_input(command.arg("--homedir").arg(self.home()).args(arguments), input);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key that is named `user`; `more` stands before the command.
    pub(crate) fn key(&self, user: &str, algorithm: &str, usage: &str, expires: &str, more: &[&str]) {
        self.gpg(&[more, &["--quick-gen-key", user, algorithm, usage, expires]].concat(), b"");
    }

    pub(crate) fn fingerprint(&self, user: &str) -> String {
        let listed = String::from_utf8(self.gpg(&["--with-colons", "--list-keys", user], b"")).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap().to_owned();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// The public key's file, under a new name each time it has changed.
    pub(crate) fn export(&self, user: &str, name: &str) -> PathBuf {
        let path = self.home().join(name);
        std::fs::write(&path, self.gpg(&["--export", user], b"")).unwrap();
        path
    }

    /// Revokes the key by the certificate that was made with it.
    pub(crate) fn revoke(&self, user: &str) {
        let file = self.home().join("openpgp-revocs.d").join(format!("{}.rev", self.fingerprint(user)));
        // A colon keeps the file from being imported by mistake.
        let text = std::fs::read_to_string(file).unwrap().replace("\n:-----BEGIN", "\n-----BEGIN");
        self.gpg(&["--import"], text.as_bytes());
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.home()).args(["--kill", "all"]).output();
    }
}

/// A web server with the files of a directory.
pub(crate) struct FileServer {
    child: Child,
    pub(crate) address: String,
}

impl FileServer {
    pub(crate) fn start(dir: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(dir);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("python3");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.split(' ').nth(5).unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address: format!("127.0.0.1:{port}") }
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_input(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gpg must be installed (Debian package gnupg)");
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// A payload as skopeo writes it.
pub(crate) fn payload(digest: &Sha256Digest, reference: &str) -> Vec<u8> {
    let value = json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": "atomic container signature",
        },
        "optional": {"creator": "test", "timestamp": 1},
    });
    value.to_string().into_bytes()
}

/// A lookaside in a directory, and the configuration of skopeo that names it.
pub(crate) struct Lookaside {
    dir: tempfile::TempDir,
}

impl Lookaside {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("registries.d")).unwrap();
        let it = Self { dir };
        std::fs::write(it.dir.path().join("registries.d/default.yaml"), it.registries_d()).unwrap();
        it
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("signatures")
    }

    /// One text for both readers.
    pub(crate) fn registries_d(&self) -> String {
        let place = format!("file://{}", self.root().display());
        json!({"default-docker": {"lookaside": place, "use-sigstore-attachments": true}}).to_string()
    }

    /// Has skopeo look elsewhere from now on; the text for ours.
    pub(crate) fn reconfigure(&self, place: &str) -> String {
        let text = json!({"default-docker": {"lookaside": place}}).to_string();
        std::fs::write(self.dir.path().join("registries.d/default.yaml"), &text).unwrap();
        text
    }

    /// Where the signatures of an image lie.
    pub(crate) fn of(&self, name: &str, digest: &Sha256Digest) -> PathBuf {
        self.root().join(format!("{name}@sha256={}", digest.hex()))
    }

    /// Puts exactly these signatures there.
    pub(crate) fn put(&self, name: &str, digest: &Sha256Digest, signatures: &[Vec<u8>]) {
        let dir = self.of(name, digest);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        for (at, signature) in signatures.iter().enumerate() {
            std::fs::write(dir.join(format!("signature-{}", at + 1)), signature).unwrap();
        }
    }

    /// skopeo with this lookaside and the given GnuPG.
    fn skopeo(&self, gnupg: &Gnupg) -> Command {
        let mut command = Command::new("skopeo");
        command.env("GNUPGHOME", gnupg.home()).arg("--registries.d").arg(self.dir.path().join("registries.d"));
        command
    }

    /// Signs an image of a registry with skopeo, which pushes it to where it is.
    pub(crate) fn sign_with_skopeo(&self, gnupg: &Gnupg, image: &str, more: &[&str]) {
        let image = format!("docker://{image}");
        let mut command = self.skopeo(gnupg);
        command.args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        let output = command.args(more).args([&image, &image]).output().expect("skopeo must be installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Whether skopeo takes the image by this policy, or what it says.
    pub(crate) fn skopeo_takes(&self, gnupg: &Gnupg, image: &str, policy: &Value) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.json");
        std::fs::write(&file, policy.to_string()).unwrap();
        let mut command = self.skopeo(gnupg);
        command.arg("--policy").arg(file).args(["copy", "--remove-signatures", "--src-tls-verify=false"]);
        command.arg(format!("docker://{image}")).arg(format!("dir:{}", dir.path().join("out").display()));
        let output = command.output().expect("skopeo must be installed");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok(());
        }
        // Other failures must not pass for a refusal.
        assert!(told.contains("Source image rejected"), "{told}");
        Err(told)
    }
}
