//! The daemon and its service, from outside: what it refuses, what it says of itself, how it ends and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use std::process::{Command, Stdio};

use protocols::digest::Sha384Digest;
use protocols::event_log;
use protocols::events::Event;
use protocols::kbs::{TpmEvidence, tpm_nonce};
use protocols::rpc::launch as pb;

use common::{World, context, failed, launch, named, until};

fn empty() -> pb::Empty {
    pb::Empty::default()
}

fn operations(log: &[u8]) -> Vec<&'static str> {
    let records = event_log::parse(log).unwrap();
    records.iter().enumerate().map(|(place, record)| Event::of(record, place).unwrap().operation()).collect()
}

#[tokio::test]
async fn a_fresh_agent_says_what_it_is() {
    let mut world = World::new();
    world.start();
    let client = world.client().await;
    let status = client.status(context(), &empty()).await.unwrap();
    assert_eq!((status.environment.as_str(), status.tee.as_str()), ("development", "tpm"));
    assert!(status.simulated && !status.poisoned);
    assert_eq!((status.records, status.delivered), (1, 0));
    assert_eq!(status.guest.len(), 64);
    assert!(client.list(context(), &empty()).await.unwrap().containers.is_empty());

    let log = client.event_log(context(), &empty()).await.unwrap();
    let records = event_log::parse(&log.log).unwrap();
    let state = verifier::check_log(&records).unwrap();
    state.ends_at(&serde_json::from_value(log.register.clone().into()).unwrap()).unwrap();
    let config = std::fs::read(world.path("agent.toml")).unwrap();
    assert_eq!(state.init().config, protocols::digest::Sha256Digest::of(&config), "the configuration is measured");
    assert_eq!((log.kind.as_str(), log.mr, log.simulated), ("tpm-listed", 14, true));
}

#[tokio::test]
async fn refused_launches_are_answers_with_a_code() {
    let mut world = World::new();
    world.start();
    let client = world.client().await;
    let cases = [
        ("no-registry", "local", "image.reference"),
        ("127.0.0.1:9/app:1", "remote", "image.registry"),
        ("registry.invalid/app:1", "local", "image.registry"),
        ("127.0.0.1:9/app:1", "sideways", "policy.mode"),
    ];
    for (reference, mode, code) in cases {
        let response = client.launch(context(), &launch(reference, mode)).await.unwrap();
        assert_eq!(response.verdict, code, "{reference} {mode}");
        let refusal = response.refusal.as_ref().unwrap();
        assert_eq!((refusal.code.as_str(), refusal.source.as_str()), (code, "guest"));
        assert!(!refusal.check.is_empty() && !refusal.remedy.is_empty());
    }
    let bad_id = pb::LaunchRequest { container_id: "../x".to_owned(), ..launch("127.0.0.1:9/app:1", "") };
    let response = client.launch(context(), &bad_id).await.unwrap();
    assert_eq!(response.verdict, "runtime.container");
    // Nothing was measured, so nothing was recorded; and no entry is left.
    assert_eq!(client.status(context(), &empty()).await.unwrap().records, 1);
    assert!(client.list(context(), &empty()).await.unwrap().containers.is_empty());
}

#[tokio::test]
async fn calls_about_unknown_containers_name_the_code_first() {
    let mut world = World::new();
    world.start();
    let client = world.client().await;
    let (code, message) = failed(client.wait(context(), &named("nobody")).await);
    assert_eq!(code, ttrpc::Code::FAILED_PRECONDITION);
    assert!(message.starts_with("runtime.container: "), "{message}");
    let read = pb::ReadRequest { container_id: "nobody".to_owned(), len: 10, ..Default::default() };
    for message in [
        failed(client.read_stdout(context(), &read).await).1,
        failed(client.read_stderr(context(), &read).await).1,
        failed(client.remove(context(), &named("nobody")).await).1,
        failed(client.stop(context(), &pb::StopRequest { container_id: "a/b".to_owned(), ..Default::default() }).await)
            .1,
        failed(client.progress(context(), &pb::ProgressRequest::default()).await).1,
    ] {
        assert!(message.starts_with("runtime.container: "), "{message}");
    }
}

