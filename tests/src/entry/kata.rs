//! What the host says to the Kata service: frames, requests, files; and the policies that judge them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use agent_policy::{PolicyEngine, input};
use futures_util::StreamExt as _;
use guest_agent::cgroup::{self, Cgroup};
use guest_agent::kata::address::Address;
use guest_agent::kata::copy_request;
use guest_agent::kata::spec::{MountSources, SandboxView, launch_request};
use guest_agent::launch::{Place, Source};
use protobuf::Message as _;
use protocols::rpc::kata::agent::{CopyFileRequest, CreateContainerRequest};
use protocols::rpc::kata::agent_ttrpc::{AgentService, create_agent_service};
use sandbox::{CopyLimits, CopyRequest, FileKind, Roots, Shared};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;
use ttrpc::proto::{
    MESSAGE_HEADER_LENGTH, MESSAGE_LENGTH_MAX, MESSAGE_TYPE_DATA, MESSAGE_TYPE_REQUEST, MESSAGE_TYPE_RESPONSE,
};
use ttrpc::{Request, Response};

/// How long the service may take for one input.
const PATIENCE: Duration = Duration::from_millis(900);
/// The method of the agent's service that every answer comes from.
const SERVICE: &str = "grpc.AgentService";
/// Where the captured host keeps what it copies.
const SHARED: &str = "/run/kata-containers/shared/containers";

/// Every method of the service, each answering that it is not there: what is looked at happens before.
struct Nothing;

impl AgentService for Nothing {}

/// The service, with the bounds of the agent's own, on connections that are handed to it.
struct Surface {
    runtime: tokio::runtime::Runtime,
    connections: mpsc::Sender<std::io::Result<UnixStream>>,
    _server: Mutex<Server>,
}

impl Surface {
    fn get() -> &'static Self {
        static SURFACE: OnceLock<Surface> = OnceLock::new();
        SURFACE.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let (connections, mut receiver) = mpsc::channel(16);
            let incoming = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)).boxed();
            let services = guest_agent::kata::bounded(create_agent_service(std::sync::Arc::new(Nothing)));
            let mut server = Server::new().add_listener(Listener::new(incoming)).register_service(services);
            runtime.block_on(server.start()).unwrap();
            Self { runtime, connections, _server: Mutex::new(server) }
        })
    }

    /// Sends bytes on a connection of their own and gives `answers` answers to them.
    async fn say(&self, bytes: &[u8], answers: usize) -> Vec<(u32, Response)> {
        let (client, server) = UnixStream::pair().unwrap();
        self.connections.send(Ok(server)).await.unwrap();
        let (mut read, mut write) = client.into_split();
        let listen = async {
            let mut heard = Vec::new();
            while heard.len() < answers {
                let mut header = [0; MESSAGE_HEADER_LENGTH];
                read.read_exact(&mut header).await.unwrap();
                let (length, stream, kind) = parts(&header);
                assert!(kind == MESSAGE_TYPE_RESPONSE && length <= MESSAGE_LENGTH_MAX, "{header:?}");
                let mut payload = vec![0; length];
                read.read_exact(&mut payload).await.unwrap();
                heard.push((stream, Response::parse_from_bytes(&payload).unwrap()));
            }
            heard
        };
        let (_, heard) = tokio::join!(write.write_all(bytes), listen);
        heard
    }
}

/// Length, stream and type of a frame.
fn parts(header: &[u8]) -> (usize, u32, u8) {
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    (number(0) as usize, number(4), header[8])
}

/// The frames that are whole, and of a type and length that is answered.
fn whole(mut bytes: &[u8]) -> Vec<u32> {
    let mut streams = Vec::new();
    while bytes.len() >= MESSAGE_HEADER_LENGTH {
        let (length, stream, kind) = parts(bytes);
        let Some(rest) = bytes.get(MESSAGE_HEADER_LENGTH + length..) else { break };
        if length > MESSAGE_LENGTH_MAX {
            break;
        }
        if stream % 2 == 0 || kind == MESSAGE_TYPE_REQUEST || kind == MESSAGE_TYPE_DATA {
            streams.push(stream);
        }
        bytes = rest;
    }
    streams
}

