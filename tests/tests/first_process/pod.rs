//! A whole pod in the guest.

use std::path::Path;
use std::time::Duration;

use integration_tests::Tee;
use integration_tests::image::Recipe;
use integration_tests::vm::{Ended, Guest};
use serde_json::{Value, json};

use super::scene::Scene;

/// The pod's ids and image in the capture.
const SANDBOX: &str = "56c9795790e3d752a8f84a78792a457e2f7390309b7fc4de6d8c3c6c9597fb43";
const CONTAINER: &str = "ec9db4434962f378a8e0c91bbc149ceb45326f1e4ce8cdb6d51372692dcede30";
const IMAGE: &str = "localhost/h/bb:1";
/// What the container runs.
const MAIN: &str = "echo hello; cat /proc/self/cgroup; trap 'exit 7' TERM; while :; do sleep 1; done";

/// Requests of the guest's script, as files.
struct Requests {
    calls: Vec<Value>,
    guest: Guest,
}

impl Requests {
    fn of(reference: &str, guest: Guest) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kata/pod.json");
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace(SANDBOX, "pod").replace(CONTAINER, "app").replace(IMAGE, reference);
        Self { calls: serde_json::from_str(&text).unwrap(), guest }
    }

    fn put(mut self, name: &str, request: &Value) -> Self {
        self.guest = self.guest.file(&format!("/requests/{name}"), request.to_string());
        self
    }

    /// The capture's own requests of `method`, as `NAME-0`, `NAME-1`, …
    fn captured(mut self, method: &str, name: &str, edit: impl Fn(&mut Value)) -> Self {
        let calls: Vec<Value> = self.calls.iter().filter(|call| call["method"] == method).cloned().collect();
        for (place, mut call) in calls.into_iter().enumerate() {
            edit(&mut call["req"]);
            self = self.put(&format!("{name}-{place}"), &call["req"]);
        }
        self
    }

    fn exec(self, name: &str, script: &str) -> Self {
        let process = json!({
            "User": { "AdditionalGids": [0] }, "Args": ["/bin/sh", "-c", script],
            "Env": ["PATH=/bin", "HOSTNAME=hkpod"], "Cwd": "/",
        });
        self.put(name, &json!({ "container_id": "app", "exec_id": name, "process": process }))
            .put(&format!("wait-{name}"), &json!({ "container_id": "app", "exec_id": name }))
    }
}

