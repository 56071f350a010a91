//! Images of this workspace's programs, and a world around the machine that one runs in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use appraisal::policy::BUILT_IN;
use guest_image::machine::Start;
use guest_image::{Flavour, Lock, Options, names};
use guest_vm::{Disk, Machine, Running};
use integration_tests::command::{run, tclctl};
use integration_tests::process::binary;
use integration_tests::{Options as WorldOptions, Tee, World, initdata, kata, tls};
use tempfile::TempDir;
use toml::{Table, Value};

/// Where QEMU shows this machine's loopback to the guest.
const HOST: &str = "10.0.2.2";
/// How long a machine may take to anything; an emulated one is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// Who signs reference values.
const PLATFORM: &str = "platform@example.com";

/// Where this workspace is built.
pub(crate) fn target() -> PathBuf {
    binary("guest-agent").ancestors().nth(2).unwrap().to_path_buf()
}

/// What Debian serves now: the pinned versions may be gone from there.
pub(crate) fn packages() -> Lock {
    static LOCK: OnceLock<Lock> = OnceLock::new();
    LOCK.get_or_init(|| Lock::renew().unwrap()).clone()
}

/// A build of this workspace's programs.
pub(crate) fn options(out: &Path) -> Options {
    Options {
        out: out.to_path_buf(),
        flavour: Flavour::Verity,
        debug: false,
        binaries: binary("guest-agent").parent().unwrap().to_path_buf(),
        packages: packages(),
        configuration: Vec::new(),
        command_line: Vec::new(),
        cache: target().join("guest-image/packages"),
        workspace: Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap(),
        snp: None,
    }
}

/// Registry, TPM and attestor of this machine, and an image that knows them by its initdata.
pub(crate) struct Scene {
    pub(crate) world: World,
    folder: TempDir,
}

impl Scene {
    /// Builds the image, and has the attestor take its TPM's guests for what the image's measurements say.
    pub(crate) fn new() -> Self {
        let world = World::without_agent(WorldOptions { tee: Tee::Tpm, ..WorldOptions::default() });
        // Sockets have short paths.
        let folder = tempfile::Builder::new().prefix("vm").tempdir_in("/tmp").unwrap();
        let mut scene = Self { world, folder };
        let configuration = scene.path("configuration");
        fs::create_dir(&configuration).unwrap();
        fs::write(configuration.join("guest-agent.toml"), scene.configuration().to_string()).unwrap();
        scene.build(&scene.image(), &options(&scene.image()).binaries);
        scene.reference();
        scene
    }

    /// Builds an image of this scene's configuration and these programs, which tells on its console what it does.
    pub(crate) fn build(&self, out: &Path, binaries: &Path) {
        let options = Options {
            binaries: binaries.to_path_buf(),
            configuration: vec![self.path("configuration")],
            command_line: vec!["agent.log=info".to_owned()],
            ..options(out)
        };
        guest_image::build(&options).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.path("image")
    }

    /// The measured configuration: as the world's agent has it, but for what the initdata brings, and places.
    fn configuration(&self) -> Table {
        let mut table: Table = fs::read_to_string(self.world.path("agent.toml")).unwrap().parse().unwrap();
        for gone in ["attestor", "signers", "local"] {
            table.remove(gone);
        }
        let registry = self.world.registry_address();
        let port = registry.rsplit(':').next().unwrap();
        // Guest and attestor know the registry by one name, and each finds it where it is.
        let more = format!(
            r#"state_dir = "/run/tcl"
image_dir = "/run/tcl/images"
[listen]
unix = "/run/tcl/agent.sock"
vsock = {{ port = 1030, allow = ["EventLog", "Evidence", "Status"] }}
[attester]
kind = "tpm"
device = "/dev/tpmrm0"
pcr = 14
[modes]
permitted = ["remote"]
default = "remote"
[registry]
stall_seconds = 60
request_seconds = 60
registries_conf = '''
[[registry]]
prefix = "{registry}"
location = "{HOST}:{port}"
insecure = true
'''
[runtime]
path = "/usr/bin/runc"
[kata]
listen = "vsock://-1:1024"
policy = "/etc/trusted-container-launcher/policy.rego"
policy_digest = "@POLICY_DIGEST@"
pause_bundle = "/usr/share/guest/pause"
pause_digest = "@PAUSE_DIGEST@"
[initdata]
allow = ["policy", "signers", "attestor"]
required = true
"#
        );
        table.extend(more.parse::<Table>().unwrap());
        table
    }