/// A connection's bytes: every whole frame is answered on its stream, and the next connection is served.
///
/// # Panics
/// When it is not.
pub fn kata_wire(bytes: &[u8]) {
    let surface = Surface::get();
    let mut asked = whole(bytes);
    // As many as the service takes at once; more are refused, which the agent's own tests show.
    if asked.len() > 1024 {
        return;
    }
    let said = async {
        let heard = surface.say(bytes, asked.len()).await;
        let after = surface.say(&frame(1, "CreateSandbox", Vec::new()), 1).await;
        (heard, after)
    };
    let said = surface.runtime.block_on(async { tokio::time::timeout(PATIENCE, said).await });
    let (heard, after) = said.expect("every whole frame is answered");
    let mut answered: Vec<u32> = heard.iter().map(|(stream, _)| *stream).collect();
    asked.sort_unstable();
    answered.sort_unstable();
    assert_eq!(asked, answered);
    assert_eq!(after[0].0, 1);
}

fn frame(stream: u32, method: &str, payload: Vec<u8>) -> Vec<u8> {
    let request = Request { service: SERVICE.to_owned(), method: method.to_owned(), payload, ..Default::default() };
    let request = request.write_to_bytes().unwrap();
    let mut bytes = u32::try_from(request.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(stream.to_be_bytes());
    bytes.extend([MESSAGE_TYPE_REQUEST, 0]);
    bytes.extend(request);
    bytes
}

/// A directory that stands for the guest, with files in the shared directory and one beside it.
struct Guest {
    dir: TempDir,
    roots: Roots,
}

impl Guest {
    fn get() -> &'static Self {
        static GUEST: OnceLock<Guest> = OnceLock::new();
        GUEST.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let roots = Roots::beneath(dir.path());
            roots.recreate().unwrap();
            std::fs::write(roots.shared().join("file"), "").unwrap();
            std::fs::create_dir(roots.shared().join("folder")).unwrap();
            std::os::unix::fs::symlink("/", roots.shared().join("link")).unwrap();
            Self { dir, roots }
        })
    }

    /// A request of the captured host with this guest's paths, and the files it mounts.
    fn captured(&self, method: &str) -> Vec<Value> {
        let calls = captured(&self.roots.run.display().to_string());
        let requests: Vec<Value> = calls.into_iter().filter(|(name, _)| name == method).map(|(_, req)| req).collect();
        for mount in requests.iter().filter_map(|request| request["OCI"]["Mounts"].as_array()).flatten() {
            let source = Path::new(mount["source"].as_str().unwrap_or_default());
            if source.starts_with(&self.roots.run) && !source.exists() {
                std::fs::write(source, "").unwrap();
            }
        }
        requests
    }
}

/// The captured requests of a host whose sandbox lives at `run`.
fn captured(run: &str) -> Vec<(String, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kata/pod.json");
    let text = std::fs::read_to_string(path).unwrap().replace("/run/kata-containers", run);
    let calls: Vec<Value> = serde_json::from_str(&text).unwrap();
    calls.into_iter().map(|call| (call["method"].as_str().unwrap().to_owned(), call["req"].clone())).collect()
}

