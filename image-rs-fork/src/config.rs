//! The image config (OCI image specification): what of it is used, read with known types.

use protocols::digest::Sha256Digest;
use protocols::image::{ImageProcess, Platform};
use protocols::time::Timestamp;
use serde::Deserialize;

/// The most arguments or environment entries of a config.
const MAX_STRINGS: usize = 4096;

/// What is used of an image config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// `os`, `architecture` and `variant`.
    pub platform: Platform,
    /// `created`; `None` where it is absent or before 1970.
    pub created: Option<Timestamp>,
    /// Entry point, command, environment, user and directory.
    pub process: ImageProcess,
    /// `rootfs.diff_ids`, lowest layer first.
    pub diff_ids: Vec<Sha256Digest>,
}

#[derive(Deserialize)]
struct Raw {
    architecture: String,
    os: String,
    variant: Option<String>,
    created: Option<String>,
    config: Option<RawProcess>,
    rootfs: RawRootfs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawProcess {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Sha256Digest>,
}

impl ImageConfig {
    /// Reads a config blob.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| format!("the config: {e}"))?;
        if raw.rootfs.kind != "layers" {
            return Err("the config's rootfs is not of type layers".to_owned());
        }
        let process = raw.config.unwrap_or_default();
        let mut args = process.entrypoint.unwrap_or_default();
        args.extend(process.cmd.unwrap_or_default());
        let env = process.env.unwrap_or_default();
        if args.len() > MAX_STRINGS || env.len() > MAX_STRINGS {
            return Err(format!("the config has more than {MAX_STRINGS} arguments or environment entries"));
        }
        if args.iter().chain(&env).any(|text| text.contains('\0')) {
            return Err("the config has a NUL in an argument or environment entry".to_owned());
        }
        let cwd = process.working_dir.filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| "/".to_owned());
        Ok(Self {
            platform: Platform {
                os: raw.os,
                architecture: raw.architecture,
                variant: raw.variant.filter(|variant| !variant.is_empty()),
            },
            created: raw.created.as_deref().and_then(parse_time),
            process: ImageProcess { args, env, user: process.user.unwrap_or_default(), cwd },
            diff_ids: raw.rootfs.diff_ids,
        })
    }
}

/// RFC 3339 with any offset; builders write local times too. Whole seconds.
fn parse_time(text: &str) -> Option<Timestamp> {
    if text.ends_with('Z') {
        return Timestamp::parse(text);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let seconds =
        hours.parse::<u64>().ok()?.checked_mul(3600)?.checked_add(minutes.parse::<u64>().ok()?.checked_mul(60)?)?;
    let local = Timestamp::parse(&format!("{local}Z"))?;
    match offset.get(..1)? {
        "+" => local.0.checked_sub(seconds).map(Timestamp),
        "-" => Some(local.plus(seconds)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reads_what_docker_and_buildah_write() {
        let json = format!(
            r#"{{"architecture":"arm64","os":"linux","variant":"v8","created":"2024-01-02T04:04:05.999+01:00",
               "config":{{"Entrypoint":["/bin/a"],"Cmd":["b"],"Env":["PATH=/bin"],"User":"1:2","WorkingDir":"","Labels":null}},
               "history":[{{"empty_layer":true}}],"rootfs":{{"type":"layers","diff_ids":["{DIFF}"]}}}}"#
        );
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        assert_eq!(config.platform.to_string(), "linux/arm64/v8");
        assert_eq!(config.created, Timestamp::parse("2024-01-02T03:04:05Z"));
        assert_eq!(config.process.args, ["/bin/a", "b"]);
        assert_eq!((config.process.user.as_str(), config.process.cwd.as_str()), ("1:2", "/"));
        assert_eq!(config.diff_ids.len(), 1);
    }

    #[test]
    fn nulls_and_absences_are_empty_and_odd_times_are_none() {
        let json = r#"{"architecture":"amd64","os":"linux","created":"0001-01-01T00:00:00Z",
            "config":{"Entrypoint":null,"Cmd":null,"Env":null},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = ImageConfig::parse(json.as_bytes()).unwrap();
        assert_eq!((config.created, config.process.args.len()), (None, 0));
        for text in ["", "+01:00", "x+01:00", "2024-01-02T03:04:05", "é0:000"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn refuses_what_has_two_meanings() {
        let base = format!(r#"{{"architecture":"a","os":"l","rootfs":{{"type":"layers","diff_ids":["{DIFF}"]}}}}"#);
        assert!(ImageConfig::parse(base.as_bytes()).is_ok());
        for json in [
            base.replace("\"layers\"", "\"base\""),
            base.replace("sha256", "sha512"),
            base.replace("\"os\":\"l\",", ""),
            base.replace("\"os\":\"l\"", "\"os\":\"l\",\"os\":\"m\""),
            base.replace("\"os\":\"l\"", "\"os\":\"l\",\"config\":{\"Env\":[\"A=\\u0000\"]}"),
            format!("{base}{base}"),
        ] {
            assert!(ImageConfig::parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
