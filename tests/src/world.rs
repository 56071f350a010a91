//! A world of its own for every test: registry, TPM, attestor, agent, and the keys between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocols::keys::{KeyKind, SigningKey};
use tempfile::TempDir;
use toml::{Table, Value};

use crate::command::{Seen, run, run_with, runc_list, tclctl};
use crate::image::{Image, MARKER, Recipe};
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

    fn signers(&self) -> Value {
        let mut signer = Table::new();
        signer.insert("issuer".into(), ISSUER.into());
        signer.insert("key".into(), self.release.verifying_key().to_pem().unwrap().into());
        signer.insert("min_version".into(), 1.into());
        signer.insert("revocations".into(), "optional".into());
        Value::Array(vec![Value::Table(signer)])
    }

    fn configure_broker(&self, options: &Options) {
        let mut table: Table = format!(
            r#"environment = "development"
listen = "127.0.0.1:0"
store = "{0}/broker.redb"
signing_key = "{0}/attestor.pem"
admin_token = "{0}/admin.token"
challenge_seconds = 120
token_seconds = 300
[registry]
plain_http = ["{1}"]
[policy]
registers = ["tpm-listed", "software"]
"#,
            self.folder.display(),
            self.registry_address()
        )
        .parse()
        .unwrap();
        table.insert("signers".into(), self.signers());
        match &self.tpm {
            Some(tpm) => {
                let key = run(tclctl(&["ak", "show", "--device", &tpm.device()])).ok().stdout;
                let ak: Table = format!("ak = [{{ key = '''{key}''', simulated = true }}]").parse().unwrap();
                table.insert("tpm".into(), Value::Table(ak));
            }
            None => {
                let pki = self.path("pki").display().to_string();
                let _ = run(tclctl(&["simulated", "pki", &pki])).ok();
                let ark = self.path("pki/ark.pem");
                let root: Table =
                    format!("root = [{{ path = '{}', simulated = true }}]", ark.display()).parse().unwrap();
                table.insert("snp".into(), Value::Table(root));
            }
        }
        (options.broker)(&mut table);
        fs::write(self.path("broker.toml"), table.to_string()).unwrap();
    }

    /// A restarted attestor must come back at the same address.
    fn fix_broker_port(&self, address: &str) {
        let path = self.path("broker.toml");
        let mut table: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        table.insert("listen".into(), address.into());
        fs::write(path, table.to_string()).unwrap();
    }

    fn configure_agent(&self, options: &Options, attestor_url: &str, attestor: &SigningKey) {
        let attester = match &self.tpm {
            Some(_) if options.tpm_relay => {
                format!("kind = \"tpm\"\ndevice = \"unix:{}\"\npcr = 14", self.path("relay.sock").display())
            }
            Some(tpm) => format!("kind = \"tpm\"\ndevice = \"{}\"\npcr = 14", tpm.device()),
            None => format!("kind = \"simulated-snp\"\npki = \"{}\"", self.path("pki").display()),
        };
        let mut table: Table = format!(
            r#"environment = "development"
state_dir = "{0}/state"
image_dir = "{0}/images"
[listen]
unix = "{0}/agent.sock"
[attester]
{attester}
[attestor]
kind = "tcl"
url = "{attestor_url}"
key = '''{key}'''
timeout_seconds = 3
[modes]
permitted = ["local", "remote"]
default = "remote"
[local]
boot_state = {{ unmeasured = true }}
receipts = "wait"
queue_max = 1024
golden_from = "registry"
[registry]
plain_http = ["{registry}"]
stall_seconds = 2
request_seconds = 3
[runtime]
path = "{runtime}"
"#,
            self.folder.display(),
            key = attestor.verifying_key().to_pem().unwrap(),
            registry = self.registry_address(),
            runtime = program("runc").display(),
        )
        .parse()
        .unwrap();
        table.insert("signers".into(), self.signers());
        (options.agent)(&mut table);
        fs::write(self.path("agent.toml"), table.to_string()).unwrap();
    }

    /// Changes the agent's configuration; counts from its next start.
    ///
    /// # Panics
    /// When there is none.
    pub fn edit_agent(&self, edit: impl FnOnce(&mut Table)) {
        let path = self.path("agent.toml");
        let mut table: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        edit(&mut table);
        fs::write(path, table.to_string()).unwrap();
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
        let mut agent = self.spawn_agent();
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

    /// Changes the attestor's configuration; counts from its next start.
    ///
    /// # Panics
    /// When there is none.
    pub fn edit_broker(&self, edit: impl FnOnce(&mut Table)) {
        let path = self.path("broker.toml");
        let mut table: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        edit(&mut table);
        fs::write(path, table.to_string()).unwrap();
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

    /// Pushes an image.
    #[must_use]
    pub fn push(&self, recipe: &Recipe, repository: &str, tag: &str) -> Image {
        recipe.push_as(&self.folder, &self.registry.address, repository, tag, &self.own_credentials())
    }

    /// Where `tclctl` finds the registry's password, where it wants one.
    fn own_credentials(&self) -> Vec<String> {
        let path = self.path("own-auth.json");
        if path.exists() { vec!["--auth-file".to_owned(), path.display().to_string()] } else { Vec::new() }
    }

    /// Signs version `version` of an image's golden value with the pinned key; the marker's mount is allowed.
    ///
    /// # Panics
    /// When `tclctl golden push` fails.
    pub fn sign(&self, image: &Image, version: u64) -> Seen {
        self.sign_with(image, version, &[])
    }

    /// As [`World::sign`] with more arguments.
    ///
    /// # Panics
    /// When `tclctl golden push` fails.
    pub fn sign_with(&self, image: &Image, version: u64, arguments: &[&str]) -> Seen {
        let policy = self.path("process.json");
        if !policy.exists() {
            fs::write(&policy, format!(r#"{{"mounts":["{MARKER}"]}}"#)).unwrap();
        }
        let reference = format!("{}/{}:{}", self.registry.address, image.repository, image.tag);
        let (key, version, policy) = (self.path("release.pem"), version.to_string(), policy.display().to_string());
        let key = key.display().to_string();
        let mut all = vec![
            "golden",
            "push",
            &reference,
            "--key",
            &key,
            "--issuer",
            ISSUER,
            "--version",
            &version,
            "--process",
            &policy,
            "--environment",
            "development",
            "--plain-http",
            &self.registry.address,
        ];
        if !arguments.iter().any(|argument| argument.starts_with("--expires")) {
            all.extend(["--days", "30"]);
        }
        all.extend(arguments);
        let credentials = self.own_credentials();
        all.extend(credentials.iter().map(String::as_str));
        run(tclctl(&all)).ok()
    }

    /// The usual image, pushed and signed.
    #[must_use]
    pub fn signed(&self, script: &str, repository: &str) -> Image {
        let image = self.push(&Recipe::new(script), repository, "1");
        let _ = self.sign(&image, 1);
        image
    }

    /// How agent and attestor know an image: by tag, through the proxy where there is one.
    #[must_use]
    pub fn reference(&self, image: &Image) -> String {
        format!("{}/{}:{}", self.registry_address(), image.repository, image.tag)
    }

    /// `tclctl` for this world's agent.
    #[must_use]
    pub fn tclctl<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = tclctl(arguments);
        command.env("TCL_AGENT", self.agent_address());
        command
    }

    /// The arguments of `tclctl run`, with the marker's mount.
    #[must_use]
    pub fn run_arguments(&self, image: &Image, arguments: &[&str]) -> Vec<String> {
        let mount = format!("type=bind,source={},destination={MARKER}", self.path("marker").display());
        let mut all: Vec<String> = ["run", "--mount", &mount].map(str::to_owned).to_vec();
        let (options, command): (Vec<&str>, Vec<&str>) = match arguments.iter().position(|a| *a == "--") {
            Some(place) => (arguments[..place].to_vec(), arguments[place..].to_vec()),
            None => (arguments.to_vec(), Vec::new()),
        };
        all.extend(options.into_iter().map(str::to_owned));
        all.push(self.reference(image));
        all.extend(command.into_iter().map(str::to_owned));
        all
    }

    /// `tclctl run` with the marker's mount and these arguments.
    #[must_use]
    pub fn run(&self, image: &Image, arguments: &[&str]) -> Seen {
        self.run_with_input(image, arguments, b"")
    }

    /// As [`World::run`], with standard input.
    #[must_use]
    pub fn run_with_input(&self, image: &Image, arguments: &[&str], stdin: &[u8]) -> Seen {
        run_with(self.tclctl(&self.run_arguments(image, arguments)), stdin)
    }

    /// Where the agent keeps runc's state.
    #[must_use]
    pub fn runc_root(&self) -> PathBuf {
        self.path("state/runtime")
    }

    /// Whether a workload has left its mark.
    #[must_use]
    pub fn marked(&self) -> bool {
        self.path("marker/ran").exists()
    }

    /// Forgets the mark of an earlier launch.
    pub fn unmark(&self) {
        let _ = fs::remove_file(self.path("marker/ran"));
    }

    /// Fails the test if a container process ever existed, or if anything of a launch is left over.
    ///
    /// # Panics
    /// When something ran or is left.
    #[track_caller]
    pub fn nothing_ran(&self) {
        assert!(!self.marked(), "the workload must not have run");
        self.nothing_left();
    }

    /// Fails the test if a container or a mount of one is left.
    ///
    /// # Panics
    /// When something is left.
    #[track_caller]
    pub fn nothing_left(&self) {
        assert!(self.runc_root().is_dir(), "the agent keeps the runtime's state where this looks for it");
        assert_eq!(runc_list(&self.runc_root()), Vec::<String>::new(), "containers the runtime knows");
        let own = self.folder.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let left: Vec<&str> = mounts
            .lines()
            .filter(|line| {
                let target = line.split(' ').nth(1).unwrap_or_default();
                target.starts_with(&own) && !self.mounts.iter().any(|mount| Path::new(target) == mount)
            })
            .collect();
        assert_eq!(left, Vec::<&str>::new(), "mounts left over");
    }

    /// Fails the test if the image store holds anything but whole layers.
    ///
    /// # Panics
    /// When something half-written is left.
    #[track_caller]
    pub fn nothing_half_stored(&self) {
        let mut open = vec![self.path("images")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let scratch = ["tmp", "partial", "incoming", "staging"].iter().any(|word| name.contains(word));
                if path.is_dir() && scratch {
                    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "left in {}", path.display());
                } else if path.is_dir() && folder == self.path("images") {
                    open.push(path);
                } else {
                    assert!(!scratch, "{} is left", path.display());
                }
            }
        }
    }

    /// Fills a tmpfs of the options to its last byte.
    ///
    /// # Panics
    /// When the file cannot be made.
    pub fn fill(&self, name: &str) {
        let mut file = fs::File::create(self.path(name).join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    /// Makes room again.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn drain(&self, name: &str) {
        fs::remove_file(self.path(name).join("ballast")).unwrap();
    }

    /// Credentials in the form docker keeps them.
    #[must_use]
    pub fn auth_file(&self, user: &str, password: &str) -> String {
        let auth = protocols::encoding::b64(format!("{user}:{password}").as_bytes());
        format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.registry.address)
    }

    /// Launches, expects a refusal with `code` and exit status `status`, and that nothing ran.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn refuses(&self, image: &Image, arguments: &[&str], status: i32, code: &str) -> Seen {
        let seen = self.run(image, arguments);
        seen.refused(status, code);
        self.nothing_ran();
        seen
    }

    /// Launches, expects success, the mark, and nothing left over.
    ///
    /// # Panics
    /// When it ends otherwise.
    #[track_caller]
    pub fn accepts(&self, image: &Image, arguments: &[&str]) -> Seen {
        self.unmark();
        let seen = self.run(image, arguments);
        assert_eq!(seen.status, 0, "the launch should be accepted: {seen:#?}\n{}", self.agent_log());
        assert!(self.marked(), "an accepted workload leaves its mark: {seen:#?}");
        self.unmark();
        seen
    }

    /// The agent's log file.
    #[must_use]
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// `tclctl log verify` against the TPM, read directly.
    #[must_use]
    pub fn verify_log(&self) -> Seen {
        let device = self.tpm.as_ref().unwrap().device();
        run(self.tclctl(&["log", "verify", "--pcr-device", &device, "--pcr", "14"]))
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