/// A `CreateContainer` request: what is taken of it asks for no more than the measured configuration permits.
///
/// # Panics
/// When it does.
pub fn create_container(bytes: &[u8]) {
    let Ok(request) = CreateContainerRequest::parse_from_bytes(bytes) else { return };
    let _ = input::message("CreateContainerRequest", &request);
    let guest = Guest::get();
    let mut sources = MountSources::default();
    sources.share(&guest.roots.shared()).unwrap();
    let capabilities = BTreeSet::from(["CAP_NET_ADMIN".to_owned()]);
    let devices = BTreeSet::from([PathBuf::from("/dev/null")]);
    let sandbox = SandboxView {
        hostname: "pod",
        ipc: Path::new("/run/sandbox-ns/ipc"),
        uts: Path::new("/run/sandbox-ns/uts"),
        pause: Some("pause"),
        sources: &sources,
        capabilities: &capabilities,
        devices: &devices,
    };
    let Ok(launch) = launch_request(&request, &sandbox) else { return };
    assert_eq!((launch.id.as_str(), launch.mode.as_str()), (request.container_id.as_str(), ""));
    assert_eq!(launch.source == Source::Image, !launch.reference.is_empty());
    let Place::Pod(pod) = &launch.place else { panic!("not in the sandbox") };
    assert!(pod.resources.pids.is_none_or(|pids| (1..=4096).contains(&pids)), "{:?}", pod.resources);
    assert!(pod.devices.iter().all(|device| device == "/dev/null"), "{:?}", pod.devices);
    let sets = pod.capabilities.iter().flat_map(|sets| sets.bounding.iter().chain(&sets.effective));
    for forbidden in ["SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "BPF", "NET_BROADCAST"] {
        assert!(sets.clone().all(|held| held.trim_start_matches("CAP_") != forbidden), "{forbidden}");
    }
    for mount in &pod.mounts {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", mount.source.as_fd().as_raw_fd())).unwrap();
        assert!(path.starts_with(guest.roots.shared()), "{} is mounted", path.display());
    }
}

/// A `CopyFile` request: what is made of it lies in the shared directory, under its own name, without special bits.
///
/// # Panics
/// When it does not.
pub fn copy_file(bytes: &[u8]) {
    let Ok(request) = CopyFileRequest::parse_from_bytes(bytes) else { return };
    let _ = input::copy_file(&request);
    let dir = tempfile::tempdir_in(Guest::get().dir.path()).unwrap();
    let roots = Roots::beneath(dir.path());
    roots.recreate().unwrap();
    // The same request as every other guest's: its paths are this one's.
    let path = request.path.replacen(SHARED, &roots.shared().display().to_string(), 1);
    std::os::unix::fs::symlink(dir.path(), roots.shared().join("link")).unwrap();
    let shared = Shared::open_in(&roots, CopyLimits { file_bytes: 1 << 20, ..CopyLimits::default() }).unwrap();
    let asked = CopyRequest { path: &path, ..copy_request(&request) };
    if let Ok(Some(ready)) = shared.prepare(&asked)
        && let Ok(copied) = ready.commit()
    {
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(copied.path, path);
        let found = std::fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        assert_eq!(
            (kind.is_file(), kind.is_dir(), kind.is_symlink()),
            (copied.kind == FileKind::Regular, copied.kind == FileKind::Directory, copied.kind == FileKind::Symlink)
        );
        assert!(kind.is_symlink() || found.mode() & 0o7000 == 0, "{:o}", found.mode());
        let parent = Path::new(&path).parent().unwrap().canonicalize().unwrap();
        assert!(parent.starts_with(roots.shared().canonicalize().unwrap()), "{}", parent.display());
    }
    let beside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["run"], "nothing is made beside it");
}

/// An address to listen at: what parses is written back as the same.
///
/// # Panics
/// When it is not.
pub fn kata_address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(address) = text.parse::<Address>() else { return };
    assert_eq!(address.to_string().parse(), Ok(address));
}

/// Files of control groups, three of them between NUL bytes where memberships are read.
pub fn cgroup_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (cgroup::number(&text), cgroup::numbers(&text), cgroup::keyed(&text));
    let _ = (cgroup::io_entries(&text), cgroup::io_stat(&text));
    let mut files = text.split('\0');
    let [its, agents, mounts] = std::array::from_fn(|_| files.next().unwrap_or_default());
    let _ = Cgroup::from_files(its, agents, mounts);
}

/// A policy: where it is one, it judges requests, and one that is none leaves it in force.
///
/// # Panics
/// When another is in force.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(engine) = PolicyEngine::new(text) else { return };
    let digest = engine.digest();
    static REQUESTS: OnceLock<Vec<(&str, Value)>> = OnceLock::new();
    let requests = REQUESTS.get_or_init(|| {
        let calls = captured("/run/kata-containers");
        let wanted = [("CreateContainer", "CreateContainerRequest"), ("ExecProcess", "ExecProcessRequest")];
        let of = |method| calls.iter().rfind(|(name, _)| name == method).unwrap().1.clone();
        wanted.map(|(method, rule)| (rule, of(method))).to_vec()
    });
    for (rule, request) in requests {
        let _ = engine.check(rule, request.clone());
    }
    let _ = engine.propose("package other");
    assert_eq!(engine.digest(), digest);
}