    /// What the guest's owner gives it: an open policy, the signers, and the attestor behind a name of its own.
    pub(crate) fn initdata(&self) -> String {
        let agent: Table = fs::read_to_string(self.world.path("agent.toml")).unwrap().parse().unwrap();
        let mut attestor = agent["attestor"].as_table().unwrap().clone();
        let port = attestor["url"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        attestor.insert("url".into(), format!("https://{HOST}:{port}").into());
        attestor.insert("root".into(), "ca.pem".into());
        attestor.insert("timeout_seconds".into(), 60.into());
        let mut brought = Table::new();
        brought.insert("attestor".into(), Value::Table(attestor));
        brought.insert("signers".into(), agent["signers"].clone());
        let root = fs::read_to_string(self.world.path("tls/root.pem")).unwrap();
        let files = [("policy.rego", kata::open_policy()), ("guest-agent.toml", brought.to_string()), ("ca.pem", root)];
        initdata::text("sha256", &files.each_ref().map(|(name, content)| (*name, content.as_str())))
    }

    /// Signs the predicted measurements, and restarts the attestor with them, behind TLS.
    fn reference(&mut self) {
        let signed = self.world.path("reference.json").display().to_string();
        let (key, values) =
            (self.world.path("platform.pem"), self.image().join(names::REFERENCES).display().to_string());
        let _ = run(tclctl(&["golden", "keygen", &key.display().to_string()])).ok();
        let mut sign = tclctl(&["reference", "sign", &values, "--key"]);
        sign.arg(&key).args(["--issuer", PLATFORM, "--series", "guest-image", "--version", "1", "--days", "2"]);
        let _ = run({
            sign.args(["--environment", "development", "--out", &signed]);
            sign
        })
        .ok();
        let public = fs::read_to_string(self.world.path("platform.pem.pub")).unwrap();
        let certificate = tls::certificate(&self.world.path("tls"), &format!("IP:{HOST}"));
        // As in production: what booted must be known, and is no mere warning.
        let lenient = "unexpected := {\"executables\": 33, \"hardware\": 32} if input.environment == \"development\"\n";
        let policy = self.world.path("appraisal.rego");
        assert!(BUILT_IN.contains(lenient));
        fs::write(&policy, BUILT_IN.replace(lenient, "")).unwrap();
        self.world.kill_broker();
        self.world.edit_broker(|broker| {
            // To the guest and its attestor it is a TPM like any other: that it is emulated outside, nobody could know.
            broker["tpm"]["ak"][0].as_table_mut().unwrap().insert("simulated".into(), false.into());
            let more = format!(
                "[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n[reference]\nfiles = [\"{signed}\"]\n\
                 [[reference.signer]]\nissuer = \"{PLATFORM}\"\nkey = '''{public}'''\nmin_version = 1\n\
                 [appraisal]\npolicy = \"{}\"\n",
                certificate.chain.display(),
                certificate.key.display(),
                policy.display()
            );
            broker.extend(more.parse::<Table>().unwrap());
        });
        self.world.start_broker();
    }

    /// A machine with an image, the world's TPM and this initdata, which firmware starts.
    pub(crate) fn start(&mut self, name: &str, image: &Path, initdata: &str) -> Running {
        let tpm = self.world.tpm.as_mut().unwrap().leave();
        let folder = self.path(name);
        let machine = machine(image, Start::Firmware, &folder, Some(initdata));
        // What it has is what a pod's guest has to do with.
        Machine { memory_mib: 256, tpm_state: Some(tpm), ..machine }.start(&folder).unwrap()
    }
}

/// A machine with an image, to be started in `folder`.
pub(crate) fn machine(image: &Path, start: Start, folder: &Path, initdata: Option<&str>) -> Machine {
    let mut machine = guest_image::machine::machine(image, start, folder, &target().join("tools/bin")).unwrap();
    if let Some(text) = initdata {
        let file = initdata::attach(folder, text);
        machine.disks.push(Disk { file, serial: None, writable: false });
    }
    // It stays when the guest switches itself off: swtpm would forget the registers at a machine's end.
    machine.arguments.push("-no-shutdown".into());
    machine
}

/// Waits until `ready` gives something.
#[track_caller]
pub(crate) fn wait<T>(running: &mut Running, what: &str, mut ready: impl FnMut(&Running) -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ready(running) {
            return found;
        }
        let ended = running.ended_within(Duration::from_millis(100));
        assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{what} ({ended:?})\n{}", running.console());
    }
}

/// Waits until the console has this text.
#[track_caller]
pub(crate) fn says(running: &mut Running, text: &str) -> String {
    wait(running, text, |running| Some(running.console()).filter(|console| console.contains(text)))
}
