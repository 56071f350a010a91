//! A real `docker-registry` on a free port of 127.0.0.1, with its storage where a test can reach it.
#![allow(dead_code)] // each test crate uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A registry that ends with the value.
pub(crate) struct DockerRegistry {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

/// User name and password of a registry with authentication.
pub(crate) const USER: (&str, &str) = ("tester", "pass word");
/// bcrypt of the password.
const HTPASSWD: &str = "tester:$2b$04$69GYAAxRcCxp0IJWbQ5rA.9vA2Fb0H7xThYAkXMqPxvOtML2EqkFG\n";

impl DockerRegistry {
    /// Starts a registry that asks for nothing.
    pub(crate) fn start() -> Self {
        Self::launch("")
    }

    /// Starts a registry that asks for [`USER`] by basic authentication.
    pub(crate) fn start_with_password() -> Self {
        Self::launch("auth:\n  htpasswd:\n    realm: test\n    path: DIR/htpasswd\n")
    }

    /// Starts a registry with TLS; its root is `ca.pem` in [`DockerRegistry::dir`].
    pub(crate) fn start_with_tls() -> Self {
        Self::launch("  tls:\n    certificate: DIR/cert.pem\n    key: DIR/key.pem\n")
    }

    fn launch(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        if more.contains("tls") {
            make_certificates(dir.path());
        }
        let root = dir.path().to_str().unwrap().to_owned();
        std::fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        // The port is free when it is chosen; should another process be faster, the next one is tried.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = format!(
                "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\nstorage:\n  filesystem:\n    \
                 rootdirectory: {root}/data\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{}",
                more.replace("DIR", &root)
            );
            let path = dir.path().join("config.yml");
            std::fs::write(&path, config).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry must be installed (Debian package docker-registry)");
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(20) {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { child, dir, port };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry did not start");
    }

    /// `127.0.0.1:port`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the registry; its storage stays until the value is dropped.
    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The file that holds a blob or manifest.
    pub(crate) fn blob_file(&self, hex: &str) -> PathBuf {
        let blobs = self.dir.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// A directory for the test's own files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A root and a certificate of 127.0.0.1 below it.
fn make_certificates(dir: &Path) {
    let script = "set -e; cd \"$1\"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-root
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out leaf.csr -subj /CN=test-registry
        echo subjectAltName=IP:127.0.0.1 > san
        openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile san";
    let output = Command::new("sh").args(["-c", script, "sh"]).arg(dir).output().expect("openssl must be installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
