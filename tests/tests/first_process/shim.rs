//! containerd, the shim of the Kata project and a machine for each pod: one pod, as a user of the container runtime
//! interface has it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use integration_tests::command::{Seen, run};
use integration_tests::image::{Image, Recipe};
use integration_tests::process::{Service, binary, program};
use integration_tests::{Tee, World};
use serde_json::{Value, json};

use super::scene::Scene;

/// An emulated machine boots and pulls in it.
const PATIENCE: Duration = Duration::from_secs(240);
const INITDATA: &str = "io.katacontainers.config.hypervisor.cc_init_data";

struct Host<'w> {
    world: &'w World,
    containerd: Service,
    hypervisor: Service,
}

/// A program of somebody else, by the variable that names it.
fn client(variable: &str) -> PathBuf {
    std::env::var_os(variable).map(PathBuf::from).unwrap_or_else(|| panic!("{variable} names no program"))
}

fn put(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

impl<'w> Host<'w> {
    fn start(world: &'w World, guest: &str) -> Self {
        let folder = world.path("").display().to_string();
        let folder = folder.trim_end_matches('/');
        put(&world.path("hypervisor.toml"), guest);
        let mut command = Command::new(binary("remote-hypervisor"));
        command.args(["--log-level", "debug", "--config"]).arg(world.path("hypervisor.toml"));
        let mut hypervisor = Service::start("remote-hypervisor", &command, &world.path("hypervisor.log"));
        hypervisor.wait_for_socket(&world.path("hypervisor.sock"));

        fs::create_dir(world.path("bin")).unwrap();
        std::os::unix::fs::symlink(client("TCL_KATA_SHIM"), world.path("bin/containerd-shim-kata-v2")).unwrap();
        put(
            &world.path("kata.toml"),
            &format!(
                "[hypervisor.remote]\nhypervisor_socket = \"{folder}/hypervisor.sock\"\ndisable_guest_selinux = true\n\
                 enable_annotations = [\"cc_init_data\"]\n[agent.kata]\ncreate_container_timeout = 180\n[runtime]\n\
                 name = \"virt_container\"\nhypervisor_name = \"remote\"\nagent_name = \"kata\"\n\
                 internetworking_model = \"none\"\ndisable_guest_seccomp = true\nstatic_sandbox_resource_mgmt = true\n\
                 sandbox_cgroup_only = true\nexperimental = [\"force_guest_pull\"]\n"
            ),
        );
        let (registry, cri) = (&world.registry.address, "plugins.\"io.containerd.grpc.v1.cri\"");
        put(
            &world.path("containerd.toml"),
            &format!(
                "version = 2\nroot = \"{folder}/containerd/root\"\nstate = \"{folder}/containerd/state\"\n\
                 [grpc]\naddress = \"{folder}/containerd.sock\"\n\
                 [{cri}]\nsandbox_image = \"{registry}/h/pause:1\"\nrestrict_oom_score_adj = true\n\
                 [{cri}.containerd]\nsnapshotter = \"native\"\ndefault_runtime_name = \"kata\"\n\
                 [{cri}.containerd.runtimes.kata]\nruntime_type = \"io.containerd.kata.v2\"\n\
                 pod_annotations = [\"io.katacontainers.*\"]\n\
                 [{cri}.containerd.runtimes.kata.options]\nConfigPath = \"{folder}/kata.toml\"\n\
                 [{cri}.registry.mirrors.\"{registry}\"]\nendpoint = [\"http://{registry}\"]\n"
            ),
        );
        let mut command = Command::new(program("containerd"));
        command.arg("--config").arg(world.path("containerd.toml"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{folder}/bin:{path}:/usr/sbin:/sbin"));
        let mut containerd = Service::start("containerd", &command, &world.path("containerd.log"));
        containerd.wait_for_socket(&world.path("containerd.sock"));
        Self { world, containerd, hypervisor }
    }

    fn crictl(&self, arguments: &[&str]) -> Seen {
        let endpoint = format!("unix://{}", self.world.path("containerd.sock").display());
        let mut command = Command::new(client("TCL_CRICTL"));
        command.args(["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint, "--timeout", "240s"]);
        command.args(arguments);
        run(command)
    }

    /// What a command prints.
    #[track_caller]
    fn says(&self, arguments: &[&str]) -> String {
        let seen = self.crictl(arguments);
        let logs = || format!("{}\n{}\n{}", self.hypervisor.log(), self.consoles(), self.containerd.log());
        assert_eq!(seen.status, 0, "{arguments:?}: {seen:#?}\n{}", logs());
        seen.stdout.trim().to_owned()
    }

    fn consoles(&self) -> String {
        let guests = fs::read_dir(self.world.path("guests")).into_iter().flatten().flatten();
        guests.map(|guest| fs::read_to_string(guest.path().join("console")).unwrap_or_default()).collect()
    }

    fn file(&self, name: &str, content: &Value) -> String {
        let path = self.world.path(name);
        put(&path, &content.to_string());
        path.display().to_string()
    }

    fn created(&self, pod: (&str, &str), name: &str, image: &Image, command: &[&str]) -> Seen {
        let reference = self.world.reference(image);
        self.says(&["pull", &reference]);
        let request = json!({ "metadata": { "name": name }, "image": { "image": reference }, "command": command,
                              "log_path": format!("{name}.log"), "linux": {} });
        self.crictl(&["create", pod.0, &self.file(&format!("{name}.json"), &request), pod.1])
    }
}

#[track_caller]
fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// As the pod's annotation has it.
fn annotation(text: &str) -> String {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    base64::engine::general_purpose::STANDARD.encode(gzip.finish().unwrap())
}

#[test]
#[ignore = "needs TCL_KATA_SHIM, TCL_CRICTL and TCL_VSOCK, vhost-device-vsock: docs/remote-hypervisor.md"]
fn a_pod_runs_through_containerd_and_the_shim_in_a_machine_of_its_own() {
    let scene = Scene::new(Tee::SimulatedSnp);
    let world = &scene.world;
    let _ = world.push(&Recipe::new("true"), "h/pause", "1");
    let script = "echo from the machine; uname -r; while true; do sleep 1; done";
    let policy = json!({ "args": [{ "exact": ["/bin/sh", "-c", script] }], "env": [], "mounts": [] });
    put(&world.path("process.json"), &policy.to_string());
    let (signed, unsigned) =
        (world.push(&Recipe::new("true"), "h/one", "1"), world.push(&Recipe::new("false"), "h/two", "1"));
    let _ = world.sign(&signed, 1);

    let text = scene.initdata();
    let folder = world.path("image");
    fs::create_dir(&folder).unwrap();
    let guest = scene.guest(&text, &text).modules(&["vsock", "vmw_vsock_virtio_transport"]);
    let guest = guest.small_program(&binary("guest-agent")).command_line("agent.server_addr=vsock://-1:1024");
    let boot = guest.write(&(scene.network() + "wait"), &folder);
    let host = Host::start(
        world,
        &format!(
            "listen = \"{0}/hypervisor.sock\"\nrun_dir = \"{0}/guests\"\nkernel = \"{1}\"\ninitrd = \"{2}\"\n\
             command_line = \"{3}\"\nmemory_mib = 768\nprocessors = 2\nvsock = \"{4}\"\n\
             qemu_arguments = [\"-serial\", \"file:{0}/script.out\"]\n",
            world.path("").display().to_string().trim_end_matches('/'),
            boot.kernel.display(),
            boot.initrd.display(),
            boot.command_line,
            client("TCL_VSOCK").display(),
        ),
    );
    fs::create_dir(world.path("logs")).unwrap();
    let pod = json!({ "metadata": { "name": "p", "namespace": "default", "uid": "u" }, "hostname": "pod",
                      "annotations": { INITDATA: annotation(&text) }, "log_directory": world.path("logs"),
                      "linux": { "security_context": { "namespace_options": { "network": 2 } } } });
    let pod = host.file("pod.json", &pod);
    let id = host.says(&["runp", "--runtime", "kata", &pod]);
    assert_eq!(fs::read_dir(world.path("guests")).unwrap().count(), 1, "a machine for the pod");

    let refused = host.created((&id, &pod), "two", &unsigned, &[]);
    // What is created for the runtime interface is asked of the guest when it is started.
    let refused = host.crictl(&["start", refused.stdout.trim()]);
    assert!(refused.status != 0 && refused.stderr.contains("golden.missing"), "{refused:#?}\n{}", host.consoles());
    let created = host.created((&id, &pod), "one", &signed, &["/bin/sh", "-c", script]);
    assert_eq!(created.status, 0, "{created:#?}\n{}", host.consoles());
    let container = created.stdout.trim();
    host.says(&["start", container]);
    until("its output", || host.crictl(&["logs", container]).stdout.lines().count() == 2);
    let guest_kernel = integration_tests::vm::kernel().version().to_owned();
    assert_eq!(host.says(&["logs", container]), format!("from the machine\n{guest_kernel}"));
    assert_eq!(host.says(&["exec", "--sync", container, "/bin/echo", "hi"]), "hi");
    host.says(&["stop", "--timeout", "5", container]);
    host.says(&["rm", container]);
    host.says(&["stopp", &id]);
    host.says(&["rmp", &id]);
    let left = || fs::read_dir(world.path("guests")).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    until("the machine's end", || left().iter().all(|path| path.extension().is_some_and(|name| name == "console")));
}
