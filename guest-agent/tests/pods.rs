//! Containers of pods in one process: shared namespaces, opened mounts, the pause bundle, requests that come twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::PATIENCE;
use common::scene::{Scene, Wanted, with_agent};
use guest_agent::launch::{Asked, LaunchRequest, NumericUser, Opened, PidNamespace, Place, PodMount, PodSpec, Source};
use protocols::events::Event;
use protocols::golden::ProcessPolicy;
use protocols::image::MountRequest;
use protocols::pause::PauseProcess;
use protocols::reason;

/// Room for more records than the attestor, which is out of reach, ever takes.
fn patient(text: String, _: &Path) -> String {
    text.replace("queue_max = 16", "queue_max = 512")
}

/// Namespaces of a sandbox, kept by mounts that end with it.
struct Sandbox {
    dir: PathBuf,
}

impl Sandbox {
    fn new(scene: &Scene) -> Self {
        let dir = scene.world.path("sandbox");
        std::fs::create_dir(&dir).unwrap();
        for kind in ["ipc", "uts"] {
            std::fs::write(dir.join(kind), "").unwrap();
        }
        let sandbox = Self { dir };
        // A namespace's file cannot be mounted where mounts are passed on.
        let dir = &sandbox.dir;
        sandbox.run(Command::new("mount").args(["--bind", "--make-private"]).args([dir, dir]), "");
        let mut unshare = Command::new("unshare");
        for kind in ["ipc", "uts"] {
            unshare.arg(format!("--{kind}={}", sandbox.path(kind).display()));
        }
        sandbox.run(unshare.args(["hostname", "hkpod"]), "uts");
        sandbox
    }