pub(crate) mod seeds {
    use super::{Guest, SHARED, captured, frame};
    use crate::kata::encode;

    pub(crate) fn connections() -> Vec<Vec<u8>> {
        let calls = captured("/run/kata-containers");
        let frames = calls
            .iter()
            .zip(0u32..)
            .map(|((method, request), number)| frame(2 * number + 1, method, encode(method, request)));
        let frames: Vec<Vec<u8>> = frames.collect();
        let mut seeds = vec![frames.concat(), frame(1, "NoSuchMethod", Vec::new()), frame(2, "CreateSandbox", vec![])];
        seeds.extend(frames.into_iter().take(8));
        seeds
    }

    pub(crate) fn containers() -> Vec<Vec<u8>> {
        let guest = Guest::get();
        let mut requests = guest.captured("CreateContainer");
        let mut more = requests[1].clone();
        let shared = guest.roots.shared();
        let mounts = more["OCI"]["Mounts"].as_array_mut().unwrap();
        for name in ["file", "folder", "link", "../x"] {
            let source = shared.join(name).display().to_string();
            mounts.push(serde_json::json!({
                "destination": "/data", "source": source, "type": "bind", "options": ["rbind", "ro"],
            }));
        }
        // Every mount must be allowed before the last two are looked at.
        let mut allowed = more.clone();
        allowed["OCI"]["Mounts"].as_array_mut().unwrap().retain(|mount| {
            !mount["source"].as_str().unwrap().ends_with("link") && !mount["source"].as_str().unwrap().ends_with("x")
        });
        requests.extend([more, allowed]);
        requests.iter().map(|request| encode("CreateContainer", request)).collect()
    }

    pub(crate) fn copies() -> Vec<Vec<u8>> {
        let mut requests: Vec<_> = captured("/run/kata-containers")
            .into_iter()
            .filter(|(method, _)| method == "CopyFile")
            .map(|(_, request)| request)
            .collect();
        for (name, mode, data) in
            [("folder/..data", 0o120_777, "b3RoZXI="), ("a/b/c", 0o040_755, ""), ("link/x", 0o100_644, "eA==")]
        {
            requests.push(serde_json::json!({
                "path": format!("{SHARED}/{name}"), "file_mode": mode, "dir_mode": 0o755, "file_size": "1", "data": data,
            }));
        }
        requests.iter().map(|request| encode("CopyFile", request)).collect()
    }

    pub(crate) fn addresses() -> Vec<Vec<u8>> {
        ["vsock://-1:1024", "unix:///run/kata.sock", "unix://@kata"].map(|text| text.as_bytes().to_vec()).to_vec()
    }

    pub(crate) fn cgroups() -> Vec<Vec<u8>> {
        let data = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/cgroup").join(name);
            std::fs::read_to_string(path).unwrap()
        };
        let mut seeds: Vec<Vec<u8>> =
            ["v2/io.stat", "v2/memory.stat", "v1/blkio/blkio.throttle.io_serviced", "v1/cpuacct/cpuacct.usage_percpu"]
                .map(|name| data(name).into_bytes())
                .to_vec();
        let (its, mounts) = (data("proc-cgroup-v1.txt"), data("mountinfo-v1.txt"));
        seeds.push(format!("{its}\0{its}\0{mounts}").into_bytes());
        seeds.push(format!("0::/pod/one\n\x000::/agent\n\0{}", data("mountinfo-v2.txt")).into_bytes());
        seeds
    }

    pub(crate) fn policies() -> Vec<Vec<u8>> {
        let pod = include_str!("../../../guest-agent/policy/tests/data/pod.rego");
        [pod, agent_policy::CLOSED, &crate::kata::open_policy()].map(|text| text.as_bytes().to_vec()).to_vec()
    }
}
