//! A key broker of development in a folder of its own, watched from outside: for soaks and for the bench.

use std::fs;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::shell::{output, root};

/// What the administrator shows.
pub(crate) const ADMIN: &str = "the-administrators-token-of-a-soak";

/// One that runs until it is dropped.
pub(crate) struct Broker {
    folder: PathBuf,
    child: Child,
    pub(crate) address: String,
}

impl Broker {
    /// An empty folder `target/soak/NAME` for one.
    pub(crate) fn folder(name: &str) -> Result<PathBuf> {
        let folder = root().join("target/soak").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Starts the program that lies in `binaries`, with an empty store in `folder`. `more` is configuration beside what
    /// every attestor needs, `log` what it logs.
    pub(crate) fn start(binaries: &Path, folder: PathBuf, more: &str, log: &str) -> Result<Self> {
        let program = binaries.join("key-broker");
        let command = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.args(arguments).env("KEY_BROKER_LOG", log).env("NO_COLOR", "1");
            command
        };
        let at = |name: &str| folder.join(name).display().to_string();
        let key = output(command(&["keygen", &at("signing.pem")]))?;
        output(command(&["keygen", "--store-key", &at("store.key")]))?;
        fs::write(at("admin.token"), ADMIN)?;
        let text = format!(
            r#"environment = "development"
listen = "127.0.0.1:0"
store = "{store}"
store_key = {{ file = "{store_key}" }}
signing_key = "{signing_key}"
admin_token = "{admin_token}"
challenge_seconds = 60
token_seconds = 3600
revocation_seconds = 0
[[signers]]
issuer = "soak"
key = """{key}"""
min_version = 1
revocations = "optional"
[policy]
registers = ["software"]
{more}"#,
            store = at("broker.redb"),
            store_key = at("store.key"),
            signing_key = at("signing.pem"),
            admin_token = at("admin.token"),
        );
        fs::write(at("broker.toml"), text)?;
        let mut child = command(&["--config", &at("broker.toml")]).stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("no log")?);
        let address = address(&mut log)?;
        // It must not wait for somebody to read its log.
        std::thread::spawn(move || {
            let mut lines = [0; 64 * 1024];
            while log.read(&mut lines).is_ok_and(|read| read > 0) {}
        });
        Ok(Self { folder, child, address })
    }

    /// Its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Seconds of processor time so far.
    pub(crate) fn processor(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat")?;
        let mut fields = fields.split(' ').skip(11).map(str::parse::<f64>);
        let (user, system) = (fields.next().context("utime")??, fields.next().context("stime")??);
        // Linux counts in hundredths whatever the processor.
        Ok((user + system) / 100.0)
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("it ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    /// The store's size, in bytes.
    pub(crate) fn store(&self) -> Result<u64> {
        Ok(fs::metadata(self.folder.join("broker.redb"))?.len())
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> Result<()> {
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
