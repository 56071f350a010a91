//! `soak kills` and `soak replicas`: the long versions of tests of the attestor that have a short one.

use anyhow::Result;

use crate::prerequisites;
use crate::shell::{cargo, run};

/// Kills the attestor with its store in a file at so many random moments.
pub(crate) fn kills(moments: &str) -> Result<()> {
    test("killed", "TCL_SOAK_KILLS", moments)
}

/// So many handshakes over three replicas, one of which is killed every few seconds.
pub(crate) fn replicas(handshakes: &str) -> Result<()> {
    test("replicas", "TCL_SOAK_HANDSHAKES", handshakes)
}

fn test(name: &str, variable: &str, value: &str) -> Result<()> {
    prerequisites::require_root()?;
    prerequisites::install()?;
    let mut command = cargo(&["test", "--workspace", "--test", name, "--", "--ignored", "--nocapture", "soak"]);
    command.env(variable, value);
    run(command)
}
