//! The document and the routes name the same paths and methods, and what the document calls an administrator's is refused
//! to everybody else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::collections::BTreeSet;

use protocols::digest::Sha256Digest;
use support::{ADMIN, World};

/// One operation of the document.
#[derive(Debug)]
struct Operation {
    method: String,
    path: String,
    role: Option<String>,
    administrators: bool,
}

/// Reads the operations out of the document, which keeps one way of indenting.
fn operations() -> Vec<Operation> {
    let document = include_str!("../openapi.yaml");
    let (mut path, mut found) = (String::new(), Vec::<Operation>::new());
    for line in document.lines().take_while(|line| *line != "components:") {
        if let Some(named) = line.strip_prefix("  /").and_then(|_| line.trim().strip_suffix(':')) {
            path = named.to_owned();
        } else if let Some(method) =
            ["get", "post", "put", "delete"].into_iter().find(|method| line == format!("    {method}:"))
        {
            let method = method.to_owned();
            found.push(Operation { method, path: path.clone(), role: None, administrators: false });
        } else if let Some(role) = line.strip_prefix("      x-role: ") {
            found.last_mut().unwrap().role = Some(role.to_owned());
        } else if line == "      security: [{ administrator: [] }]" {
            found.last_mut().unwrap().administrators = true;
        }
    }
    found
}

/// A route's path with its parameters filled in.
fn filled(path: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { "x" } else { segment });
    segments.collect::<Vec<_>>().join("/").replace("/kbs/v0/resource/x/x/x", "/kbs/v0/resource/a/b/c")
}

/// A path as the document and the routes both can write it: a rest is written out as its segments there.
fn comparable(path: &str) -> String {
    path.replace("/{repository}/{type}/{tag}", "/{*path}")
}

#[test]
fn every_route_is_documented_and_every_documented_route_is_there() {
    let documented: BTreeSet<(String, String)> =
        operations().into_iter().map(|operation| (operation.method, comparable(&operation.path))).collect();
    let served: BTreeSet<(String, String)> =
        key_broker::http::served().into_iter().map(|(method, path)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(documented, served);
}

#[tokio::test]
async fn every_documented_route_answers() {
    let world = World::new().await;
    for Operation { method, path, .. } in operations() {
        let (status, body) = world.raw(&method.to_uppercase(), &filled(&path), &[], vec![]).await;
        assert!([200, 400, 401, 403].contains(&status), "{method} {path}: {status} {body}");
    }
}

#[tokio::test]
async fn administration_is_refused_to_strangers_guests_and_other_roles() {
    const ROLES: [&str; 3] = ["resources", "policy", "audit"];
    let token = |role: &str| format!("the-token-of-the-role-{role}-of-enough-length");
    let world = World::edited(tempfile::tempdir().unwrap(), "development", |text| {
        let named = ROLES.map(|role| {
            let hash = Sha256Digest::of(token(role).as_bytes());
            format!("[[admin.token]]\nname = \"{role}\"\nsha256 = \"{hash}\"\nroles = [\"{role}\"]\n")
        });
        format!("{text}\n{}", named.concat())
    })
    .await;
    let mut walked = 0;
    for Operation { method, path, role, administrators } in operations() {
        assert_eq!(role.is_some(), administrators, "{method} {path}: the role goes with the credentials");
        let Some(role) = role else { continue };
        walked += 1;
        assert!(ROLES.contains(&role.as_str()), "{role}");
        let ask = async |bearer: Option<&str>| {
            let header = bearer.map(|bearer| ("authorization", format!("Bearer {bearer}")));
            let headers: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
            world.raw(&method.to_uppercase(), &filled(&path), &headers, b"{}".to_vec()).await
        };
        let kbs = path.starts_with("/kbs/");
        let refused = |(status, body): (u16, String), code: &str| {
            let (expected, form) = if kbs { (401, "errors/AdminAuthError") } else { (403, "\"refusal\"") };
            assert_eq!(status, expected, "{method} {path}: {body}");
            assert!(body.contains(code) && body.contains(form), "{method} {path}: {body}");
        };
        refused(ask(None).await, "attestor.denied");
        refused(ask(Some("an-administrators-token-of-enough-lengtH")).await, "attestor.denied");
        for other in ROLES.into_iter().filter(|other| **other != *role) {
            refused(ask(Some(&token(other))).await, "attestor.role");
        }
        for allowed in [token(&role), ADMIN.to_owned()] {
            let (status, body) = ask(Some(&allowed)).await;
            assert!(!body.contains("attestor.denied") && !body.contains("attestor.role"), "{status} {body}");
        }
    }
    let named = include_str!("../openapi.yaml").matches("x-role: ").count();
    assert_eq!(walked, named, "every operation with a role was walked");
}
