//! The start: what keeps a guest closed is told on its console, and a TPM's guest is taken by its attestor.

use integration_tests::Tee;

use super::scene::Scene;

#[test]
fn a_machine_that_was_launched_with_other_initdata_says_so_and_switches_itself_off() {
    let scene = Scene::new(Tee::SimulatedSnp);
    let text = scene.initdata();
    let ended = scene.guest(&format!("{text}\n"), &text).run("sleep 1000");
    assert_eq!(ended.status, None, "the machine ends before the script: {}", ended.output);
    assert!(ended.console.contains("guest-agent: evidence.initdata: "), "{}", ended.console);
}

#[test]
fn a_guest_with_a_tpm_is_taken_with_its_initdata_and_parameters_count_within_their_bounds() {
    let mut scene = Scene::new(Tee::Tpm);
    let text = scene.initdata();
    let guest = scene.guest_with_tpm("", &text).program(&integration_tests::process::binary("tclctl")).command_line(
        "agent.log=debug agent.server_addr=unix:///run/by-parameter.sock agent.debug_console -- --check-config",
    );
    let script = scene.prologue().replace("/run/kata.sock", "/run/by-parameter.sock")
        + "export TCL_AGENT=unix:///run/tcl/agent.sock
         delivered() { tclctl --json status >/status || return 1; grep -q '\"delivered\": *[1-9]' /status; }
         until_ready delivered; echo == status; cat /status
         echo == log; tclctl --json log show
         kill 1";
    let ended = guest.run(&script);
    let log: serde_json::Value = serde_json::from_str(&ended.section("log").concat()).unwrap();
    let init = &log[0]["content"];
    assert_eq!(init["initdata"], protocols::digest::Sha256Digest::of(text.as_bytes()).to_string());
    assert_eq!((&init["register_kind"], &init["simulated"]), (&"tpm-listed".into(), &false.into()));
    assert!(ended.console.contains(" DEBUG "), "{}", ended.console);
}
