//! `schemathesis` over the OpenAPI document, as a stranger and as an administrator.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::broker::{ADMIN, Broker};
use crate::shell::{root, run as shell};

/// How a compact JWS is sent, which it does not know.
const HOOKS: &str = "\
import schemathesis


@schemathesis.serializer(\"application/jose\")
def jose(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode(\"utf-8\", \"surrogatepass\")
";
/// The release that is used.
const PACKAGE: &str = "schemathesis==4.32.5";

fn ask(program: &Path, broker: &Broker, header: Option<&str>) -> Result<()> {
    let mut command = Command::new(program);
    let hooks = root().join("target/soak/hooks.py");
    std::fs::write(&hooks, HOOKS)?;
    command.env("SCHEMATHESIS_HOOKS", hooks);
    // It leaves its cache where it runs.
    command.current_dir(root().join("target/soak")).arg("run").arg(root().join("key-broker/openapi.yaml")).arg("--url");
    command.arg(format!("http://{}", broker.address));
    command.args(["--checks", "not_a_server_error", "--max-examples", "200", "--seed", "1", "--continue-on-failure"]);
    command.args(["--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--no-color"]);
    if let Some(header) = header {
        command.args(["--header", header]);
    }
    shell(command)
}

pub(super) fn run() -> Result<()> {
    let venv = root().join("target/soak/schemathesis-venv");
    if !venv.join("bin/schemathesis").exists() {
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        shell(make)?;
        let mut install = Command::new(venv.join("bin/pip"));
        install.args(["install", "--quiet", PACKAGE]);
        shell(install)?;
    }
    let program = venv.join("bin/schemathesis");
    let mut broker = super::attestor("schemathesis")?;
    ask(&program, &broker, None)?;
    ask(&program, &broker, Some(&format!("Authorization: Bearer {ADMIN}")))?;
    broker.lives()
}
