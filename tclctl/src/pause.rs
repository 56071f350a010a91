//! `pause-digest`: what a guest image's pause bundle measures, for those who pin it.

use std::path::Path;

use image_rs_fork::measure_directory;
use protocols::pause::PauseProcess;
use serde_json::json;

use crate::outcome::Failure;
use crate::output::Output;

/// Measures a bundle as the agent does before it runs it.
pub(crate) fn digest(bundle: &Path, output: &Output) -> Result<(), Failure> {
    let config = bundle.join("config.json");
    let unusable = |error: &dyn std::fmt::Display| Failure::Usage(format!("{}: {error}", config.display()));
    let bytes = std::fs::read(&config).map_err(|error| unusable(&error))?;
    let process = PauseProcess::parse(&bytes).map_err(|error| unusable(&error))?;
    let rootfs = measure_directory(&bundle.join("rootfs")).map_err(|error| Failure::by_command(error.refusal()))?;
    let digest = process.bundle(rootfs).map_err(|error| Failure::Fault(error.to_string()))?;
    output.tell(|| json!({ "digest": digest, "rootfs": rootfs }), || vec![digest.to_string()])
}
