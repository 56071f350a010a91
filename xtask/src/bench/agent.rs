//! `bench agent`: the release binaries, measured from outside by `tests/tests/bench_agent`.

use anyhow::{Context as _, Result, bail};

use super::HELP;
use crate::prerequisites;
use crate::shell::{cargo, release_binaries, run};

/// Each option and the variable that hands it on.
const OPTIONS: [(&str, &str); 5] = [
    ("--tee", "TCL_BENCH_TEE"),
    ("--rounds", "TCL_BENCH_ROUNDS"),
    ("--execs", "TCL_BENCH_EXECS"),
    ("--store", "TCL_BENCH_STORE"),
    ("--json", "TCL_BENCH_JSON"),
];

pub(crate) fn agent(arguments: &[String]) -> Result<()> {
    let mut bench = cargo(&["test", "--workspace", "--test", "bench_agent", "--", "--ignored", "--nocapture"]);
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value\n{HELP}"))?;
        let Some((_, variable)) = OPTIONS.iter().find(|(option, _)| option == name) else {
            bail!("{name} is no option\n{HELP}");
        };
        // The test runs in its own folder.
        let value = if name == "--json" { std::path::absolute(value)?.into_os_string() } else { value.into() };
        bench.env(variable, value);
    }
    prerequisites::require_root()?;
    prerequisites::install()?;
    let mut build = cargo(&["build", "--release", "--workspace"]);
    build.args(["--bin", "guest-agent", "--bin", "key-broker", "--bin", "tclctl"]);
    run(build)?;
    bench.env("TCL_BINARIES", release_binaries()?);
    run(bench)
}
