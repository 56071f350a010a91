//! What is measured of the release binaries from outside, by tests that are ignored otherwise: `bench agent`,
//! `bench boot`.

use anyhow::{Context as _, Result, bail};

use super::HELP;
use crate::prerequisites;
use crate::shell::{cargo, release_binaries, run};

/// A measurement.
struct Bench {
    /// The test program, and the test in it.
    test: &'static str,
    name: &'static str,
    /// Each option and the variable that hands it on.
    options: &'static [(&'static str, &'static str)],
    binaries: &'static [&'static str],
    /// Whether it starts machines.
    machines: bool,
}

const AGENT: Bench = Bench {
    test: "bench_agent",
    name: "",
    options: &[
        ("--tee", "TCL_BENCH_TEE"),
        ("--rounds", "TCL_BENCH_ROUNDS"),
        ("--execs", "TCL_BENCH_EXECS"),
        ("--store", "TCL_BENCH_STORE"),
        ("--json", "TCL_BENCH_JSON"),
    ],
    binaries: &["guest-agent", "key-broker", "tclctl"],
    machines: false,
};

const BOOT: Bench = Bench {
    test: "guest_image",
    name: "overhead",
    options: &[("--rounds", "TCL_BENCH_ROUNDS"), ("--json", "TCL_BENCH_JSON")],
    binaries: &["guest-agent", "guest-init", "key-broker", "tclctl"],
    machines: true,
};

pub(crate) fn agent(arguments: &[String]) -> Result<()> {
    AGENT.run(arguments)
}

pub(crate) fn boot(arguments: &[String]) -> Result<()> {
    BOOT.run(arguments)
}

impl Bench {
    fn run(&self, arguments: &[String]) -> Result<()> {
        let mut bench =
            cargo(&["test", "--workspace", "--test", self.test, "--", "--ignored", "--nocapture", self.name]);
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value\n{HELP}"))?;
            let Some((_, variable)) = self.options.iter().find(|(option, _)| option == name) else {
                bail!("{name} is no option\n{HELP}");
            };
            // The test runs in its own folder.
            let value = if name == "--json" { std::path::absolute(value)?.into_os_string() } else { value.into() };
            bench.env(variable, value);
        }
        prerequisites::require_root()?;
        prerequisites::install()?;
        if self.machines {
            let _ = prerequisites::vsock()?;
        }
        let mut build = cargo(&["build", "--release", "--workspace"]);
        for binary in self.binaries {
            build.args(["--bin", binary]);
        }
        run(build)?;
        bench.env("TCL_BINARIES", release_binaries()?);
        run(bench)
    }
}
