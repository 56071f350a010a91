//! The captured pod, replayed: every request of a real shim, in its order, against registry, runtime and attestor.

use std::path::Path;
use std::time::Duration;

use integration_tests::command::{run, runc_list};
use integration_tests::image::{Image, Recipe};
use integration_tests::kata::{self, Failure, Shim, bytes};
use integration_tests::{Options, Tee, World};
use serde_json::{Value, json};
use ttrpc::Code;

/// The pod's ids in the capture.
const SANDBOX: &str = "56c9795790e3d752a8f84a78792a457e2f7390309b7fc4de6d8c3c6c9597fb43";
const CONTAINER: &str = "ec9db4434962f378a8e0c91bbc149ceb45326f1e4ce8cdb6d51372692dcede30";
/// The image's reference in the capture.
const IMAGE: &str = "localhost/h/bb:1";

/// The capture with this world's names: ids of its own, so that control groups of other tests are not met.
pub(crate) struct Capture {
    pub(crate) sandbox: String,
    pub(crate) container: String,
    pub(crate) calls: Vec<(String, Value)>,
}

impl Capture {
    pub(crate) fn of(world: &World, image: &Image) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kata/pod.json");
        let (sandbox, container) = (fresh_id(), fresh_id());
        let text = std::fs::read_to_string(path)
            .unwrap()
            .replace(SANDBOX, &sandbox)
            .replace(CONTAINER, &container)
            .replace(IMAGE, &world.reference(image))
            .replace("/run/kata-containers", &kata::run_dir(world).display().to_string());
        let calls: Vec<Value> = serde_json::from_str(&text).unwrap();
        let call = |call: Value| (call["method"].as_str().unwrap().to_owned(), call["req"].clone());
        Self { sandbox, container, calls: calls.into_iter().map(call).collect() }
    }

    /// The one request of `method` about the container `id`.
    pub(crate) fn request(&self, method: &str, id: &str) -> Value {
        let about = |call: &&(String, Value)| call.0 == method && (id.is_empty() || call.1["container_id"] == id);
        self.calls.iter().find(about).unwrap().1.clone()
    }

    /// Everything up to the first request of `method` about the container `id`.
    pub(crate) async fn play_until(&self, shim: &Shim, method: &str, id: &str) {
        for (name, request) in &self.calls {
            if name == method && (id.is_empty() || request["container_id"] == id) {
                return;
            }
            // Long polls have their own tests.
            if name == "GetOOMEvent" || name == "WaitProcess" {
                continue;
            }
            shim.call(name, request.clone()).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        }
    }
}

pub(crate) fn fresh_id() -> String {
    hex::encode(std::iter::repeat_with(rand_byte).take(32).collect::<Vec<u8>>())
}

fn rand_byte() -> u8 {
    let mut byte = [0];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut byte).unwrap();
    byte[0]
}

/// The pod's image, and a golden value that allows what the capture runs in it.
pub(crate) fn signed(world: &World) -> Image {
    let image = world.push(&Recipe::new("true"), "h/bb", "1");
    sign(world, &image);
    image
}

