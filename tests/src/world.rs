//! A world of its own for every test: registry, TPM, attestor, agent, and the keys between them.

mod configuration;
mod launch;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use protocols::keys::{KeyKind, SigningKey};
use tempfile::TempDir;
use toml::Table;

use crate::command::{run, runc_list};
use crate::process::{PATIENCE, Service, address, binary, program};
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::tpm::Tpm;
use crate::tpm_relay::TpmRelay;

/// The signer's name in every world.
pub const ISSUER: &str = "release@example.com";

/// The attestor's administration token in every world.
pub const ADMIN_TOKEN: &str = "the administration token of these tests";

/// Which evidence the agent gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tee {
    /// swtpm by unix socket.
    Tpm,
    /// Reports signed by a simulated chip.
    SimulatedSnp,
    /// Quotes of a simulated trust domain.
    SimulatedTdx,
}

/// What a test wants different from the usual world.
#[derive(Clone, Copy)]
pub struct Options {
    /// The evidence; a TPM's usually.
    pub tee: Tee,
    /// Whether agent and attestor reach the registry through a [`Proxy`].
    pub registry_proxy: bool,
    /// Whether the agent reaches the attestor through a [`Proxy`].
    pub attestor_proxy: bool,
    /// Whether the agent reaches the TPM through a [`TpmRelay`].
    pub tpm_relay: bool,
    /// Whether the registry wants a password.
    pub locked: bool,
    /// Size of a tmpfs for the agent's state, in KiB; 0: none.
    pub state_kib: u32,
    /// Size of a tmpfs for the agent's images, in KiB; 0: none.
    pub images_kib: u32,
    /// Edits the agent's configuration.
    pub agent: fn(&mut Table),
    /// Edits the attestor's configuration.
    pub broker: fn(&mut Table),
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Options")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tee: Tee::Tpm,
            registry_proxy: false,
            attestor_proxy: false,
            tpm_relay: false,
            locked: false,
            state_kib: 0,
            images_kib: 0,
            agent: |_| {},
            broker: |_| {},
        }
    }
}

/// Everything one test needs; ended and removed when dropped.
#[derive(Debug)]
pub struct World {
    /// The registry itself.
    pub registry: Registry,
    /// What stands between agent and registry, where the options asked for it.
    pub registry_proxy: Option<Proxy>,
    /// What stands between agent and attestor, where the options asked for it.
    pub attestor_proxy: Option<Proxy>,
    /// The TPM, where there is one.
    pub tpm: Option<Tpm>,
    /// What stands between agent and TPM, where the options asked for it.
    pub tpm_relay: Option<TpmRelay>,
    /// The golden values' signing key, pinned by agent and attestor.
    pub release: SigningKey,
    /// The agent; `None` while it is down.
    pub agent: Option<Service>,
    /// The attestor; `None` while it is down.
    pub broker: Option<Service>,
    folder: PathBuf,
    mounts: Vec<PathBuf>,
    temporary: Option<TempDir>,
}

impl World {
    /// The usual world.
    ///
    /// # Panics
    /// When anything does not start.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// A world with options.
    ///
    /// # Panics
    /// When anything does not start.
    #[must_use]
    pub fn with(options: Options) -> Self {
        let mut world = Self::without_agent(options);
        world.start_agent();
        world
    }

    /// A world whose agent is configured but not started yet.
    ///
    /// # Panics
    /// When anything does not start.
    #[must_use]
    pub fn without_agent(options: Options) -> Self {
        let temporary = tempfile::Builder::new().prefix("tcl-").tempdir().unwrap();
        let folder = temporary.path().to_path_buf();
        let registry = Registry::start(&folder, options.locked);
        let registry_proxy = options.registry_proxy.then(|| Proxy::start(&registry.address));
        let tpm = (options.tee == Tee::Tpm).then(|| Tpm::start(&folder));
        let tpm_relay = tpm
            .as_ref()
            .filter(|_| options.tpm_relay)
            .map(|tpm| TpmRelay::start(&folder.join("relay.sock"), tpm.socket()));
        let release = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let attestor = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        fs::write(folder.join("release.pem"), release.to_pem().unwrap().as_bytes()).unwrap();
        fs::write(folder.join("attestor.pem"), attestor.to_pem().unwrap().as_bytes()).unwrap();
        fs::write(folder.join("admin.token"), ADMIN_TOKEN).unwrap();
        fs::create_dir(folder.join("marker")).unwrap();
        let locked = options.locked;
        let mut world = Self {
            registry,
            registry_proxy,
            attestor_proxy: None,
            tpm,
            tpm_relay,
            release,
            agent: None,
            broker: None,
            folder,
            mounts: Vec::new(),
            temporary: Some(temporary),
        };
        if locked {
            let credentials = world.auth_file(crate::registry::USER, crate::registry::PASSWORD);
            fs::write(world.path("own-auth.json"), credentials).unwrap();
        }
        for (name, kib) in [("state", options.state_kib), ("images", options.images_kib)] {
            if kib > 0 {
                world.mount_tmpfs(name, kib);
            }
        }
        world.configure_broker(&options);
        world.start_broker();
        let broker = world.broker.as_mut().unwrap().wait_for(|log| address(log, "listen="));
        world.fix_broker_port(&broker);
        world.attestor_proxy = options.attestor_proxy.then(|| Proxy::start(&broker));
        let url = world.attestor_proxy.as_ref().map_or(broker, |proxy| proxy.address.clone());
        world.configure_agent(&options, &format!("http://{url}"), &attestor);
        world
    }

