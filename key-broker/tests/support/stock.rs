//! A stock client's session, for tests that need its bare token.

use protocols::digest::Sha384Digest;
use protocols::jcs;
use protocols::jwe::{self, SecretKey};
use serde_json::{Value, json};

use super::World;
use super::guest::Guest;

/// A token of POST `/kbs/v0/attest`, and the key that resources are encrypted to.
pub(crate) struct Stock {
    pub(crate) token: String,
    pub(crate) key: SecretKey,
}

/// An attestation that was prepared, to be sent any number of times.
pub(crate) struct Attempt {
    cookie: String,
    body: Vec<u8>,
    key: SecretKey,
}

impl Attempt {
    /// Status and body.
    pub(crate) async fn send(&self, world: &World) -> (u16, Value) {
        let headers = [("cookie", self.cookie.as_str())];
        let (status, body) = world.raw("POST", "/kbs/v0/attest", &headers, self.body.clone()).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

impl Stock {
    /// Attests with this guest's evidence, without a log.
    pub(crate) async fn attest(world: &World, guest: &Guest) -> Self {
        let attempt = Self::attempt(world, guest).await;
        let (status, body) = attempt.send(world).await;
        assert_eq!(status, 200, "{body}");
        Self { token: body["token"].as_str().unwrap().to_owned(), key: attempt.key }
    }

    /// The attestation over a fresh challenge.
    pub(crate) async fn attempt(world: &World, guest: &Guest) -> Attempt {
        let auth = r#"{"version":"0.4.0","tee":"tpm","extra-params":{}}"#;
        let (head, body) = super::exchange(world.address, "POST", "/kbs/v0/auth", &[], auth.into()).await;
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let body: Value = serde_json::from_str(&body).unwrap();
        let key = SecretKey::P256(jwe::generate().unwrap());
        let jwk = serde_json::to_value(key.public_key().jwk()).unwrap();
        let data = json!({ "nonce": body["nonce"], "tee-pubkey": jwk });
        let mut hashed = data.clone();
        hashed["additional-evidence"] = json!("");
        let evidence = guest.evidence(&Sha384Digest::of(&jcs::canonical(&hashed).unwrap())).primary_evidence;
        let attestation = json!({
            "init-data": null,
            "runtime-data": data,
            "tee-evidence": { "primary_evidence": evidence, "additional_evidence": "" },
        });
        Attempt { cookie, body: attestation.to_string().into_bytes(), key }
    }

    /// GETs a resource with the token; status and body.
    pub(crate) async fn get(&self, world: &World, path: &str) -> (u16, Value) {
        let bearer = format!("Bearer {}", self.token);
        let path = format!("/kbs/v0/resource/{path}");
        let (status, body) = world.raw("GET", &path, &[("authorization", &bearer)], vec![]).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    /// The resource, or the code.
    pub(crate) async fn resource(&self, world: &World, path: &str) -> Result<String, String> {
        match self.get(world, path).await {
            (200, body) => {
                let bytes = jwe::decrypt(&self.key, &serde_json::from_value(body).unwrap()).unwrap();
                Ok(String::from_utf8(bytes.to_vec()).unwrap())
            }
            (_, body) => Err(body["reason"].as_str().unwrap().to_owned()),
        }
    }
}