fn parsed(ended: &Ended, section: &str) -> Value {
    let lines = ended.section(section);
    serde_json::from_str(lines[0]).unwrap_or_else(|error| panic!("{section}: {lines:?}: {error}"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

#[test]
fn a_machine_boots_into_the_agent_runs_a_pod_and_switches_itself_off() {
    let scene = Scene::new(Tee::SimulatedSnp);
    let image = scene.world.push(&Recipe::new("true"), "h/bb", "1");
    let process = json!({
        "args": [{ "exact": ["/bin/sh", "-c", MAIN] }], "env": ["PATH=/bin", "HOSTNAME=hkpod"], "mounts": [],
    });
    std::fs::write(scene.world.path("process.json"), process.to_string()).unwrap();
    let _ = scene.world.sign(&image, 1);

    let initdata = scene.initdata();
    let guest = scene.guest(&initdata, &initdata);
    let requests = Requests::of(&scene.world.reference(&image), guest)
        .captured("CreateSandbox", "sandbox", |_| {})
        .captured("CopyFile", "copy", |_| {})
        .captured("CreateContainer", "create", |request| {
            if request["container_id"] == "app" {
                request["OCI"]["Process"]["Args"] = json!(["/bin/sh", "-c", MAIN]);
            }
        })
        .captured("UpdateContainer", "update", |_| {})
        .put("pod", &json!({ "container_id": "pod" }))
        .put("app", &json!({ "container_id": "app" }))
        .put("kill", &json!({ "container_id": "app", "signal": 9 }))
        .exec("first", "echo in exec; echo err >&2; exit 5")
        .exec("hungry", "a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done")
        .exec("lingering", "(trap '' TERM; sleep 1000) & sleep 1000");
    // A serial port is slow, and what it has not sent when the machine is switched off is lost: hence the pause at the end.
    let script = scene.prologue()
        + "group=/sys/fs/cgroup/tcl/app
         limits() { cat $group/memory.max $group/memory.swap.max $group/cpu.max $group/pids.max; }
         echo == health; vm_guest health || exit 1
         echo == first; tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/sys/kernel/hostname; grep -c ' /sys/fs/cgroup cgroup2 ' /proc/1/mounts
         echo == sandbox; kata CreateSandbox /requests/sandbox-0 || exit 1
         echo == create
         kata CopyFile /requests/copy-0 && kata CreateContainer /requests/create-0 && kata StartContainer /requests/pod || exit 1
         for n in 1 2 3; do kata CopyFile /requests/copy-$n || exit 1; done
         kata CreateContainer /requests/create-1 && kata StartContainer /requests/app || exit 1
         kata GetOOMEvent >/oom 2>&1 &
         vm_guest output ReadStdout app >/output &
         echo == exec; kata ExecProcess /requests/first
         vm_guest output ReadStdout app first; vm_guest output ReadStderr app first
         kata WaitProcess /requests/wait-first
         echo == stats; kata StatsContainer /requests/app
         echo == limits; limits
         echo == update; kata UpdateContainer /requests/update-0; limits
         echo == freeze; kata PauseContainer /requests/app; cat $group/cgroup.freeze
         kata ResumeContainer /requests/app; cat $group/cgroup.freeze
         echo == hungry; kata ExecProcess /requests/hungry; kata WaitProcess /requests/wait-hungry
         until_ready '[ -s /oom ]'; cat /oom; grep oom_kill' ' $group/memory.events
         echo == kill; kata ExecProcess /requests/lingering
         until_ready '[ $(wc -l <$group/cgroup.procs) -ge 4 ]' && echo many
         kata SignalProcess /requests/kill; kata WaitProcess /requests/app
         until_ready '[ -z \"$(cat $group/cgroup.procs 2>/dev/null)\" ]'; echo none
         echo == output; cat /output
         echo == remove; kata RemoveContainer /requests/app; kata RemoveContainer /requests/pod
         ls -d /sys/fs/cgroup/tcl/*/ 2>/dev/null; grep -c /run/tcl/ /proc/1/mounts; ps -o stat | grep -c Z
         vm_guest leftovers && echo nothing
         (sleep 5; vm_guest kata DestroySandbox >/dev/null 2>&1) &";
    let ended = requests.guest.processor_time(Duration::from_secs(400)).run(&script);
    let _ = ended.ok();
    assert_eq!(ended.section("health"), ["serving"]);
    assert_eq!(ended.section("first"), ["/usr/bin/guest-agent ", "first", "1"]);
    assert_eq!(ended.section("create"), ["{}"; 8]);
    assert_eq!(ended.section("exec"), ["{}", "in exec", "err", "{\"status\":5}"]);

    let stats = &parsed(&ended, "stats")["cgroupStats"];
    assert!(number(&stats["cpuStats"]["cpuUsage"]["totalUsage"]) > 0, "{stats}");
    let memory = &stats["memoryStats"]["usage"];
    assert!((1..64 << 20).contains(&number(&memory["usage"])), "{stats}");
    assert_eq!(number(&memory["limit"]), 64 << 20);
    assert!((1..100).contains(&number(&stats["pidsStats"]["current"])), "{stats}");

    let limits = ended.section("limits");
    let pids = *limits.last().unwrap();
    // Swap is not asked for when a container is made: a guest has none.
    assert_eq!(limits, ["67108864", "max", "50000 100000", pids]);
    assert!(pids.parse::<u32>().is_ok(), "never without a bound: {pids}");
    assert_eq!(ended.section("update"), ["{}", "100663296", "0", "80000 100000", pids]);
    assert_eq!(ended.section("freeze"), ["{}", "1", "{}", "0"]);
    let oom = "{\"containerId\":\"app\"}";
    assert_eq!(ended.section("hungry"), ["{}", "{\"status\":137}", oom, "oom_kill 1"]);
    assert_eq!(ended.section("kill"), ["{}", "many", "{}", "{\"status\":137}", "none"]);
    assert_eq!(ended.section("output"), ["hello", "0::/tcl/app"]);
    assert_eq!(ended.section("remove"), ["{}", "{}", "0", "0", "nothing"]);
    assert!(ended.console.contains("Power down"), "{}", ended.console);
}
