//! An agent with a real TPM simulator and the real runc; registry and attestor are out of reach.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)] // a test fails by panicking

pub(crate) mod registry;
pub(crate) mod scene;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use protocols::keys::{KeyKind, SigningKey, VerifyingKey};
use protocols::rpc::launch as pb;
use protocols::rpc::launch_ttrpc::LauncherClient;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a TPM and a configuration; everything ends when it is dropped.
pub(crate) struct World {
    dir: tempfile::TempDir,
    tpm: Child,
    agent: Option<Child>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tcl-agent-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tpm")).unwrap();
        let socket = |name: &str| format!("type=unixio,path={}", dir.path().join(name).display());
        let tpm = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", dir.path().join("tpm").display()))
            .args(["--server", &socket("tpm.sock"), "--ctrl", &socket("tpm.sock.ctrl")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is needed");
        until(|| dir.path().join("tpm.sock").exists());
        let world = Self { dir, tpm, agent: None };
        world.configure(|text| text);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration, changed by `edit`.
    pub(crate) fn configure(&self, edit: impl FnOnce(String) -> String) {
        self.configure_with(&SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key(), edit);
    }

    /// As [`World::configure`], with this signer pinned.
    pub(crate) fn configure_with(&self, signer: &VerifyingKey, edit: impl FnOnce(String) -> String) {
        let text = format!(
            r#"environment = "development"
state_dir = "{0}/state"
image_dir = "{0}/images"
[listen]
unix = "{0}/agent.sock"
[attester]
kind = "tpm"
device = "unix:{0}/tpm.sock"
[attestor]
kind = "tcl"
url = "http://127.0.0.1:9"
key = """{attestor}"""
timeout_seconds = 2
[modes]
permitted = ["local", "remote"]
default = "remote"
[local]
boot_state = {{ unmeasured = true }}
receipts = "queue"
queue_max = 16
golden_from = "registry"
[[signers]]
issuer = "release@example.com"
key = """{signer}"""
min_version = 1
revocations = "optional"
[registry]
plain_http = ["127.0.0.1:9"]
[images]
# Whoever signs golden values approves images here; no image signature is asked for beside theirs.
signature_policy_json = '{{"default": [{{"type": "insecureAcceptAnything"}}]}}'

[runtime]
path = "{runc}"
"#,
            self.dir.path().display(),
            attestor = SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap(),
            signer = signer.to_pem().unwrap(),
            runc = runc().display(),
        );
        std::fs::write(self.path("agent.toml"), edit(text)).unwrap();
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guest-agent"));
        command.arg("--config").arg(self.path("agent.toml")).stdin(Stdio::null());
        command
    }

    /// Starts the agent and waits until it serves.
    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("agent.log")).unwrap();
        let _ = std::fs::remove_file(self.path("agent.sock"));
        let mut agent = self.command().stderr(log).spawn().unwrap();
        until(|| {
            let ended = agent.try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended: {}", self.log());
            // There is a moment when it is bound and nobody listens yet.
            std::os::unix::net::UnixStream::connect(self.path("agent.sock")).is_ok()
        });
        self.agent = Some(agent);
    }

    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// SIGTERM, and the agent's own end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().unwrap();
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut status = None;
        until(|| {
            status = agent.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Extends the log's PCR as something else in the guest would.
    pub(crate) fn extend_from_outside(&self) {
        let extended = Command::new("tpm2_pcrextend")
            .arg(format!("14:sha256={}", "11".repeat(32)))
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.path("tpm.sock").display()))
            .status()
            .expect("tpm2-tools are needed");
        assert!(extended.success());
    }

    pub(crate) async fn client(&self) -> LauncherClient {
        connect(&self.path("agent.sock")).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- agent\n{}", self.log());
        }
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let _ = self.tpm.kill();
        let _ = self.tpm.wait();
    }
}

pub(crate) async fn connect(socket: &Path) -> LauncherClient {
    let client = ttrpc::r#async::Client::connect(&format!("unix://{}", socket.display())).await.unwrap();
    LauncherClient::new(client)
}

pub(crate) fn runc() -> PathBuf {
    ["/usr/sbin/runc", "/usr/bin/runc"].iter().map(PathBuf::from).find(|path| path.exists()).expect("runc is needed")
}

/// Waits for a condition.
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn context() -> ttrpc::context::Context {
    ttrpc::context::with_duration(PATIENCE)
}

pub(crate) fn named(id: &str) -> pb::ContainerRequest {
    pb::ContainerRequest { container_id: id.to_owned(), ..Default::default() }
}

pub(crate) fn launch(reference: &str, mode: &str) -> pb::LaunchRequest {
    pb::LaunchRequest { reference: reference.to_owned(), mode: mode.to_owned(), ..Default::default() }
}

/// The status of a failed call: its transport code and its message.
pub(crate) fn failed<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (ttrpc::Code, String) {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) => (status.code(), status.message().to_owned()),
        other => panic!("expected a refused call, got {other:?}"),
    }
}
