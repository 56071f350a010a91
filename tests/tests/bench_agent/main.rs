//! What the agent costs, measured from outside: a whole process with a real registry, attestor, runtime and TPM.
//!
//! `cargo xtask bench agent` builds the release binaries and runs this. Nothing is asserted about the figures: they
//! are a machine's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking
#![allow(clippy::cast_precision_loss)] // figures to be read

mod figures;
mod gathered;
mod pod;

use std::path::Path;
use std::time::{Duration, Instant};

use integration_tests::kata::{self, DEADLINE, Shim};
use integration_tests::process::binary;
use integration_tests::{Options, Tee, World};
use protobuf::Message as _;
use protocols::rpc::kata::agent as pb;
use serde_json::json;

use figures::{Bound, Figures, median};
use gathered::Gathered;
use pod::Pod;

/// Containers at once.
const MANY: usize = 8;
/// The state and the images of a production guest lie in its memory: so do they here.
const TMPFS_KIB: u32 = 1024 * 1024;
/// Bytes written to standard output.
const OUTPUT: u64 = 1 << 30;
/// What is executed again and again.
const TRUE: [&str; 1] = ["/bin/true"];
/// Starts of the agent.
const STARTS: usize = 5;

/// What is asked for, in the environment.
struct Settings {
    tee: Tee,
    rounds: usize,
    execs: usize,
    /// Whether the attestor's store lies in memory: then no receipt waits for a disk.
    store_in_memory: bool,
    json: Option<std::path::PathBuf>,
}

impl Settings {
    fn read() -> Self {
        let text = |name: &str| std::env::var(format!("TCL_BENCH_{name}")).ok();
        let number = |name: &str, usual| text(name).map_or(usual, |text| text.parse().unwrap());
        Self {
            tee: match text("TEE").as_deref() {
                None | Some("snp") => Tee::SimulatedSnp,
                Some("tpm") => Tee::Tpm,
                Some(other) => panic!("{other} is neither snp nor tpm"),
            },
            rounds: number("ROUNDS", 15),
            execs: number("EXECS", 1000),
            store_in_memory: text("STORE").is_some_and(|store| store == "memory"),
            json: text("JSON").map(Into::into),
        }
    }

