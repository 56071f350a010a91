//! Credential helpers: `docker-credential-NAME get`, found in named directories and held to bounds.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{AuthError, Credential};

/// The largest answer of a helper we read, in bytes.
pub const MAX_HELPER_OUTPUT: usize = 64 * 1024;
/// How long a helper may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// What helpers of desktops need to find the user's keys; all else of the environment stays away from them.
const ENVIRONMENT: [&str; 3] = ["HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"];
/// How helpers say that they have nothing for a host.
const NOTHING: &str = "credentials not found";

/// The NAME of a `docker-credential-NAME`: letters, digits, `.`, `_` and `-`, never a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HelperName(String);

impl HelperName {
    pub(crate) fn new(name: &str) -> Result<Self, AuthError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !name.is_empty() && name.len() <= 64 && name.bytes().all(word) {
            Ok(Self(name.to_owned()))
        } else {
            Err(AuthError(format!("{name:?} is not the name of a credential helper")))
        }
    }
}

/// Asks a helper for the credential of `host`; `None` when it has none.
pub(crate) async fn ask(name: &HelperName, dirs: &[PathBuf], host: &str) -> Result<Option<Credential>, AuthError> {
    let program = format!("docker-credential-{}", name.0);
    let failed = |problem: String| AuthError(format!("{program}: {problem}"));
    let path = dirs.iter().map(|dir| dir.join(&program)).find(|path| path.is_file());
    let path = path.ok_or_else(|| failed("it is in none of credential_helper_dirs".to_owned()))?;
    let mut command = Command::new(path);
    command.arg("get").env_clear().kill_on_drop(true);
    command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("PATH", std::env::join_paths(dirs).map_err(|e| failed(e.to_string()))?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let talk = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input has its own way to fail.
            let _ = stdin.write_all(host.as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_HELPER_OUTPUT as u64 + 1).read_to_end(&mut output).await?;
        }
        if output.len() > MAX_HELPER_OUTPUT {
            child.kill().await?;
        }
        Ok((child.wait().await?, output))
    };
    let talked = tokio::time::timeout(DEADLINE, talk).await;
    let talked: std::io::Result<_> = talked.map_err(|_| failed(format!("no answer in {} s", DEADLINE.as_secs())))?;
    let (status, output) = talked.map_err(|e| failed(e.to_string()))?;
    if status.success() {
        return parse_helper_output(&output).map_err(|e| failed(e.0));
    }
    // Helpers explain themselves on their output; it is not repeated, for it could hold anything.
    if String::from_utf8_lossy(&output).contains(NOTHING) { Ok(None) } else { Err(failed(status.to_string())) }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawOutput {
    username: String,
    secret: String,
}

/// Reads a helper's answer, `{"Username": …, "Secret": …}`: the name `<token>` marks an identity token. An
/// empty secret is no credential.
///
/// # Errors
/// [`AuthError`] for anything else and above [`MAX_HELPER_OUTPUT`].
pub fn parse_helper_output(bytes: &[u8]) -> Result<Option<Credential>, AuthError> {
    if bytes.len() > MAX_HELPER_OUTPUT {
        return Err(AuthError(format!("an answer of more than {MAX_HELPER_OUTPUT} bytes")));
    }
    // The parser's message could quote the secret.
    let raw: RawOutput =
        serde_json::from_slice(bytes).map_err(|_| AuthError("not an answer with Username and Secret".to_owned()))?;
    Ok(match (raw.username.as_str(), raw.secret.as_str()) {
        (_, "") => None,
        ("<token>", _) => Some(Credential::Identity(raw.secret)),
        _ => Some(Credential::Basic { username: raw.username, password: raw.secret }),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_are_not_paths() {
        for name in ["", "../x", "a/b", "/bin/sh", "a b", "a\0"] {
            assert!(HelperName::new(name).is_err(), "{name}");
        }
        assert!(HelperName::new("ecr-login").is_ok());
    }

    #[test]
    fn reads_answers_without_showing_them() {
        let parse = |text: &str| parse_helper_output(text.as_bytes());
        let basic = Credential::Basic { username: "u".to_owned(), password: "p".to_owned() };
        assert_eq!(parse(r#"{"ServerURL":"h","Username":"u","Secret":"p"}"#).unwrap(), Some(basic));
        assert_eq!(
            parse(r#"{"Username":"<token>","Secret":"t"}"#).unwrap(),
            Some(Credential::Identity("t".to_owned()))
        );
        assert_eq!(parse(r#"{"Username":"","Secret":""}"#).unwrap(), None);
        for text in [r#"{"Username":"u","Secret":["hidden"]}"#, "hidden", ""] {
            assert!(!parse(text).unwrap_err().to_string().contains("hidden"));
        }
    }

    fn helper(script: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    async fn asked(script: &str) -> Result<Option<Credential>, AuthError> {
        let dir = helper(script);
        ask(&HelperName::new("test").unwrap(), &[dir.path().to_owned()], "r.example:5000").await
    }

    #[tokio::test]
    async fn a_helper_is_asked_for_the_host_in_a_small_environment() {
        let script = r#"/usr/bin/test "$1" = get || exit 3; read -r host; echo "{\"Username\":\"$host\",\"Secret\":\"x$CARGO_MANIFEST_DIR\"}""#;
        let expected = Credential::Basic { username: "r.example:5000".to_owned(), password: "x".to_owned() };
        assert_eq!(asked(script).await.unwrap(), Some(expected));
    }

    #[tokio::test]
    async fn a_helper_with_nothing_is_no_error_and_any_other_failure_is() {
        assert_eq!(asked("echo credentials not found in native keychain; exit 1").await.unwrap(), None);
        let error = asked("echo sesame; exit 1").await.unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
        asked("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done").await.unwrap_err();
        let name = HelperName::new("absent").unwrap();
        assert!(ask(&name, &[PathBuf::from("/usr/bin")], "h").await.is_err());
    }
}
