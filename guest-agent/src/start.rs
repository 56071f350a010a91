//! From the measured configuration to the one in force: initdata, then what the host says on the command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use boot::KernelParameters;
use protocols::reason;

use crate::app::coded;
use crate::config::{Config, InitdataRules, Measured};
use crate::error::AgentError;
use crate::initdata::{self, BoundInitdata, Brought};

/// How long a disk may take to appear where nothing else is said.
const DISK_TIME: Duration = Duration::from_secs(3);
/// Where the kernel shows things that the host writes: no file there is part of a measured image.
const NO_IMAGE: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

/// The configuration file that `agent.config_file` names: a regular file of the guest's own image.
///
/// # Errors
/// `boot.parameter`.
pub fn configuration_file(named: &Path) -> anyhow::Result<PathBuf> {
    let refused = |what: &str| boot_error(boot::BootError::parameter("agent.config_file", what));
    let path = named.canonicalize().map_err(|error| refused(&error.to_string()))?;
    if !path.is_file() || NO_IMAGE.iter().any(|place| path.starts_with(place)) {
        return Err(refused("must be a regular file outside /dev, /proc, /run and /sys"));
    }
    Ok(path)
}

/// Makes the configuration in force. Binds and writes the initdata where the measured configuration takes one. Blocks.
///
/// # Errors
/// Whatever makes it impossible to start, with its reason code.
pub fn configure(
    measured: &Measured,
    parameters: &KernelParameters,
    server_addr: Option<&str>,
) -> anyhow::Result<Config> {
    let permitted = measured.permitted(parameters);
    let patience = permitted.hotplug_timeout.unwrap_or(DISK_TIME);
    let mut config = match bind(measured, patience).map_err(coded)? {
        Some((initdata, brought)) => measured.config_with(initdata, brought),
        None => measured.config(),
    }
    .context("configuration")?;
    config.apply(&permitted, server_addr).map_err(boot_error)?;
    Ok(config)
}

/// The configuration that a guest would have with the initdata in the file at `initdata`, or without one. Nothing is
/// bound, written or asked of the platform: whether it counts there is for the platform to say.
///
/// # Errors
/// What makes such a guest refuse to start, with its reason code.
pub fn check(measured: &Measured, initdata: Option<&Path>, path: &Path) -> anyhow::Result<Config> {
    let Some(named) = initdata else {
        let needed = measured.initdata_rules().is_some_and(|rules| rules.required);
        let hint = if needed { ": give the initdata that it requires by --initdata" } else { "" };
        return measured.config().with_context(|| format!("{}{hint}", path.display()));
    };
    let rules = measured.initdata_rules().context("--initdata: the configuration has no [initdata]")?;
    let text = std::fs::read_to_string(named).with_context(|| named.display().to_string())?;
    let initdata = boot::Initdata::parse(text, named).map_err(boot_error)?;
    initdata::is_pinned(&initdata, rules.digest).map_err(coded)?;
    // A root's content is checked too, hence written somewhere.
    let folder = tempfile::tempdir().context("--initdata")?;
    let rules = InitdataRules { folder: folder.path().join("files"), ..rules.clone() };
    initdata.write_to(&rules.folder).map_err(boot_error)?;
    let brought = initdata::brings(&initdata, &rules).map_err(coded)?;
    measured.config_rehearsed(brought).with_context(|| format!("{} with {}", path.display(), named.display()))
}

fn bind(measured: &Measured, patience: Duration) -> Result<Option<(BoundInitdata, Brought)>, AgentError> {
    let Some(rules) = measured.initdata_rules() else { return Ok(None) };
    let io = |source| AgentError::Io { what: "state_dir", source };
    crate::paths::private_dir(measured.state_dir()).map_err(io)?;
    let attester = measured.attester()?;
    let needed = rules.required || rules.digest.is_some() || attester.initdata_bound().is_some();
    let Some(found) = initdata::find(rules, needed, patience)? else {
        tracing::info!("there is no initdata");
        return Ok(None);
    };
    let bound = BoundInitdata::bind(found, attester.as_ref(), rules.digest)?;
    let brought = bound.brings(rules)?;
    bound.write(&rules.folder)?;
    tracing::info!(digest = %bound.digest(), "initdata is in force");
    Ok(Some((bound, brought)))
}

/// Puts the stable code before the words.
#[must_use]
pub fn boot_error(error: boot::BootError) -> anyhow::Error {
    coded(error.into())
}

/// Tells of initdata that nothing takes, so that its owner does not wonder.
pub fn look_for_unused(measured: &Measured) {
    if measured.initdata_rules().is_none() && !matches!(boot::find(Path::new("/dev")), Ok(None)) {
        let code = reason::POLICY_INITDATA.as_str();
        tracing::warn!(code, "a disk carries initdata, which the measured configuration does not take: not used");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_the_host_could_have_written_is_not_the_images() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "").unwrap();
        let canonical = file.canonicalize().unwrap();
        assert_eq!(configuration_file(&file).unwrap(), canonical);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc/cmdline", &link).unwrap();
        for path in [Path::new("/proc/cmdline"), Path::new("/dev/null"), &link, dir.path(), Path::new("/no/such")] {
            let error = configuration_file(path).unwrap_err();
            assert_eq!(error.to_string(), "boot.parameter", "{}", path.display());
        }
    }
}
