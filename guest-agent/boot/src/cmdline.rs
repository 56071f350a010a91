//! The kernel's command line: the parameters that users of Kata guests set for the agent.
//!
//! The host writes it. It is part of what a measured boot measures, and even so nothing here decides over a launch:
//! where to listen, how much to log, through which proxy to fetch, and which file of the measured image configures
//! the agent (whose digest the log's first record holds).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::BootError;

/// The longest command line that is read, in bytes; x86 and arm64 kernels stop at 2,048.
pub const MAX_COMMAND_LINE: usize = 64 * 1024;
/// The longest time that may be given for a pull.
const MAX_PULL_TIME: u64 = 24 * 60 * 60;

/// What the command line says to the agent; what it does not name is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelParameters {
    /// `agent.log`: trace, debug, info, warn, error, or critical.
    pub log_level: Option<String>,
    /// `agent.server_addr`: where the Kata service listens.
    pub server_addr: Option<String>,
    /// `agent.config_file`: the measured configuration, an absolute path.
    pub config_file: Option<PathBuf>,
    /// `agent.image_pull_timeout`, in seconds: how long one pull may take.
    pub image_pull_timeout: Option<Duration>,
    /// `agent.https_proxy`: the proxy for registries.
    pub https_proxy: Option<String>,
    /// `agent.no_proxy`: hosts that are reached without it.
    pub no_proxy: Vec<String>,
    /// `agent.hotplug_timeout`, in seconds: how long a device may take to appear.
    pub hotplug_timeout: Option<Duration>,
    /// Other names that start with `agent.`: parameters of another agent, told and left alone.
    pub ignored: Vec<String>,
}

impl KernelParameters {
    /// Reads a command line, `/proc/cmdline` usually.
    ///
    /// # Errors
    /// [`BootError::Io`]; [`BootError::Parameter`] as for [`KernelParameters::parse`].
    pub fn read(path: &Path) -> Result<Self, BootError> {
        use std::io::Read as _;
        let failed = || path.display().to_string();
        let mut text = Vec::new();
        let file = std::fs::File::open(path).map_err(crate::error::io(failed()))?;
        file.take(MAX_COMMAND_LINE as u64 + 1).read_to_end(&mut text).map_err(crate::error::io(failed()))?;
        if text.len() > MAX_COMMAND_LINE {
            return Err(wrong("command line", "longer than 64 KiB"));
        }
        let text = String::from_utf8(text).map_err(|_| wrong("command line", "not UTF-8"))?;
        Self::parse(&text)
    }

    /// Reads a command line's text: words between blanks, double quotes around blanks, the last of two values.
    ///
    /// # Errors
    /// [`BootError::Parameter`] for a value of a known parameter that cannot be used: an agent that starts otherwise
    /// than it was told to is harder to find out about than one that does not.
    pub fn parse(text: &str) -> Result<Self, BootError> {
        let mut parameters = Self::default();
        for word in words(text) {
            // What follows `--` is for the first process, which an agent that is it does not take.
            if word == "--" {
                break;
            }
            let Some(rest) = word.strip_prefix("agent.") else { continue };
            let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
            parameters.set(name, value)?;
        }
        Ok(parameters)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), BootError> {
        let full = || format!("agent.{name}");
        match name {
            "log" => {
                let level = match value {
                    "critical" => "error",
                    "trace" | "debug" | "info" | "warn" | "error" => value,
                    "warning" => "warn",
                    _ => return Err(wrong(full(), "must be trace, debug, info, warn, error or critical")),
                };
                self.log_level = Some(level.to_owned());
            }
            "server_addr" if value.is_empty() => return Err(wrong(full(), "names no address")),
            "server_addr" => self.server_addr = Some(value.to_owned()),
            "config_file" => {
                let path = Path::new(value);
                let up = path.components().any(|part| part == std::path::Component::ParentDir);
                if !path.is_absolute() || up {
                    return Err(wrong(full(), "must be an absolute path without `..`"));
                }
                self.config_file = Some(path.to_owned());
            }
            "image_pull_timeout" => self.image_pull_timeout = Some(seconds(full(), value)?),
            "hotplug_timeout" => self.hotplug_timeout = Some(seconds(full(), value)?),
            "https_proxy" => self.https_proxy = Some(value.to_owned()).filter(|value| !value.is_empty()),
            "no_proxy" => {
                let hosts = value.split(',').map(str::trim).filter(|host| !host.is_empty());
                self.no_proxy = hosts.map(str::to_owned).collect();
            }
            _ => self.ignored.push(full()),
        }
        Ok(())
    }
}

