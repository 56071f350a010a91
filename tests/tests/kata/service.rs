//! The service itself: addresses, health, the gate in front of everything.

use std::time::Duration;

use integration_tests::kata::{self, DEADLINE, Shim};
use integration_tests::{Options, World};
use protobuf::Message as _;
use protocols::rpc::kata::health::VersionCheckResponse;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use toml::Value;
use ttrpc::Code;

fn edited(edit: impl FnOnce(&mut toml::Table)) -> World {
    let mut world = kata::world(Options::default());
    world.stop_agent();
    world.edit_agent(|agent| edit(agent["kata"].as_table_mut().unwrap()));
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_needs_no_policy_and_everything_else_does() {
    let mut world = edited(|_| {});
    std::fs::write(world.path("policy.rego"), "package agent_policy\n").unwrap();
    world.reboot();
    world.start_agent();
    let shim = Shim::connect(&kata::address(&world)).await;
    shim.healthy().await;
    let version = shim.raw("grpc.Health", "Version", Vec::new(), DEADLINE).await.unwrap();
    let version = VersionCheckResponse::parse_from_bytes(&version).unwrap();
    assert_eq!(version.grpc_version, "0.0.1");
    assert!(!version.agent_version.is_empty());
    for method in kata::methods() {
        let answer = shim.call(&method, json!({})).await;
        if method == "ReadStdout" || method == "ReadStderr" {
            assert_eq!(answer, Ok(json!({})), "{method}: the end of the stream, not an error");
        } else {
            let failure = answer.unwrap_err();
            assert_eq!(failure.code, Code::PERMISSION_DENIED, "{method}: {failure:?}");
        }
    }
    let failure = shim.raw("grpc.AgentService", "NoSuchMethod", Vec::new(), DEADLINE).await.unwrap_err();
    assert_eq!(failure.code, Code::UNIMPLEMENTED);
    shim.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_place_in_a_confidential_guest_is_not_offered() {
    let world = kata::world(Options::default());
    let shim = Shim::connect(&kata::address(&world)).await;
    for method in ["MemAgentMemcgSet", "MemAgentCompactSet", "ResizeVolume", "AddSwap", "AddSwapPath"] {
        let failure = shim.call(method, json!({})).await.unwrap_err();
        assert_eq!((failure.code, failure.reason()), (Code::UNIMPLEMENTED, "kata.method"), "{method}");
    }
    let details = shim.call("GetGuestDetails", json!({ "mem_block_size": true })).await.unwrap();
    assert!(details["agentDetails"]["version"].is_string(), "{details}");
    assert_eq!(details["agentDetails"]["supportsSeccomp"], json!(null), "the profile is the agent's own");
    let drivers = details["agentDetails"]["storageHandlers"].as_array().unwrap();
    assert_eq!(drivers.last(), Some(&json!("image_guest_pull")), "{details}");
    shim.call("RemoveStaleVirtiofsShareMounts", json!({})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abstract_socket_and_the_preamble_of_hybrid_vsock_are_served_where_they_are_configured() {
    let name = format!("kata-{}", std::process::id());
    let address = format!("unix://@{name}");
    let mut world = edited(|kata| {
        kata.insert("listen".into(), Value::String(address.clone()));
    });
    world.start_agent();
    Shim::connect(&address).await.healthy().await;
    world.stop_agent();

    let mut world = edited(|kata| {
        kata.insert("hybrid_vsock".into(), Value::Boolean(true));
    });
    world.start_agent();
    let socket = world.path("kata.sock");
    let mut hybrid = tokio::net::UnixStream::connect(&socket).await.unwrap();
    hybrid.write_all(b"connect 1024\n").await.unwrap();
    let mut answer = [0; 8];
    hybrid.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"OK 1024\n");
    Shim::connect(&kata::address(&world)).await.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preamble_that_is_not_configured_ends_its_connection() {
    let world = kata::world(Options::default());
    let mut hybrid = tokio::net::UnixStream::connect(world.path("kata.sock")).await.unwrap();
    hybrid.write_all(b"CONNECT 1024\n").await.unwrap();
    let mut answer = Vec::new();
    // Read as a frame's header it announces a gigabyte, which nobody waits for to the end.
    let read = tokio::time::timeout(Duration::from_millis(500), hybrid.read_to_end(&mut answer)).await;
    assert!(read.is_err() || !answer.starts_with(b"OK"), "{answer:?}");
    Shim::connect(&kata::address(&world)).await.healthy().await;
}
