//! From firmware to a container's output.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use guest_image::names;
use guest_vm::Running;
use integration_tests::command::{run, tclctl};
use integration_tests::image::Recipe;
use integration_tests::kata::Shim;
use integration_tests::process::binary;
use integration_tests::tpm::Tpm;
use integration_tests::vsock::bridge;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::scene::{PATIENCE, Scene, says, wait};

/// The pod's ids and image in the capture.
const SANDBOX: &str = "56c9795790e3d752a8f84a78792a457e2f7390309b7fc4de6d8c3c6c9597fb43";
const CONTAINER: &str = "ec9db4434962f378a8e0c91bbc149ceb45326f1e4ce8cdb6d51372692dcede30";
const IMAGE: &str = "localhost/h/bb:1";
/// What the container runs.
const MAIN: &str = "echo hello from $(cat /proc/self/cgroup)";

/// A pod's client outside, speaking over the guest's vsock.
struct Pod {
    shim: Shim,
    calls: Vec<Value>,
}

impl Pod {
    async fn connect(address: &str, reference: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kata/pod.json");
        let text = fs::read_to_string(path).unwrap();
        let text = text.replace(SANDBOX, "pod").replace(CONTAINER, "app").replace(IMAGE, reference);
        Self { shim: Shim::connect(address).await, calls: serde_json::from_str(&text).unwrap() }
    }

    async fn call(&self, method: &str, request: Value) -> Value {
        self.shim.poll(method, request).await.unwrap_or_else(|failure| panic!("{method}: {failure:?}"))
    }

    /// The capture's own requests of a method.
    fn captured(&self, method: &str) -> Vec<Value> {
        self.calls.iter().filter(|call| call["method"] == method).map(|call| call["req"].clone()).collect()
    }

    /// The sandbox and its network.
    async fn network(&self) {
        self.shim.healthy().await;
        self.call("CreateSandbox", self.captured("CreateSandbox").remove(0)).await;
        let address = json!({ "address": "10.0.2.15", "mask": "24" });
        let interface = json!({
            "device": "eth0", "name": "eth0", "IPAddresses": [address], "mtu": "1500", "hwAddr": "52:54:00:12:34:56",
        });
        self.call("UpdateInterface", json!({ "interface": interface })).await;
        let route = json!({ "gateway": "10.0.2.2", "device": "eth0" });
        self.call("UpdateRoutes", json!({ "routes": { "Routes": [route] } })).await;
    }

    /// The pause container.
    async fn pause(&self) {
        self.call("CopyFile", self.captured("CopyFile").remove(0)).await;
        self.call("CreateContainer", self.captured("CreateContainer").remove(0)).await;
        self.call("StartContainer", json!({ "container_id": "pod" })).await;
    }

    /// The request for the container, with its files copied.
    async fn container(&self) -> Value {
        for file in self.captured("CopyFile").split_off(1) {
            self.call("CopyFile", file).await;
        }
        let mut request = self.captured("CreateContainer").remove(1);
        request["OCI"]["Process"]["Args"] = json!(["/bin/sh", "-c", MAIN]);
        request
    }
}

/// Runs `work` against the guest once its agent listens.
fn with_pod<T>(running: &mut Running, reference: &str, work: impl AsyncFnOnce(&Pod) -> T) -> T {
    running.wait_for_port(1024, PATIENCE).unwrap();
    let address = bridge(&running.vsock(), 1024, &running.folder().join("kata.sock"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let pod = Pod::connect(&address, reference).await;
        work(&pod).await
    })
}

