//! The driver with the real runc, a root file system of busybox, and no image.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocols::image::{MountRequest, ProcessRequest};

use super::*;
use crate::bundle::{Bundle, Plan};
use crate::io::{MAX_READ, Output};
use crate::launch::Places;

const APPLETS: [&str; 12] = ["sh", "cat", "echo", "sleep", "id", "touch", "stty", "grep", "ls", "head", "true", "kill"];

pub(crate) fn runc() -> PathBuf {
    ["/usr/sbin/runc", "/usr/bin/runc"].iter().map(PathBuf::from).find(|path| path.exists()).expect("runc is needed")
}

/// A runtime with its own state directory and a root file system.
struct World {
    dir: tempfile::TempDir,
    runtime: Runtime,
}

struct Container {
    id: ContainerId,
    // Held: the bundle goes when it is dropped.
    _bundle: Bundle,
    made: Made,
}

impl World {
    fn new() -> Self {
        Self::with(&runc())
    }

    fn with(path: &Path) -> Self {
        // Nobody but this process may wait for the containers' first processes.
        Children::adopt().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n").unwrap();
        std::fs::write(rootfs.join("etc/group"), "app:x:1001:\nextra:x:2002:app\n").unwrap();
        let runtime = Runtime::new(path, dir.path(), Arc::default()).unwrap();
        Self { dir, runtime }
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    async fn create(&self, process: ProcessRequest, terminal: bool) -> Result<Container, AgentError> {
        let id = ContainerId::random().unwrap();
        let rootfs = self.rootfs();
        let plan = Plan { id: &id, process: &process, rootfs: &rootfs, terminal, pod: None };
        let bundle = Bundle::lay_out(&self.dir.path().join("bundles"), &plan)?;
        let made = self.runtime.create(&id, bundle.dir(), terminal, true).await;
        if made.is_err() {
            self.runtime.delete(&id).await.unwrap();
        }
        Ok(Container { made: made?, id, _bundle: bundle })
    }

    async fn start(&self, script: &str) -> Container {
        let container = self.create(process(script), false).await.unwrap();
        self.runtime.start(&container.id).await.unwrap();
        container
    }

    async fn end(&self, container: Container) -> Option<u32> {
        let status = container.made.init.wait(&self.runtime.children).await;
        self.runtime.delete(&container.id).await.unwrap();
        status
    }

    /// Runs a script to its end: what it wrote, and its status.
    async fn output(&self, process: ProcessRequest) -> (String, String, Option<u32>) {
        let container = self.create(process, false).await.unwrap();
        self.runtime.start(&container.id).await.unwrap();
        let streams = &container.made.streams;
        let (out, err) = tokio::join!(all(&streams.stdout), all(&streams.stderr));
        (out, err, self.end(container).await)
    }
}

fn process(script: &str) -> ProcessRequest {
    ProcessRequest {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec!["PATH=/bin".to_owned(), "GREETING=hello world".to_owned()],
        cwd: "/".to_owned(),
        ..Default::default()
    }
}

async fn all(output: &Output) -> String {
    let mut text = Vec::new();
    loop {
        let part = output.read(MAX_READ).await.unwrap();
        if part.is_empty() {
            return String::from_utf8(text).unwrap();
        }
        text.extend_from_slice(&part);
    }
}

#[tokio::test]
async fn nothing_of_the_process_runs_before_start() {
    let world = World::new();
    let container = world.create(process("touch /marker"), false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!world.rootfs().join("marker").exists());
    world.runtime.start(&container.id).await.unwrap();
    assert_eq!(world.end(container).await, Some(0));
    assert!(world.rootfs().join("marker").exists());
}

#[tokio::test]
async fn streams_and_status_are_carried() {
    let world = World::new();
    let (out, err, status) = world.output(process("echo $GREETING; echo trouble >&2; exit 7")).await;
    assert_eq!((out.as_str(), err.as_str(), status), ("hello world\n", "trouble\n", Some(7)));
}

#[tokio::test]
async fn what_is_written_arrives_and_a_closed_input_ends_it() {
    let world = World::new();
    let container = world.start("cat; echo end").await;
    let streams = &container.made.streams;
    streams.stdin.write(b"one\n").await.unwrap();
    assert_eq!(streams.stdout.read(100).await.unwrap(), b"one\n");
    streams.stdin.write(b"").await.unwrap();
    assert_eq!(all(&streams.stdout).await, "end\n");
    assert_eq!(world.end(container).await, Some(0));
}

#[tokio::test]
async fn output_survives_the_container_and_does_not_grow_without_a_reader() {
    let world = World::new();
    let container = world.start("head -c 4000000 /dev/zero; true").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut total = 0;
    loop {
        let part = container.made.streams.stdout.read(MAX_READ).await.unwrap();
        assert!(part.len() <= MAX_READ);
        if part.is_empty() {
            break;
        }
        total += part.len();
    }
    assert_eq!(total, 4_000_000);
    let (out, _, status) = {
        let container = world.start("echo last words").await;
        let Container { made: Made { init, streams, .. }, id, .. } = container;
        let status = init.wait(&world.runtime.children).await;
        world.runtime.delete(&id).await.unwrap();
        (all(&streams.stdout).await, (), status)
    };
    assert_eq!((out.as_str(), status), ("last words\n", Some(0)));
    world.end(container).await;
}

#[tokio::test]
async fn a_signal_is_128_and_its_number() {
    let world = World::new();
    let container = world.start("sleep 100").await;
    world.runtime.kill(&container.id, 9).await.unwrap();
    assert_eq!(world.end(container).await, Some(137));
    let container = world.start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done").await;
    assert_eq!(container.made.streams.stdout.read(100).await.unwrap(), b"ready\n");
    world.runtime.kill(&container.id, 15).await.unwrap();
    assert_eq!(world.end(container).await, Some(3));
}

#[tokio::test]
async fn the_user_is_the_images_and_holds_nothing() {
    let world = World::new();
    let script = "id -u; id -g; id -G; grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status";
    let app = ProcessRequest { user: "app".to_owned(), ..process(script) };
    let (out, err, _) = world.output(app).await;
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("1000"), "{out}{err}");
    assert_eq!(lines.next(), Some("1001"));
    assert_eq!(lines.next(), Some("1001 2002"));
    assert_eq!(lines.next(), Some("CapPrm:\t0000000000000000"));
    assert_eq!(lines.next(), Some("CapEff:\t0000000000000000"));
    assert_eq!(lines.next(), Some("NoNewPrivs:\t1"));
}

