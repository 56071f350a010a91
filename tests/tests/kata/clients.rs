//! Clients of the Kata project itself, built elsewhere and named by path: `docs/kata-clients.md` tells how.

use std::path::PathBuf;
use std::process::Command;

use integration_tests::command::{Seen, run};
use integration_tests::kata::{self, Shim};
use integration_tests::{Options, World};
use serde_json::{Value, json};

use super::pod::{Capture, signed};

/// A client's path in the environment.
pub(super) fn client(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} must be the path of a client: docs/kata-clients.md"))
        .into()
}

/// `kata-agent-ctl`, one connection a command.
struct AgentCtl {
    program: PathBuf,
    address: String,
}

impl AgentCtl {
    fn call(&self, method: &str, request: &Value) -> Seen {
        let mut command = Command::new(&self.program);
        command.args(["-l", "debug", "connect", "--server-address", &self.address, "-n", "true", "--timeout", "30s"]);
        command.arg("--cmd").arg(format!("{method} json://{request}"));
        run(command)
    }

    /// What it says of the answer.
    #[track_caller]
    fn ok(&self, method: &str, request: Value) -> String {
        let seen = self.call(method, &request);
        assert_eq!(seen.status, 0, "{method} {request}: {seen:#?}");
        let lines: Vec<&str> = seen.stdout.lines().filter(|line| line.contains("response received")).collect();
        assert!(!lines.is_empty(), "{method}: {seen:#?}");
        lines.concat()
    }