/// The machine is gone from one moment to the next; its TPM still has what was measured into it.
fn cut_off(running: &mut Running) {
    let pid = Pid::from_raw(running.pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let _ = running.ended_within(PATIENCE).unwrap();
}

/// The image with another first program: one that says other words, and could do other things.
fn with_another_init(scene: &Scene) -> PathBuf {
    let (programs, out) = (scene.path("programs"), scene.path("another"));
    fs::create_dir(&programs).unwrap();
    for name in ["guest-agent", "tclctl"] {
        symlink(binary(name), programs.join(name)).unwrap();
    }
    let mut bytes = fs::read(binary("guest-init")).unwrap();
    let (ours, theirs) = (b"starts a guest, as its first process", b"STARTS A GUEST, AS ITS FIRST PROCESS");
    let place = bytes.windows(ours.len()).position(|part| part == ours).unwrap();
    bytes[place..place + ours.len()].copy_from_slice(theirs);
    fs::write(programs.join("guest-init"), bytes).unwrap();
    scene.build(&out, &programs);
    out
}

#[test]
fn an_image_boots_into_a_measured_launch_and_one_with_another_initrd_into_a_refusal() {
    let mut scene = Scene::new();
    let image = scene.world.push(&Recipe::new("true"), "h/bb", "1");
    let process = json!({
        "args": [{ "exact": ["/bin/sh", "-c", MAIN] }], "env": ["PATH=/bin", "HOSTNAME=hkpod"], "mounts": [],
    });
    fs::write(scene.world.path("process.json"), process.to_string()).unwrap();
    let _ = scene.world.sign(&image, 1);
    let (reference, initdata) = (scene.world.reference(&image), scene.initdata());

    let mut running = scene.start("first", &scene.image(), &initdata);
    let output = with_pod(&mut running, &reference, async |pod| {
        pod.network().await;
        pod.pause().await;
        pod.call("CreateContainer", pod.container().await).await;
        pod.call("StartContainer", json!({ "container_id": "app" })).await;
        let output = pod.shim.read_all("ReadStdout", "app", "").await;
        let ended = pod.call("WaitProcess", json!({ "container_id": "app" })).await;
        assert_eq!(ended["status"].as_i64().unwrap_or_default(), 0, "{ended}");
        pod.call("RemoveContainer", json!({ "container_id": "app" })).await;
        output
    });
    assert_eq!(output, "hello from 0::/tcl/app\n");

    let agent = bridge(&running.vsock(), 1030, &running.folder().join("agent.sock"));
    let asked = |arguments: &[&str]| {
        let mut command = tclctl(arguments);
        command.env("TCL_AGENT", &agent);
        run(command).ok()
    };
    let status = wait(&mut running, "every record has a receipt", |_| {
        Some(asked(&["--json", "status"]).json()).filter(|status| status["delivered"] == status["records"])
    });
    assert_eq!((&status["tee"], &status["simulated"]), (&"tpm".into(), &false.into()));
    let log = scene.path("guest.log").display().to_string();
    let _ = asked(&["log", "export", &log]);

    cut_off(&mut running);
    let control = running.folder().join("tpm.sock");
    let held = |number: usize| Tpm::pcr_after_machine(&control, number);
    let predicted: Value = serde_json::from_slice(&fs::read(scene.image().join(names::REFERENCES)).unwrap()).unwrap();
    for pcr in [4, 9, 11] {
        assert_eq!(predicted[format!("tpm.pcr{pcr}")], json!([held(pcr)]), "PCR {pcr}");
    }
    let register = format!("sha256:{}", held(14));
    let told = run(tclctl(&["log", "verify", "--file", &log, "--register", &register])).ok().stdout;
    assert!(told.contains(&format!("replay    {register}")), "{told}");
    drop(running);

    // The same root, the same command line, another first program: everything works, and nothing is launched.
    let another = with_another_init(&scene);
    let same = |name: &str| fs::read(another.join(name)).unwrap() == fs::read(scene.image().join(name)).unwrap();
    assert!(same(names::ROOT) && same(names::COMMAND_LINE) && !same(names::INITRD));
    let mut running = scene.start("second", &another, &initdata);
    with_pod(&mut running, &reference, async |pod| {
        pod.network().await;
        let request = pod.captured("CreateContainer").remove(0);
        let refused = pod.shim.poll("CreateContainer", request).await.unwrap_err();
        assert_eq!(refused.reason(), "evidence.appraisal", "{refused:?}");
        // The machine goes while it answers.
        let _ = pod.shim.poll("DestroySandbox", json!({})).await;
    });
    says(&mut running, "Power down");
}
