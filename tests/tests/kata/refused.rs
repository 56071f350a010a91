//! Launches that are refused: the host gets PERMISSION_DENIED and the code, nothing runs, log and attestor know why.

use std::path::Path;

use integration_tests::command::{ADMIN_TOKEN_FILE, run, runc_list, tclctl};
use integration_tests::image::{Image, Recipe};
use integration_tests::kata::{self, Failure, Shim};
use integration_tests::{Action, Options, World};
use protocols::keys::{KeyKind, SigningKey};
use serde_json::{Value, json};
use ttrpc::Code;

use super::pod::{Capture, sign, signed};

/// A world in which the pod's pause container runs and its own container is about to be created.
struct Ready {
    world: World,
    shim: Shim,
    capture: Capture,
}

impl Ready {
    async fn with(image: impl FnOnce(&World) -> Image) -> Self {
        let world = kata::world(Options::default());
        let image = image(&world);
        let capture = Capture::of(&world, &image);
        let shim = Shim::connect(&kata::address(&world)).await;
        capture.play_until(&shim, "CreateContainer", &capture.container).await;
        Self { world, shim, capture }
    }

    /// Creates the container as `edit` makes it, which must be refused with `code`.
    async fn refuses(&self, code: &str, edit: impl FnOnce(&mut Value)) -> Failure {
        let mut request = self.capture.request("CreateContainer", &self.capture.container);
        edit(&mut request);
        let failure = self.shim.call("CreateContainer", request).await.unwrap_err();
        assert_eq!((failure.code, failure.reason()), (Code::PERMISSION_DENIED, code), "{failure:?}");
        assert_eq!(
            runc_list(&self.world.runc_root()),
            std::slice::from_ref(&self.capture.sandbox),
            "the pause container alone"
        );
        let started = self.shim.call("StartContainer", json!({ "container_id": self.capture.container })).await;
        assert_eq!(started.unwrap_err().code, Code::INVALID_ARGUMENT, "there is nothing to start");
        assert!(self.world.agent_log().contains(code), "the guest's root can read why");
        failure
    }

