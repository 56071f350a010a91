//! Processes of a running container in one process: a registry in memory, a TPM simulator, the real runc.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::registry::{MemoryRegistry, REFERENCE};
use common::{PATIENCE, World};
use guest_agent::agent::Agent;
use guest_agent::app::App;
use guest_agent::cgroup::Resources;
use guest_agent::config::Config;
use guest_agent::containers::OutputStream;
use guest_agent::error::{AgentError, ProcessFault};
use guest_agent::launch::LaunchRequest;
use guest_agent::processes::{ExecRequest, ExecUser};
use protocols::event_log;
use protocols::events::{Event, Exec, hash_list, hash_str};
use protocols::keys::{KeyKind, SigningKey};
use protocols::reason;

/// One agent at a time: every agent reaps the children of its whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// The container's id.
const ID: &str = "pod";

struct Scene {
    agent: Arc<Agent>,
    world: World,
}

/// Runs a test beside a container that runs `script`.
fn beside<F: Future<Output = ()>>(script: &str, test: impl FnOnce(Scene) -> F) {
    within(PATIENCE * 6, script, test);
}

fn within<F: Future<Output = ()>>(limit: Duration, script: &str, test: impl FnOnce(Scene) -> F) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new();
        let key = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let registry = MemoryRegistry::default();
        registry.image(script);
        registry.sign(&key, 1, None).await;
        // Nobody delivers here: the queue must hold every record of a test.
        world.configure_with(&key.verifying_key(), |text| text.replace("queue_max = 16", "queue_max = 1000"));
        let config = Config::read(&world.path("agent.toml")).unwrap();
        let app = App::with_registry(config, Arc::new(registry)).await.unwrap();
        let scene = Scene { agent: Arc::clone(app.agent()), world };
        let request = LaunchRequest {
            reference: REFERENCE.to_owned(),
            id: ID.to_owned(),
            mode: "local".to_owned(),
            keep: true,
            stdin: true,
            ..Default::default()
        };
        scene.agent.launch(request).await.result.unwrap();
        tokio::time::timeout(limit, test(scene)).await.expect("in time");
    });
}

fn shell(script: &str) -> ExecRequest {
    ExecRequest { args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), ..Default::default() }
}

impl Scene {
    async fn text(&self, exec: &str, stream: OutputStream) -> String {
        let mut text = Vec::new();
        loop {
            let part = self.agent.read_process(ID, exec, stream, 1 << 20).await.unwrap();
            if part.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend(part);
        }
    }

    /// Executes a script to its end: what it wrote, and its status.
    async fn run(&self, exec: &str, request: ExecRequest) -> (String, String, u32) {
        self.agent.exec(ID, exec, request).await.unwrap();
        let (out, err) = tokio::join!(self.text(exec, OutputStream::Stdout), self.text(exec, OutputStream::Stderr));
        (out, err, self.agent.wait_process(ID, exec).await.unwrap())
    }

    async fn fault(&self, exec: &str) -> ProcessFault {
        fault(self.agent.read_process(ID, exec, OutputStream::Stdout, 10).await)
    }

    async fn execs(&self) -> Vec<Exec> {
        let export = self.agent.event_log().await.unwrap();
        let records = event_log::parse(&export.log).unwrap();
        verifier::check_log(&records).unwrap().ends_at(&export.register).unwrap();
        let events = records.iter().enumerate().map(|(place, record)| Event::of(record, place).unwrap());
        events.filter_map(|event| if let Event::Exec(exec) = event { Some(exec) } else { None }).collect()
    }

    async fn end(&self) -> u32 {
        self.agent.signal_process(ID, "", 9).await.unwrap();
        let status = self.agent.wait_process(ID, ID).await.unwrap();
        self.agent.remove(ID).unwrap();
        status
    }
}