    /// A path in the world's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `host:port` that agent and attestor know the registry by.
    #[must_use]
    pub fn registry_address(&self) -> &str {
        self.registry_proxy.as_ref().map_or(&self.registry.address, |proxy| &proxy.address)
    }

    /// `unix://` address of the agent.
    #[must_use]
    pub fn agent_address(&self) -> String {
        format!("unix://{}", self.path("agent.sock").display())
    }

    fn mount_tmpfs(&mut self, name: &str, kib: u32) {
        let target = self.path(name);
        fs::create_dir(&target).unwrap();
        let options = std::ffi::CString::new(format!("size={kib}k,mode=700")).unwrap();
        rustix::mount::mount("tmpfs", &target, "tmpfs", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
            .unwrap();
        self.mounts.push(target);
    }

    /// The agent's process, started but not waited for.
    #[must_use]
    pub fn spawn_agent(&self) -> Service {
        let mut command = Command::new(binary("guest-agent"));
        command.arg("--config").arg(self.path("agent.toml"));
        Service::start("guest-agent", &command, &self.path("agent.log"))
    }

    /// Starts the agent and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_agent(&mut self) {
        self.serves(self.spawn_agent());
    }

    /// Starts the agent with these words on the kernel's command line, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn start_agent_booted_with(&mut self, words: &str) {
        let path = self.path("cmdline");
        fs::write(&path, words).unwrap();
        let mut command = Command::new(binary("guest-agent"));
        command.arg("--config").arg(self.path("agent.toml")).arg("--kernel-parameters").arg(path);
        self.serves(Service::start("guest-agent", &command, &self.path("agent.log")));
    }

    fn serves(&mut self, mut agent: Service) {
        agent.wait_for_socket(&self.path("agent.sock"));
        self.agent = Some(agent);
    }

    /// Waits until the attestor has every record the agent has.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn settle(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let status = run(self.tclctl(&["--json", "status"])).ok().json();
            if status["delivered"] == status["records"] {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "not delivered: {status}\n{}", self.agent_log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// SIGKILL for the agent.
    ///
    /// # Panics
    /// When it is down already.
    pub fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill();
    }

    /// SIGTERM for the agent, and its end.
    ///
    /// # Panics
    /// When it is down already.
    pub fn stop_agent(&mut self) {
        self.agent.take().unwrap().stop();
    }

    /// Waits for the agent's end, which it comes to by itself.
    ///
    /// # Panics
    /// When it does not end, or fails.
    pub fn agent_ended(&mut self) {
        let status = self.agent.take().unwrap().ended();
        assert!(status.success(), "{status}");
    }

    /// The attestor's process, started but not waited for.
    #[must_use]
    pub fn spawn_broker(&self) -> Service {
        let mut command = Command::new(binary("key-broker"));
        command.arg("--config").arg(self.path("broker.toml"));
        let log = self.path("broker.log");
        let _ = fs::remove_file(&log);
        Service::start("key-broker", &command, &log)
    }

    /// Starts the attestor.
    ///
    /// # Panics
    /// When it does not start to serve.
    pub fn start_broker(&mut self) {
        let mut broker = self.spawn_broker();
        broker.wait_for(|log| address(log, "listen="));
        self.broker = Some(broker);
    }

    /// The attestor is gone.
    ///
    /// # Panics
    /// When it is down already.
    pub fn kill_broker(&mut self) {
        self.broker.take().unwrap().kill();
    }

    /// The attestor's own address, past any proxy.
    ///
    /// # Panics
    /// When the attestor is not configured.
    #[must_use]
    pub fn attestor_url(&self) -> String {
        let table: Table = fs::read_to_string(self.path("broker.toml")).unwrap().parse().unwrap();
        format!("http://{}", table["listen"].as_str().unwrap())
    }

    /// The machine reboots: the TPM's registers are zero again, and the agent's state, which lives in
    /// memory, is gone.
    ///
    /// # Panics
    /// When the agent still runs.
    pub fn reboot(&mut self) {
        assert!(self.agent.is_none(), "the agent ends with the machine: stop or kill it first");
        self.tpm.as_mut().unwrap().reboot();
        for name in ["state", "images"] {
            let _ = fs::remove_dir_all(self.path(name));
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- agent\n{}\n--- attestor\n{}",
                self.agent_log(),
                fs::read_to_string(self.path("broker.log")).unwrap_or_default()
            );
        }
        if let Some(mut agent) = self.agent.take() {
            agent.stop();
        }
        for id in std::panic::catch_unwind(|| runc_list(&self.folder.join("state/runtime"))).unwrap_or_default() {
            let _ = Command::new(program("runc"))
                .arg("--root")
                .arg(self.runc_root())
                .args(["delete", "--force", &id])
                .output();
        }
        let own = format!("{}/", self.folder.display());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut targets: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|target| target.starts_with(&own))
            .collect();
        targets.sort_unstable_by(|a, b| b.cmp(a));
        for target in targets {
            let _ = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
        }
        drop(self.temporary.take());
    }
}
