//! One whole launch on this machine, told step by step.

mod configuration;
mod sandbox;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{prerequisites, shell};
use sandbox::Sandbox;

const ISSUER: &str = "release@example.com";

/// Runs all steps; fails when any expectation does not hold.
pub(crate) fn run() -> Result<()> {
    println!("Trusted Container Launcher: one launch from the registry to runc, measured, appraised and logged.");
    println!("The TPM here is SIMULATED (swtpm): this shows the software, it proves nothing about this machine.");
    let mut tour = Tour::prepare()?;
    tour.services()?;
    tour.accepted()?;
    tour.refused()?;
    tour.log()?;
    step(&mut tour.steps, "Clean up");
    println!("Services are ended and {} is removed.", tour.sandbox.folder().display());
    let failures = std::mem::take(&mut tour.failures);
    drop(tour);
    if !failures.is_empty() {
        bail!("not as it should be:\n  {}", failures.join("\n  "));
    }
    println!("\nDone: 2 accepted launches, 3 refusals with 3 different codes, and a log that replays to the PCR.");
    Ok(())
}

fn step(steps: &mut u32, title: &str) {
    *steps += 1;
    println!("\n{steps}. {title}");
}

/// What a command of the tour did.
struct Seen {
    status: i32,
    stdout: String,
    stderr: String,
}

struct Tour {
    sandbox: Sandbox,
    binaries: PathBuf,
    runtime: PathBuf,
    registry: String,
    agent: String,
    steps: u32,
    failures: Vec<String>,
}

impl Tour {
    fn prepare() -> Result<Self> {
        let mut steps = 0;
        step(&mut steps, "What is needed");
        prerequisites::require_root()?;
        prerequisites::install()?;
        step(&mut steps, "Build");
        shell::run(shell::cargo(&["build", "--quiet", "-p", "guest-agent", "-p", "key-broker", "-p", "tclctl"]))?;
        let sandbox = Sandbox::new()?;
        Ok(Self {
            binaries: shell::binaries()?,
            runtime: program("runc")?,
            registry: String::new(),
            agent: format!("unix://{}", sandbox.path("agent.sock").display()),
            sandbox,
            steps,
            failures: Vec::new(),
        })
    }

    /// Registry, TPM, attestor and agent, each on a socket or port of its own.
    fn services(&mut self) -> Result<()> {
        step(&mut self.steps, "Keys, registry, TPM (SIMULATED), attestor and agent");
        println!("(in {})", self.sandbox.folder().display());
        self.must(&["golden", "keygen", "release.pem"])?;
        self.must(&["golden", "keygen", "attestor.pem"])?;
        self.sandbox.write("admin.token", &random_token()?)?;
        let mut command = Command::new(self.binaries.join("key-broker"));
        command.args(["keygen", "--store-key"]).arg(self.sandbox.path("store.key"));
        shell::run(command)?;

        let storage = self.sandbox.path("registry");
        let registry = self.sandbox.write("registry.yml", &configuration::registry(&storage))?;
        let mut command = Command::new(program("docker-registry")?);
        command.arg("serve").arg(registry);
        let mut service = self.sandbox.start("docker-registry", command)?;
        self.registry = service.wait_for(|log| address(log, "listening on "))?;

        let mut command = Command::new(program("swtpm")?);
        fs::create_dir(self.sandbox.path("tpm"))?;
        let tpm = self.sandbox.path("tpm.sock");
        command
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", self.sandbox.path("tpm").display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", tpm.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", tpm.display()))
            .args(["--flags", "not-need-init,startup-clear"]);
        self.sandbox.start("swtpm", command)?.wait_for_socket(&tpm)?;
        let device = format!("unix:{}", tpm.display());
        let attestation_key = self.must(&["ak", "show", "--device", &device])?.stdout;

        let signer = fs::read_to_string(self.sandbox.path("release.pem.pub"))?;
        let attestor = fs::read_to_string(self.sandbox.path("attestor.pem.pub"))?;
        let folder = self.sandbox.folder().to_path_buf();
        let given =
            configuration::Broker { signer: &signer, attestation_key: &attestation_key, registry: &self.registry };
        let path = self.sandbox.write("broker.toml", &configuration::broker(&folder, &given))?;
        let mut command = Command::new(self.binaries.join("key-broker"));
        command.arg("--config").arg(path);
        let mut service = self.sandbox.start("key-broker", command)?;
        let broker = service.wait_for(|log| address(log, "listen="))?;

        let given = configuration::Agent {
            signer: &signer,
            attestor: &attestor,
            attestor_url: &format!("http://{broker}"),
            registry: &self.registry,
            runtime: &self.runtime,
        };
        let path = self.sandbox.write("agent.toml", &configuration::agent(&folder, &given))?;
        let mut command = Command::new(self.binaries.join("guest-agent"));
        command.arg("--config").arg(path);
        let socket = self.sandbox.path("agent.sock");
        self.sandbox.start("guest-agent", command)?.wait_for_socket(&socket)?;
        println!("$ export TCL_AGENT={}", self.agent);
        self.must(&["status"])?;
        Ok(())
    }