#[tokio::test]
async fn the_kernels_files_cannot_be_changed_from_inside() {
    let world = World::new();
    let script = "touch /sys/x 2>&1; echo 1 2>&1 >/proc/sys/kernel/panic; cat /proc/kcore | head -c 1; ls /proc/acpi";
    let (out, err, _) = world.output(process(script)).await;
    assert!(format!("{out}{err}").matches("Read-only file system").count() >= 2, "{out}{err}");
}

#[tokio::test]
async fn namespaces_are_its_own() {
    let world = World::new();
    let (out, err, _) =
        world.output(process("echo $$; cat /proc/sys/kernel/hostname; ls /sys/class/net; ls -d /dev/shm")).await;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.first(), Some(&"1"), "{out}{err}");
    assert_eq!(lines.get(1).map(|name| name.len()), Some(12));
    assert_eq!(lines.get(2..), Some(&["lo", "/dev/shm"][..]), "{out}{err}");
}

#[tokio::test]
async fn a_container_meets_its_limit_of_processes_and_its_seccomp_profile() {
    let world = World::new();
    // Not even with the rights of a new user namespace; `Seccomp: 2` is a filter.
    let script = "grep -E '^Seccomp:' /proc/self/status; for flag in -U -m -n -p; do
        busybox unshare $flag true && echo unshared; done; busybox hostname other && echo named;
        busybox mount -t tmpfs tmpfs /tmp && echo mounted; (echo piped | cat) & wait; echo lived";
    let (out, err, status) = world.output(process(script)).await;
    assert_eq!(out, "Seccomp:\t2\npiped\nlived\n", "{err}");
    assert_eq!((status, err.matches("Operation not permitted").count()), (Some(0), 5), "{err}");
    // The control group of version 1 or 2, whichever the kernel has.
    let script = "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max";
    let (out, err, _) = world.output(process(script)).await;
    assert_eq!(out, "4096\n", "{err}");
}

#[tokio::test]
async fn mounts_that_were_asked_for_are_there() {
    let world = World::new();
    let data = world.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "from the guest").unwrap();
    let mounts = vec![
        MountRequest {
            destination: "/data".to_owned(),
            kind: "bind".to_owned(),
            source: data.display().to_string(),
            options: vec!["ro".to_owned()],
        },
        MountRequest {
            destination: "/scratch".to_owned(),
            kind: "tmpfs".to_owned(),
            source: String::new(),
            options: vec!["size=1m".to_owned()],
        },
    ];
    let script = "cat /data/file; touch /data/x || echo refused; touch /scratch/x && echo scratch";
    let (out, err, _) = world.output(ProcessRequest { mounts, ..process(script) }).await;
    assert_eq!(out, "from the guestrefused\nscratch\n", "{err}");
    assert!(!world.rootfs().join("scratch/x").exists());
}

