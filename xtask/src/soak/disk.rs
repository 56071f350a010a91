//! `soak disk`: the long version of the test of an image store on a disk of the host.

use anyhow::Result;

use crate::prerequisites;
use crate::shell::{cargo, run};

/// An image of so many MiB, in a guest of 512 MiB.
pub(crate) fn run_with(mib: &str) -> Result<()> {
    prerequisites::require_root()?;
    prerequisites::install()?;
    run(cargo(&["build", "--workspace", "--bins"]))?;
    let mut command =
        cargo(&["test", "--workspace", "--test", "first_process", "--", "--ignored", "--nocapture", "disk::soak"]);
    command.env("TCL_SOAK_IMAGE_MIB", mib);
    run(command)
}
