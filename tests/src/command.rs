//! Running commands to their end.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{binary, program};

/// Name of the file with the attestor's administration token in a world's folder.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// What a command did.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Exit status; -1 after a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Seen {
    /// Fails the test unless the command succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "the command should succeed: {self:#?}");
        self
    }

    /// Fails the test unless the command ended with `status` and its last line on standard error names `code`.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn refused(&self, status: i32, code: &str) {
        let lead = if status == 77 { "NOT verified" } else { "failed" };
        let told = format!("{lead}: {code} ");
        let line = self.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with(&told), "the line should start with `{told}`: {self:#?}");
        assert_eq!(self.status, status, "exit status with {code}: {self:#?}");
        assert_eq!(self.stdout, "", "a refused launch prints nothing");
    }

    /// The id of the attestor's decision, which the refusal's line ends with.
    ///
    /// # Panics
    /// When it names none.
    #[track_caller]
    #[must_use]
    pub fn decision(&self) -> String {
        let named = self.stderr.trim_end().rsplit_once("(tclctl explain ").and_then(|(_, id)| id.strip_suffix(')'));
        named.unwrap_or_else(|| panic!("no decision is named: {self:#?}")).to_owned()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }
}

/// Runs `command` with `stdin` as its input; ends it after two minutes.
///
/// # Panics
/// When it cannot be started or takes longer.
#[must_use]
pub fn run_with(mut command: Command, stdin: &[u8]) -> Seen {
    let text = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {text}: {error}"));
    let mut input = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(&stdin);
    });
    let seen = finish(child, &text);
    writer.join().unwrap();
    seen
}

/// Runs `command` without input.
///
/// # Panics
/// As [`run_with`].
#[must_use]
pub fn run(command: Command) -> Seen {
    run_with(command, b"")
}

/// Waits for a command that was started with piped outputs.
///
/// # Panics
/// When it takes longer than two minutes.
#[must_use]
pub fn finish(mut child: Child, text: &str) -> Seen {
    fn reader(from: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut from) = from {
                let _ = from.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let deadline = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("{text} takes longer than two minutes: {:?} {:?}", stdout.join(), stderr.join());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Seen { status: status.code().unwrap_or(-1), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// `tclctl` with these arguments, to be run.
#[must_use]
pub fn tclctl<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(binary("tclctl"));
    command.args(arguments).env_remove("TCL_AGENT");
    command
}

/// A program of the machine with these arguments, run to its end.
///
/// # Panics
/// As [`run_with`].
#[must_use]
pub fn tool(name: &str, arguments: &[&str]) -> Seen {
    let mut command = Command::new(program(name));
    command.args(arguments);
    run(command)
}

/// Plain `curl`: status code and body of one request.
///
/// # Panics
/// When there is no answer.
#[must_use]
pub fn curl(arguments: &[&str]) -> (u16, Vec<u8>) {
    let done =
        Command::new(program("curl")).args(["-sS", "-w", "%{stderr}%{http_code}"]).args(arguments).output().unwrap();
    assert!(done.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    let status = String::from_utf8_lossy(&done.stderr);
    (status.trim().parse().unwrap_or_else(|_| panic!("curl {arguments:?}: {status}")), done.stdout)
}

/// Ids of the containers a runc root knows.
///
/// # Panics
/// When runc fails.
#[must_use]
pub fn runc_list(root: &Path) -> Vec<String> {
    if !root.exists() {
        return Vec::new();
    }
    let root = PathBuf::from(root);
    let seen = tool("runc", &["--root", &root.to_string_lossy(), "list", "-q"]).ok();
    seen.stdout.lines().map(str::to_owned).collect()
}