fn fault<T: std::fmt::Debug>(result: Result<T, AgentError>) -> ProcessFault {
    match result {
        Err(AgentError::Process { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_process_is_executed_read_waited_for_and_forgotten() {
    beside("sleep 100", async |scene: Scene| {
        let agent = &scene.agent;
        let (out, err, status) = scene.run("one", shell("echo $BASE $$; echo trouble >&2; exit 3")).await;
        assert!(out.starts_with("image ") && !out.contains(" 1\n"), "{out}");
        assert_eq!((err.as_str(), status), ("trouble\n", 3));
        // Its end was told: it is forgotten, and its id is free.
        assert_eq!(scene.fault("one").await, ProcessFault::Unknown);
        assert_eq!(fault(agent.signal_process(ID, "one", 9).await), ProcessFault::Unknown);
        assert_eq!(fault(agent.wait_process(ID, "one").await), ProcessFault::Unknown);
        agent.exec(ID, "one", shell("sleep 100")).await.unwrap();
        assert_eq!(fault(agent.exec(ID, "one", shell("true")).await), ProcessFault::Taken);
        assert_eq!(fault(agent.exec(ID, ID, shell("true")).await), ProcessFault::Taken);
        assert_eq!(fault(agent.exec(ID, "", shell("true")).await), ProcessFault::Taken);
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let agent = Arc::clone(agent);
                tokio::spawn(async move { agent.wait_process(ID, "one").await.unwrap() })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        agent.signal_process(ID, "one", 15).await.unwrap();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 143, "everybody who waited is told");
        }
        assert_eq!(scene.end().await, 137);
        assert!(matches!(agent.exec(ID, "two", shell("true")).await, Err(AgentError::Container { .. })));
    });
}

#[test]
fn what_was_written_is_still_read_after_the_end_and_held_pipes_do_not_hold_the_reader() {
    beside("sleep 100", async |scene: Scene| {
        let agent = &scene.agent;
        agent.exec(ID, "late", shell("echo last words")).await.unwrap();
        let waiter = tokio::spawn({
            let agent = Arc::clone(agent);
            async move { agent.wait_process(ID, "late").await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!waiter.is_finished(), "its end is told when its output was read");
        assert_eq!(agent.read_process(ID, "late", OutputStream::Stdout, 100).await.unwrap(), b"last words\n");
        assert_eq!(waiter.await.unwrap(), 0);
        // A process in the background holds the pipes of one that has ended.
        let begun = Instant::now();
        let (out, _, status) = scene.run("held", shell("sleep 100 & echo left")).await;
        assert_eq!((out.as_str(), status), ("left\n", 0));
        assert!(begun.elapsed() < Duration::from_secs(10));
        // Nobody reads at all.
        agent.exec(ID, "deaf", shell("echo unread")).await.unwrap();
        assert_eq!(agent.wait_process(ID, "deaf").await.unwrap(), 0);
        scene.end().await;
    });
}

#[test]
fn input_ends_where_its_client_says_so() {
    beside("cat; echo end of first; sleep 100", async |scene: Scene| {
        let agent = &scene.agent;
        agent.exec(ID, "cat", shell("cat; echo end")).await.unwrap();
        assert_eq!(agent.write_process(ID, "cat", b"one\n").await.unwrap(), 4);
        assert_eq!(agent.read_process(ID, "cat", OutputStream::Stdout, 100).await.unwrap(), b"one\n");
        assert_eq!(fault(agent.resize(ID, "cat", 10, 20).await), ProcessFault::NoTerminal);
        agent.close_stdin(ID, "cat").await.unwrap();
        assert_eq!(scene.text("cat", OutputStream::Stdout).await, "end\n");
        assert_eq!(agent.wait_process(ID, "cat").await.unwrap(), 0);
        // The same for the first process, by either of its names.
        agent.write_process(ID, ID, b"first\n").await.unwrap();
        assert_eq!(agent.read_process(ID, "", OutputStream::Stdout, 100).await.unwrap(), b"first\n");
        agent.write_process(ID, "", b"").await.unwrap();
        assert_eq!(agent.read_process(ID, ID, OutputStream::Stdout, 100).await.unwrap(), b"end of first\n");
        scene.end().await;
    });
}

#[test]
fn a_terminal_has_a_size() {
    beside("sleep 100", async |scene: Scene| {
        let agent = &scene.agent;
        let request = ExecRequest { terminal: true, ..shell("read line; busybox stty size; echo $TERM") };
        agent.exec(ID, "tty", request).await.unwrap();
        agent.resize(ID, "tty", 33, 77).await.unwrap();
        agent.write_process(ID, "tty", b"go\n").await.unwrap();
        let out = scene.text("tty", OutputStream::Stdout).await;
        assert!(out.contains("33 77\r\n") && out.ends_with("xterm\r\n"), "{out:?}");
        assert_eq!(scene.text("tty", OutputStream::Stderr).await, "");
        assert_eq!(agent.wait_process(ID, "tty").await.unwrap(), 0);
        scene.end().await;
    });
}

#[test]
fn a_command_that_is_not_there_ends_at_once_and_leaves_nothing() {
    beside("sleep 100", async |scene: Scene| {
        let agent = &scene.agent;
        for (command, status) in [("/bin/nonexistent", 127), ("nonexistent", 127), ("/etc", 126)] {
            let request = ExecRequest { args: vec![command.to_owned()], ..Default::default() };
            let ended = tokio::time::timeout(Duration::from_secs(10), scene.run("no", request)).await.unwrap();
            assert_eq!((ended.0.as_str(), ended.2), ("", status), "{command}: {ended:?}");
            assert!(ended.1.starts_with("runtime.exec: "), "{command}: {ended:?}");
            assert_eq!(scene.fault("no").await, ProcessFault::Unknown);
        }
        let left = std::fs::read_dir(scene.world.path("state").join("bundles").join(ID)).unwrap();
        let left: Vec<_> = left
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name.to_str().unwrap().starts_with('x'))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let cwd = ExecRequest { cwd: "/proc/self/fd/7".to_owned(), ..shell("true") };
        assert_eq!(agent.exec(ID, "cwd", cwd).await.unwrap_err().code(), reason::RUNTIME_BUNDLE);
        scene.end().await;
    });
}

#[test]
fn executed_processes_have_no_more_rights_than_the_containers_own() {
    beside("sleep 100", async |scene: Scene| {
        let script = "busybox grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; id -u; id -G";
        let (first, ..) = scene.run("first", shell("busybox grep -E '^(CapEff|CapBnd)' /proc/1/status")).await;
        let (root, ..) = scene.run("root", shell(script)).await;
        assert!(root.starts_with(&first), "{root}{first}");
        assert!(root.contains("NoNewPrivs:\t1") && root.contains("Seccomp:\t2"), "{root}");
        let user = Some(ExecUser { uid: 1000, gid: 1001, additional: vec![2002] });
        let (app, ..) = scene.run("app", ExecRequest { user, ..shell(script) }).await;
        assert!(app.contains("CapEff:\t0000000000000000") && app.ends_with("1000\n1001 2002\n"), "{app}");
        scene.end().await;
    });
}

#[test]
fn a_probe_is_recorded_before_it_runs_and_does_not_fill_the_log() {
    beside("sleep 100", async |scene: Scene| {
        for number in 0..9 {
            scene.run(&format!("probe{number}"), shell("true")).await;
        }
        scene.run("other", shell("echo other")).await;
        let execs = scene.execs().await;
        let args = hash_list(&["/bin/sh", "-c", "true"]);
        let probe: Vec<u64> = execs.iter().filter(|exec| exec.args_h == args).map(|exec| exec.n).collect();
        assert_eq!(probe, [1, 2, 4, 8]);
        assert_eq!(execs.len(), 5);
        assert_eq!((execs[0].cid_h, execs[0].cwd_h, execs[0].uid), (hash_str(ID), hash_str("/"), 0));
        assert_eq!(execs[0].env_h, hash_list(&["PATH=/bin", "BASE=image"]));
        scene.end().await;
        scene.execs().await;
    });
}

#[test]
fn without_a_log_nothing_is_executed() {
    beside("sleep 100", async |scene: Scene| {
        scene.run("before", shell("true")).await;
        // Somebody else extends the register: the log is poisoned with the next record.
        scene.world.extend_from_outside();
        let refused = scene.agent.exec(ID, "new", shell("echo > /tmp/marker")).await.unwrap_err();
        assert!(refused.code().as_str().starts_with("log."), "{refused}");
        let again = scene.agent.exec(ID, "again", shell("true")).await.unwrap_err();
        assert_eq!(again.code(), reason::LOG_POISONED, "not even what was executed before");
        scene.agent.signal_process(ID, "", 9).await.unwrap();
    });
}

#[test]
fn sigterm_to_a_first_process_that_does_not_handle_it_ends_it() {
    beside("sleep 100", async |scene: Scene| {
        scene.agent.signal_process(ID, "", 15).await.unwrap();
        assert_eq!(scene.agent.wait_process(ID, "").await.unwrap(), 137);
        scene.agent.signal_process(ID, "", 15).await.unwrap();
    });
    beside("trap 'echo handled; exit 5' TERM; echo ready; while :; do sleep 0.05; done", async |scene: Scene| {
        assert_eq!(scene.agent.read_process(ID, "", OutputStream::Stdout, 100).await.unwrap(), b"ready\n");
        scene.agent.signal_process(ID, ID, 15).await.unwrap();
        assert_eq!(scene.text("", OutputStream::Stdout).await, "handled\n");
        assert_eq!(scene.agent.wait_process(ID, "").await.unwrap(), 5);
    });
}

#[test]
fn a_paused_container_stands_still_and_can_be_killed() {
    beside("while :; do echo tick; sleep 0.02; done", async |scene: Scene| {
        let agent = &scene.agent;
        agent.pause(ID).await.unwrap();
        let state = std::fs::read_to_string(freezer(ID)).unwrap();
        assert!(["FROZEN", "1"].contains(&state.trim()), "{state}");
        agent.resume(ID).await.unwrap();
        let state = std::fs::read_to_string(freezer(ID)).unwrap();
        assert!(["THAWED", "0"].contains(&state.trim()), "{state}");
        agent.pause(ID).await.unwrap();
        agent.exec(ID, "frozen", shell("true")).await.unwrap_err();
        assert_eq!(scene.end().await, 137);
    });
}

fn freezer(id: &str) -> String {
    let files =
        [format!("/sys/fs/cgroup/freezer/tcl/{id}/freezer.state"), format!("/sys/fs/cgroup/tcl/{id}/cgroup.freeze")];
    files.into_iter().find(|file| std::path::Path::new(file).exists()).unwrap()
}

#[test]
fn what_a_container_uses_is_counted_and_can_be_limited() {
    beside("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo counted; sleep 100", async |scene: Scene| {
        let agent = &scene.agent;
        assert_eq!(agent.read_process(ID, "", OutputStream::Stdout, 100).await.unwrap(), b"counted\n");
        let stats = agent.stats(ID).await.unwrap();
        assert!(stats.cpu.total > 1_000_000, "{stats:?}");
        assert!(stats.memory.usage.now > 0 && !stats.memory.details.is_empty(), "{stats:?}");
        assert!(stats.pids.now >= 1 && stats.pids.limit == 4096, "{stats:?}");
        let resources = Resources { memory_limit: Some(64 << 20), pids: Some(77), ..Default::default() };
        agent.update(ID, resources).await.unwrap();
        let stats = agent.stats(ID).await.unwrap();
        assert_eq!((stats.memory.usage.limit, stats.pids.limit), (64 << 20, 77));
        // What is not said stays.
        agent.update(ID, Resources { cpu_shares: Some(512), ..Default::default() }).await.unwrap();
        let stats = agent.stats(ID).await.unwrap();
        assert_eq!((stats.memory.usage.limit, stats.pids.limit), (64 << 20, 77));
        scene.end().await;
    });
}

#[test]
fn a_container_that_runs_out_of_memory_is_told() {
    beside("sleep 100", async |scene: Scene| {
        let agent = &scene.agent;
        let resources = Resources { memory_limit: Some(16 << 20), memory_swap: Some(16 << 20), ..Default::default() };
        agent.update(ID, resources).await.unwrap();
        let told = tokio::spawn({
            let agent = Arc::clone(agent);
            async move { agent.oom_event().await.unwrap() }
        });
        let (.., status) =
            scene.run("hog", shell("busybox head -c 100000000 /dev/zero | busybox tail >/dev/null")).await;
        assert_ne!(status, 0);
        assert_eq!(tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap(), ID);
        scene.end().await;
    });
}

/// What an agent must not gather: open descriptors, children, mounts, control groups, files of commands, tasks.
fn gathered(scene: &Scene) -> [usize; 6] {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let children: BTreeSet<String> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|children| children.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let state = scene.world.path("state");
    let files =
        count(state.join("bundles").join(ID).to_str().unwrap()) + count(state.join("runtime-logs").to_str().unwrap());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap().lines().count();
    let groups = count(freezer(ID).rsplit_once('/').unwrap().0);
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    [count("/proc/self/fd"), children.len(), mounts, groups, files, tasks]
}

async fn cycles(scene: &Scene, count: u32) {
    scene.run("warm", shell("true")).await;
    let before = gathered(scene);
    for number in 0..count {
        let (out, _, status) = scene.run(&format!("e{number}"), shell("echo out")).await;
        assert_eq!((out.as_str(), status), ("out\n", 0));
    }
    // The last tasks end on their own; a connection that was open before may have been closed.
    let more = |now: [usize; 6]| now.iter().zip(before).any(|(now, before)| *now > before);
    let begun = Instant::now();
    while more(gathered(scene)) && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let after = gathered(scene);
    assert!(!more(after), "{after:?} after {before:?}");
}

#[test]
fn a_hundred_execs_leave_nothing_behind() {
    beside("sleep 1000", async |scene: Scene| {
        cycles(&scene, 100).await;
        scene.end().await;
    });
}

#[test]
#[ignore = "soak: ten thousand execs take minutes"]
fn soak_ten_thousand_execs_leave_nothing_behind() {
    within(Duration::from_secs(7200), "sleep 100000", async |scene: Scene| {
        cycles(&scene, 10_000).await;
        assert!(scene.execs().await.len() < 20);
        scene.end().await;
    });
}
