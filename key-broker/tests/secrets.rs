//! What is told of requests, by log, spans and counts, and that none of it tells secrets. The log has one subscriber in a
//! process, so this test is alone in its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use key_broker::config::TracesConfig;
use key_broker::trace::exporter;
use protocols::encoding::{b64, b64url};
use support::guest::{Guest, question};
use support::{ADMIN, World, image};
use tokio::net::TcpListener;
use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;

/// Everything that is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A collector that takes every post; gives what was posted.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let posted = Arc::<Mutex<Vec<u8>>>::default();
    let kept = Arc::clone(&posted);
    let taken = axum::Router::new().route(
        "/v1/traces",
        axum::routing::post(async move |body: axum::body::Bytes| kept.lock().unwrap().extend_from_slice(&body)),
    );
    tokio::spawn(key_broker::server::serve(listener, taken, std::future::pending()));
    (endpoint, posted)
}

/// One run of everything with the most talkative log. Names of resources may be told, their bytes not.
#[test]
fn planted_secrets_are_in_no_log_span_or_count() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lines = Lines::default();
    let told = lines.clone();
    runtime.block_on(Box::pin(async move {
        let (endpoint, posted) = collector().await;
        let (spans, exporter) = exporter(&TracesConfig { endpoint }).unwrap();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry()
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(move || writer.clone())
                    .with_ansi(false)
                    .with_filter(Targets::new().with_default(Level::TRACE)),
            )
            .with(spans.with_filter(Targets::new().with_target("key_broker", Level::INFO)));
        tracing::subscriber::set_global_default(subscriber).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let exporting = tokio::spawn(exporter.run(stopped));

        let world = World::new().await;
        world.push_golden(&image(), 1).await;
        let secret = b"the planted bytes of a resource";
        let admin = format!("Bearer {ADMIN}");
        let path = "/kbs/v0/resource/default/key/planted";
        assert_eq!(world.raw("POST", path, &[("authorization", &admin)], secret.to_vec()).await.0, 200);
        let mut guest = Guest::boot(&world.tpm, 1);
        guest.push_image(0, &image());
        let session = guest.attest(&world.client()).await.unwrap();
        guest.deliver(&session).await.unwrap();
        let session = guest.attest(&world.client()).await.unwrap();
        guest.ask(&session, &question(0, &image())).await.unwrap();
        assert_eq!(session.resource("default/key/planted").await.unwrap().as_slice(), secret);
        world
            .raw("GET", "/tcl/v1/verdicts/x", &[("authorization", "Bearer the-planted-token-of-a-stranger")], vec![])
            .await;
        world.raw("GET", path, &[("authorization", "Bearer the-planted-token-of-a-stranger")], vec![]).await;
        world.raw("POST", "/kbs/v0/auth", &[], b"the planted body of a stranger".to_vec()).await;
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        world.raw("GET", "/healthz", &[("traceparent", parent), ("x-request-id", "a-known-request")], vec![]).await;
        let metrics = world.raw("GET", "/metrics", &[], vec![]).await.1;
        let store_key = std::fs::read_to_string(world.directory.path().join("store.key")).unwrap();
        let signing = std::fs::read_to_string(world.directory.path().join("signing.pem")).unwrap();
        drop(stop);
        exporting.await.unwrap();

        let log = String::from_utf8(told.0.lock().unwrap().clone()).unwrap();
        let traces = String::from_utf8(posted.lock().unwrap().clone()).unwrap();
        // The agent's line and the attestor's name the same request.
        let asked =
            log.lines().find(|line| line.contains("asked the attestor") && line.contains("/tcl/v1/decide")).unwrap();
        let id = asked.split("id=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(id.len(), 32);
        assert!(log.lines().any(|line| line.contains("passed") && line.contains(id)), "{log}");
        // Its span hangs beneath the agent's, and has the id too.
        for part in [id, "POST /tcl/v1/decide", "\"http.route\"", "/kbs/v0/resource/{*path}", "a-known-request"] {
            assert!(traces.contains(part), "{part} in {traces}");
        }
        let spans: serde_json::Value = serde_json::Deserializer::from_str(&traces).into_iter().next().unwrap().unwrap();
        assert_eq!(spans["resourceSpans"][0]["resource"]["attributes"][0]["value"]["stringValue"], "key-broker");
        let known = traces.split("{\"attributes\"").find(|span| span.contains("a-known-request")).unwrap();
        assert!(known.contains("0af7651916cd43dd8448eb211c80319c") && known.contains("b7ad6b7169203331"), "{known}");

        let key_line = signing.lines().nth(1).unwrap();
        let mut planted = vec![
            ADMIN.to_owned(),
            "the-planted-token-of-a-stranger".to_owned(),
            "the planted body of a stranger".to_owned(),
            key_line.to_owned(),
            store_key.trim().to_owned(),
            // A token or a sealed challenge: JSON in base64 begins like this.
            "eyJ".to_owned(),
        ];
        planted.extend([String::from_utf8(secret.to_vec()).unwrap(), b64(secret), b64url(secret), hex::encode(secret)]);
        for secret in &planted {
            for (name, text) in [("log", &log), ("traces", &traces), ("metrics", &metrics)] {
                assert!(!text.contains(secret.as_str()), "{secret} in the {name}");
            }
        }
        assert!(!traces.contains("planted"), "spans name no resource");
    }));
}
