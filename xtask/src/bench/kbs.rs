//! `bench kbs`: the release key-broker under load from this machine, its processor time and memory read from outside.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::HELP;
use crate::shell::{cargo, output, release_binaries, run};

const ADMIN: &str = "the-bench-has-a-token-of-its-own-0123456789";

struct Options {
    seconds: String,
    connections: String,
    handshakes: String,
    json: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options =
            Self { seconds: "10".into(), connections: "8".into(), handshakes: "100000".into(), json: None };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value\n{HELP}"))?;
            match name.as_str() {
                "--seconds" => options.seconds.clone_from(value),
                "--connections" => options.connections.clone_from(value),
                "--handshakes" => options.handshakes.clone_from(value),
                "--json" => options.json = Some(value.into()),
                _ => bail!("{name} is no option\n{HELP}"),
            }
        }
        Ok(options)
    }
}

/// A key broker with a folder of its own; both end with it.
struct Broker {
    child: Child,
    directory: PathBuf,
    address: String,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Broker {
    fn start(binaries: &Path) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("tcl-bench-kbs-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let path = |name: &str| directory.join(name);
        let command = |name: &str| Command::new(binaries.join(name));
        let mut keygen = command("key-broker");
        keygen.arg("keygen").arg(path("signing.pem"));
        output(keygen)?;
        let mut keygen = command("key-broker");
        keygen.args(["keygen", "--store-key"]).arg(path("store.key"));
        output(keygen)?;
        let mut pki = command("tclctl");
        pki.args(["simulated", "pki"]).arg(path("pki"));
        output(pki)?;
        let mut keygen = command("tclctl");
        keygen.args(["golden", "keygen"]).arg(path("release.pem"));
        output(keygen)?;
        let signer = fs::read_to_string(path("release.pem.pub"))?;
        fs::write(path("admin.token"), ADMIN)?;
        fs::write(path("resource"), [7u8; 32])?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let at = directory.display();
        let configuration = format!(
            r#"
environment = "development"
listen = "{address}"
store = "{at}/broker.redb"
store_key = {{ file = "{at}/store.key" }}
signing_key = "{at}/signing.pem"
admin_token = "{at}/admin.token"
challenge_seconds = 120
token_seconds = 3600
revocation_seconds = 0

[[signers]]
issuer = "bench"
key = """{signer}"""
min_version = 1
revocations = "optional"

[policy]
registers = ["software"]

[sample]
accept = true

[release]
status = ["affirming", "warning"]

[[snp.root]]
path = "{at}/pki/ark.pem"
simulated = true
"#
        );
        fs::write(path("broker.toml"), configuration)?;
        let log = fs::File::create(path("log"))?;
        let mut serve = command("key-broker");
        serve.arg("--config").arg(path("broker.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut broker = Self { child: serve.spawn().context("key-broker")?, directory, address };
        let begun = Instant::now();
        while std::net::TcpStream::connect(&broker.address).is_err() {
            if broker.child.try_wait()?.is_some() || begun.elapsed() > Duration::from_secs(10) {
                bail!("key-broker does not serve: {}", fs::read_to_string(broker.directory.join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut put = Command::new("curl");
        put.args(["--silent", "--show-error", "--fail", "--data-binary"])
            .arg(format!("@{}", broker.directory.join("resource").display()))
            .args(["--header", &format!("authorization: Bearer {ADMIN}")])
            .arg(format!("http://{}/kbs/v0/resource/default/bench/key", broker.address));
        output(put)?;
        Ok(broker)
    }

    /// Seconds of processor time so far.
    fn processor(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat")?;
        let mut fields = fields.split(' ').skip(11).map(str::parse::<f64>);
        let (user, system) = (fields.next().context("utime")??, fields.next().context("stime")??);
        // Linux counts in hundredths whatever the processor.
        Ok((user + system) / 100.0)
    }

    /// Resident memory in MB.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse::<f64>()? / 1024.0)
    }

    fn load(&self, client: &Path, mode: &str, connections: &str, amount: &str) -> Result<Load> {
        let before = self.processor()?;
        let mut load = Command::new(client);
        load.args([&self.address, mode, connections, amount]).arg(self.directory.join("pki"));
        let told: Value = serde_json::from_str(&output(load)?).context(mode.to_owned())?;
        let number = |name: &str| told.get(name).and_then(Value::as_f64).with_context(|| name.to_owned());
        let cpu = (self.processor()? - before) * 1000.0 / number("count")?;
        Ok(Load { per_s: number("per_s")?, cpu_ms: cpu, p50_ms: number("p50_ms")?, p99_ms: number("p99_ms")? })
    }
}

struct Load {
    per_s: f64,
    cpu_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Load {
    fn row(&self, what: &str) {
        let Self { per_s, cpu_ms, p50_ms, p99_ms } = self;
        println!("| {what} | {per_s:.0} | {cpu_ms:.3} | {p50_ms:.2} | {p99_ms:.2} |");
    }
}

pub(crate) fn kbs(arguments: &[String]) -> Result<()> {
    let Options { seconds, connections, handshakes, json } = Options::parse(arguments)?;
    // Apart: with examples come the tests' dependencies, and other features with them.
    run(cargo(&["build", "--release", "--workspace", "--bin", "key-broker", "--bin", "tclctl"]))?;
    run(cargo(&["build", "--release", "--workspace", "--example", "kbs_load"]))?;
    let binaries = release_binaries()?;
    let client = binaries.join("examples/kbs_load");
    let broker = Broker::start(&binaries)?;
    std::thread::sleep(Duration::from_secs(1));
    let idle = broker.memory()?;
    let rcar = broker.load(&client, "rcar", &connections, &seconds)?;
    let snp = broker.load(&client, "rcar-snp", &connections, &seconds)?;
    let get = broker.load(&client, "get", &connections, &seconds)?;
    broker.load(&client, "rcar", &connections, &format!("={handshakes}"))?;
    let after = broker.memory()?;
    println!("| {connections} connections | per second | server CPU, ms | p50, ms | p99, ms |\n|---|---|---|---|---|");
    rcar.row("handshake, sample evidence");
    snp.row("handshake, simulated SNP evidence");
    get.row("GET of a resource");
    println!("resident memory: idle {idle:.1} MB, after {handshakes} more handshakes {after:.1} MB");
    if let Some(path) = json {
        let figures = json!({
            "rcar_per_s": rcar.per_s, "rcar_server_cpu_ms": rcar.cpu_ms, "rcar_p50_ms": rcar.p50_ms, "rcar_p99_ms": rcar.p99_ms,
            "snp_per_s": snp.per_s, "snp_server_cpu_ms": snp.cpu_ms, "snp_p50_ms": snp.p50_ms, "snp_p99_ms": snp.p99_ms,
            "get_per_s": get.per_s, "get_server_cpu_ms": get.cpu_ms, "get_p50_ms": get.p50_ms, "get_p99_ms": get.p99_ms,
            "rss_idle_mb": idle, "rss_after_mb": after,
        });
        fs::write(&path, figures.to_string()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
