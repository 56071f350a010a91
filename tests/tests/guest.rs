//! The guest harness itself: a Debian kernel boots, loads modules and runs a script.

use integration_tests::vm::Guest;

#[test]
fn a_guest_runs_a_script_with_its_files_and_modules() {
    let ended = Guest::new()
        .modules(&["loop"])
        .file("/etc/greeting", "warm words\n")
        .run("cat /etc/greeting; echo == loop; ls /dev/loop-control; uname -r; exit 3");
    assert_eq!(ended.status, Some(3), "{}\n{}", ended.output, ended.console);
    assert!(ended.output.starts_with("warm words\n== loop\n/dev/loop-control\n"), "{}", ended.output);
}