    fn accepted(&mut self) -> Result<()> {
        step(&mut self.steps, "A demo image, pushed and signed");
        let image = self.image("demo", "1");
        self.push(&image, "echo Hello from a container that was measured before it ran: $(uname -s), pid $$")?;
        self.sign(&image, 1)?;
        for mode in ["local", "remote"] {
            step(&mut self.steps, &format!("Accepted: the launch in {mode} mode"));
            let seen = self.tclctl(&["run", "--mode", mode, &image])?;
            self.expect(seen.status == 0, &format!("{mode} launch: exit status 0, not {}", seen.status));
            self.expect(
                seen.stdout.contains("Hello from a container"),
                &format!("{mode} launch: the container prints"),
            );
        }
        Ok(())
    }

    fn refused(&mut self) -> Result<()> {
        step(&mut self.steps, "Refused: a layer that was altered in the registry's storage");
        let image = self.image("tampered", "1");
        self.push(&image, "echo this must never be printed: altered")?;
        self.sign(&image, 1)?;
        let blob = largest_layer(&self.sandbox.path("registry"), "tampered")?;
        println!("(one byte of {} is flipped)", blob.display());
        flip_middle_byte(&blob)?;
        self.refuse(&image, "image.blob_digest")?;

        step(&mut self.steps, "Refused: an image nobody signed");
        let image = self.image("unsigned", "1");
        self.push(&image, "echo this must never be printed: unsigned")?;
        self.refuse(&image, "golden.missing")?;

        step(&mut self.steps, "Refused: a tag moved back to an older golden value");
        let image = self.image("rolled", "stable");
        self.push(&image, "echo this must never be printed: version 1")?;
        self.sign(&image, 1)?;
        let link =
            self.sandbox.path("registry/docker/registry/v2/repositories/rolled/_manifests/tags/stable/current/link");
        let old = fs::read_to_string(&link).with_context(|| link.display().to_string())?;
        self.push(&image, "echo version 2, which fixes version 1")?;
        self.sign(&image, 2)?;
        let seen = self.tclctl(&["run", &image])?;
        self.expect(seen.status == 0 && seen.stdout.contains("version 2"), "version 2 is accepted first");
        println!("(the registry's operator points the tag at version 1 again)");
        fs::write(&link, old)?;
        self.refuse(&image, "golden.rollback")
    }

