//! containerd, the shim of the Kata project and this agent: one pod, as a user of the container runtime interface has it.
//!
//! The guest is this machine: an agent in a mount namespace of its own, so that `/run/kata-containers` is the guest's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use integration_tests::command::{Seen, run, runc_list};
use integration_tests::image::{Image, Recipe};
use integration_tests::kata;
use integration_tests::process::{PATIENCE, Service, binary, program};
use integration_tests::{Options, World};
use serde_json::{Value, json};
use toml::Table;

use super::clients::client;
use super::hypervisor::Hypervisor;

/// What a guest has to itself: its own directory for what the host names in its requests.
const GUEST: &str =
    "mkdir -p /run/kata-containers && mount -t tmpfs tmpfs /run/kata-containers && exec \"$0\" --config \"$1\"";

/// A world, the agent as a guest's, and containerd with the shim.
struct Host {
    world: World,
    hypervisor: Hypervisor,
    containerd: Service,
    crictl: PathBuf,
}

impl Host {
    async fn start() -> Self {
        let mut world = kata::world(Options::default());
        world.stop_agent();
        world.reboot();
        world.edit_agent(|agent| {
            let kata = agent["kata"].as_table_mut().unwrap();
            kata.remove("run_dir");
        });
        let mut guest = Command::new(program("unshare"));
        guest.args(["--mount", "--propagation", "private", "sh", "-c", GUEST]);
        guest.arg(binary("guest-agent")).arg(world.path("agent.toml"));
        let mut agent = Service::start("guest-agent", &guest, &world.path("agent.log"));
        agent.wait_for_socket(&world.path("agent.sock"));
        world.agent = Some(agent);
        let hypervisor = Hypervisor::start(&world.path("hypervisor.sock"), &world.path("kata.sock")).await;
        let containerd = containerd(&world);
        Self { world, hypervisor, containerd, crictl: client("TCL_CRICTL") }
    }

    fn crictl(&self, arguments: &[&str]) -> Seen {
        let endpoint = format!("unix://{}", self.world.path("containerd.sock").display());
        let mut command = Command::new(&self.crictl);
        command.args(["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "--timeout", "60s"]);
        command.args(arguments);
        run(command)
    }

    /// The id that a command prints.
    #[track_caller]
    fn id(&self, arguments: &[&str]) -> String {
        let seen = self.crictl(arguments);
        assert_eq!(seen.status, 0, "{arguments:?}: {seen:#?}\n{}", self.containerd.log());
        seen.stdout.trim().to_owned()
    }

    fn file(&self, name: &str, content: &Value) -> String {
        let path = self.world.path(name);
        fs::write(&path, content.to_string()).unwrap();
        path.display().to_string()
    }

    /// Creates and starts a container of the pod.
    fn container(&self, pod: (&str, &str), name: &str, image: &Image, command: &[&str], mounts: &Value) -> String {
        let reference = self.world.reference(image);
        let _ = self.crictl(&["pull", &reference]).ok();
        let limits =
            json!({ "resources": { "memory_limit_in_bytes": 64 << 20, "cpu_quota": 50000, "cpu_period": 100_000 } });
        let request = json!({ "metadata": { "name": name }, "image": { "image": reference }, "command": command,
                              "mounts": mounts, "log_path": format!("{name}.log"), "linux": limits });
        let id = self.id(&["create", pod.0, &self.file(&format!("{name}.json"), &request), pod.1]);
        self.id(&["start", &id]);
        id
    }
}

fn containerd(world: &World) -> Service {
    let folder = world.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    fs::create_dir(world.path("bin")).unwrap();
    std::os::unix::fs::symlink(client("TCL_KATA_SHIM"), world.path("bin/containerd-shim-kata-v2")).unwrap();
    let shim: Table = format!(
        r#"[hypervisor.remote]
hypervisor_socket = "{folder}/hypervisor.sock"
disable_guest_selinux = true
[agent.kata]
[runtime]
name = "virt_container"
hypervisor_name = "remote"
agent_name = "kata"
internetworking_model = "none"
disable_guest_seccomp = true
static_sandbox_resource_mgmt = true
sandbox_cgroup_only = true
experimental = ["force_guest_pull"]
"#
    )
    .parse()
    .unwrap();
    fs::write(world.path("kata.toml"), shim.to_string()).unwrap();
    let registry = &world.registry.address;
    let config: Table = format!(
        r#"version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{registry}/h/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "kata"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata.options]
ConfigPath = "{folder}/kata.toml"
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."{registry}"]
endpoint = ["http://{registry}"]
"#
    )
    .parse()
    .unwrap();
    fs::write(world.path("containerd.toml"), config.to_string()).unwrap();
    let mut command = Command::new(program("containerd"));
    command.arg("--config").arg(world.path("containerd.toml"));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{folder}/bin:{path}:/usr/sbin:/sbin"));
    let mut containerd = Service::start("containerd", &command, &world.path("containerd.log"));
    containerd.wait_for_socket(&world.path("containerd.sock"));
    containerd
}

/// A volume as Kubernetes lays it out: every version a hidden directory, and a link to the one in force.
struct ConfigMap {
    folder: PathBuf,
}

impl ConfigMap {
    fn new(world: &World) -> Self {
        // The shim watches what has this in its name.
        let folder = world.path("volumes/kubernetes.io~configmap/config");
        fs::create_dir_all(&folder).unwrap();
        let map = Self { folder };
        map.set("first");
        std::os::unix::fs::symlink("..data/key", map.folder.join("key")).unwrap();
        map
    }

