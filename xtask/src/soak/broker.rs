//! A key broker of development in a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell::{binaries, cargo, output, root, run};

/// What the administrator shows.
pub(super) const ADMIN: &str = "the-administrators-token-of-a-soak";

/// One that runs until it is dropped.
pub(super) struct Broker {
    folder: PathBuf,
    child: Child,
    pub(super) address: String,
}

impl Broker {
    /// Builds it, and starts it in `target/soak/NAME` with an empty store.
    pub(super) fn start(name: &str) -> Result<Self> {
        run(cargo(&["build", "--workspace", "--bin", "key-broker"]))?;
        let folder = root().join("target/soak").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let program = binaries()?.join("key-broker");
        let at = |name: &str| folder.join(name).display().to_string();
        let key = output(command(&program, &["keygen", &at("signing.pem")]))?;
        output(command(&program, &["keygen", "--store-key", &at("store.key")]))?;
        fs::write(at("admin.token"), ADMIN)?;
        let text = format!(
            "environment = \"development\"\nlisten = \"127.0.0.1:0\"\nstore = \"{}\"\nstore_key = {{ file = \"{}\" }}\nsigning_key = \"{}\"\n\
             admin_token = \"{}\"\nchallenge_seconds = 60\ntoken_seconds = 60\nrevocation_seconds = 0\n\
             [[signers]]\nissuer = \"soak\"\nkey = \"\"\"{key}\"\"\"\nmin_version = 1\nrevocations = \"optional\"\n\
             [policy]\nregisters = [\"software\"]\n",
            at("broker.redb"),
            at("store.key"),
            at("signing.pem"),
            at("admin.token"),
        );
        fs::write(at("broker.toml"), text)?;
        let mut child = command(&program, &["--config", &at("broker.toml")]).stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("no log")?);
        let address = address(&mut log)?;
        // It must not wait for somebody to read its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(Self { folder, child, address })
    }

    /// Resident memory, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("it ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    /// The store's size, in bytes.
    pub(super) fn store(&self) -> Result<u64> {
        Ok(fs::metadata(self.folder.join("broker.redb"))?.len())
    }

    /// Whether it still runs.
    pub(super) fn lives(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the broker ended: {status}"),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself, which is told elsewhere.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    // The line that tells the address, and no refusals by the million.
    command.args(arguments).env("KEY_BROKER_LOG", "warn,key_broker=info,key_broker::http=warn").env("NO_COLOR", "1");
    command
}

fn address(log: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    while log.read_line(&mut line)? != 0 {
        if let Some((_, rest)) = line.split_once("listen=") {
            return Ok(rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect());
        }
        line.clear();
    }
    bail!("the broker ended before it served")
}