pub(crate) fn sign(world: &World, image: &Image) {
    let script = "echo hello from container; id; ip addr; i=0; while true; do i=$((i+1)); echo tick $i; sleep 1; done";
    let policy = json!({
        "args": [{ "exact": ["/bin/sh", "-c", script] }],
        "env": ["PATH=/bin", "HOSTNAME=hkpod"],
        "mounts": [],
    });
    std::fs::write(world.path("process.json"), policy.to_string()).unwrap();
    let _ = world.sign(image, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pod_of_a_real_shim_runs_with_a_tpm() {
    whole_pod(Tee::Tpm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pod_of_a_real_shim_runs_with_simulated_snp() {
    whole_pod(Tee::SimulatedSnp).await;
}

async fn whole_pod(tee: Tee) {
    let mut world = kata::world(Options { tee, ..Options::default() });
    let image = signed(&world);
    let capture = Capture::of(&world, &image);
    let shim = Shim::connect(&kata::address(&world)).await;
    // As the shim does for its log forwarder: it never says anything.
    let _idle = tokio::net::UnixStream::connect(world.path("kata.sock")).await.unwrap();
    shim.healthy().await;
    let (pod, container) = (capture.sandbox.as_str(), capture.container.as_str());

    let mut oom = None;
    let mut pause = None;
    let mut output = String::new();
    let mut reads = 0;
    let mut memory_limit = 0;
    let mut codes = Vec::new();
    for (method, request) in &capture.calls {
        let exec = request["exec_id"].as_str().unwrap_or_default();
        match (method.as_str(), exec) {
            ("GetOOMEvent", _) => {
                let shim = shim.clone();
                oom = Some(tokio::spawn(async move { shim.poll("GetOOMEvent", json!({})).await }));
                continue;
            }
            // It stays pending as long as the pod: begun when the pause container was started.
            ("WaitProcess", _) if request["container_id"] == pod => continue,
            // One per tick for 20 seconds: a few show the same.
            ("ReadStdout", "") if reads == 8 => continue,
            ("ReadStdout", "") => reads += 1,
            // The container writes to it once at most.
            ("ReadStderr", "") => continue,
            _ => {}
        }
        let answer = shim.poll(method, request.clone()).await;
        match (method.as_str(), exec) {
            ("SignalProcess", "") if request["signal"] == 9 => {
                assert!(matches!(&answer, Ok(_) | Err(Failure { code: Code::NOT_FOUND, .. })), "{answer:?}");
            }
            ("SignalProcess", exec) if !exec.is_empty() => {
                assert_eq!(answer.unwrap_err().code, Code::NOT_FOUND, "{exec} was reaped");
            }
            ("ExecProcess", _) if request["process"]["Args"] == json!(["/nosuch"]) => {
                // The shim waits for the end of whatever it asked for, refused or not.
                answer.unwrap();
                let ended = shim.poll("WaitProcess", json!({ "container_id": container, "exec_id": exec })).await;
                assert_eq!(ended.unwrap()["status"], 127);
            }
            ("ReadStdout" | "ReadStderr", exec) if !exec.is_empty() => {
                let mut text = match answer {
                    Ok(answer) => String::from_utf8(bytes(&answer["data"])).unwrap(),
                    Err(failure) => panic!("{method} before the wait: {failure:?}"),
                };
                if !text.is_empty() && method == "ReadStdout" {
                    text += &shim.read_all(method, container, exec).await;
                    assert!(text.starts_with("in exec\n") && text.contains("sleep"), "{text}");
                } else if method == "ReadStderr" && !text.is_empty() {
                    assert_eq!(text, "err\n");
                }
            }
            ("ReadStdout", _) => output += &String::from_utf8(bytes(&answer.unwrap()["data"])).unwrap(),
            ("WaitProcess", _) => codes.push(answer.unwrap()["status"].as_i64().unwrap_or(0)),
            ("StatsContainer", _) => {
                let stats = &answer.unwrap()["cgroupStats"];
                let number = |value: &Value| value.as_str().unwrap_or("0").parse::<u64>().unwrap();
                assert!(number(&stats["memoryStats"]["usage"]["usage"]) > 0, "{stats}");
                assert!(number(&stats["cpuStats"]["cpuUsage"]["totalUsage"]) > 0, "{stats}");
                memory_limit = number(&stats["memoryStats"]["usage"]["limit"]);
                assert_eq!(memory_limit, 64 << 20);
            }
            _ => {
                answer.unwrap_or_else(|failure| panic!("{method}: {failure:?}"));
            }
        }
        if method == "UpdateContainer" {
            let stats = shim.call("StatsContainer", json!({ "container_id": container })).await.unwrap();
            assert_eq!(stats["cgroupStats"]["memoryStats"]["usage"]["limit"], "100663296");
        }
        if method == "StartContainer" && request["container_id"] == pod {
            let (shim, pod) = (shim.clone(), pod.to_owned());
            pause = Some(tokio::spawn(async move { shim.poll("WaitProcess", json!({ "container_id": pod })).await }));
        }
    }
    assert!(memory_limit > 0);
    assert_eq!(codes, [5, 0, 0, 0, 137], "the execs, then the container");
    assert_eq!(pause.unwrap().await.unwrap().unwrap()["status"], 137);
    assert!(output.starts_with("hello from container\nuid=0(root) gid=0(root)"), "{output}");
    assert!(output.contains("tick 1\n"), "{output}");
    assert!(!oom.unwrap().is_finished(), "nothing ran out of memory, and the poll stays");
    shim.healthy().await;
    assert_eq!(runc_list(&world.runc_root()), Vec::<String>::new(), "containers the runtime knows");

    world.settle();
    let log = run(world.tclctl(&["log", "verify"])).ok();
    let shown = run(world.tclctl(&["--json", "log", "show"])).ok().stdout;
    for event in ["Pause", "CopyFile", "Exec", "Launch", "Exit", "Policy"] {
        assert!(shown.contains(event), "the log tells of {event}: {shown}\n{log:#?}");
    }
    tokio::time::timeout(Duration::from_secs(20), shim.call("DestroySandbox", json!({}))).await.unwrap().unwrap();
    // The sandbox's own namespaces, storages and resolver went with it, and the agent has nothing left to do.
    world.agent_ended();
    world.nothing_left();
}