#[tokio::test]
async fn a_terminal_is_a_terminal() {
    let world = World::new();
    let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal $TERM; cat; echo bye";
    let container = world.create(process(script), true).await.unwrap();
    world.runtime.start(&container.id).await.unwrap();
    let streams = &container.made.streams;
    assert_eq!(streams.stdout.read(100).await.unwrap(), b"terminal xterm\r\n");
    assert_eq!(streams.stderr.read(100).await.unwrap(), b"", "a terminal has one output");
    streams.stdin.write(b"typed\n").await.unwrap();
    streams.stdin.write(b"").await.unwrap();
    let rest = all(&streams.stdout).await;
    assert!(rest.ends_with("bye\r\n"), "{rest:?}");
    assert_eq!(rest.matches("typed").count(), 2, "echoed and answered: {rest:?}");
    assert_eq!(world.end(container).await, Some(0));
}

#[tokio::test]
async fn a_program_that_is_not_there_is_the_runtimes_refusal() {
    let world = World::new();
    let missing = ProcessRequest { args: vec!["/bin/nonexistent".to_owned()], ..process("") };
    match world.create(missing, false).await.map(|c| c.id) {
        Err(error @ AgentError::Runtime { step: RuntimeStep::Create, .. }) => {
            assert_eq!(error.code(), protocols::reason::RUNTIME_CREATE);
            assert!(error.to_string().contains("/bin/nonexistent"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(world.runtime.root()).unwrap().count(), 0, "nothing left");
}

#[tokio::test]
async fn the_digest_is_that_of_the_file_that_runs() {
    let world = World::new();
    assert_eq!(world.runtime.digest().unwrap(), crate::journal::hash_file(&runc()).unwrap());
    let path = world.dir.path().join("late");
    let late = Runtime::new(&path, world.dir.path(), Arc::default()).unwrap();
    assert_eq!(late.digest().unwrap_err().code(), protocols::reason::RUNTIME_UNAVAILABLE);
    std::fs::copy(runc(), &path).unwrap();
    assert_eq!(late.digest().unwrap(), world.runtime.digest().unwrap());
    std::fs::write(&path, "another").unwrap();
    assert_eq!(late.digest().unwrap(), world.runtime.digest().unwrap(), "opened once");
}

#[tokio::test]
async fn any_runtime_binary_can_be_configured() {
    let dir = tempfile::tempdir().unwrap();
    let wrapper = dir.path().join("runtime");
    let seen = dir.path().join("seen");
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", seen.display(), runc().display());
    std::fs::write(&wrapper, script).unwrap();
    let world = World::with(&wrapper);
    let (out, _, status) = world.output(process("echo wrapped")).await;
    assert_eq!((out.as_str(), status), ("wrapped\n", Some(0)));
    let seen = std::fs::read_to_string(seen).unwrap();
    let commands: Vec<&str> = seen.lines().filter_map(|line| line.split(' ').nth(6)).collect();
    assert_eq!(commands, ["create", "start", "delete"], "{seen}");
}

#[tokio::test]
async fn a_killed_agents_containers_are_ended() {
    let world = World::new();
    let created = world.create(process("touch /marker; sleep 100"), false).await.unwrap();
    let started = world.start("sleep 100").await;
    let places = Places::beneath(world.dir.path());
    let ended = crate::restart::end_leftovers(&world.runtime, &places).await.unwrap();
    assert_eq!(ended, [created.id.clone(), started.id.clone()].into());
    assert_eq!(created.made.init.wait(&world.runtime.children).await, Some(137));
    assert_eq!(started.made.init.wait(&world.runtime.children).await, Some(137));
    assert!(!world.rootfs().join("marker").exists());
    assert_eq!(std::fs::read_dir(world.runtime.root()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(&places.bundles).unwrap().count(), 0);
}

#[tokio::test]
async fn a_runtime_command_that_outlived_its_agent_is_killed_first() {
    let world = World::new();
    let root = world.runtime.root().display().to_string();
    let sleeper = |root: &str| {
        std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 100; true", "runtime", "--root", root])
            .spawn()
            .unwrap()
    };
    let (mut ours, mut other) = (sleeper(&root), sleeper(&format!("{root}-of-another")));
    let begun = Instant::now();
    // Reaps the killed child, as the agent's own parent would.
    let reaper = std::thread::spawn(move || ours.wait().unwrap());
    crate::restart::end_leftovers(&world.runtime, &Places::beneath(world.dir.path())).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(!reaper.join().unwrap().success());
    assert!(other.try_wait().unwrap().is_none(), "another agent's command was left alone");
    other.kill().unwrap();
    other.wait().unwrap();
}
