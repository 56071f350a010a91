//! Policies in the dialect that is generated for pods, against the JSON of real messages.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use agent_policy::{CLOSED, Denied, PolicyEngine, PolicyError, Proposed, Why, input};
use protobuf::MessageField;
use protocols::digest::Sha256Digest;
use protocols::reason;
use protocols::rpc::kata::agent::{
    CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest, ReadStreamRequest,
    RemoveContainerRequest, Routes, UpdateRoutesRequest,
};
use protocols::rpc::kata::oci::{Process, Spec};
use protocols::rpc::kata::types::Route;
use serde_json::{Value, json};

const POD: &str = include_str!("data/pod.rego");

fn engine(text: &str) -> PolicyEngine {
    PolicyEngine::new(text).unwrap()
}

/// A policy of these lines.
fn policy(lines: &str) -> PolicyEngine {
    engine(&format!("package agent_policy\nimport future.keywords.if\nimport future.keywords.in\n{lines}\n"))
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn create(id: &str, pod: &str, args: &[&str], env: &[&str]) -> Value {
    let process = Process { Args: strings(args), Env: strings(env), ..Default::default() };
    let annotations = [("io.kubernetes.cri.sandbox-name".to_owned(), pod.to_owned())];
    let spec = Spec { Process: MessageField::some(process), Annotations: annotations.into(), ..Default::default() };
    let request =
        CreateContainerRequest { container_id: id.to_owned(), OCI: MessageField::some(spec), ..Default::default() };
    input::message("CreateContainerRequest", &request).unwrap()
}

fn exec(id: &str, args: &[&str]) -> Value {
    let process = Process { Args: strings(args), ..Default::default() };
    let request =
        ExecProcessRequest { container_id: id.to_owned(), process: MessageField::some(process), ..Default::default() };
    input::message("ExecProcessRequest", &request).unwrap()
}

fn remove(id: &str) -> Value {
    let request = RemoveContainerRequest { container_id: id.to_owned(), ..Default::default() };
    input::message("RemoveContainerRequest", &request).unwrap()
}

const APP: &[&str] = &["/app", "serve"];
const ENV: &[&str] = &["PATH=/bin", "HOSTNAME=pod-1"];

fn why(result: Result<(), Denied>) -> Option<Why> {
    result.err().map(|denied| denied.why().clone())
}

#[test]
fn a_container_is_created_only_as_the_policy_describes_it() {
    let engine = engine(POD);
    let check = |input| why(engine.check("CreateContainerRequest", input));
    assert_eq!(check(create("a", "pod", APP, ENV)), None);
    assert_eq!(check(create("b", "pod", &["/bin/sh"], ENV)), Some(Why::Rule));
    assert_eq!(check(create("b", "pod", APP, &["LD_PRELOAD=/x"])), Some(Why::Rule));
    let mut hooks = create("b", "pod", APP, ENV);
    hooks["OCI"]["Hooks"] = json!({});
    assert_eq!(check(hooks), Some(Why::Rule));
    // The first container named the pod: another name is another pod.
    assert_eq!(check(create("b", "other", APP, ENV)), Some(Why::Rule));
    assert_eq!(check(create("b", "pod", APP, ENV)), None);
}

#[test]
fn an_exec_is_judged_by_what_its_container_was_created_as() {
    let engine = engine(POD);
    let health = &["/bin/health", "--quick"];
    let check = |id: &str, args: &[&str]| engine.check("ExecProcessRequest", exec(id, args)).is_ok();
    assert!(!check("a", health), "no such container");
    engine.check("CreateContainerRequest", create("a", "pod", APP, ENV)).unwrap();
    engine.check("CreateContainerRequest", create("p", "pod", &["/pause"], &["PATH=/bin"])).unwrap();
    assert!(check("a", health));
    assert!(!check("a", &["/bin/sh"]));
    assert!(!check("p", health), "the pause container has no commands");
    engine.check("RemoveContainerRequest", remove("a")).unwrap();
    assert!(!check("a", health), "its entry is gone");
    assert!(matches!(why(engine.check("RemoveContainerRequest", remove("a"))), Some(Why::State(_))), "only once");
}

#[test]
fn a_denied_request_changes_no_state() {
    let text = r#"
        CreateContainerRequest := {"allowed": input.allowed, "ops": [{"op": "add", "path": "/pstate/seen", "value": 1}]}
        default SeenRequest := false
        SeenRequest if { data.pstate.seen == 1 }
    "#;
    let engine = policy(text);
    assert_eq!(why(engine.check("CreateContainerRequest", json!({"allowed": false}))), Some(Why::Rule));
    assert!(engine.check("SeenRequest", json!({})).is_err());
    engine.check("CreateContainerRequest", json!({"allowed": true})).unwrap();
    engine.check("SeenRequest", json!({})).unwrap();
}

#[test]
fn files_routes_and_sandboxes_are_judged_by_their_messages() {
    let engine = engine(POD);
    let copy = |path: &str, mode: u32, data: &[u8]| {
        let request =
            CopyFileRequest { path: path.to_owned(), file_mode: mode, data: data.to_vec(), ..Default::default() };
        engine.check_with("CopyFileRequest", || input::copy_file(&request)).is_ok()
    };
    assert!(copy("/run/kata-containers/shared/containers/x-hosts", 0o100_644, b"127.0.0.1"));
    assert!(!copy("/run/kata-containers/shared/containers/../x", 0o100_644, b""));
    assert!(!copy("/etc/passwd", 0o100_644, b""));
    assert!(copy("/run/kata-containers/shared/containers/x/link", 0o120_777, b"..data/x"));
    assert!(!copy("/run/kata-containers/shared/containers/x/link", 0o120_777, b"/etc/shadow"));
    assert!(!copy("/run/kata-containers/shared/containers/pipe", 0o010_644, b""));

    let route = |device: &str, source: &str| {
        let route = Route { device: device.to_owned(), source: source.to_owned(), ..Default::default() };
        let routes = Routes { Routes: vec![route], ..Default::default() };
        let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
        engine.check("UpdateRoutesRequest", input::message("UpdateRoutesRequest", &request).unwrap()).is_ok()
    };
    assert!(route("eth0", "10.0.0.2"));
    assert!(!route("lo", "10.0.0.2"));
    assert!(!route("eth0", "127.0.0.1"));

    let sandbox = |hooks: &str, pidns: bool| {
        let request =
            CreateSandboxRequest { guest_hook_path: hooks.to_owned(), sandbox_pidns: pidns, ..Default::default() };
        engine.check("CreateSandboxRequest", input::message("CreateSandboxRequest", &request).unwrap()).is_ok()
    };
    assert!(sandbox("", false));
    assert!(!sandbox("/hooks", false));
    assert!(!sandbox("", true));
}

#[test]
fn what_depends_on_nothing_is_answered_without_its_json() {
    let engine = engine(POD);
    let unread = |request: &str| engine.check_with(request, || unreachable!("the input of {request} was made")).is_ok();
    assert!(unread("ReadStreamRequest"));
    assert!(!unread("WriteStreamRequest"));
    assert!(unread("SignalProcessRequest"));
    assert!(!unread("SetPolicyRequest"));
    assert!(!unread("AddARPNeighborsRequest"));
    assert!(!unread("NoSuchRequest"));
}

/// Each of these looks constant and is not: were one taken for it, the answer for another input would be wrong.
#[test]
fn nothing_that_can_read_the_request_or_the_state_is_taken_for_constant() {
    let cases = [
        "R if { input.yes }",
        "R := true if { input.yes }",
        "R := input.yes",
        "default R := false\nR if input.yes",
        "R := true if { input.yes } else := false",
        "R := false if { not input.yes } else := true",
        "helper if { input.yes }\nR if { helper }",
        "helper := [x | x := input.yes]\nR if { helper[0] }",
        "helper := {x: 1 | x := input.yes}\nR if { helper[true] == 1 }",
        "helper := {x | x := input.yes}\nR if { true in helper }",
        "f(x) := input.yes if { x }\nR if { f(true) }",
        "f(x) if { x }\nR if { f(input.yes) }",
        "a := input\nb := a\nR if { b.yes }",
        "R if { some x in [input.yes]; x }",
        "R if { every x in [input.yes] { x } }",
        "R if { object.get(input, \"yes\", false) }",
        "s contains \"yes\" if { input.yes }\nR if { s[\"yes\"] }",
        "o[\"yes\"] := input.yes\nR if { o.yes }",
        "o.yes := input.yes\nR if { o.yes }",
        "h := true if { input.yes }\nR if { h with input as input }",
        "R if { data.agent_policy.h }\nh if { input.yes }",
        "R if { data[\"agent_policy\"].h }\nh if { input.yes }",
        "R if { not no }\nno if { not input.yes }",
        "R if { input[\"yes\"] }",
        "R if { x := input; x.yes }",
        "R if { true == input.yes }",
        "R if { 2 == input.n + 1 }",
        "R := x if { x := {\"allowed\": input.yes} }",
    ];
    for text in cases {
        let text = format!(
            "package agent_policy\nimport future.keywords.if\nimport future.keywords.in\nimport future.keywords.every\nimport future.keywords.contains\n{text}\n"
        );
        let engine = PolicyEngine::new(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(engine.check("R", json!({"yes": true, "n": 1})).is_ok(), "{text}");
        assert!(engine.check("R", json!({"yes": false, "n": 0})).is_err(), "{text}");
        assert!(engine.check("R", json!({"yes": true, "n": 1})).is_ok(), "{text}");
    }
    let imported = "package agent_policy\nimport future.keywords.if\nimport input.yes as y\nR if { y }\n";
    let engine = PolicyEngine::new(imported).unwrap();
    assert!(engine.check("R", json!({"yes": true})).is_ok());
    assert!(engine.check("R", json!({"yes": false})).is_err());
}

#[test]
fn a_rule_that_is_missing_undefined_or_no_answer_denies() {
    let engine = policy(
        r#"
        Undefined if { input.x == 1 }
        Text := "true"
        Null := null
        Empty := {}
        Words := {"allowed": "true"}
        Ops := {"allowed": true, "ops": [{"op": "drop", "path": "/pstate/x"}]}
        Rules := {"allowed": true, "ops": [{"op": "add", "path": "/agent_policy", "value": {}}]}
        Twice := input.a if { true }
        Twice := input.b if { true }
        f(x) := true
    "#,
    );
    let check = |request: &str| why(engine.check(request, json!({"a": true, "b": false}))).unwrap();
    assert_eq!(check("Missing"), Why::Undefined);
    assert_eq!(check("Undefined"), Why::Undefined);
    for request in ["Text", "Null", "Empty", "Words", "Ops"] {
        assert!(matches!(check(request), Why::Value(_)), "{request}: {:?}", check(request));
    }
    assert!(matches!(check("Rules"), Why::State(_)));
    assert!(matches!(check("Twice"), Why::Evaluation(_)));
    assert!(engine.check("f", json!({})).is_err());
    for request in ["", "a.b", "Text\"]", "data", "Request; true", "Undefined\nText"] {
        assert_eq!(check(request), Why::Undefined, "{request}");
    }
}

#[test]
fn a_policy_may_allow_what_it_denies_but_not_what_fails() {
    let text = |value| {
        format!(
            "default AllowRequestsFailingPolicy := {value}\ndefault R := false\nR if {{ input.x == 1 }}\nTwice := input.a\nTwice := input.b\n"
        )
    };
    let open = policy(&text("true"));
    assert!(open.allows_failing());
    open.check("R", json!({})).unwrap();
    open.check("Missing", json!({})).unwrap();
    assert!(open.check("Twice", json!({"a": 1, "b": 2})).is_err());
    let closed = policy(&text("false"));
    assert!(!closed.allows_failing());
    assert!(closed.check("R", json!({})).is_err());
    // A rule that wants an input to say so says nothing.
    assert!(!policy("AllowRequestsFailingPolicy if { input.x == 1 }").allows_failing());
    assert!(policy("AllowRequestsFailingPolicy if { count([1]) == 1 }").allows_failing());
}

#[test]
fn what_is_printed_goes_into_the_denial_and_not_into_its_text() {
    let engine = engine(POD);
    let denied = engine.check("CreateContainerRequest", create("a", "pod", &["/bin/sh"], ENV)).unwrap_err();
    assert!(denied.prints().contains("trying container 1"), "{}", denied.prints());
    assert_eq!(denied.to_string(), "CreateContainerRequest is denied: its rule says no");
    assert!(denied.refusal().actual.contains("trying container"));
    assert_eq!((denied.code(), denied.refusal().code), (reason::POLICY_GATE, reason::POLICY_GATE));
    // Every denial tells of itself alone.
    let next = engine.check("ExecProcessRequest", exec("a", &["/bin/sh"])).unwrap_err();
    assert_eq!(next.prints(), "");
}

#[test]
fn the_host_sets_a_policy_only_where_the_one_in_force_allows_it() {
    let engine = engine(POD);
    assert!(matches!(engine.propose(CLOSED).unwrap_err(), Proposed::Denied(_)));

    let named = Sha256Digest::of(CLOSED.as_bytes());
    let engine = policy("SetPolicyRequest if { startswith(input.policy, \"# The policy of a guest\") }\nR := true");
    let old = engine.digest();
    assert!(matches!(engine.propose(POD).unwrap_err(), Proposed::Denied(_)));
    let proposal = engine.propose(CLOSED).unwrap();
    assert_eq!((proposal.digests().old, proposal.digests().new), (old, named));
    assert_eq!(engine.digest(), old, "nothing changes before it is adopted");
    engine.check("R", json!({})).unwrap();
    engine.adopt(proposal).unwrap();
    assert_eq!(engine.digest(), named);
    assert!(engine.check("R", json!({})).is_err());
    assert!(matches!(engine.propose(CLOSED).unwrap_err(), Proposed::Denied(_)));
}

#[test]
fn two_proposals_under_one_policy_are_not_both_adopted() {
    let engine = policy("SetPolicyRequest := true");
    let (first, second) = (engine.propose(CLOSED).unwrap(), engine.propose(POD).unwrap());
    engine.adopt(first).unwrap();
    assert_eq!(engine.adopt(second).unwrap_err(), PolicyError::Stale);
    assert_eq!(engine.digest(), Sha256Digest::of(CLOSED.as_bytes()));
}

#[test]
fn an_unusable_policy_leaves_the_old_one_and_its_state() {
    let text = r#"
        SetPolicyRequest := true
        CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/seen", "value": 1}]}
        SeenRequest if { data.pstate.seen == 1 }
    "#;
    let engine = policy(text);
    engine.check("CreateContainerRequest", json!({})).unwrap();
    for text in ["", "package agent_policy\nR := ", "package other\nR := true", "package agent_policy\nR if { x }\n"] {
        let Proposed::Invalid(error) = engine.propose(text).unwrap_err() else { panic!("{text} was denied") };
        assert_eq!(error.code(), reason::POLICY_INVALID);
        engine.check("SeenRequest", json!({})).unwrap();
    }
    let long = format!("package agent_policy\n# {}", "x".repeat(agent_policy::MAX_TEXT));
    assert!(matches!(engine.propose(&long).unwrap_err(), Proposed::Invalid(PolicyError::TooLong { .. })));
    // The same text again begins with an empty state.
    let again = format!("package agent_policy\nimport future.keywords.if\n{text}");
    engine.adopt(engine.propose(&again).unwrap()).unwrap();
    assert!(engine.check("SeenRequest", json!({})).is_err());
}

#[test]
fn long_lines_are_taken() {
    let engine = policy(&format!("R if {{ input.x == \"{}\" }}", "x".repeat(200_000)));
    assert!(engine.check("R", json!({"x": "x"})).is_err());
    engine.check("R", json!({"x": "x".repeat(200_000)})).unwrap();
}

#[test]
fn the_closed_policy_lets_nothing_run_or_be_seen() {
    let engine = engine(CLOSED);
    for request in ["GuestDetailsRequest", "GetOOMEventRequest", "DestroySandboxRequest"] {
        engine.check(request, json!({})).unwrap();
    }
    let denied = [
        "CreateSandboxRequest",
        "CreateContainerRequest",
        "StartContainerRequest",
        "ExecProcessRequest",
        "CopyFileRequest",
        "SetPolicyRequest",
        "ReadStreamRequest",
        "WriteStreamRequest",
        "UpdateInterfaceRequest",
        "StatsContainerRequest",
        "GetDiagnosticDataRequest",
        "AllowRequestsFailingPolicy",
    ];
    for request in denied {
        assert_eq!(why(engine.check(request, json!({}))), Some(Why::Undefined), "{request}");
    }
    assert!(!engine.allows_failing());
}

#[test]
fn one_policy_allows_all_and_another_all_but_exec() {
    let requests = ["CreateContainerRequest", "ExecProcessRequest", "ReadStreamRequest", "SetPolicyRequest"];
    let all: String = requests.iter().map(|request| format!("default {request} := true\n")).collect();
    let open = policy(&all);
    let but_exec = policy(&all.replace("ExecProcessRequest := true", "ExecProcessRequest := false"));
    for request in requests {
        open.check(request, json!({})).unwrap();
        assert_eq!(but_exec.check(request, json!({})).is_err(), request == "ExecProcessRequest");
    }
}

#[test]
fn requests_at_the_same_time_are_judged_one_after_the_other() {
    // The first to come takes the only place.
    let engine = policy(
        r#"
        CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/taken", "value": input.id}]} if {
            not data.pstate.taken
        }
    "#,
    );
    let engine = &engine;
    let allowed = std::thread::scope(|scope| {
        let check = |id: u32| scope.spawn(move || engine.check("CreateContainerRequest", json!({"id": id})).is_ok());
        let threads: Vec<_> = (0..8).map(check).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|allowed| *allowed).count()
    });
    assert_eq!(allowed, 1);
}

#[test]
fn a_stream_is_judged_by_the_message_both_directions_share() {
    let engine = policy("ReadStreamRequest if { input.container_id == \"a\" }");
    let read = |id: &str| {
        let request = ReadStreamRequest { container_id: id.to_owned(), ..Default::default() };
        engine.check("ReadStreamRequest", input::message("ReadStreamRequest", &request).unwrap()).is_ok()
    };
    assert!(read("a"));
    assert!(!read("b"));
}

#[test]
fn an_evaluation_without_end_is_broken_off() {
    let engine = policy(
        "R if { some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b + c == 0 }",
    );
    assert!(matches!(why(engine.check("R", json!({}))), Some(Why::Evaluation(_))));
    // And the next one is judged as ever.
    assert_eq!(why(engine.check("Missing", json!({}))), Some(Why::Undefined));
}