    #[track_caller]
    fn fails(&self, method: &str, request: Value, code: &str, reason: &str) {
        let seen = self.call(method, &request);
        assert_eq!(seen.status, 1, "{method}: {seen:#?}");
        assert!(seen.stderr.contains(code) && seen.stderr.contains(reason), "{method}, {code} {reason}: {seen:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kata-agent-ctl, named by TCL_KATA_AGENT_CTL: docs/kata-clients.md"]
async fn agent_ctl_drives_a_sandbox_from_check_to_destroy() {
    let mut world = kata::world(Options::default());
    let image = signed(&world);
    let capture = Capture::of(&world, &image);
    let ctl = AgentCtl { program: client("TCL_KATA_AGENT_CTL"), address: kata::address(&world) };

    assert!(ctl.ok("Check", json!({})).contains("SERVING"));
    assert!(ctl.ok("Version", json!({})).contains("0.0.1"));
    let details = ctl.ok("GetGuestDetails", json!({ "mem_block_size": true, "mem_hotplug_probe": true }));
    assert!(details.contains("image_guest_pull"), "{details}");
    ctl.fails("CopyFile", copy(&world, "agent.toml", "early"), "FAILED_PRECONDITION", "kata.order");
    ctl.ok("CreateSandbox", capture.request("CreateSandbox", ""));
    ctl.fails("CreateSandbox", capture.request("CreateSandbox", ""), "FAILED_PRECONDITION", "kata.order");
    assert!(ctl.ok("GetMetrics", json!({})).contains("# TYPE"));
    ctl.ok("ListInterfaces", json!({}));
    ctl.ok("ListRoutes", json!({}));

    files(&world, &ctl);
    container(&world, &ctl, &capture).await;

    let policy = kata::open_policy().replace("GetMetricsRequest := true", "GetMetricsRequest := false");
    std::fs::write(world.path("other.rego"), policy).unwrap();
    ctl.ok("SetPolicy", json!({ "policy_file": world.path("other.rego") }));
    ctl.fails("GetMetrics", json!({}), "PERMISSION_DENIED", "policy.gate");
    ctl.ok("DestroySandbox", json!({}));
    world.agent_ended();
    world.nothing_left();
}

fn copy(world: &World, source: &str, target: &str) -> Value {
    json!({ "src": world.path(source), "dest": kata::run_dir(world).join("shared/containers").join(target) })
}

/// Files, a directory and a link arrive; what leads out of the shared directory does not.
fn files(world: &World, ctl: &AgentCtl) {
    let shared = kata::run_dir(world).join("shared/containers");
    // More than one of its pieces.
    std::fs::write(world.path("big"), vec![7; 2_500_000]).unwrap();
    std::fs::create_dir(world.path("folder")).unwrap();
    std::os::unix::fs::symlink("big", world.path("link")).unwrap();
    for (source, target) in [("big", "big"), ("folder", "folder"), ("link", "folder/link"), ("big", "a/b/big")] {
        ctl.ok("CopyFile", copy(world, source, target));
    }
    for target in ["big", "a/b/big"] {
        assert_eq!(std::fs::read(shared.join(target)).unwrap(), vec![7; 2_500_000]);
    }
    assert!(shared.join("folder").is_dir());
    assert_eq!(std::fs::read_link(shared.join("folder/link")).unwrap(), PathBuf::from("big"));
    std::os::unix::fs::symlink(world.path(""), world.path("out")).unwrap();
    ctl.ok("CopyFile", copy(world, "out", "out"));
    for target in ["../../escaped", "out/escaped", "a/../../../../escaped", "/etc/escaped"] {
        ctl.fails("CopyFile", copy(world, "big", target), "PERMISSION_DENIED", "sandbox.copy");
    }
    assert!(!world.path("escaped").exists());
}

/// Its own `CreateContainer` brings a root file system of the host; the guest pulls, so another client creates.
async fn container(world: &World, ctl: &AgentCtl, capture: &Capture) {
    let shim = Shim::connect(&kata::address(world)).await;
    let (pod, id) = (capture.sandbox.as_str(), capture.container.as_str());
    for container in [pod, id] {
        for (name, request) in capture.calls.iter().filter(|(name, _)| name == "CopyFile") {
            shim.call(name, request.clone()).await.unwrap();
        }
        shim.call("CreateContainer", capture.request("CreateContainer", container)).await.unwrap();
        ctl.ok("StartContainer", json!({ "container_id": container }));
    }
    let of = |exec: &str| json!({ "container_id": id, "exec_id": exec });
    let with = |exec: &str, name: &str, value: Value| {
        let mut request = of(exec);
        request[name] = value;
        request
    };
    let process = |script: &str| json!({ "Args": ["/bin/sh", "-c", script], "Env": ["PATH=/bin"], "Cwd": "/" });
    ctl.ok("ExecProcess", with("e", "process", process("read line; echo $line; echo err >&2; exit 5")));
    assert!(ctl.ok("WriteStdin", with("e", "data", json!(b"hi\n"))).contains("len: 3"));
    ctl.ok("CloseStdin", of("e"));
    assert!(ctl.ok("ReadStdout", with("e", "len", json!(100))).contains(&format!("data: {:?}", b"hi\n")));
    assert!(ctl.ok("ReadStderr", with("e", "len", json!(100))).contains(&format!("data: {:?}", b"err\n")));
    ctl.fails("TtyWinResize", of("e"), "UNAVAILABLE", "runtime.process");
    assert!(ctl.ok("WaitProcess", of("e")).contains("status: 5"));
    ctl.fails("WaitProcess", of("e"), "NOT_FOUND", "runtime.process");
    let missing = json!({ "Args": ["/nosuch"], "Cwd": "/" });
    ctl.ok("ExecProcess", with("m", "process", missing));
    assert!(ctl.ok("WaitProcess", of("m")).contains("status: 127"));
    ctl.fails("StatsContainer", json!({ "container_id": "nosuch" }), "INVALID_ARGUMENT", "runtime.container");

    ctl.ok("PauseContainer", json!({ "container_id": id }));
    ctl.ok("ResumeContainer", json!({ "container_id": id }));
    let limits = json!({ "Memory": { "Limit": 100_663_296 } });
    ctl.ok("UpdateContainer", json!({ "container_id": id, "resources": limits }));
    assert!(ctl.ok("StatsContainer", json!({ "container_id": id })).contains("limit: 100663296"));
    ctl.ok("SignalProcess", with("", "signal", json!(9)));
    assert!(ctl.ok("WaitProcess", of("")).contains("status: 137"));
    // It fails afterwards at cleaning up an image that it has not unpacked itself.
    let removed = ctl.call("RemoveContainer", &json!({ "container_id": id, "timeout": 10 }));
    assert!(removed.stdout.contains("response received"), "{removed:#?}");
    ctl.fails("RemoveContainer", json!({ "container_id": id }), "INVALID_ARGUMENT", "runtime.container");
}
