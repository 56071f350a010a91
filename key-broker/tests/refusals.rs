//! Every refusal has a record: its code and id for whoever asked, all of it for an administrator.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use protocols::tcl::RefusalRecord;
use serde_json::{Value, json};
use support::guest::Guest;
use support::stock::Stock;
use support::{ADMIN, World};

const SECRET: &str = "default/key/one";

/// What an administrator is told of an id.
async fn explained(world: &World, id: &str) -> Option<RefusalRecord> {
    let admin = format!("Bearer {ADMIN}");
    let (status, body) =
        world.raw("GET", &format!("/tcl/v1/refusals/{id}"), &[("authorization", &admin)], vec![]).await;
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

fn id(body: &Value) -> &str {
    let id = body["id"].as_str().unwrap();
    assert_eq!((id.len(), id.bytes().all(|b| b.is_ascii_hexdigit())), (32, true));
    id
}

/// A world that releases nothing to its simulated platform.
async fn closed() -> World {
    World::edited(tempfile::tempdir().unwrap(), "development", |text| {
        text.replace("status = [\"affirming\", \"warning\"]", "")
    })
    .await
}

#[tokio::test]
async fn a_denied_session_learns_code_and_id_and_an_administrator_why() {
    let mut world = closed().await;
    let session = Stock::attest(&world, &Guest::boot(&world.tpm, 1)).await;
    let (status, body) = session.get(&world, SECRET).await;
    assert_eq!((status, &body["reason"]), (401, &json!("attestor.denied")));
    let told: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(told, ["detail", "id", "reason", "type"], "nothing more for the host's side");
    let record = explained(&world, id(&body)).await.unwrap();
    assert_eq!((record.id.as_str(), record.request.as_str()), (id(&body), "GET /kbs/v0/resource"));
    assert_eq!((record.refusal.code.as_str(), record.refusal.subject.as_str()), ("attestor.denied", SECRET));
    assert!(record.refusal.actual.contains("status is warning, not affirming"), "{}", record.refusal);
    assert_eq!((record.time.0, record.observed), (support::NOW, false));
    assert!(record.session.is_some());

    // It is kept, and nobody else may read it.
    world.restart().await;
    assert_eq!(explained(&world, id(&body)).await, Some(record));
    let path = format!("/tcl/v1/refusals/{}", id(&body));
    for headers in [vec![], vec![("authorization", "Bearer guessed")], vec![("authorization", session.token.as_str())]]
    {
        assert_eq!(world.raw("GET", &path, &headers, vec![]).await.0, 403);
    }
    assert!(explained(&world, &"0".repeat(32)).await.is_none());
}

/// Evidence that holds makes its refusal one to keep, once for each challenge; a stranger's is kept in memory alone.
#[tokio::test]
async fn what_evidence_was_shown_for_is_stored_and_what_strangers_send_is_not() {
    let mut world = closed().await;
    world.edit(|text| text.replace("\"tpm.pcr4\" = [\"", &format!("\"tpm.pcr4\" = [\"{}\"]\n#", "77".repeat(32))));
    let policy = world.directory.path().join("closed.rego");
    std::fs::write(&policy, appraisal::policy::BUILT_IN.replace("\"development\"", "\"nowhere\"")).unwrap();
    world.edit(|text| text + &format!("\n[appraisal]\npolicy = \"{}\"\n", policy.display()));
    world.reload().await.unwrap();
    let guest = Guest::boot(&world.tpm, 1);
    let (status, body) = Stock::attempt(&world, &guest).await.send(&world).await;
    assert_eq!((status, &body["reason"]), (401, &json!("evidence.appraisal")));
    assert!(world.store().refusal(id(&body)).await.unwrap().is_some());
    let record = explained(&world, id(&body)).await.unwrap();
    assert!(record.refusal.actual.contains("not among the reference values"), "{}", record.refusal);

    let (_, stranger) = world.raw("POST", "/kbs/v0/auth", &[], b"junk".to_vec()).await;
    let stranger: Value = serde_json::from_str(&stranger).unwrap();
    assert!(world.store().refusal(id(&stranger)).await.unwrap().is_none());
    let told = explained(&world, id(&stranger)).await.unwrap();
    assert_eq!((told.request.as_str(), told.session), ("POST /kbs/v0/auth", None));

    // Any number of strangers makes room of strangers only.
    for _ in 0..200 {
        let (status, _) = world.raw("POST", "/kbs/v0/attest", &[], b"junk".to_vec()).await;
        assert_eq!(status, 401);
    }
    assert!(explained(&world, id(&stranger)).await.is_none());
    assert!(explained(&world, id(&body)).await.is_some());
    world.restart().await;
    assert!(explained(&world, id(&body)).await.is_some());
}

#[tokio::test]
async fn our_own_protocol_gives_the_whole_refusal_into_the_guest_and_its_id() {
    let world = World::new().await;
    let session = Stock::attest(&world, &Guest::boot(&world.tpm, 1)).await;
    let bearer = format!("Bearer {}", session.token);
    let (status, body) = world.raw("GET", "/tcl/v1/receipts?after=0", &[("authorization", &bearer)], vec![]).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["refusal"]["code"]), (403, &json!("evidence.guest")));
    let record = explained(&world, id(&body)).await.unwrap();
    assert_eq!(serde_json::to_value(&record.refusal).unwrap(), body["refusal"]);
}

/// One quote, shown again and again, makes one record.
#[tokio::test]
async fn a_challenge_whose_evidence_was_refused_is_used_up() {
    let world = closed().await;
    let policy = world.directory.path().join("none.rego");
    let text = appraisal::policy::BUILT_IN.replace("\"development\"", "\"nowhere\"");
    std::fs::write(&policy, text).unwrap();
    world.edit(|text| text + &format!("\n[appraisal]\npolicy = \"{}\"\n", policy.display()));
    world.reload().await.unwrap();
    let guest = Guest::boot(&world.tpm, 1);
    let attempt = Stock::attempt(&world, &guest).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (status, body) = attempt.send(&world).await;
        assert_eq!(status, 401);
        ids.push(id(&body).to_owned());
    }
    let mut stored = Vec::new();
    for id in &ids {
        stored.push(world.store().refusal(id).await.unwrap().is_some());
    }
    assert_eq!(stored, [true, false, false]);
}
