//! Kernel modules: those the measured configuration names, from the measured image.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::{SandboxError, cut};
use crate::program::run;

/// The most parameters of one module.
const MAX_PARAMETERS: usize = 32;

/// Which modules a host may have loaded, and by which program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modules {
    permitted: BTreeSet<String>,
    modprobe: PathBuf,
}

impl Modules {
    /// None but `permitted`, loaded by `modprobe` (an absolute path).
    #[must_use]
    pub const fn new(permitted: BTreeSet<String>, modprobe: PathBuf) -> Self {
        Self { permitted, modprobe }
    }

    /// Loads one with `parameters` of the form `NAME=VALUE`. Blocks until it is there.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for a module that is not permitted or a parameter of another form,
    /// [`SandboxError::System`] when it cannot be loaded.
    pub fn load(&self, name: &str, parameters: &[impl AsRef<str>]) -> Result<(), SandboxError> {
        if !self.permitted.contains(name) || !is_name(name) {
            let why = format!("`{}` is not permitted", cut(name).escape_debug());
            return Err(SandboxError::request("kernel module", why));
        }
        if parameters.len() > MAX_PARAMETERS || !parameters.iter().all(|parameter| is_parameter(parameter.as_ref())) {
            return Err(SandboxError::request("kernel module", "its parameters are at most 32 of NAME=VALUE"));
        }
        let arguments: Vec<&str> = ["--", name].into_iter().chain(parameters.iter().map(AsRef::as_ref)).collect();
        run(&self.modprobe, &arguments, b"").map(drop)
    }
}

fn is_name(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    !text.is_empty() && text.len() <= 64 && plain && !text.starts_with('-')
}

fn is_parameter(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b',' | b':');
    text.split_once('=').is_some_and(|(name, value)| is_name(name) && value.len() <= 256 && value.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_what_is_permitted_is_loaded_and_parameters_are_no_options() {
        let dir = tempfile::tempdir().unwrap();
        let (program, told) = (dir.path().join("modprobe"), dir.path().join("told"));
        std::fs::write(&program, format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\n", told.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let modules = Modules::new(BTreeSet::from(["nf_tables".to_owned()]), program);
        for (name, parameter) in [
            ("evil", "a=1"),
            ("../evil", "a=1"),
            ("", "a=1"),
            ("nf_tables", "-r=1"),
            ("nf_tables", "a"),
            ("nf_tables", "a=b c"),
        ] {
            assert!(
                matches!(modules.load(name, &[parameter]), Err(SandboxError::Request { .. })),
                "{name} {parameter}"
            );
        }
        assert!(!told.exists());
        modules.load("nf_tables", &["size=8"]).unwrap();
        assert_eq!(std::fs::read_to_string(told).unwrap(), "--\nnf_tables\nsize=8\n");
    }

    #[test]
    fn the_real_program_says_that_there_is_no_such_module() {
        let name = "no_such_module_at_all".to_owned();
        let modules = Modules::new(BTreeSet::from([name.clone()]), "/usr/sbin/modprobe".into());
        let error = modules.load(&name, &[] as &[&str]).unwrap_err();
        assert!(error.to_string().contains("not found"), "{error}");
    }
}
