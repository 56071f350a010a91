//! What does not get on must hold up nothing else: a read the kernel blocks, output nobody may see, a missing command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use integration_tests::World;
use integration_tests::command::tool;
use integration_tests::kata::{self, DEADLINE, Shim};
use rustix::fs::{CWD, Mode};
use serde_json::{Value, json};
use ttrpc::Code;

use super::hostile::running;

fn exec(container: &str, exec: &str, args: &[&str]) -> Value {
    json!({ "container_id": container, "exec_id": exec,
            "process": { "Args": args, "Env": ["PATH=/bin"], "Cwd": "/", "User": {} } })
}

/// The directory of a container's control group that has the memory's numbers.
fn memory_group(world: &World, id: &str) -> PathBuf {
    let state = tool("runc", &["--root", &world.runc_root().display().to_string(), "state", id]).ok().json();
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    let fields = |line: &str| -> Vec<String> { line.splitn(3, ':').map(str::to_owned).collect() };
    let find = |controller: &str| groups.lines().map(fields).find(|fields| fields[1] == controller);
    let (root, fields) = match find("memory") {
        Some(fields) => ("/sys/fs/cgroup/memory", fields),
        None => ("/sys/fs/cgroup", find("").unwrap()),
    };
    Path::new(root).join(fields[2].trim_start_matches('/'))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_cannot_be_read_delay_no_kill() {
    let (world, shim, capture) = running().await;
    let id = capture.container.clone();
    let blocked = world.path("blocked");
    rustix::fs::mkfifoat(CWD, &blocked, Mode::RUSR).unwrap();
    let file = memory_group(&world, &id).join("memory.stat");
    rustix::mount::mount_bind(&blocked, &file).unwrap();
    let mut reads = tokio::task::JoinSet::new();
    // More than the agent has threads for work that blocks.
    for _ in 0..600 {
        let (shim, id) = (shim.clone(), id.clone());
        reads.spawn(async move { shim.poll("StatsContainer", json!({ "container_id": id })).await });
    }
    // Those past the bound are told so; the rest stay.
    let mut refused = 0;
    while let Ok(Some(ended)) = tokio::time::timeout(Duration::from_secs(1), reads.join_next()).await {
        assert_eq!(ended.unwrap().unwrap_err().code, Code::RESOURCE_EXHAUSTED);
        refused += 1;
    }
    let stuck = reads.len();
    assert!(stuck > 0 && refused > 0, "{stuck} reads are stuck, {refused} were refused");

    shim.call("ExecProcess", exec(&id, "e", &["/bin/true"])).await.unwrap();
    assert_eq!(wait(&shim, &id, "e").await, 0);
    shim.call("SignalProcess", json!({ "container_id": id, "signal": 9 })).await.unwrap();
    assert_eq!(wait(&shim, &id, "").await, 137);
    assert_eq!(reads.len(), stuck, "nothing has let them go on");

    // The file lets go: the reads end. The mount went with the container's group, if that is gone already.
    let _ = rustix::mount::unmount(&file, rustix::mount::UnmountFlags::DETACH);
    let writer = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(blocked).map(drop));
    writer.await.unwrap().unwrap();
    while let Some(ended) = reads.join_next().await {
        ended.unwrap().unwrap();
    }
    shim.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_nobody_may_read_does_not_hold_up_its_process() {
    let (_world, shim, capture) = running().await;
    let id = capture.container.as_str();
    let policy = kata::open_policy().replace("ReadStreamRequest := true", "ReadStreamRequest := false");
    shim.call("SetPolicy", json!({ "policy": policy })).await.unwrap();
    // Several times what a pipe holds.
    let script = "head -c 5000000 /dev/zero; echo secret; echo secret >&2; exit 7";
    shim.call("ExecProcess", exec(id, "e", &["/bin/sh", "-c", script])).await.unwrap();
    let ended =
        tokio::join!(wait(&shim, id, "e"), shim.read_all("ReadStdout", id, "e"), shim.read_all("ReadStderr", id, "e"));
    assert_eq!(ended, (7, String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_not_there_ends_at_once_and_leaves_nothing() {
    let (world, shim, capture) = running().await;
    let id = capture.container.as_str();
    let agent = world.agent.as_ref().unwrap().pid();
    let count = |what: &str| std::fs::read_dir(format!("/proc/{agent}/{what}")).unwrap().count();
    let group = memory_group(&world, id).join("cgroup.procs");
    // What the container itself runs comes and goes.
    let strangers = || -> Vec<String> {
        let pids = std::fs::read_to_string(&group).unwrap();
        let name = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        pids.lines().map(name).filter(|name| name.starts_with("runc")).collect()
    };
    // What is made on first use stays: counted after it.
    shim.call("ExecProcess", exec(id, "e", &["/nosuch"])).await.unwrap();
    assert_eq!(wait(&shim, id, "e").await, 127);
    let descriptors = count("fd");
    for (args, status) in [(&["/nosuch"][..], 127), (&["nosuch", "-v"], 127), (&["/bin/nosuch"], 127), (&["/etc"], 126)]
    {
        shim.call("ExecProcess", exec(id, "e", args)).await.unwrap();
        let text = shim.read_all("ReadStderr", id, "e").await;
        assert!(text.starts_with("runtime.exec: "), "{args:?}: {text}");
        assert_eq!(wait(&shim, id, "e").await, status, "{args:?}");
        let gone = shim.poll("WaitProcess", json!({ "container_id": id, "exec_id": "e" })).await.unwrap_err();
        assert_eq!(gone.code, Code::NOT_FOUND, "{args:?}");
    }
    assert_eq!(strangers(), Vec::<String>::new(), "processes of the runtime in the container");
    assert_eq!(count("fd"), descriptors, "descriptors of the agent");
    let bundles = world.path("state");
    let left = tool("find", &[&bundles.display().to_string(), "-name", "x*.json"]).ok().stdout;
    assert_eq!(left, "", "files of the commands");
}

async fn wait(shim: &Shim, container: &str, exec: &str) -> i64 {
    let request = json!({ "container_id": container, "exec_id": exec });
    let answer = tokio::time::timeout(DEADLINE, shim.poll("WaitProcess", request)).await.unwrap().unwrap();
    answer["status"].as_i64().unwrap_or(0)
}