    /// What the guest's event log and its attestor have recorded.
    fn recorded(&self, code: &str) {
        self.world.settle();
        let log = run(self.world.tclctl(&["--json", "log", "show"])).ok().stdout;
        assert!(log.contains(code), "the event log says {code}: {log}");
        let broker = std::fs::read_to_string(self.world.path("broker.log")).unwrap();
        let line = broker.lines().rfind(|line| line.contains(code) && line.contains(" id=")).unwrap();
        let id = line.split(" id=").nth(1).unwrap().split(' ').next().unwrap().trim_matches('"');
        let token = self.world.path(ADMIN_TOKEN_FILE).display().to_string();
        let url = self.world.attestor_url();
        let told = run(tclctl(&["--json", "explain", id, "--attestor", &url, "--admin-token", &token])).ok();
        assert!(told.stdout.contains(code), "the attestor's record says {code}: {told:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_a_golden_value() {
    let ready = Ready::with(|world| world.push(&Recipe::new("true"), "h/bb", "1")).await;
    let failure = ready.refuses("golden.missing", |_| {}).await;
    assert!(!failure.text.contains("h/bb"), "the host learns the code alone: {failure:?}");
    ready.recorded("golden.missing");
    // Signed, the same request passes: nothing of the refusal stays.
    let image = ready.world.push(&Recipe::new("true"), "h/bb", "1");
    sign(&ready.world, &image);
    let request = ready.capture.request("CreateContainer", &ready.capture.container);
    ready.shim.call("CreateContainer", request).await.unwrap();
    ready.shim.call("RemoveContainer", json!({ "container_id": ready.capture.container })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_golden_value_of_a_stranger() {
    let ready = Ready::with(|world| {
        let image = world.push(&Recipe::new("true"), "h/bb", "1");
        let own = std::fs::read(world.path("release.pem")).unwrap();
        let stranger = SigningKey::generate(KeyKind::EcdsaP256).unwrap().to_pem().unwrap();
        std::fs::write(world.path("release.pem"), stranger.as_bytes()).unwrap();
        sign(world, &image);
        std::fs::write(world.path("release.pem"), own).unwrap();
        image
    })
    .await;
    ready.refuses("golden.signer", |_| {}).await;
    ready.recorded("golden.signer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_golden_value_does_not_allow() {
    let ready = Ready::with(signed).await;
    ready.refuses("policy.process", |request| request["OCI"]["Process"]["Args"][2] = json!("id")).await;
    let preload = |request: &mut Value| {
        request["OCI"]["Process"]["Env"].as_array_mut().unwrap().push(json!("LD_PRELOAD=/x"));
    };
    ready.refuses("policy.process", preload).await;
    ready.refuses("policy.process", |request| request["OCI"]["Process"]["User"]["UID"] = json!(1000)).await;
    let copied = kata::run_dir(&ready.world).join("shared/containers/data");
    let copy =
        json!({ "path": copied.display().to_string(), "file_mode": 0o100_644, "file_size": "1", "data": "eA==" });
    ready.shim.call("CopyFile", copy).await.unwrap();
    ready.refuses("policy.process", |request| mount(request, "/data", &copied)).await;
    ready.recorded("policy.process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_policy_allows_is_refused_before_anything_is_fetched() {
    let ready = Ready::with(signed).await;
    ready.refuses("policy.rootfs", |request| request["storages"] = json!([])).await;
    let sandbox_metadata = |request: &mut Value| {
        let metadata = "image_guest_pull={\"metadata\":{\"io.kubernetes.cri.container-type\":\"sandbox\"}}";
        request["storages"][0]["driver_options"] = json!([metadata]);
    };
    ready.refuses("policy.rootfs", sandbox_metadata).await;
    ready.refuses("policy.rootfs", |request| request["OCI"]["Root"]["Path"] = json!("/")).await;
    ready.refuses("policy.mount", |request| mount(request, "/data", Path::new("/etc"))).await;
    let up = kata::run_dir(&ready.world).join("shared/containers/../../..");
    ready.refuses("policy.mount", |request| mount(request, "/data", &up)).await;
    let privileged = |request: &mut Value| {
        request["OCI"]["Process"]["Capabilities"]["Bounding"].as_array_mut().unwrap().push(json!("SYS_ADMIN"));
    };
    ready.refuses("policy.capabilities", privileged).await;
    let hook = |request: &mut Value| request["OCI"]["Hooks"] = json!({ "Prestart": [{ "Path": "/bin/sh" }] });
    ready.refuses("policy.spec", hook).await;
    let guests_pids = |request: &mut Value| {
        let namespace = json!({ "Type": "pid", "Path": "/proc/1/ns/pid" });
        request["OCI"]["Linux"]["Namespaces"].as_array_mut().unwrap().push(namespace);
    };
    ready.refuses("policy.spec", guests_pids).await;
    let memory = |request: &mut Value| {
        request["OCI"]["Linux"]["Devices"] = json!([{ "Path": "/dev/mem", "Type": "c", "Major": "1", "Minor": "1" }]);
    };
    ready.refuses("policy.devices", memory).await;
    ready.shim.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_created_container_without_a_receipt_does_not_start() {
    // The proxy has a runtime of its own.
    let options = Options { attestor_proxy: true, ..Options::default() };
    let world = tokio::task::block_in_place(|| kata::world(options));
    let image = signed(&world);
    let capture = Capture::of(&world, &image);
    let shim = Shim::connect(&kata::address(&world)).await;
    capture.play_until(&shim, "CreateContainer", &capture.container).await;
    // From the moment the runtime knows the container, the attestor takes nothing.
    let created = world.runc_root().join(&capture.container);
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule_when("withheld", "POST", "/tcl/v1/events", move || created.exists(), Action::Status(503));
    let request = capture.request("CreateContainer", &capture.container);
    shim.call("CreateContainer", request.clone()).await.unwrap();
    let failure = shim.call("StartContainer", json!({ "container_id": capture.container })).await.unwrap_err();
    assert_eq!(failure.reason(), "attestor.unavailable", "{failure:?}");
    assert!(proxy.hits("withheld") > 0);
    assert_eq!(runc_list(&world.runc_root()), std::slice::from_ref(&capture.sandbox), "nothing of it is left");
    proxy.clear();
    shim.call("RemoveContainer", json!({ "container_id": capture.container })).await.unwrap();
    shim.call("CreateContainer", request).await.unwrap();
    shim.call("StartContainer", json!({ "container_id": capture.container })).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_bundle_that_was_altered() {
    let mut world = kata::world(Options::default());
    let image = signed(&world);
    let capture = Capture::of(&world, &image);
    std::fs::write(world.path("pause/rootfs/extra"), "not measured").unwrap();
    let shim = Shim::connect(&kata::address(&world)).await;
    capture.play_until(&shim, "CreateContainer", &capture.sandbox).await;
    let failure = shim.call("CreateContainer", capture.request("CreateContainer", &capture.sandbox)).await.unwrap_err();
    assert_eq!((failure.code, failure.reason()), (Code::PERMISSION_DENIED, "policy.pause"), "{failure:?}");
    shim.call("DestroySandbox", json!({})).await.unwrap();
    world.agent_ended();
    world.nothing_left();
}

fn mount(request: &mut Value, destination: &str, source: &Path) {
    let source = source.display().to_string();
    let mount = json!({ "destination": destination, "source": source, "type": "bind", "options": ["rbind", "ro"] });
    request["OCI"]["Mounts"].as_array_mut().unwrap().push(mount);
}
