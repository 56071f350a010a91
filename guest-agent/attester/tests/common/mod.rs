//! Real swtpm processes and simulated chips for the tests beside this file.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use attester::{InitFacts, SevAttester, TpmAddress, TpmAttester};
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::register::RegisterValue;

/// How the swtpm is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Unix,
    Tcp,
}

/// A running swtpm with its state in a directory of its own; ended when dropped.
#[derive(Debug)]
pub struct Swtpm {
    child: Child,
    pub address: TpmAddress,
    tcti: String,
    pub dir: Arc<tempfile::TempDir>,
}

impl Swtpm {
    pub fn start(by: By) -> Self {
        Self::start_in(by, Arc::new(tempfile::tempdir().unwrap()))
    }

    /// Starts on the state that `dir` holds already: the same seeds, as after a reboot.
    pub fn start_in(by: By, dir: Arc<tempfile::TempDir>) -> Self {
        let socket = dir.path().join("tpm.sock");
        for _ in 0..20 {
            let (server, control, address, tcti) = match by {
                By::Unix => {
                    let _ = std::fs::remove_file(&socket);
                    let path = socket.display();
                    (
                        format!("type=unixio,path={path}"),
                        format!("type=unixio,path={path}.ctrl"),
                        TpmAddress::Unix(socket.clone()),
                        format!("swtpm:path={path}"),
                    )
                }
                By::Tcp => {
                    let port = free_pair();
                    (
                        format!("type=tcp,port={port}"),
                        format!("type=tcp,port={}", port + 1),
                        TpmAddress::Tcp(format!("127.0.0.1:{port}")),
                        format!("swtpm:host=127.0.0.1,port={port}"),
                    )
                }
            };
            let state = format!("dir={}", dir.path().display());
            let mut child = Command::new("swtpm")
                .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
                .args(["--tpmstate", &state, "--server", &server, "--ctrl", &control])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("swtpm is installed");
            if answers(&address, &mut child) {
                return Self { child, address, tcti, dir };
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("swtpm does not start");
    }

    pub fn attester(&self) -> TpmAttester {
        TpmAttester::open(self.address.clone(), 14).unwrap()
    }

    /// Ends it as a power cut would and starts it again: PCRs are reset, seeds stay.
    pub fn reboot(self) -> Self {
        let by = if matches!(self.address, TpmAddress::Unix(_)) { By::Unix } else { By::Tcp };
        let dir = Arc::clone(&self.dir);
        drop(self);
        Self::start_in(by, dir)
    }

    /// Ends the process but keeps the value.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What `tpm2_pcrread` says of SHA-256 PCR `pcr`.
    pub fn pcrread(&self, pcr: u32) -> RegisterValue {
        let text = self.tool("tpm2_pcrread", &[&format!("sha256:{pcr}")]);
        let (_, value) = text.split_once("0x").expect("a value");
        format!("sha256:{}", value.trim().to_lowercase()).parse().map(RegisterValue::Sha256).unwrap()
    }

    /// Extends a PCR behind the attester's back.
    pub fn foreign_extend(&self, pcr: u32) {
        self.tool("tpm2_pcrextend", &[&format!("{pcr}:sha256={}", "ab".repeat(32))]);
    }

    pub fn tool(&self, name: &str, arguments: &[&str]) -> String {
        let out = Command::new(name)
            .args(arguments)
            .env("TPM2TOOLS_TCTI", &self.tcti)
            .output()
            .unwrap_or_else(|_| panic!("{name} is installed"));
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// As [`Swtpm::tool`]; nothing where the TPM refuses.
    pub fn try_tool(&self, name: &str, arguments: &[&str]) -> Option<String> {
        let run = Command::new(name).args(arguments).env("TPM2TOOLS_TCTI", &self.tcti).output();
        let out = run.unwrap_or_else(|_| panic!("{name} is installed"));
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A free port whose successor is free too: tpm2-tools expect the control channel there.
fn free_pair() -> u16 {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two free ports");
}

fn answers(address: &TpmAddress, child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let reached = match address {
            TpmAddress::Unix(path) => UnixStream::connect(path).is_ok(),
            // Another process may have taken a port: only our own child counts.
            TpmAddress::Tcp(address) => listens(child, address) && TcpStream::connect(address).is_ok(),
            TpmAddress::Device(_) => false,
        };
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if reached {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Whether the child itself listens at the port and, for its control channel, at the next one.
fn listens(child: &Child, address: &str) -> bool {
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let own: Vec<PathBuf> = std::fs::read_dir(format!("/proc/{}/fd", child.id()))
        .map(|dir| dir.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect())
        .unwrap_or_default();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = |port: u16| {
        let local = format!("0100007F:{port:04X}");
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
            // Number, local address, remote one, state (0A: it listens), …, the socket's inode as the tenth.
            fields.get(1) == Some(&local.as_str())
                && fields.get(3) == Some(&"0A")
                && fields.get(9).is_some_and(|inode| own.contains(&PathBuf::from(format!("socket:[{inode}]"))))
        })
    };
    listening(port) && listening(port + 1)
}

/// Simulated roots, made once and kept in the build directory: making them takes seconds.
pub fn pki() -> &'static Path {
    static PKI: OnceLock<PathBuf> = OnceLock::new();
    PKI.get_or_init(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let kept = scratch.join("attester-simulated-pki");
        if simulated_tee::Pki::open(&kept).is_err() {
            let made = tempfile::tempdir_in(scratch).unwrap();
            simulated_tee::Pki::create(made.path()).unwrap();
            // Another test process may have been first: its roots are as good.
            let _ = std::fs::rename(made.path(), &kept);
        }
        kept
    })
}

pub fn simulated(state: &Path) -> SevAttester {
    SevAttester::simulated(pki(), None, state).unwrap()
}

pub fn facts() -> InitFacts {
    InitFacts {
        agent: "0.1.0".to_owned(),
        agent_h: Sha256Digest::of(b"agent"),
        initdata: None,
        config: Sha256Digest::of(b"config"),
        environment: Environment::Development,
    }
}