#[tokio::test]
async fn evidence_is_over_the_challenge_and_never_over_the_callers_bytes() {
    let mut world = World::new();
    world.start();
    let client = world.client().await;
    let ask = |challenge: Vec<u8>| pb::EvidenceRequest { challenge, ..Default::default() };
    for size in [0, 15, 65] {
        let (_, message) = failed(client.evidence(context(), &ask(vec![7; size])).await);
        assert!(message.contains("16 to 64"), "{message}");
    }
    let challenge = vec![7u8; 32];
    let answer = client.evidence(context(), &ask(challenge.clone())).await.unwrap();
    assert_eq!((answer.tee.as_str(), answer.simulated), ("tpm", true));
    let evidence: TpmEvidence = serde_json::from_str(&answer.evidence).unwrap();
    let bound = tpm_nonce(&Sha384Digest::of_parts(&[b"tcl-evidence-v1", &challenge]));
    let holds = |needle: &[u8]| evidence.tpm_quote.message.windows(needle.len()).any(|part| part == needle);
    assert!(holds(&bound), "the quote carries the domain-separated digest");
    assert!(!holds(&challenge));
}

#[tokio::test]
async fn nobody_but_root_is_served() {
    let mut world = World::new();
    world.start();
    let socket = world.path("agent.sock");
    // Even where the file's mode let another user in, its credentials do not.
    for path in [world.path(""), socket.clone()] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid", "65534", "--clear-groups", "curl", "-s", "-m", "2", "--unix-socket"]);
    stranger.arg(&socket).arg("http://agent/").stdin(Stdio::null());
    assert!(!stranger.status().unwrap().success());
    until(|| world.log().contains("not root was turned away"));
    // Root is still served.
    world.client().await.status(context(), &empty()).await.unwrap();
}

#[tokio::test]
async fn a_clean_end_seals_the_log_for_good() {
    let mut world = World::new();
    world.start();
    assert!(world.stop().success());
    world.start();
    let client = world.client().await;
    let log = client.event_log(context(), &empty()).await.unwrap();
    assert_eq!(operations(&log.log), ["Init", "Seal", "Restart"]);
    for mode in ["local", "remote"] {
        let response = client.launch(context(), &launch("127.0.0.1:9/app:1", mode)).await.unwrap();
        assert_eq!(response.verdict, "log.sealed");
    }
}

#[tokio::test]
async fn a_killed_agent_goes_on_where_it_was() {
    let mut world = World::new();
    world.start();
    let guest = world.client().await.status(context(), &empty()).await.unwrap().guest;
    world.kill();
    world.start();
    let client = world.client().await;
    let log = client.event_log(context(), &empty()).await.unwrap();
    assert_eq!(operations(&log.log), ["Init", "Restart"]);
    assert_eq!(client.status(context(), &empty()).await.unwrap().guest, guest);
}

#[tokio::test]
async fn a_poisoned_guest_still_tells_its_story() {
    let mut world = World::new();
    world.start();
    world.kill();
    world.extend_from_outside();
    world.start();
    let client = world.client().await;
    assert!(client.status(context(), &empty()).await.unwrap().poisoned);
    let response = client.launch(context(), &launch("127.0.0.1:9/app:1", "local")).await.unwrap();
    assert_eq!(response.verdict, "log.poisoned");
    let log = client.event_log(context(), &empty()).await.unwrap();
    let state = verifier::check_log(&event_log::parse(&log.log).unwrap()).unwrap();
    let register = serde_json::from_value(log.register.clone().into()).unwrap();
    assert_eq!(state.ends_at(&register).unwrap_err().code, protocols::reason::LOG_REPLAY);
    assert!(client.list(context(), &empty()).await.unwrap().containers.is_empty());
}

#[test]
fn a_directory_has_one_agent() {
    let mut world = World::new();
    world.start();
    let second = world.command().output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another agent"), "{second:?}");
    assert!(world.path("agent.sock").exists(), "the first one's socket is left alone");
}

#[test]
fn a_configuration_is_checked_without_starting_anything() {
    let world = World::new();
    let checked = world.command().arg("--check-config").output().unwrap();
    assert!(checked.status.success());
    let config = std::fs::read(world.path("agent.toml")).unwrap();
    let digest = protocols::digest::Sha256Digest::of(&config).to_string();
    assert_eq!(String::from_utf8(checked.stdout).unwrap().trim(), digest);
    assert!(!world.path("state").exists());
    world.configure(|text| text.replace("environment = \"development\"\n", ""));
    let refused = world.command().output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("policy.environment"), "{refused:?}");
    assert!(!world.path("state").exists());
}

#[test]
fn messages_can_be_json() {
    let mut world = World::new();
    world.start();
    world.kill();
    let mut command = world.command();
    command.args(["--log", "json"]).stderr(Stdio::piped());
    let mut agent = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(agent.stderr.take().unwrap()), &mut line).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(entry["level"].is_string() && entry["fields"]["message"].is_string(), "{line}");
}
