//! The process of a pod's pause bundle, as its `config.json` (OCI runtime specification) says it.

use serde::Deserialize;

use crate::digest::Sha256Digest;
use crate::event_log::LogError;
use crate::events::{Pause, hash_list, hash_str};
use crate::image::RootfsMeasurement;

/// The search path of a process that names none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The part of the file that counts; everything else in it is the agent's own to say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PauseProcess {
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// Numeric user and group.
    #[serde(default)]
    pub user: PauseUser,
}

/// Whom the process runs as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct PauseUser {
    /// User.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
}

impl PauseProcess {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// It is no JSON of that form.
    pub fn parse(config: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Config {
            process: PauseProcess,
        }
        serde_json::from_slice(config).map(|Config { process }| process)
    }

    /// What configuration and policy pin ([`Pause::bundle`]), with this process in a root file system that measures so.
    ///
    /// # Errors
    /// As [`Pause::bundle`].
    pub fn bundle(&self, rootfs: RootfsMeasurement) -> Result<Sha256Digest, LogError> {
        let mut env: Vec<&str> = self.env.iter().map(String::as_str).collect();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(DEFAULT_PATH);
        }
        let PauseUser { uid, gid } = self.user;
        let (args_h, env_h, cwd_h) = (hash_list(&self.args), hash_list(&env), hash_str(&self.cwd));
        Pause { seq: 0, rootfs, args_h, env_h, cwd_h, uid, gid }.bundle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Layout;

    #[test]
    fn the_process_is_read_and_everything_of_it_counts() {
        let rootfs = RootfsMeasurement { layout: Layout::TreeV1, digest: Sha256Digest::of(b"root") };
        let config =
            r#"{"ociVersion":"1.0.2","process":{"args":["/pause"],"cwd":"/","user":{"uid":65535}},"hooks":{}}"#;
        let process = PauseProcess::parse(config.as_bytes()).unwrap();
        assert_eq!((process.user.uid, process.user.gid), (65535, 0));
        let bundle = process.bundle(rootfs).unwrap();
        let spelt_out = PauseProcess { env: vec![DEFAULT_PATH.to_owned()], ..process.clone() };
        assert_eq!(spelt_out.bundle(rootfs).unwrap(), bundle);
        for other in [
            PauseProcess { args: vec!["/pause".to_owned(), "-v".to_owned()], ..process.clone() },
            PauseProcess { env: vec!["A=b".to_owned()], ..process.clone() },
            PauseProcess { cwd: "/tmp".to_owned(), ..process.clone() },
            PauseProcess { user: PauseUser { uid: 65535, gid: 1 }, ..process.clone() },
        ] {
            assert_ne!(other.bundle(rootfs).unwrap(), bundle, "{other:?}");
        }
        for bad in ["", "{}", r#"{"process":{"args":"/pause","cwd":"/"}}"#, r#"{"process":{"args":[]}}"#] {
            assert!(PauseProcess::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
