//! `bench kbs`: the release key-broker under load from this machine, its processor time and memory read from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::HELP;
use crate::broker::{ADMIN, Broker};
use crate::shell::{cargo, output, release_binaries, run};

struct Options {
    seconds: String,
    connections: String,
    get_connections: String,
    handshakes: String,
    json: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            seconds: "10".into(),
            connections: "8".into(),
            get_connections: "64".into(),
            handshakes: "100000".into(),
            json: None,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value\n{HELP}"))?;
            match name.as_str() {
                "--seconds" => options.seconds.clone_from(value),
                "--connections" => options.connections.clone_from(value),
                "--get-connections" => options.get_connections.clone_from(value),
                "--handshakes" => options.handshakes.clone_from(value),
                "--json" => options.json = Some(value.into()),
                _ => bail!("{name} is no option\n{HELP}"),
            }
        }
        Ok(options)
    }
}

/// What this attestor takes beside what every one does.
fn configuration(pki: &Path) -> String {
    format!(
        "[sample]\naccept = true\n[release]\nstatus = [\"affirming\", \"warning\"]\n\
         [[snp.root]]\npath = \"{}\"\nsimulated = true\n",
        pki.join("ark.pem").display()
    )
}

fn start(binaries: &Path) -> Result<Broker> {
    let folder = Broker::folder("bench-kbs")?;
    let mut pki = Command::new(binaries.join("tclctl"));
    pki.args(["simulated", "pki"]).arg(folder.join("pki"));
    output(pki)?;
    let resource = folder.join("resource");
    fs::write(&resource, [7u8; 32])?;
    let more = configuration(&folder.join("pki"));
    let broker = Broker::start(binaries, folder, &more, "info")?;
    let mut put = Command::new("curl");
    put.args(["--silent", "--show-error", "--fail", "--data-binary"])
        .arg(format!("@{}", resource.display()))
        .args(["--header", &format!("authorization: Bearer {ADMIN}")])
        .arg(format!("http://{}/kbs/v0/resource/default/bench/key", broker.address));
    output(put)?;
    Ok(broker)
}

fn load(broker: &Broker, client: &Path, mode: &str, connections: &str, amount: &str) -> Result<Load> {
    let before = broker.processor()?;
    let mut load = Command::new(client);
    load.args([&broker.address, mode, connections, amount]).arg(broker.path("pki"));
    let told: Value = serde_json::from_str(&output(load)?).context(mode.to_owned())?;
    let number = |name: &str| told.get(name).and_then(Value::as_f64).with_context(|| name.to_owned());
    let cpu = (broker.processor()? - before) * 1000.0 / number("count")?;
    Ok(Load { per_s: number("per_s")?, cpu_ms: cpu, p50_ms: number("p50_ms")?, p99_ms: number("p99_ms")? })
}

/// Signatures on P-384 that openssl verifies in a second: what a handshake with SNP evidence costs at least depends on it.
fn openssl_p384() -> Result<f64> {
    let mut speed = Command::new("openssl");
    speed.args(["speed", "-seconds", "2", "ecdsap384"]);
    let told = output(speed)?;
    let last = told.split_whitespace().next_back().context("openssl speed says nothing")?;
    last.parse().with_context(|| last.to_owned())
}

/// Resident memory in MB.
fn megabytes(broker: &Broker) -> Result<f64> {
    // Exact up to 2^53 bytes.
    #[allow(clippy::cast_precision_loss)]
    let bytes = broker.memory()? as f64;
    Ok(bytes / (1024.0 * 1024.0))
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
    let Options { seconds, connections, get_connections, handshakes, json } = Options::parse(arguments)?;
    // Apart: with examples come the tests' dependencies, and other features with them.
    run(cargo(&["build", "--release", "--workspace", "--bin", "key-broker", "--bin", "tclctl"]))?;
    run(cargo(&["build", "--release", "--workspace", "--example", "kbs_load"]))?;
    let binaries = release_binaries()?;
    let client = binaries.join("examples/kbs_load");
    let broker = start(&binaries)?;
    std::thread::sleep(Duration::from_secs(1));
    let idle = megabytes(&broker)?;
    let rcar = load(&broker, &client, "rcar", &connections, &seconds)?;
    let snp = load(&broker, &client, "rcar-snp", &connections, &seconds)?;
    let get = load(&broker, &client, "get", &get_connections, &seconds)?;
    let p384 = openssl_p384()?;
    load(&broker, &client, "rcar", &connections, &format!("={handshakes}"))?;
    let after = megabytes(&broker)?;
    println!("openssl speed in the same run: {p384:.0} verifications/s of ecdsap384, {:.2} ms each", 1000.0 / p384);
    println!(
        "| {connections} connections, GET {get_connections} | per second | server CPU, ms | p50, ms | p99, ms |\n|---|---|---|---|---|"
    );
    rcar.row("handshake, sample evidence");
    snp.row("handshake, simulated SNP evidence");
    get.row("GET of a resource");
    println!("resident memory: idle {idle:.1} MB, after {handshakes} more handshakes {after:.1} MB");
    if let Some(path) = json {
        let figures = json!({
            "rcar_per_s": rcar.per_s, "rcar_server_cpu_ms": rcar.cpu_ms, "rcar_p50_ms": rcar.p50_ms, "rcar_p99_ms": rcar.p99_ms,
            "snp_per_s": snp.per_s, "snp_server_cpu_ms": snp.cpu_ms, "snp_p50_ms": snp.p50_ms, "snp_p99_ms": snp.p99_ms,
            "openssl_p384_per_s": p384, "get_per_s": get.per_s, "get_server_cpu_ms": get.cpu_ms, "get_p50_ms": get.p50_ms, "get_p99_ms": get.p99_ms,
            "rss_idle_mb": idle, "rss_after_mb": after,
        });
        fs::write(&path, figures.to_string()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