    fn world(&self) -> World {
        let mut options = Options { tee: self.tee, state_kib: TMPFS_KIB, images_kib: TMPFS_KIB, ..Options::default() };
        // As in the documented configuration.
        options.broker = |broker| _ = broker.insert("revocation_seconds".into(), 5.into());
        if self.store_in_memory {
            options.broker = |broker| {
                let path = format!("/dev/shm/tcl-bench-{}.redb", std::process::id());
                broker.insert("store".into(), path.into());
                broker.insert("revocation_seconds".into(), 5.into());
            };
        }
        kata::world(options)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(format!("/dev/shm/tcl-bench-{}.redb", std::process::id()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test: cargo xtask bench agent"]
async fn figures() {
    let settings = Settings::read();
    let mut world = settings.world();
    let mut figures = Figures::default();
    let size = std::fs::metadata(binary("guest-agent")).unwrap().len();
    figures.put("size of the binary", size as f64 / 1e6, "MB", Some(Bound::Most(20.0)));
    figures.put("fsync of a file beside the attestor's store", fsync(&world), "ms", None);

    starts(&mut world, &mut figures);
    tokio::time::sleep(Duration::from_secs(1)).await;
    figures.put("resident, idle", resident(&world), "MB", Some(Bound::Most(10.0)));

    let pod = Pod::new(&world, &mut figures).await;
    let mut checks = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        pod.shim.healthy().await;
        checks.push(begun.elapsed());
    }
    figures.median("Health.Check", &checks, None);
    creates(&pod, &settings, &mut figures).await;
    running(&pod, &settings, &mut figures).await;
    output(&pod, &mut figures).await;
    figures.put("resident, at the end", resident(&world), "MB", Some(Bound::Most(20.0)));

    pod.shim.call("DestroySandbox", json!({})).await.unwrap();
    world.agent_ended();
    println!("{}", figures.table());
    if let Some(path) = &settings.json {
        let machine = json!({
            "tee": format!("{:?}", settings.tee), "rounds": settings.rounds, "execs": settings.execs,
            "store_in_memory": settings.store_in_memory,
        });
        std::fs::write(path, format!("{:#}\n", figures.json(machine))).unwrap();
    }
}

/// Milliseconds for which a durable commit waits at least.
fn fsync(world: &World) -> f64 {
    use std::io::Write as _;
    let path = world.path("fsync");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut times = Vec::new();
    for _ in 0..20 {
        file.write_all(&[7; 512]).unwrap();
        let begun = Instant::now();
        file.sync_all().unwrap();
        times.push(begun.elapsed());
    }
    std::fs::remove_file(path).unwrap();
    median(&times)
}

fn resident(world: &World) -> f64 {
    world.agent.as_ref().unwrap().rss_kib() as f64 / 1024.0
}

/// From exec to an accepted connection, each time with a fresh log.
fn starts(world: &mut World, figures: &mut Figures) {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        world.stop_agent();
        if let Some(tpm) = &mut world.tpm {
            tpm.reboot();
        }
        for name in ["state", "images"] {
            let _ = std::fs::remove_dir_all(world.path(name)); // what is mounted there stays, empty
        }
        let begun = Instant::now();
        world.agent = Some(world.spawn_agent());
        while !listens(&world.path("kata.sock")) || !listens(&world.path("agent.sock")) {
            assert!(begun.elapsed() < DEADLINE, "{}", world.agent_log());
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(begun.elapsed());
    }
    figures.median("exec to listening", &times, Some(Bound::Most(50.0)));
}

fn listens(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// One container after another in turns with the runtime alone, then many at once.
async fn creates(pod: &Pod<'_>, settings: &Settings, figures: &mut Figures) {
    let base = pod.create().await;
    let bundle = pod.bundle_like(&base);
    let (mut alone, mut ours, mut removals) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        alone.push(bundle.create());
        let begun = Instant::now();
        let id = pod.create().await;
        ours.push(begun.elapsed());
        let begun = Instant::now();
        pod.remove(&id).await;
        removals.push(begun.elapsed());
    }
    figures.median("runc create alone", &alone, None);
    figures.median("CreateContainer", &ours, Some(Bound::Most(median(&alone) + 30.0)));
    figures.put("CreateContainer beyond runc create", median(&ours) - median(&alone), "ms", Some(Bound::Most(30.0)));
    figures.median("RemoveContainer", &removals, None);

    let (mut runtimes, mut many) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds.div_ceil(3) {
        runtimes.push(bundle.create_many(MANY));
        let begun = Instant::now();
        let creates: Vec<_> = (0..MANY).map(|_| pod.creating()).collect();
        let mut ids = Vec::new();
        for create in creates {
            ids.push(create.await.unwrap());
        }
        many.push(begun.elapsed());
        for id in ids {
            pod.remove(&id).await;
        }
    }
    figures.median("8 runc creates at once", &runtimes, None);
    figures.put("8 runc creates at once, of one", median(&runtimes) / median(&alone), "times", None);
    figures.median("8 CreateContainers at once", &many, None);
    let ratio = median(&many) / median(&ours);
    figures.put("8 CreateContainers at once, of one", ratio, "times", Some(Bound::Most(3.0)));
    pod.remove(&base).await;
}

/// Many containers that run, and execs in one of them.
async fn running(pod: &Pod<'_>, settings: &Settings, figures: &mut Figures) {
    let (mut ids, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..MANY {
        let id = pod.create().await;
        let begun = Instant::now();
        pod.shim.call("StartContainer", json!({ "container_id": id })).await.unwrap();
        starts.push(begun.elapsed());
        ids.push(id);
    }
    figures.median("StartContainer", &starts, None);
    for _ in 0..10 {
        pod.exec(&ids[0], &TRUE).await;
    }
    pod.settled().await;
    let before = Gathered::of(pod.world);
    let mut execs = Vec::new();
    let mut sizes = Vec::new();
    for _ in 0..2 {
        for _ in 0..settings.execs {
            execs.push(pod.exec(&ids[0], &TRUE).await);
        }
        sizes.push(resident(pod.world));
    }
    figures.median("ExecProcess and WaitProcess of true", &execs, None);
    let mut missing = Vec::new();
    for _ in 0..20 {
        missing.push(pod.exec(&ids[0], &["/bin/missing"]).await);
    }
    figures.median("ExecProcess and WaitProcess of a command that is not there", &missing, Some(Bound::Most(1000.0)));
    let count = settings.execs;
    figures.put(&format!("resident, 8 containers and {count} execs"), sizes[0], "MB", Some(Bound::Most(20.0)));
    figures.put(&format!("resident, {count} execs later"), sizes[1], "MB", None);
    pod.settled().await;
    before.compare(&Gathered::of(pod.world), figures);

    let mut stats = Vec::new();
    for _ in 0..100 {
        let request = kata::encode("StatsContainer", &json!({ "container_id": ids[0] }));
        let begun = Instant::now();
        pod.shim.raw("grpc.AgentService", "StatsContainer", request, DEADLINE).await.unwrap();
        stats.push(begun.elapsed());
    }
    figures.median("StatsContainer", &stats, None);
    for id in ids {
        pod.remove(&id).await;
    }
}

/// What a client that asks for a mebibyte at a time is given in a second.
async fn output(pod: &Pod<'_>, figures: &mut Figures) {
    let id = pod.create().await;
    pod.shim.call("StartContainer", json!({ "container_id": id })).await.unwrap();
    let mut speeds = Vec::new();
    for number in 0..3 {
        let exec = format!("out{number}");
        let count = format!("count={}", OUTPUT >> 20);
        pod.start_exec(&id, &exec, &["/bin/busybox", "dd", "if=/dev/zero", "bs=1048576", &count]).await;
        let begun = Instant::now();
        let total = read_all(&pod.shim, &id, &exec).await;
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!(total, OUTPUT);
        pod.shim.poll("WaitProcess", json!({ "container_id": id, "exec_id": exec })).await.unwrap();
        speeds.push(Duration::from_secs_f64(seconds));
    }
    let speed = OUTPUT as f64 / 1e6 / (median(&speeds) / 1e3);
    figures.put("standard output", speed, "MB/s", Some(Bound::Least(200.0)));
    pod.remove(&id).await;
}

async fn read_all(shim: &Shim, id: &str, exec: &str) -> u64 {
    let request = json!({ "container_id": id, "exec_id": exec, "len": 1 << 20 });
    let request = kata::encode("ReadStdout", &request);
    let mut total = 0;
    loop {
        let answer = shim.raw("grpc.AgentService", "ReadStdout", request.clone(), Duration::ZERO).await.unwrap();
        let answer = pb::ReadStreamResponse::parse_from_bytes(&answer).unwrap();
        if answer.data.is_empty() {
            return total;
        }
        total += answer.data.len() as u64;
    }
}
