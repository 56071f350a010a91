//! The attestor's administration: recorded decisions are read, golden values are stored.

use std::fs;
use std::path::Path;
use std::time::Duration;

use protocols::reason::{self, Refusal};

use crate::outcome::Failure;

/// The largest answer we read, in bytes.
const MAX_ANSWER: usize = 2 * 1024 * 1024;

/// An attestor, spoken to with the administrator's token.
pub(crate) struct Administration {
    client: reqwest::Client,
    attestor: String,
    token: String,
}

impl Administration {
    /// Reads the token; connects only when asked something.
    pub(crate) fn new(attestor: &str, token: &Path) -> Result<Self, Failure> {
        let token = fs::read_to_string(token).map_err(|error| Failure::file(token, error))?.trim().to_owned();
        // Only the first caller installs it; there is no other provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Failure::Fault(error.to_string()))?;
        Ok(Self { client, attestor: attestor.trim_end_matches('/').to_owned(), token })
    }

    /// GET; `what` names the thing where it is missing.
    pub(crate) async fn get(&self, path: &str, what: &str) -> Result<Vec<u8>, Failure> {
        self.answer(self.client.get(format!("{}{path}", self.attestor)), what).await
    }

    /// POST of a resource's bytes.
    pub(crate) async fn post(&self, path: &str, what: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        let request = self.client.post(format!("{}{path}", self.attestor));
        let request = request.header("content-type", "application/octet-stream").body(bytes);
        self.answer(request, what).await.map(drop)
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: &str, what: &str) -> Result<(), Failure> {
        self.answer(self.client.delete(format!("{}{path}", self.attestor)), what).await.map(drop)
    }

    async fn answer(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Vec<u8>, Failure> {
        let away = |error: reqwest::Error| {
            let refusal = Refusal::new(reason::ATTESTOR_UNAVAILABLE, &self.attestor, "an answer", error.to_string());
            Failure::by_command(refusal)
        };
        let refused = |code, actual: &str| Failure::by_command(Refusal::new(code, &self.attestor, what, actual));
        let mut answer = request.bearer_auth(&self.token).send().await.map_err(away)?;
        match answer.status().as_u16() {
            200..=299 => {}
            401 | 403 => return Err(refused(reason::ATTESTOR_DENIED, "the token is not the administrator's")),
            404 => return Err(refused(reason::ATTESTOR_NOT_FOUND, "none")),
            status @ 500.. => return Err(refused(reason::ATTESTOR_UNAVAILABLE, &format!("status {status}"))),
            status => return Err(refused(reason::ATTESTOR_PROTOCOL, &format!("status {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(refused(reason::ATTESTOR_PROTOCOL, &format!("more than {MAX_ANSWER} bytes")));
            }
        }
        Ok(body)
    }
}
