//! From firmware to a container's output.

use std::fs;
use std::path::Path;

use guest_image::names;
use integration_tests::command::{run, tclctl};
use integration_tests::image::Recipe;
use integration_tests::kata::Shim;
use integration_tests::vsock::bridge;
use serde_json::{Value, json};

use super::scene::{Running, Scene};

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

    /// The sandbox, its network, and its pause container.
    async fn sandbox(&self) {
        self.shim.healthy().await;
        self.call("CreateSandbox", self.captured("CreateSandbox").remove(0)).await;
        let address = json!({ "address": "10.0.2.15", "mask": "24" });
        let interface = json!({
            "device": "eth0", "name": "eth0", "IPAddresses": [address], "mtu": "1500", "hwAddr": "52:54:00:12:34:56",
        });
        self.call("UpdateInterface", json!({ "interface": interface })).await;
        let route = json!({ "gateway": "10.0.2.2", "device": "eth0" });
        self.call("UpdateRoutes", json!({ "routes": { "Routes": [route] } })).await;
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
    let hybrid = running.machine.hybrid_vsock();
    running.wait("the agent listens", |_| guest_image::health::check(&hybrid).ok());
    let address = bridge(&hybrid, 1024, &running.machine.state.join("kata.sock"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let pod = Pod::connect(&address, reference).await;
        work(&pod).await
    })
}

#[test]
fn an_image_boots_into_a_measured_launch_that_the_attestor_vouches_for() {
    let mut scene = Scene::new();
    let image = scene.world.push(&Recipe::new("true"), "h/bb", "1");
    let process = json!({
        "args": [{ "exact": ["/bin/sh", "-c", MAIN] }], "env": ["PATH=/bin", "HOSTNAME=hkpod"], "mounts": [],
    });
    fs::write(scene.world.path("process.json"), process.to_string()).unwrap();
    let _ = scene.world.sign(&image, 1);
    let (reference, initdata) = (scene.world.reference(&image), scene.initdata());

    let mut running = scene.machine("first", &scene.image(), &initdata);
    let output = with_pod(&mut running, &reference, async |pod| {
        pod.sandbox().await;
        pod.call("CreateContainer", pod.container().await).await;
        pod.call("StartContainer", json!({ "container_id": "app" })).await;
        let output = pod.shim.read_all("ReadStdout", "app", "").await;
        let ended = pod.call("WaitProcess", json!({ "container_id": "app" })).await;
        assert_eq!(ended["status"].as_i64().unwrap_or_default(), 0, "{ended}");
        pod.call("RemoveContainer", json!({ "container_id": "app" })).await;
        output
    });
    assert_eq!(output, "hello from 0::/tcl/app\n");

    let agent = bridge(&running.machine.hybrid_vsock(), 1030, &running.machine.state.join("agent.sock"));
    let asked = |arguments: &[&str]| {
        let mut command = tclctl(arguments);
        command.env("TCL_AGENT", &agent);
        run(command).ok()
    };
    let status = running.wait("every record has a receipt", |_| {
        Some(asked(&["--json", "status"]).json()).filter(|status| status["delivered"] == status["records"])
    });
    assert_eq!((&status["tee"], &status["simulated"]), (&"tpm".into(), &false.into()));
    let log = scene.path("guest.log").display().to_string();
    let _ = asked(&["log", "export", &log]);

    // The machine is gone from one moment to the next; its TPM still has what was measured into it.
    running.qemu.kill();
    let tpm = scene.world.tpm.as_ref().unwrap();
    let predicted: Value = serde_json::from_slice(&fs::read(scene.image().join(names::REFERENCES)).unwrap()).unwrap();
    for pcr in [4, 9, 11] {
        assert_eq!(predicted[format!("tpm.pcr{pcr}")], json!([tpm.pcr_after_machine(pcr)]), "PCR {pcr}");
    }
    let register = format!("sha256:{}", tpm.pcr_after_machine(14));
    let told = run(tclctl(&["log", "verify", "--file", &log, "--register", &register])).ok().stdout;
    assert!(told.contains(&format!("replay    {register}")), "{told}");
}
