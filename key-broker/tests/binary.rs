//! The program itself: keys made and shown, configurations refused, served until it is told to stop.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use key_broker::config::Config;

fn key_broker(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_key-broker"));
    command.args(arguments).env_remove("KEY_BROKER_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    key_broker(arguments).output().unwrap()
}

fn configuration(directory: &Path) -> String {
    let key = directory.join("signing.pem").display().to_string();
    let made = run(&["keygen", &key]);
    assert!(made.status.success(), "{made:?}");
    let public = String::from_utf8(made.stdout).unwrap();
    assert!(run(&["keygen", "--store-key", &directory.join("store.key").display().to_string()]).status.success());
    let file = directory.join("broker.toml");
    let text = format!(
        "environment = \"development\"\nlisten = \"127.0.0.1:0\"\nstore = \"{0}/broker.redb\"\n\
         store_key = {{ file = \"{0}/store.key\" }}\n\
         signing_key = \"{key}\"\nchallenge_seconds = 60\ntoken_seconds = 60\nrevocation_seconds = 0\n\
         [[signers]]\nissuer = \"a\"\nkey = \"\"\"{public}\"\"\"\nmin_version = 1\nrevocations = \"optional\"\n\
         [policy]\nregisters = [\"software\"]\n",
        directory.display()
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn a_key_is_made_once_readable_by_its_owner_alone_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let key = directory.path().join("signing.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    assert!(!run(&["keygen", &key.display().to_string()]).status.success());
    assert_eq!(std::fs::read(&key).unwrap(), before);

    let shown = run(&["--config", &config, "--print-key"]);
    let public = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && public.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{public}");
    assert!(std::fs::read_to_string(&config).unwrap().contains(&public));
}

#[test]
fn a_configuration_that_does_not_hold_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let text = std::fs::read_to_string(&config).unwrap().replace("challenge_seconds", "challenge_second");
    std::fs::write(&config, text).unwrap();
    for arguments in [vec!["--config", &config], vec!["--config", "/nonexistent"], vec![]] {
        let output = run(&arguments);
        assert!(!output.status.success());
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    assert!(!directory.path().join("broker.redb").exists());
}

/// The address that the log tells.
fn address(log: &mut impl std::io::BufRead) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it served");
        let plain: String = line.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        if let Some((_, rest)) = plain.split_once("127.0.0.1:") {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return format!("127.0.0.1:{port}");
        }
    }
}

#[test]
fn a_first_start_makes_an_administrators_token_that_no_log_tells() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let asked = |token: &str| {
        let mut child =
            key_broker(&["--config", &config]).env("KEY_BROKER_LOG", "trace").stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = address(&mut log);
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "GET /tcl/v1/verdicts/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        let token = std::fs::read_to_string(directory.path().join("admin.token")).unwrap();
        assert!(!rest.contains(token.trim()));
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(asked("the-token-of-nobody-at-all-but-long-enough"), "403");
    let token = std::fs::read_to_string(directory.path().join("admin.token")).unwrap();
    assert_eq!(asked(token.trim()), "404", "allowed, and not there");
}

#[test]
fn a_flood_of_challenges_leaves_store_and_memory_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let mut child = key_broker(&["--config", &config]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut stream = TcpStream::connect(address(&mut log)).unwrap();
    let body = r#"{"version":"0.4.0","tee":"tpm","extra-params":""}"#;
    let request = format!("POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut flood = |times: usize| {
        for _ in 0..times {
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 2048];
            let read = stream.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory: u64 = memory.trim().trim_end_matches(" kB").parse().unwrap();
        (memory, std::fs::metadata(directory.path().join("broker.redb")).unwrap().len())
    };
    let (memory, store) = flood(2000);
    let (after, stored) = flood(10_000);
    assert_eq!(stored, store);
    // 10,000 challenges that somebody kept, with their cookies, would be 4 MiB.
    assert!(after < memory + 2048, "{memory} kB, then {after} kB");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn it_serves_until_sigterm_and_ends_well() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let mut child = key_broker(&["--config", &config]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let address = address(&mut log);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");

    // A file that does not hold changes nothing; one that does is put in force.
    let text = std::fs::read_to_string(&config).unwrap();
    let mut told = |text: &str| {
        std::fs::write(&config, text).unwrap();
        assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
        line
    };
    let refused = told(&text.replace("token_seconds = 60", "token_seconds = 0"));
    assert!(refused.contains("NOT reloaded") && refused.contains("token_seconds"), "{refused}");
    let reloaded = told(&text.replace("token_seconds = 60", "token_seconds = 61"));
    assert!(reloaded.contains("reloaded") && !reloaded.contains("NOT"), "{reloaded}");

    let stopped = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert!(child.wait().unwrap().success());
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn a_store_is_backed_up_restored_elsewhere_and_given_another_key() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = |config: &str| {
        let settings = Config::read(Path::new(config)).unwrap().store().unwrap();
        runtime.block_on(settings.open()).unwrap()
    };
    let secret = || "default/key/one".parse().unwrap();
    runtime.block_on(open(&config).put_resource(secret(), b"hello-secret".to_vec())).unwrap();

    let backup = path("backup");
    let ok = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{output:?}");
    };
    ok(&["backup", &backup, "--config", &config]);
    assert!(!run(&["backup", &backup, "--config", &config]).status.success(), "nothing is overwritten");
    assert!(!run(&["restore", &backup, "--config", &config]).status.success(), "it is not empty");
    let other = path("other.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("broker.redb", "other.redb");
    std::fs::write(&other, text).unwrap();
    ok(&["restore", &backup, "--config", &other]);
    assert_eq!(runtime.block_on(open(&other).resource(secret())).unwrap().unwrap(), b"hello-secret");

    ok(&["keygen", "--store-key", &path("new.key")]);
    assert!(!run(&["rekey", "--config", &other]).status.success(), "a new key is needed");
    ok(&["rekey", "--config", &other, "--to-file", &path("new.key")]);
    let refused = run(&["--config", &other]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("does not open with this key"), "{said}");
    // Back again, by the environment.
    let old = std::fs::read_to_string(path("store.key")).unwrap();
    let text = std::fs::read_to_string(&other).unwrap().replace("store.key", "new.key");
    std::fs::write(&other, text).unwrap();
    let mut back = key_broker(&["rekey", "--config", &other, "--to-env", "OLD_KEY"]);
    assert!(back.env("OLD_KEY", old).output().unwrap().status.success());
    assert!(!run(&["rekey", "--config", &other, "--to-env", "NO_SUCH_KEY"]).status.success());
    let text = std::fs::read_to_string(&other).unwrap().replace("new.key", "store.key");
    std::fs::write(&other, text).unwrap();
    assert_eq!(runtime.block_on(open(&other).resource(secret())).unwrap().unwrap(), b"hello-secret");
}
