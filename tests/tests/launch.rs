//! Launches that are accepted: both modes, both kinds of evidence, streams, exit statuses, the log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use integration_tests::command::{ADMIN_TOKEN_FILE, finish, run, tclctl};
use integration_tests::image::Recipe;
use integration_tests::process::{binary, program};
use integration_tests::{Action, Options, Tee, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

#[test]
fn a_signed_image_runs_in_both_modes_and_says_so() {
    let world = World::new();
    let image = world.signed("echo out; echo err >&2; exit 7", "app");
    for mode in ["local", "remote"] {
        world.unmark();
        let status_file = world.path("status.json");
        let seen = world.run(&image, &["--mode", mode, "--status-file", &status_file.display().to_string()]);
        assert_eq!((seen.status, seen.stdout.as_str()), (7, "out\n"), "{seen:#?}");
        assert!(seen.stderr.ends_with("err\n"), "{seen:#?}");
        assert!(seen.stderr.contains("SIMULATED"), "a simulated TPM is named as such: {seen:#?}");
        assert!(world.marked());
        let told: serde_json::Value = serde_json::from_slice(&fs::read(&status_file).unwrap()).unwrap();
        assert_eq!((told["producer"].as_str(), told["status"].as_u64()), (Some("workload"), Some(7)), "{told}");
        assert_eq!((told["mode"].as_str(), told["manifest"].as_str()), (Some(mode), Some(image.manifest.as_str())));
    }
    world.nothing_left();
}

/// Launches in both modes on a simulated platform whose log is in a register of this kind.
fn carries_launches_in_both_modes(tee: Tee, register: &str) {
    let world = World::with(Options { tee, ..Options::default() });
    let image = world.signed("echo out", "app");
    for mode in ["local", "remote"] {
        let seen = world.accepts(&image, &["--mode", mode]);
        assert_eq!(seen.stdout, "out\n");
        assert!(seen.stderr.contains("SIMULATED"), "{seen:#?}");
    }
    let verified = run(world.tclctl(&["log", "verify"])).ok();
    assert!(verified.stdout.contains(register) && verified.stdout.contains("SIMULATED"), "{verified:#?}");
    world.nothing_left();
}

#[test]
fn simulated_snp_evidence_carries_launches_in_both_modes() {
    carries_launches_in_both_modes(Tee::SimulatedSnp, "software");
}

#[test]
fn simulated_tdx_evidence_carries_launches_in_both_modes() {
    carries_launches_in_both_modes(Tee::SimulatedTdx, "rtmr");
}

#[test]
fn standard_input_reaches_the_workload_and_its_output_comes_back_whole() {
    let world = World::new();
    let image = world.signed("cat", "cat");
    let input: Vec<u8> = (0..3_000_000u32).map(|n| b"abcdefgh\n"[usize::try_from(n).unwrap() % 9]).collect();
    let seen = world.run_with_input(&image, &["-i"], &input);
    assert_eq!(seen.status, 0, "{}", seen.stderr);
    assert!(seen.stdout.as_bytes() == input, "{} bytes of {} came back", seen.stdout.len(), input.len());
    // Without -i the workload sees the end of its input at once.
    assert_eq!(world.run_with_input(&image, &[], b"nobody reads this").stdout, "");
}

#[test]
fn a_terminal_is_given_only_when_asked_for() {
    let world = World::new();
    let image = world.signed("if [ -t 1 ]; then echo terminal; else echo pipe; fi", "app");
    assert_eq!(world.accepts(&image, &[]).stdout, "pipe\n");
    assert_eq!(world.accepts(&image, &["-t"]).stdout, "terminal\r\n");
}

#[test]
fn progress_is_shown_on_a_terminal_and_only_there() {
    let world = World::with(Options { registry_proxy: true, ..Options::default() });
    let image = world.signed("echo out", "app");
    let pause = Action::meanwhile(|| std::thread::sleep(Duration::from_millis(800)));
    world.registry_proxy.as_ref().unwrap().rule("slow", "GET", &format!("/blobs/{}", image.layers[0]), pause);
    let arguments: Vec<String> =
        world.run_arguments(&image, &[]).iter().map(|argument| format!("'{argument}'")).collect();
    let mut command = std::process::Command::new(program("script"));
    let line = format!("'{}' {}", binary("tclctl").display(), arguments.join(" "));
    command.args(["-qec", &line, "/dev/null"]).env("TCL_AGENT", world.agent_address()).env("TERM", "xterm");
    let seen = run(command).ok();
    assert!(seen.stdout.contains("pulling") && seen.stdout.contains("out\r\n"), "{seen:#?}");
    let seen = world.accepts(&image, &[]);
    assert!(!seen.stderr.contains("pulling") && !seen.stderr.contains('\u{1b}'), "{seen:#?}");
}

#[test]
fn programs_get_json_and_the_same_exit_status() {
    let world = World::new();
    let image = world.push(&Recipe::new("true"), "unsigned", "1");
    let seen = world.run(&image, &["--json"]);
    assert_eq!((seen.status, seen.stdout.as_str()), (77, ""), "{seen:#?}");
    let told: serde_json::Value = serde_json::from_str(seen.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((&told["producer"], &told["status"]), (&json!("refused"), &json!(77)));
    assert_eq!(told["refusal"]["code"], "golden.missing");
    assert!(told["decision"].as_str().is_some_and(|id| !id.is_empty()), "{told}");
    let status = run(world.tclctl(&["--json", "status"])).ok().json();
    assert_eq!(
        (&status["tee"], &status["simulated"], &status["poisoned"]),
        (&json!("tpm"), &json!(true), &json!(false))
    );
    assert_eq!(run(world.tclctl(&["run"])).status, 64);
    assert_eq!(run(world.tclctl(&["explain", "no.code"])).status, 64);
}

#[test]
fn evidence_over_a_challenge_is_never_over_the_callers_own_bytes() {
    let world = World::new();
    let challenge = "00112233445566778899aabbccddeeff";
    let told = run(world.tclctl(&["--json", "evidence", "--challenge", challenge])).ok().json();
    assert_eq!((&told["tee"], &told["simulated"]), (&json!("tpm"), &json!(true)));
    let evidence: protocols::kbs::TpmEvidence = serde_json::from_value(told["evidence"].clone()).unwrap();
    let attest = protocols::tpm::Attest::parse(&evidence.tpm_quote.message).unwrap();
    let bound = [b"tcl-evidence-v1".as_slice(), &hex::decode(challenge).unwrap()].concat();
    let expected = protocols::kbs::tpm_nonce(&protocols::digest::Sha384Digest::of(&bound));
    assert_eq!(attest.extra_data, expected);
    assert_eq!(run(world.tclctl(&["evidence", "--challenge", "00"])).status, 64);
}

#[test]
fn what_the_caller_asks_for_is_what_the_signed_policy_allows() {
    let world = World::new();
    let image = world.push(&Recipe::new("echo unused").env("BASE=image"), "app", "1");
    let policy = world.path("process.json");
    let allowed = r#"{"args":[{"prefix":["/bin/sh","-c"]}],"env":["EXTRA=*"],"user":["worker"],"cwd":["/etc"],"mounts":["/marker"]}"#;
    fs::write(&policy, allowed).unwrap();
    let _ = world.sign(&image, 1);
    let script = "echo $BASE $EXTRA $(id -u):$(id -g) $(pwd)";
    let asked = ["-e", "EXTRA=asked", "-u", "worker", "-w", "/etc", "--", "/bin/sh", "-c", script];
    for mode in ["local", "remote"] {
        let seen = world.run(&image, &[&["--mode", mode], asked.as_slice()].concat());
        assert_eq!((seen.status, seen.stdout.as_str()), (0, "image asked 1000:1000 /etc\n"), "{seen:#?}");
    }
    let seen = world.run(&image, &["-e", "OTHER=1", "--", "/bin/sh", "-c", script]);
    seen.refused(77, "policy.process");
}

#[test]
fn launches_at_the_same_time_do_not_disturb_each_other() {
    let world = World::new();
    let image = world.signed("sleep 1; echo done", "app");
    let started = Instant::now();
    let running: Vec<_> = (0..4)
        .map(|_| {
            let mut command = world.tclctl(&world.run_arguments(&image, &[]));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in running {
        let seen = finish(child, "tclctl run");
        assert_eq!((seen.status, seen.stdout.as_str()), (0, "done\n"), "{seen:#?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "they run side by side: {:?}", started.elapsed());
    world.nothing_left();
    let _ = world.verify_log().ok();
}

#[test]
fn an_interrupt_reaches_the_workload_and_its_status_comes_back() {
    let world = World::new();
    let image = world.signed("trap 'echo caught; exit 5' INT; echo ready; while true; do sleep 0.1; done", "app");
    let mut command = world.tclctl(&world.run_arguments(&image, &["--name", "trapped"]));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !run(world.tclctl(&["list"])).stdout.contains("running") {
        assert!(Instant::now() < deadline, "it never ran:\n{}", world.agent_log());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    kill_process(pid, Signal::INT).unwrap();
    let seen = finish(child, "tclctl run");
    assert_eq!((seen.status, seen.stdout.as_str()), (5, "ready\ncaught\n"), "{seen:#?}");
    world.nothing_left();
}

#[test]
fn stop_ends_a_container_and_list_shows_it_until_then() {
    let world = World::new();
    let image = world.signed("exec sleep 600", "app");
    let mut command = world.tclctl(&world.run_arguments(&image, &["--name", "sleeper"]));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !run(world.tclctl(&["list"])).stdout.contains("running") {
        assert!(Instant::now() < deadline, "it never ran:\n{}", world.agent_log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let listed = run(world.tclctl(&["--json", "list"])).ok().json();
    assert_eq!(listed[0]["container_id"], "sleeper");
    assert_eq!(listed[0]["manifest"], image.manifest);
    // A shell's child ignores nothing: PID 1 does ignore SIGTERM, so the grace period's SIGKILL ends it.
    let _ = run(world.tclctl(&["stop", "sleeper", "--grace", "1"])).ok();
    let seen = finish(child, "tclctl run");
    assert!([137, 143].contains(&seen.status), "{seen:#?}");
    world.nothing_left();
}

#[test]
fn the_log_replays_to_what_tpm2_pcrread_reads() {
    let world = World::new();
    let image = world.signed("true", "app");
    for mode in ["local", "remote", "remote"] {
        let _ = world.accepts(&image, &["--mode", mode]);
    }
    let unsigned = world.push(&Recipe::new("true"), "unsigned", "1");
    let _ = world.refuses(&unsigned, &[], 77, "golden.missing");

    let exported = world.path("guest.log");
    let _ = run(world.tclctl(&["log", "export", &exported.display().to_string()])).ok();
    let pcr = world.tpm.as_ref().unwrap().pcr(14);
    let register = format!("sha256:{pcr}");
    // From the file alone, against a value read by another tool.
    let seen = run(tclctl(&["log", "verify", "--file", &exported.display().to_string(), "--register", &register])).ok();
    assert!(seen.stdout.contains(&format!("replay    {register}")), "{seen:#?}");
    let seen = world.verify_log().ok();
    assert!(seen.stdout.contains(&pcr), "{seen:#?}");

    let shown = run(tclctl(&["--json", "log", "show", "--file", &exported.display().to_string()])).ok().json();
    let operations: Vec<&str> = shown.as_array().unwrap().iter().map(|r| r["operation"].as_str().unwrap()).collect();
    let launch = ["Image", "PullImage", "Golden", "Launch", "Created", "Started", "Exit"];
    let expected: Vec<&str> = ["Init"]
        .into_iter()
        .chain(launch)
        .chain(launch)
        .chain(launch)
        .chain(["Image", "PullImage", "Golden", "Failed"])
        .collect();
    assert_eq!(operations, expected);
    let [.., golden, failed] = shown.as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!(
        (&golden["content"]["verdict"], &failed["content"]["code"]),
        (&json!("golden.missing"), &json!("golden.missing"))
    );
}

#[test]
fn a_clean_shutdown_seals_the_log_and_the_next_agent_launches_nothing() {
    let mut world = World::new();
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &[]);
    world.stop_agent();
    world.start_agent();
    let _ = world.refuses(&image, &[], 77, "log.sealed");
    // A new boot is a new guest.
    world.stop_agent();
    world.reboot();
    world.start_agent();
    let _ = world.accepts(&image, &[]);
    let _ = world.verify_log().ok();
}

#[test]
fn the_attestor_explains_a_recorded_decision_to_its_administrator_alone() {
    let world = World::new();
    let image = world.push(&Recipe::new("true"), "unsigned", "1");
    let id = world.refuses(&image, &["--mode", "remote"], 77, "golden.missing").decision();
    let ask = |token: &str| {
        run(tclctl(&["--json", "explain", &id, "--attestor", &world.attestor_url(), "--admin-token", token]))
    };
    let told = ask(&world.path(ADMIN_TOKEN_FILE).display().to_string()).ok().json();
    assert!(told.to_string().contains("golden.missing") && told.to_string().contains(&image.manifest), "{told}");
    let wrong = world.path("wrong.token");
    fs::write(&wrong, "another token that is long enough to be one").unwrap();
    assert_eq!(ask(&wrong.display().to_string()).status, 77);
}

#[test]
fn local_mode_can_take_golden_values_from_the_attestor() {
    let world =
        World::with(Options { agent: |table| table["local"]["golden_from"] = "kbs".into(), ..Options::default() });
    let image = world.signed("echo out", "app");
    // The registry has it, the attestor not yet: the configuration says which counts.
    let _ = world.refuses(&image, &["--mode", "local"], 77, "golden.missing");
    let (reference, url) = (world.reference(&image), world.attestor_url());
    let publish = |token: &str| {
        let token = world.path(token).display().to_string();
        let arguments = ["golden", "publish", &reference, "--attestor", &url, "--admin-token", &token];
        run(tclctl(&[arguments.as_slice(), &["--plain-http", &world.registry.address]].concat()))
    };
    fs::write(world.path("wrong.token"), "another token that is long enough to be one").unwrap();
    publish("wrong.token").refused(77, "attestor.denied");
    let _ = publish(ADMIN_TOKEN_FILE).ok();
    assert_eq!(world.accepts(&image, &["--mode", "local"]).stdout, "out\n");
}

#[test]
fn a_300_mb_image_is_launched_within_40_mb() {
    let world = World::new();
    // Half of it does not compress, the other half does: both ways of the unpacker carry bytes.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = Vec::with_capacity(150 << 20);
    while random.len() < 150 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        random.extend_from_slice(&state.to_le_bytes());
    }
    let text: Vec<u8> =
        b"the quick brown fox jumps over the lazy dog\n".iter().copied().cycle().take(150 << 20).collect();
    let recipe = Recipe::new("wc -c /random /text").file("random", random).layer("text", text);
    let image = world.push(&recipe, "large", "1");
    let _ = world.sign(&image, 1);
    let before = world.agent.as_ref().unwrap().peak_rss_kib();
    let seen = world.accepts(&image, &[]);
    assert!(seen.stdout.contains("157286400 /random") && seen.stdout.contains("157286400 /text"), "{seen:#?}");
    let peak = world.agent.as_ref().unwrap().peak_rss_kib();
    println!("peak RSS of the agent: {peak} KiB (before the launch {before} KiB)");
    assert!(peak < 40 * 1024, "peak RSS is {peak} KiB (before the launch {before} KiB)");
}
