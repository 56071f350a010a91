//! The gate before the service: what the untrusted host reaches, and what it learns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use std::sync::Arc;

use guest_agent::app::App;
use guest_agent::config::Config;
use guest_agent::gate::{Caller, ConfiguredGate};
use guest_agent::service::Gated;
use protocols::rpc::launch as pb;
use protocols::rpc::launch_ttrpc::create_launcher;
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use common::{World, connect, context, failed, launch, named};

/// Serves the host's side of an agent on a unix socket, in place of vsock.
async fn host_side(world: &World, app: &App, allow: &[&str]) -> Server {
    let gate = Arc::new(ConfiguredGate::new(allow.iter().map(|method| (*method).to_owned()).collect()));
    let gated = Gated::new(Arc::clone(app.agent()), gate, Caller::Host);
    let listener = Listener::bind(format!("unix://{}", world.path("host.sock").display())).unwrap();
    let mut server = Server::new().add_listener(listener).register_service(create_launcher(Arc::new(gated)));
    server.start().await.unwrap();
    server
}

#[tokio::test]
async fn the_host_reaches_what_is_named_and_learns_only_codes() {
    let world = World::new();
    let app = App::build(Config::read(&world.path("agent.toml")).unwrap()).await.unwrap();
    let mut server = host_side(&world, &app, &["Launch", "Wait"]).await;
    let host = connect(&world.path("host.sock")).await;

    let response = host.launch(context(), &launch("127.0.0.1:9/app:1", "remote")).await.unwrap();
    let refusal = response.refusal.as_ref().unwrap();
    assert_eq!((refusal.code.as_str(), refusal.source.as_str()), ("image.registry", "guest"));
    for told in [&refusal.subject, &refusal.expected, &refusal.actual, &refusal.check, &refusal.remedy] {
        assert_eq!(told, "");
    }
    let (code, message) = failed(host.wait(context(), &named("nobody")).await);
    assert_eq!((code, message.as_str()), (ttrpc::Code::FAILED_PRECONDITION, "runtime.container"));

    let read = pb::ReadRequest { container_id: "nobody".to_owned(), ..Default::default() };
    let denied = [
        failed(host.read_stdout(context(), &read).await),
        failed(host.read_stderr(context(), &read).await),
        failed(host.write_stdin(context(), &pb::WriteRequest::default()).await),
        failed(host.stop(context(), &pb::StopRequest::default()).await),
        failed(host.remove(context(), &named("nobody")).await),
        failed(host.progress(context(), &pb::ProgressRequest::default()).await),
        failed(host.list(context(), &pb::Empty::default()).await),
        failed(host.event_log(context(), &pb::Empty::default()).await),
        failed(host.evidence(context(), &pb::EvidenceRequest { challenge: vec![1; 32], ..Default::default() }).await),
        failed(host.status(context(), &pb::Empty::default()).await),
    ];
    for (code, message) in denied {
        assert_eq!((code, message.as_str()), (ttrpc::Code::PERMISSION_DENIED, "policy.gate"));
    }
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_host_cannot_mount_the_guests_own_files() {
    let world = World::new();
    let app = App::build(Config::read(&world.path("agent.toml")).unwrap()).await.unwrap();
    let mut server = host_side(&world, &app, &["Launch"]).await;
    let host = connect(&world.path("host.sock")).await;
    let mut request = launch("127.0.0.1:9/app:1", "remote");
    request.mounts = vec![pb::Mount {
        destination: "/data".to_owned(),
        type_: "bind".to_owned(),
        source: "/".to_owned(),
        ..Default::default()
    }];
    assert_eq!(host.launch(context(), &request).await.unwrap().verdict, "policy.gate");
    request.mounts[0].type_ = "tmpfs".to_owned();
    assert_eq!(host.launch(context(), &request).await.unwrap().verdict, "image.registry");
    server.shutdown().await.unwrap();
}
