//! `cargo xtask soak`: what takes too long for every run of the tests.

mod auth;
mod disk;
mod schemathesis;
mod store;

use anyhow::{Result, bail};

use crate::broker::Broker;
use crate::shell::{binaries, cargo, run};

const HELP: &str = "\
Usage: cargo xtask soak NAME

  auth [REQUESTS]     requests for challenges that nobody answers (1,000,000): memory and store stay as they are
  disk [MIB]          an image of 1536 MiB pulled and launched in a guest of 512 MiB, its store on a disk of the host
  kills [MOMENTS]     the attestor with its store in a file, killed at random moments (200): what it acknowledged is there
  replicas [HANDSHAKES]  three replicas on PostgreSQL, one killed every few seconds (50,000): nothing wrong, nothing lost
  schemathesis        requests made up from key-broker/openapi.yaml: none is answered 5xx; needs python3-venv and PyPI
";

/// A development attestor as it is built here, with an empty store in `target/soak/NAME`.
fn attestor(name: &str) -> Result<Broker> {
    run(cargo(&["build", "--workspace", "--bin", "key-broker"]))?;
    // The line that tells the address, and no refusals by the million.
    Broker::start(&binaries()?, Broker::folder(name)?, "", "warn,key_broker=info,key_broker::http=warn")
}

pub(crate) fn soak(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["auth"] => auth::run(1_000_000),
        ["auth", requests] => auth::run(requests.parse()?),
        ["disk"] => disk::run_with("1536"),
        ["disk", mib] => disk::run_with(mib),
        ["kills"] => store::kills("200"),
        ["kills", moments] => store::kills(moments),
        ["replicas"] => store::replicas("50000"),
        ["replicas", handshakes] => store::replicas(handshakes),
        ["schemathesis"] => schemathesis::run(),
        ["help"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => bail!("no such soak\n\n{HELP}"),
    }
}