fn seconds(name: String, value: &str) -> Result<Duration, BootError> {
    match value.parse::<u64>() {
        Ok(seconds) if (1..=MAX_PULL_TIME).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong(name, "must be from 1 to 86400 seconds")),
    }
}

fn wrong(name: impl Into<String>, what: &'static str) -> BootError {
    BootError::parameter(name, what)
}

/// Words as the kernel separates them: a double quote starts or ends a stretch where blanks are part of the word.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            blank if blank.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_parameters_that_users_set_are_read() {
        let line = "reboot=k panic=1 systemd.unit=kata-containers.target agent.log=debug agent.server_addr=vsock://-1:1024 \
                    agent.config_file=/etc/agent.toml agent.image_pull_timeout=300 agent.hotplug_timeout=10 \
                    agent.https_proxy=http://proxy.example:3128 \"agent.no_proxy=a.example, 10.0.0.0/8\" \
                    agent.debug_console agent.cdh_api_timeout=50 -- agent.log=trace\n";
        let parameters = KernelParameters::parse(line).unwrap();
        let expected = KernelParameters {
            log_level: Some("debug".to_owned()),
            server_addr: Some("vsock://-1:1024".to_owned()),
            config_file: Some("/etc/agent.toml".into()),
            image_pull_timeout: Some(Duration::from_secs(300)),
            https_proxy: Some("http://proxy.example:3128".to_owned()),
            no_proxy: vec!["a.example".to_owned(), "10.0.0.0/8".to_owned()],
            hotplug_timeout: Some(Duration::from_secs(10)),
            ignored: vec!["agent.debug_console".to_owned(), "agent.cdh_api_timeout".to_owned()],
        };
        assert_eq!(parameters, expected);
    }

    #[test]
    fn the_last_value_counts_and_words_that_only_look_alike_do_not() {
        let parameters =
            KernelParameters::parse("agent.log=info xagent.log=trace agent.log=warning agent log=1").unwrap();
        assert_eq!(parameters.log_level.as_deref(), Some("warn"));
        assert!(parameters.ignored.is_empty());
    }

    #[test]
    fn a_value_that_cannot_be_used_stops_the_start() {
        for line in [
            "agent.log=loud",
            "agent.server_addr=",
            "agent.config_file=etc/agent.toml",
            "agent.config_file=/etc/../run/host/agent.toml",
            "agent.image_pull_timeout=0",
            "agent.image_pull_timeout=soon",
            "agent.image_pull_timeout=86401",
            "agent.hotplug_timeout=-1",
        ] {
            let error = KernelParameters::parse(line).unwrap_err();
            assert_eq!(error.code(), protocols::reason::BOOT_PARAMETER, "{line}");
        }
    }

    #[test]
    fn a_command_line_that_is_no_text_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cmdline");
        for bytes in [b"agent.log=\xff".to_vec(), vec![b'a'; MAX_COMMAND_LINE + 1]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(KernelParameters::read(&path).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,300}") {
            let _ = KernelParameters::parse(&text);
        }

        #[test]
        fn quoting_a_value_keeps_its_blanks(value in "[a-z ]{1,20}") {
            let line = format!("quiet agent.server_addr=\"{value}\" ro");
            prop_assert_eq!(KernelParameters::parse(&line).unwrap().server_addr, Some(value));
        }
    }
}
