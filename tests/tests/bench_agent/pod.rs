//! The pod that is measured: the captured one without its limit of processor time, and with any number of containers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration_tests::World;
use integration_tests::command::run;
use integration_tests::image::Recipe;
use integration_tests::kata::{self, DEADLINE, Shim};
use integration_tests::process::{PATIENCE, program};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::figures::Figures;

/// The pod's ids and its image in the capture.
const SANDBOX: &str = "56c9795790e3d752a8f84a78792a457e2f7390309b7fc4de6d8c3c6c9597fb43";
const CONTAINER: &str = "ec9db4434962f378a8e0c91bbc149ceb45326f1e4ce8cdb6d51372692dcede30";
const IMAGE: &str = "localhost/h/bb:1";
/// What every container runs.
const SCRIPT: &str = "while true; do sleep 1; done";

/// A sandbox whose pause container runs.
pub(crate) struct Pod<'w> {
    pub(crate) world: &'w World,
    pub(crate) shim: Shim,
    template: Value,
    run_dir: String,
    next: AtomicU64,
}

impl<'w> Pod<'w> {
    pub(crate) async fn new(world: &'w World, figures: &mut Figures) -> Self {
        let image = world.push(&Recipe::new("true"), "h/bb", "1");
        let policy = json!({
            "args": [{ "exact": ["/bin/sh", "-c", SCRIPT] }],
            "env": ["PATH=/bin", "HOSTNAME=hkpod"],
            "mounts": [],
        });
        std::fs::write(world.path("process.json"), policy.to_string()).unwrap();
        let _ = world.sign(&image, 1);

        let run_dir = kata::run_dir(world).display().to_string();
        let sandbox = format!("pause{}", std::process::id());
        let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kata/pod.json");
        let text = std::fs::read_to_string(capture)
            .unwrap()
            .replace(SANDBOX, &sandbox)
            .replace(IMAGE, &world.reference(&image))
            .replace("/run/kata-containers", &run_dir);
        let calls: Vec<Value> = serde_json::from_str(&text).unwrap();
        let of = |method: &str| calls.iter().filter(|call| call["method"] == method).map(|call| &call["req"]).collect();
        let shim = Shim::connect(&kata::address(world)).await;

        let begun = Instant::now();
        let sandboxes: Vec<&Value> = of("CreateSandbox");
        shim.call("CreateSandbox", sandboxes[0].clone()).await.unwrap();
        figures.median("CreateSandbox", &[begun.elapsed()], None);
        for copy in of("CopyFile") as Vec<&Value> {
            shim.call("CopyFile", copy.clone()).await.unwrap();
        }
        let creates: Vec<&Value> = of("CreateContainer");
        shim.call("CreateContainer", creates[0].clone()).await.unwrap();
        shim.call("StartContainer", json!({ "container_id": sandbox })).await.unwrap();
        let mut template = creates[1].clone();
        template["OCI"]["Process"]["Args"] = json!(["/bin/sh", "-c", SCRIPT]);
        template["OCI"]["Linux"]["Resources"]["CPU"] = json!({});
        assert_eq!(template["container_id"], CONTAINER);
        let pod = Self { world, shim, template, run_dir, next: AtomicU64::new(0) };
        // The image is fetched and the session attested: what follows is of a local image.
        let begun = Instant::now();
        let first = pod.create().await;
        figures.median("CreateContainer, with the pull", &[begun.elapsed()], None);
        pod.remove(&first).await;
        pod
    }