    /// Runs a command that mounts `name`. The agent of this process may take its status away.
    fn run(&self, command: &mut Command, name: &str) {
        let mut child = command.spawn().expect("util-linux is needed");
        let _ = child.wait();
        let path = self.path(name).display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(mounts.contains(path.trim_end_matches('/')), "{command:?}: {mounts}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn pod(&self) -> PodSpec {
        PodSpec { hostname: "hkpod".to_owned(), ipc: self.path("ipc"), uts: self.path("uts"), ..PodSpec::default() }
    }

    fn request(&self, id: &str, pod: PodSpec) -> LaunchRequest {
        LaunchRequest { place: Place::Pod(Box::new(pod)), ..Scene::request(id) }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for path in [self.path("ipc"), self.path("uts"), self.dir.clone()] {
            let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn opened(path: &Path) -> Opened {
    Opened::new(std::fs::File::open(path).unwrap().into())
}

fn bind(destination: &str, source: &Path) -> PodMount {
    let asked = MountRequest {
        destination: destination.to_owned(),
        kind: "bind".to_owned(),
        source: source.display().to_string(),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
    };
    PodMount { asked, source: opened(source) }
}

#[test]
fn a_pods_container_shares_its_sandbox_and_sees_the_files_that_were_opened() {
    let script = "busybox hostname; echo $HOSTNAME; cat /etc/hosts; cat /data; busybox readlink /proc/self/ns/net";
    let process = ProcessPolicy { mounts: vec!["/data".to_owned()], ..Default::default() };
    with_agent(Wanted { script, process: Some(process), ..Default::default() }, async |scene: Scene| {
        let sandbox = Sandbox::new(&scene);
        let (hosts, data) = (scene.world.path("hosts"), scene.world.path("data"));
        std::fs::write(&hosts, "first hosts\n").unwrap();
        std::fs::write(&data, "first data\n").unwrap();
        let mut pod = sandbox.pod();
        pod.mounts = vec![bind("/etc/hosts", &hosts), bind("/data", &data)];
        pod.user = Some(NumericUser { uid: 0, gid: 0, additional: vec![0] });
        let judged = vec![pod.mounts[1].asked.clone()];
        // What lies there when the container is made is another file.
        for (path, text) in [(&hosts, "second hosts\n"), (&data, "second data\n")] {
            std::fs::rename(path, path.with_extension("moved")).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut request = sandbox.request("app", pod);
        request.process = Asked {
            env: ["PATH=/bin", "BASE=image", "HOSTNAME=hkpod"].map(str::to_owned).to_vec(),
            mounts: judged,
            ..Default::default()
        };
        scene.agent.create(request).await.result.unwrap();
        scene.agent.start("app").await.unwrap();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let expected = format!("hkpod\nhkpod\nfirst hosts\nfirst data\n{}\n", own.display());
        assert_eq!(scene.text("app").await, expected);
        assert_eq!(scene.agent.wait("app").await.unwrap(), 0);
        scene.agent.remove_container("app", PATIENCE).await.unwrap();
        drop(sandbox);
        scene.nothing_left("app");
    });
}

#[test]
fn what_the_signed_policy_does_not_name_is_refused_and_leaves_nothing() {
    with_agent(Wanted { script: "echo ran", edit: Some(patient), ..Default::default() }, async |scene: Scene| {
        let sandbox = Sandbox::new(&scene);
        let data = scene.world.path("data");
        std::fs::write(&data, "").unwrap();
        let mount = bind("/data", &data);
        let asked = |edit: fn(&mut Asked)| {
            let mut asked = Asked::default();
            edit(&mut asked);
            (asked, sandbox.pod())
        };
        let mut mounted = asked(|_| {});
        mounted.0.mounts = vec![mount.asked.clone()];
        mounted.1.mounts = vec![mount.clone()];
        let mut other_user = asked(|_| {});
        other_user.1.user = Some(NumericUser { uid: 1000, gid: 0, additional: vec![] });
        let mut other_group = asked(|_| {});
        other_group.1.user = Some(NumericUser { uid: 0, gid: 0, additional: vec![42] });
        let mut smuggled = asked(|_| {});
        smuggled.1.mounts = vec![mount];
        for (what, code, (process, pod)) in [
            ("arguments", reason::POLICY_PROCESS, asked(|asked| asked.args = vec!["/bin/id".to_owned()])),
            ("a variable", reason::POLICY_PROCESS, asked(|asked| asked.env = vec!["LD_PRELOAD=/x".to_owned()])),
            ("a hostname", reason::POLICY_PROCESS, asked(|asked| asked.env = vec!["HOSTNAME=other".to_owned()])),
            ("a mount", reason::POLICY_PROCESS, mounted),
            ("a user", reason::POLICY_PROCESS, other_user),
            ("a group", reason::POLICY_PROCESS, other_group),
            ("a mount past the judgement", reason::RUNTIME_BUNDLE, smuggled),
        ] {
            let request = LaunchRequest { process, ..sandbox.request("app", pod) };
            let error = scene.agent.create(request).await.result.unwrap_err();
            assert_eq!(error.code(), code, "{what}: {error}");
            assert_eq!(scene.operations().await.last(), Some(&"Failed"), "{what}");
        }
        drop(sandbox);
        scene.nothing_left("app");
    });
}

#[test]
fn a_mount_whose_source_was_removed_since_is_not_replaced_by_another() {
    with_agent(Wanted { script: "cat /etc/hosts", ..Default::default() }, async |scene: Scene| {
        let sandbox = Sandbox::new(&scene);
        let hosts = scene.world.path("hosts");
        std::fs::write(&hosts, "first").unwrap();
        let mut pod = sandbox.pod();
        pod.mounts = vec![bind("/etc/hosts", &hosts)];
        std::fs::remove_file(&hosts).unwrap();
        std::fs::write(&hosts, "second").unwrap();
        let error = scene.agent.create(sandbox.request("app", pod)).await.result.unwrap_err();
        assert_eq!(error.code(), reason::RUNTIME_BUNDLE);
        assert!(error.to_string().contains("/etc/hosts"), "{error}");
        drop(sandbox);
        scene.nothing_left("app");
    });
}

#[test]
fn a_request_that_comes_again_joins_the_launch_that_goes_on() {
    let delay = Duration::from_millis(300);
    with_agent(Wanted { script: "echo once", delay, ..Default::default() }, async |scene: Scene| {
        let sandbox = Sandbox::new(&scene);
        let request = || sandbox.request("app", sandbox.pod());
        let gone = tokio::time::timeout(Duration::from_millis(50), scene.agent.create(request())).await;
        assert!(gone.is_err(), "the first caller's patience ends first");
        let (again, and_again) = tokio::join!(scene.agent.create(request()), scene.agent.create(request()));
        again.result.unwrap();
        and_again.result.unwrap();
        let mut other = request();
        other.terminal = true;
        let error = scene.agent.create(other).await.result.unwrap_err();
        assert_eq!(error.code(), reason::RUNTIME_CONTAINER, "another request for the id");
        scene.agent.create(request()).await.result.unwrap();
        scene.agent.start("app").await.unwrap();
        assert_eq!(scene.agent.create(request()).await.result.unwrap_err().code(), reason::RUNTIME_CONTAINER);
        assert_eq!(scene.text("app").await, "once\n");
        let created = scene.operations().await.iter().filter(|operation| **operation == "Created").count();
        assert_eq!(created, 1);
        scene.agent.remove_container("app", PATIENCE).await.unwrap();
        drop(sandbox);
        scene.nothing_left("app");
    });
}

#[test]
fn a_container_removed_while_it_is_launched_is_given_up() {
    let delay = Duration::from_millis(500);
    with_agent(Wanted { script: "true", delay, ..Default::default() }, async |scene: Scene| {
        let sandbox = Sandbox::new(&scene);
        let create = {
            let (agent, request) = (Arc::clone(&scene.agent), sandbox.request("app", sandbox.pod()));
            tokio::spawn(async move { agent.create(request).await.result })
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.agent.remove_container("app", PATIENCE).await.unwrap();
        assert_eq!(create.await.unwrap().unwrap_err().code(), reason::RUNTIME_CONTAINER);
        drop(sandbox);
        scene.nothing_left("app");
    });
}

/// A pause bundle in the world's folder, and the `[kata]` table that pins it under `digest`.
fn paused(text: String, folder: &Path) -> String {
    let bundle = folder.join("pause");
    std::fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    for dir in ["proc", "dev", "sys"] {
        std::fs::create_dir(bundle.join("rootfs").join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox")).unwrap();
    let config = r#"{"ociVersion":"1.0.2","process":{"args":["/bin/busybox","sleep","600"],"cwd":"/","user":{"uid":65535,"gid":65535}}}"#;
    std::fs::write(bundle.join("config.json"), config).unwrap();
    std::fs::write(folder.join("policy.rego"), "package agent_policy\n").unwrap();
    let digest = pause_digest(&bundle);
    format!(
        "{}[kata]\nlisten = \"unix://{folder}/kata.sock\"\npolicy = \"{folder}/policy.rego\"\nrun_dir = \"{folder}/run\"\n\
         pause_bundle = \"{folder}/pause\"\npause_digest = \"{digest}\"\n",
        patient(text, folder),
        folder = folder.display(),
    )
}

/// What an operator computes over the guest image.
fn pause_digest(bundle: &Path) -> protocols::digest::Sha256Digest {
    let process = PauseProcess::parse(&std::fs::read(bundle.join("config.json")).unwrap()).unwrap();
    process.bundle(image_rs_fork::measure_directory(&bundle.join("rootfs")).unwrap()).unwrap()
}

#[test]
fn the_pause_container_runs_from_the_pinned_bundle_and_lends_its_pid_namespace() {
    let script = "cat /proc/1/comm; echo $$";
    with_agent(Wanted { script, edit: Some(paused), ..Default::default() }, async |scene: Scene| {
        let sandbox = Sandbox::new(&scene);
        let mut pause = sandbox.request("pause", sandbox.pod());
        pause.source = Source::Pause;
        pause.reference = String::new();
        scene.agent.create(pause).await.result.unwrap();
        scene.agent.start("pause").await.unwrap();
        let events = scene.events().await;
        let [
            Event::Init(_),
            Event::Policy(_),
            Event::Pause(recorded),
            Event::Launch(launch),
            Event::Created(_),
            Event::Started(_),
        ] = events.as_slice()
        else {
            panic!("{events:?}");
        };
        assert_eq!(recorded.bundle().unwrap(), pause_digest(&scene.world.path("pause")));
        assert_eq!((launch.image_manifest, launch.uid), (None, 65535));

        let mut pod = sandbox.pod();
        pod.pid = PidNamespace::Of("pause".to_owned());
        scene.agent.create(sandbox.request("app", pod.clone())).await.result.unwrap();
        scene.agent.start("app").await.unwrap();
        let text = scene.text("app").await;
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("busybox"), "the pause container's process is the first of both: {text}");
        assert!(lines.next().is_some_and(|own| own != "1"), "{text}");
        scene.agent.remove_container("app", PATIENCE).await.unwrap();
        scene.agent.remove_container("pause", PATIENCE).await.unwrap();
        let late = scene.agent.create(sandbox.request("late", pod)).await.result.unwrap_err();
        assert_eq!(late.code(), reason::RUNTIME_CONTAINER, "there is no pause container any more");
        drop(sandbox);
        scene.nothing_left("app");
    });
}

#[test]
fn another_pause_bundle_than_the_pinned_one_does_not_run() {
    with_agent(Wanted { script: "true", edit: Some(paused), ..Default::default() }, async |scene: Scene| {
        let sandbox = Sandbox::new(&scene);
        let request = || LaunchRequest { source: Source::Pause, ..sandbox.request("pause", sandbox.pod()) };
        let config = scene.world.path("pause/config.json");
        let own = std::fs::read_to_string(&config).unwrap();
        for (what, edit) in [
            ("other arguments", own.replace("600", "6000")),
            ("another user", own.replace("65535", "0")),
            ("a variable", own.replace(r#""cwd""#, r#""env":["A=b"],"cwd""#)),
        ] {
            std::fs::write(&config, edit).unwrap();
            let error = scene.agent.create(request()).await.result.unwrap_err();
            assert_eq!(error.code(), reason::POLICY_PAUSE, "{what}: {error}");
        }
        std::fs::write(&config, own).unwrap();
        std::fs::write(scene.world.path("pause/rootfs/bin/more"), "").unwrap();
        let error = scene.agent.create(request()).await.result.unwrap_err();
        assert_eq!(error.code(), reason::POLICY_PAUSE, "another file: {error}");
        assert_eq!(scene.operations().await, ["Init", "Policy", "Failed", "Failed", "Failed", "Failed"]);
        drop(sandbox);
        scene.nothing_left("pause");
    });
}