    fn set(&self, value: &str) {
        fs::create_dir(self.folder.join(format!("..{value}"))).unwrap();
        fs::write(self.folder.join(format!("..{value}/key")), value).unwrap();
        std::os::unix::fs::symlink(format!("..{value}"), self.folder.join("..new")).unwrap();
        fs::rename(self.folder.join("..new"), self.folder.join("..data")).unwrap();
    }
}

/// An image of the pod, and its golden value.
fn image(world: &World, name: &str, script: &str, policy: &Value) -> Image {
    let image = world.push(&Recipe::new(script), &format!("h/{name}"), "1");
    fs::write(world.path("process.json"), policy.to_string()).unwrap();
    let _ = world.sign(&image, 1);
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the shim and crictl, named by TCL_KATA_SHIM and TCL_CRICTL: docs/kata-clients.md"]
async fn a_pod_of_two_containers_runs_through_containerd_and_the_shim() {
    let host = Host::start().await;
    let world = &host.world;
    let _ = world.push(&Recipe::new("true"), "h/pause", "1");
    let script = "echo from one; i=0; while true; do i=$((i+1)); echo tick $i; sleep 1; done";
    let policy = json!({ "args": [{ "exact": ["/bin/sh", "-c", script] }], "env": [], "mounts": ["/etc/config"] });
    let one = image(world, "one", "true", &policy);
    // The second runs what its image says.
    let two = image(world, "two", "echo from two; exit 3", &json!({ "env": [], "mounts": [] }));
    let network_of_the_node = json!({ "namespace_options": { "network": 2 } });
    let pod = host.file(
        "pod.json",
        &json!({ "metadata": { "name": "p", "namespace": "default", "uid": "u" }, "hostname": "pod",
        "log_directory": world.path("logs"), "linux": { "security_context": network_of_the_node } }),
    );
    fs::create_dir(world.path("logs")).unwrap();
    let id = host.id(&["runp", "--runtime", "kata", &pod]);

    let config = ConfigMap::new(world);
    let mounts = json!([{ "host_path": config.folder, "container_path": "/etc/config", "readonly": true }]);
    let first = host.container((&id, &pod), "one", &one, &["/bin/sh", "-c", script], &mounts);
    let second = host.container((&id, &pod), "two", &two, &[], &json!([]));
    until("the second container's end", || host.crictl(&["inspect", &second]).stdout.contains("CONTAINER_EXITED"));
    let status = host.crictl(&["inspect", &second]).ok().json();
    assert_eq!(status["status"]["exitCode"], 3, "{status}");
    assert_eq!(host.crictl(&["logs", &second]).ok().stdout, "from two\n");
    until("output of the first", || host.crictl(&["logs", &first]).stdout.contains("tick 2\n"));

    let exec = |command: &[&str]| host.crictl(&[&["exec", "--sync", &first][..], command].concat());
    assert_eq!(exec(&["/bin/echo", "hi"]).ok().stdout, "hi\n");
    assert_eq!(exec(&["/bin/sh", "-c", "exit 5"]).status, 5);
    let begun = Instant::now();
    let missing = exec(&["/nosuch"]);
    assert!(missing.status == 127 && missing.stderr.contains("runtime.exec"), "{missing:#?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());

    assert_eq!(exec(&["/bin/cat", "/etc/config/key"]).ok().stdout, "first");
    config.set("second");
    until("the changed file", || exec(&["/bin/cat", "/etc/config/key"]).ok().stdout == "second");

    let stats = host.crictl(&["stats", "--id", &first, "-o", "json"]).ok().json();
    let used = &stats["stats"][0];
    for number in [&used["cpu"]["usageCoreNanoSeconds"]["value"], &used["memory"]["workingSetBytes"]["value"]] {
        assert!(number.as_str().unwrap().parse::<u64>().unwrap() > 0, "{stats}");
    }
    let _ = host.crictl(&["update", "--memory", "100663296", &first]).ok();
    let _ = host.crictl(&["stop", "--timeout", "5", &first]).ok();
    let status = host.crictl(&["inspect", &first]).ok().json();
    assert_eq!(status["status"]["exitCode"], 137, "{status}");
    for container in [&first, &second] {
        let _ = host.crictl(&["rm", container]).ok();
    }
    let _ = host.crictl(&["stopp", &id]).ok();
    let _ = host.crictl(&["rmp", &id]).ok();
    assert_eq!(runc_list(&world.runc_root()), Vec::<String>::new(), "containers the runtime knows");
    let calls = host.hypervisor.calls();
    assert_eq!(calls.first(), Some(&"CreateVM"), "{calls:?}");
    assert_eq!(calls.last(), Some(&"StopVM"), "{calls:?}");
    world.settle();
    let log = run(world.tclctl(&["log", "verify"])).ok();
    assert_eq!(log.status, 0);
}

#[track_caller]
fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}
