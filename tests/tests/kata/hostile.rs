//! What a hostile host can send: each request gets its proper code, and the agent serves on as if nothing was.

use std::time::Duration;

use integration_tests::kata::{self, DEADLINE, Shim};
use integration_tests::{Options, World};
use serde_json::{Value, json};
use ttrpc::Code;

use super::pod::{Capture, signed};

const DENIED: Code = Code::PERMISSION_DENIED;
const INVALID: Code = Code::INVALID_ARGUMENT;

/// A world with a sandbox, its pause container and one container that runs.
pub(crate) async fn running() -> (World, Shim, Capture) {
    let world = kata::world(Options::default());
    let image = signed(&world);
    let capture = Capture::of(&world, &image);
    let shim = Shim::connect(&kata::address(&world)).await;
    capture.play_until(&shim, "ReadStderr", &capture.container).await;
    (world, shim, capture)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_leave_the_shared_directory_are_refused() {
    let world = kata::world(Options::default());
    let image = signed(&world);
    let capture = Capture::of(&world, &image);
    let shim = Shim::connect(&kata::address(&world)).await;
    capture.play_until(&shim, "CopyFile", "").await;
    let run = kata::run_dir(&world).display().to_string();
    let shared = format!("{run}/shared/containers");
    let victim = world.path("victim");
    std::fs::write(&victim, "whole").unwrap();
    std::fs::create_dir(world.path("outside")).unwrap();

    let copy = |path: String, mode: u32, data: &str| {
        json!({ "path": path, "file_mode": mode, "dir_mode": 0o755, "file_size": data.len().to_string(),
                "data": base64(data.as_bytes()) })
    };
    let file = |path: String| copy(path, 0o100_644, "evil");
    shim.call("CopyFile", copy(format!("{shared}/out"), 0o120_777, &world.path("outside").display().to_string()))
        .await
        .unwrap();
    shim.call("CopyFile", copy(format!("{shared}/up"), 0o120_777, "../..")).await.unwrap();
    shim.call("CopyFile", file(format!("{shared}/good"))).await.unwrap();
    let with = |name: &str, value: Value| {
        let mut request = file(format!("{shared}/odd"));
        request[name] = value;
        request
    };
    let attacks = [
        ("parent", file(format!("{shared}/../../x"))),
        ("parent in the middle", file(format!("{shared}/a/../../../x"))),
        ("another absolute path", file(victim.display().to_string())),
        ("a relative path", file("x".to_owned())),
        ("no path", file(String::new())),
        ("the directory itself", file(shared.clone())),
        ("the directory as a file", file(format!("{shared}/"))),
        ("the private place of unfinished files", file(format!("{run}/shared/.partial/x"))),
        ("the sandbox's own directory", file(format!("{run}/sandbox/resolv.conf"))),
        ("through an absolute link", file(format!("{shared}/out/x"))),
        ("through a relative link", file(format!("{shared}/up/x"))),
        ("beneath a file", file(format!("{shared}/good/x"))),
        ("a NUL", file(format!("{shared}/a\0b"))),
        ("a long name", file(format!("{shared}/{}", "n".repeat(300)))),
        ("a long path", file(format!("{shared}/{}", "n/".repeat(4000)))),
        ("a set-user-id file", copy(format!("{shared}/suid"), 0o104_755, "evil")),
        ("a device", copy(format!("{shared}/device"), 0o020_666, "")),
        ("a socket", copy(format!("{shared}/socket"), 0o140_666, "")),
        ("a negative size", with("file_size", json!("-1"))),
        ("more than its size", with("file_size", json!("1"))),
        ("a size no guest has", with("file_size", json!((1u64 << 62).to_string()))),
        ("a negative offset", with("offset", json!("-4"))),
        ("an offset without a beginning", with("offset", json!("4096"))),
        ("a negative owner", with("uid", json!(-7))),
    ];
    for (name, request) in attacks {
        let failure = shim.call("CopyFile", request).await.expect_err(name);
        assert!(matches!(failure.code, DENIED | INVALID), "{name}: {failure:?}");
        assert!(failure.reason().starts_with("sandbox."), "{name}: {failure:?}");
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "whole");
    assert_eq!(std::fs::read_dir(world.path("outside")).unwrap().count(), 0);
    assert_eq!(std::fs::read_to_string(format!("{shared}/good")).unwrap(), "evil");
    let mut names: Vec<_> = std::fs::read_dir(&shared).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["good", "out", "up"]);
    shim.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_name_what_is_not_there_or_cannot_be_get_their_codes() {
    let (world, shim, capture) = running().await;
    let id = capture.container.as_str();
    let unknown = "0".repeat(64);
    let exec = |container: &str, exec: &str| {
        json!({ "container_id": container, "exec_id": exec,
                "process": { "Args": ["/bin/true"], "Env": [], "Cwd": "/", "User": {} } })
    };
    let of = |container: &str, exec: &str| json!({ "container_id": container, "exec_id": exec });
    let whole = |container: &str| json!({ "container_id": container });
    let long = "x".repeat(4096);
    let attacks: Vec<(&str, Value, Code)> = vec![
        ("StartContainer", whole(&unknown), INVALID),
        ("StartContainer", whole(id), INVALID), // it runs already
        ("RemoveContainer", whole(&unknown), INVALID),
        ("RemoveContainer", whole("../../x"), INVALID),
        ("StatsContainer", whole(&unknown), INVALID),
        ("UpdateContainer", whole(&unknown), INVALID),
        ("PauseContainer", whole(&unknown), INVALID),
        ("ResumeContainer", whole(""), INVALID),
        ("ExecProcess", exec(&unknown, "e"), INVALID),
        ("ExecProcess", exec(id, "a/b"), INVALID),
        ("ExecProcess", exec(id, "../e"), INVALID),
        ("ExecProcess", exec(id, &long), INVALID),
        ("ExecProcess", json!({ "container_id": id, "exec_id": "none" }), INVALID),
        ("ExecProcess", json!({ "container_id": id, "exec_id": "port", "stdout_port": 1, "process": {} }), INVALID),
        ("SignalProcess", json!({ "container_id": id, "signal": 999 }), INVALID),
        ("SignalProcess", of(id, "unknown"), Code::NOT_FOUND),
        ("SignalProcess", of(&unknown, ""), INVALID),
        ("WaitProcess", of(id, "unknown"), Code::NOT_FOUND),
        ("WaitProcess", of(&unknown, ""), INVALID),
        ("ReadStdout", of(id, "unknown"), Code::NOT_FOUND),
        ("ReadStderr", of(&unknown, ""), INVALID),
        ("WriteStdin", json!({ "container_id": id, "exec_id": "unknown", "data": "AAAA" }), Code::NOT_FOUND),
        ("CloseStdin", of(id, "unknown"), Code::NOT_FOUND),
        ("TtyWinResize", json!({ "container_id": id, "row": 24, "column": 80 }), Code::UNAVAILABLE),
        ("TtyWinResize", of(id, "unknown"), Code::NOT_FOUND),
        ("CreateSandbox", capture.request("CreateSandbox", ""), Code::FAILED_PRECONDITION),
        ("CreateContainer", json!({ "container_id": "c" }), Code::PERMISSION_DENIED), // `policy.spec`
        ("GetDiagnosticData", json!({ "log_type": "/etc/shadow", "container_id": id }), INVALID),
    ];
    for (method, request, code) in attacks {
        let shown = request.to_string();
        let answer = shim.call(method, request).await;
        let failure = answer.expect_err(&format!("{method} {shown:.200}"));
        assert_eq!(failure.code, code, "{method} {shown:.200}: {failure:?}");
        assert!(!failure.text.contains("panicked") && failure.text.len() < 300, "{failure:?}");
    }
    shim.healthy().await;
    let read = shim.poll("ReadStdout", json!({ "container_id": id, "len": 64 })).await.unwrap();
    assert!(!kata::bytes(&read["data"]).is_empty(), "the container still runs and is still read");
    assert!(!world.agent_log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_out_of_their_order_are_refused() {
    let world = kata::world(Options::default());
    let image = signed(&world);
    let capture = Capture::of(&world, &image);
    let shim = Shim::connect(&kata::address(&world)).await;
    let create = capture.request("CreateContainer", &capture.container);
    for (method, request) in [("CreateContainer", create.clone()), ("CopyFile", capture.request("CopyFile", ""))] {
        let failure = shim.call(method, request).await.unwrap_err();
        assert_eq!((failure.code, failure.reason()), (Code::FAILED_PRECONDITION, "kata.order"), "{method}");
    }
    let failure = shim.call("DestroySandbox", json!({})).await.unwrap_err();
    assert_eq!(failure.code, Code::FAILED_PRECONDITION);

    // Two at once: one sandbox comes of it.
    let (one, other) = tokio::join!(
        shim.call("CreateSandbox", capture.request("CreateSandbox", "")),
        shim.call("CreateSandbox", capture.request("CreateSandbox", "")),
    );
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    shim.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_refused_and_the_connection_lives_on() {
    let world = kata::world(Options::default());
    let shim = Shim::connect(&kata::address(&world)).await;
    let send = |method: &'static str, payload: Vec<u8>| {
        let shim = shim.clone();
        async move { shim.raw("grpc.AgentService", method, payload, DEADLINE).await }
    };
    for (name, method, payload) in [
        ("text that is not UTF-8", "StartContainer", b"\x0a\x02\xff\xfe".to_vec()),
        ("a length beyond the end", "ExecProcess", b"\x0a\x7fabc".to_vec()),
        ("groups without an end", "CreateContainer", vec![0x0b; 10_000]),
        ("messages in messages in messages", "CreateContainer", nested(4_000)),
        (
            "a number that is too long",
            "SignalProcess",
            vec![0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ),
    ] {
        let failure = send(method, payload).await.expect_err(name);
        assert_eq!(failure.code, INVALID, "{name}: {failure:?}");
    }
    let failure = shim.raw("grpc.NoService", "Check", Vec::new(), DEADLINE).await.unwrap_err();
    assert!(matches!(failure.code, INVALID | Code::UNIMPLEMENTED | Code::NOT_FOUND), "{failure:?}");
    shim.healthy().await;
    // The largest that is read, and one that is not.
    let filler = |bytes: usize| json!({ "path": "x".repeat(bytes) });
    let failure = shim.call("CopyFile", filler(4_000_000)).await.unwrap_err();
    assert!(!failure.text.contains("xxxx"), "the host's own text is not thrown back: {:.100}", failure.text);
    let raw = raw_frame(&world, 5 << 20).await;
    assert!(raw, "a frame above the limit is answered or closed");
    shim.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_parked_reads_leave_room_for_everything_else() {
    let (_world, shim, capture) = running().await;
    let id = capture.container.clone();
    let mut parked = tokio::task::JoinSet::new();
    for _ in 0..3_000 {
        let (shim, id) = (shim.clone(), id.clone());
        parked.spawn(async move { shim.poll("ReadStderr", json!({ "container_id": id, "len": 10 })).await });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    shim.healthy().await;
    // As many as a process may have stay; the rest are told so.
    while let Some(ended) = parked.try_join_next() {
        let failure = ended.unwrap().unwrap_err();
        assert_eq!(failure.code, Code::RESOURCE_EXHAUSTED, "{failure:?}");
    }
    assert!(!parked.is_empty());
    shim.call("StatsContainer", json!({ "container_id": id })).await.unwrap();
    let exec = json!({ "container_id": id, "exec_id": "e", "process": {
        "Args": ["/bin/sh", "-c", "exit 3"], "Env": ["PATH=/bin"], "Cwd": "/", "User": {} } });
    shim.call("ExecProcess", exec).await.unwrap();
    let ended = shim.poll("WaitProcess", json!({ "container_id": id, "exec_id": "e" })).await.unwrap();
    assert_eq!(ended["status"], 3);
    // Another connection is served too, and may leave its polls behind.
    drop(parked);
    shim.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_none_leaves_the_old_one_in_force() {
    let world = kata::world(Options::default());
    let shim = Shim::connect(&kata::address(&world)).await;
    for text in ["", "no rego at all", "package other\ndefault CopyFileRequest := true\n", &"x".repeat(1_000_000)] {
        let failure = shim.call("SetPolicy", json!({ "policy": text })).await.unwrap_err();
        assert!(matches!(failure.code, DENIED | INVALID), "{failure:?}");
        shim.call("GetGuestDetails", json!({})).await.unwrap();
    }
    let closed = "package agent_policy\ndefault GuestDetailsRequest := false\n";
    shim.call("SetPolicy", json!({ "policy": closed })).await.unwrap();
    for (method, request) in [("GetGuestDetails", json!({})), ("SetPolicy", json!({ "policy": kata::open_policy() }))] {
        let failure = shim.call(method, request).await.unwrap_err();
        assert_eq!(failure.code, DENIED, "{method}");
    }
    shim.healthy().await;
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Field 6 of a container request is a message; so is field 8 of that, over and over, each within the last.
fn nested(depth: usize) -> Vec<u8> {
    let mut inner = Vec::new();
    for _ in 0..depth {
        let mut outer = vec![0x42];
        varint(&mut outer, inner.len());
        outer.append(&mut inner);
        inner = outer;
    }
    let mut all = vec![0x32];
    varint(&mut all, inner.len());
    all.append(&mut inner);
    // Cut short, so that it is malformed however deep it is read.
    all.pop();
    all
}

fn varint(to: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        to.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    to.push(u8::try_from(number).unwrap());
}

/// Sends a frame whose header announces `length` bytes, and the bytes.
async fn raw_frame(world: &World, length: u32) -> bool {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::UnixStream::connect(world.path("kata.sock")).await.unwrap();
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 1, 1, 0]);
    frame.resize(frame.len() + usize::try_from(length).unwrap(), b'x');
    let _ = stream.write_all(&frame).await;
    let mut answer = [0; 10];
    tokio::time::timeout(DEADLINE, stream.read(&mut answer)).await.is_ok()
}