    fn log(&mut self) -> Result<()> {
        step(&mut self.steps, "The event log, and its replay against the PCR");
        self.must(&["log", "show"])?;
        let device = format!("unix:{}", self.sandbox.path("tpm.sock").display());
        let seen = self.tclctl(&["log", "verify", "--pcr-device", &device, "--pcr", "14"])?;
        self.expect(seen.status == 0, "the log verifies");
        let mut command = Command::new(program("tpm2_pcrread")?);
        command
            .arg("sha256:14")
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.sandbox.path("tpm.sock").display()));
        let read = self.watch(command)?;
        let pcr = read.stdout.split("0x").nth(1).map(|hex| hex.trim().to_lowercase()).unwrap_or_default();
        let same = pcr.len() == 64 && seen.stdout.contains(&pcr);
        self.expect(same, "the replay equals what tpm2_pcrread reads");
        if same {
            println!("Both are {pcr}.");
        }
        Ok(())
    }

    fn image(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.registry)
    }

    /// Builds an image whose shell runs `script`, and pushes it.
    fn push(&mut self, image: &str, script: &str) -> Result<()> {
        let rootfs = self.sandbox.path("rootfs");
        if !rootfs.exists() {
            fs::create_dir_all(rootfs.join("bin"))?;
            fs::copy(program("busybox")?, rootfs.join("bin/busybox"))?;
            for name in ["sh", "echo", "uname"] {
                std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name))?;
            }
        }
        // Every image gets a layer of its own, so that none is answered from another's.
        fs::write(rootfs.join("script"), format!("{image}\n{script}\n"))?;
        let registry = self.registry.clone();
        self.must(&[
            "image",
            "push",
            "--rootfs",
            "rootfs",
            "--cmd",
            "/bin/sh",
            "--cmd",
            "-c",
            "--cmd",
            script,
            "--plain-http",
            &registry,
            image,
        ])?;
        Ok(())
    }

    fn sign(&mut self, image: &str, version: u32) -> Result<()> {
        let (registry, version) = (self.registry.clone(), version.to_string());
        self.must(&[
            "golden",
            "push",
            image,
            "--key",
            "release.pem",
            "--issuer",
            ISSUER,
            "--version",
            &version,
            "--days",
            "30",
            "--environment",
            "development",
            "--plain-http",
            &registry,
        ])?;
        Ok(())
    }

    fn refuse(&mut self, image: &str, code: &str) -> Result<()> {
        let seen = self.tclctl(&["run", image])?;
        self.expect(seen.status == 77, &format!("{code}: exit status 77, not {}", seen.status));
        let told = format!("NOT verified: {code} ");
        self.expect(seen.stderr.contains(&told), &format!("{code}: `{told}` on standard error"));
        self.expect(!seen.stdout.contains("never"), &format!("{code}: nothing was started"));
        self.must(&["explain", code])?;
        Ok(())
    }

    fn must(&mut self, arguments: &[&str]) -> Result<Seen> {
        let seen = self.tclctl(arguments)?;
        if seen.status != 0 {
            bail!("tclctl {} ended with {}", arguments.join(" "), seen.status);
        }
        Ok(seen)
    }

    fn tclctl(&mut self, arguments: &[&str]) -> Result<Seen> {
        let mut command = Command::new(self.binaries.join("tclctl"));
        command.args(arguments).env("TCL_AGENT", &self.agent);
        self.watch(command)
    }

    /// Shows a command, runs it in the sandbox, and shows what it printed and how it ended.
    fn watch(&mut self, mut command: Command) -> Result<Seen> {
        let text = shell::shown(&command);
        println!("$ {text}");
        let done = command
            .current_dir(self.sandbox.folder())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {text}"))?;
        let seen = Seen {
            status: done.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        };
        for line in seen.stdout.lines().chain(seen.stderr.lines()) {
            println!("    {line}");
        }
        if seen.status != 0 {
            println!("    (exit status {})", seen.status);
        }
        Ok(seen)
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            println!("    !! expected: {what}");
            self.failures.push(what.to_owned());
        }
    }
}

/// A program on the path or in the folders Debian puts it in.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin".into(), "/usr/sbin".into()])
        .map(|folder: PathBuf| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed"))
}

/// `host:port` after `mark` in a log.
fn address(log: &str, mark: &str) -> Option<String> {
    let rest = log.split(mark).nth(1)?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    rest.get(..end).filter(|address| !address.ends_with(":0")).map(str::to_owned)
}

fn random_token() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0u8; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The data file of the largest blob of a repository: its layer.
fn largest_layer(storage: &Path, repository: &str) -> Result<PathBuf> {
    let v2 = storage.join("docker/registry/v2");
    let mut largest = None;
    for entry in fs::read_dir(v2.join("repositories").join(repository).join("_layers/sha256"))? {
        let hex = entry?.file_name().to_string_lossy().into_owned();
        let data = v2.join("blobs/sha256").join(hex.get(..2).unwrap_or_default()).join(&hex).join("data");
        let size = fs::metadata(&data)?.len();
        if largest.as_ref().is_none_or(|(known, _)| *known < size) {
            largest = Some((size, data));
        }
    }
    largest.map(|(_, data)| data).context("the repository has no layer")
}

fn flip_middle_byte(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())
}