    fn request(&self) -> (String, Vec<u8>) {
        let id = format!("bench{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        let root = format!("{}/{id}/rootfs", self.run_dir);
        let mut request = self.template.clone();
        request["container_id"] = json!(id);
        request["storages"][0]["mount_point"] = json!(root);
        request["OCI"]["Root"]["Path"] = json!(root);
        let payload = kata::encode("CreateContainer", &request);
        (id, payload)
    }

    /// Creates one more container.
    pub(crate) async fn create(&self) -> String {
        self.creating().await.unwrap()
    }

    /// Has one more created, beside others.
    pub(crate) fn creating(&self) -> JoinHandle<String> {
        let (shim, (id, payload)) = (self.shim.clone(), self.request());
        tokio::spawn(async move {
            shim.raw("grpc.AgentService", "CreateContainer", payload, DEADLINE).await.unwrap();
            id
        })
    }

    pub(crate) async fn remove(&self, id: &str) {
        self.shim.call("RemoveContainer", json!({ "container_id": id })).await.unwrap();
    }

    /// Executes a command to its end and says how long that took.
    pub(crate) async fn exec(&self, id: &str, args: &[&str]) -> Duration {
        let exec = format!("e{}", self.next.fetch_add(1, Ordering::Relaxed));
        let wait = kata::encode("WaitProcess", &json!({ "container_id": id, "exec_id": exec }));
        let begun = Instant::now();
        self.start_exec(id, &exec, args).await;
        self.shim.raw("grpc.AgentService", "WaitProcess", wait, Duration::ZERO).await.unwrap();
        begun.elapsed()
    }

    pub(crate) async fn start_exec(&self, id: &str, exec: &str, args: &[&str]) {
        let process = json!({ "Args": args, "Env": ["PATH=/bin"], "Cwd": "/", "User": {} });
        let request = json!({ "container_id": id, "exec_id": exec, "process": process });
        self.shim.call("ExecProcess", request).await.unwrap();
    }

    /// Waits until everything recorded is with the attestor and background work has ended.
    pub(crate) async fn settled(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = run(self.world.tclctl(&["--json", "status"])).ok().json();
            if status["delivered"] == status["records"] {
                break;
            }
            assert!(Instant::now() < deadline, "not delivered: {status}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// The bundle of a container that waits for its start, for the runtime alone.
    pub(crate) fn bundle_like(&self, id: &str) -> Bundle {
        let config = std::fs::read(self.world.path("state/bundles").join(id).join("config.json")).unwrap();
        let bundle = Bundle {
            config: serde_json::from_slice(&config).unwrap(),
            folder: self.world.path("runtime-alone"),
            next: AtomicU64::new(0),
        };
        std::fs::create_dir_all(bundle.folder.join("root")).unwrap();
        bundle
    }
}

/// A bundle to be created by the runtime alone, again and again.
pub(crate) struct Bundle {
    config: Value,
    folder: PathBuf,
    next: AtomicU64,
}

impl Bundle {
    /// A command that creates one more container, with its id.
    fn command(&self) -> (String, Command) {
        let id = format!("alone{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        let mut config = self.config.clone();
        config["linux"]["cgroupsPath"] = json!(format!("/tcl/{id}"));
        let bundle = self.folder.join(&id);
        std::fs::create_dir_all(&bundle).unwrap();
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let mut command = self.runc();
        command.arg("create").arg("--bundle").arg(&bundle).arg("--pid-file").arg(bundle.join("pid")).arg(&id);
        (id, command)
    }

    fn runc(&self) -> Command {
        let mut command = Command::new(program("runc"));
        command.arg("--root").arg(self.folder.join("root"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn delete(&self, id: &str) {
        assert!(self.runc().args(["delete", "--force", id]).status().unwrap().success());
    }

    pub(crate) fn create(&self) -> Duration {
        self.create_many(1)
    }

    /// Creates `count` containers at once and says how long that took.
    pub(crate) fn create_many(&self, count: usize) -> Duration {
        let commands: Vec<_> = (0..count).map(|_| self.command()).collect();
        let begun = Instant::now();
        let children: Vec<_> = commands.into_iter().map(|(id, mut command)| (id, command.spawn().unwrap())).collect();
        let mut ids = Vec::new();
        for (id, mut child) in children {
            assert!(child.wait().unwrap().success());
            ids.push(id);
        }
        let took = begun.elapsed();
        ids.iter().for_each(|id| self.delete(id));
        took
    }
}
