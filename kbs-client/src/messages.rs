//! Every request as a value and every answer judged, without a socket.

use protocols::encoding::{b64, un_b64, un_b64url};
use protocols::image::{ImageMeasurement, ProcessRequest};
use protocols::jws;
use protocols::kbs::{self, Challenge, ErrorBody, Tee, TokenResponse};
use protocols::reason::{self, Code, Refusal, Source};
use protocols::tcl::{DECIDE_TYP, DecideRequest, Delivery, EVENTS_TYP, EventsRequest, Hello, HelloReply, TclError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ClientError;

/// The version of our additions to the handshake.
const TCL_VERSION: u32 = 1;
/// The longest token we carry, in bytes: it must fit the head of every request.
const MAX_TOKEN: usize = 16 * 1024;

/// What is asked of the attestor about one launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The container.
    pub cid: String,
    /// Launch number; the log's last `Image` record names it too.
    pub seq: u64,
    /// The image reference as it was resolved: where the attestor looks for the golden value.
    pub reference: String,
    /// What was measured.
    pub image: ImageMeasurement,
    /// What will run.
    pub process: ProcessRequest,
}

/// One answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The session cookie's value, where the answer set one.
    pub(crate) cookie: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// What was asked, which decides what a bare status means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'p> {
    Challenge,
    Attest,
    Resource(&'p str),
    Tcl,
}

/// The body of a good answer, or why there is none.
pub(crate) fn judge(step: Step<'_>, answer: Answer) -> Result<Vec<u8>, ClientError> {
    let Answer { status, body, .. } = answer;
    if status == 200 {
        return Ok(body);
    }
    if let Ok(error) = serde_json::from_slice::<TclError>(&body) {
        return Err(refused(step, error.refusal, error.count));
    }
    let error = serde_json::from_slice::<ErrorBody>(&body).ok();
    if let Some((code, detail)) = error.and_then(|e| Some((Code::parse(e.reason.as_deref()?)?, e.detail))) {
        return Err(refused(step, Refusal::new(code, "attestor", code.check(), shorten(&detail)), None));
    }
    Err(match (step, status) {
        (_, 408 | 429 | 500..) => ClientError::unavailable(format!("it answered with status {status}")),
        (Step::Attest, 401 | 403) => ClientError::Denied { what: "a session for this evidence".to_owned() },
        (Step::Resource(_) | Step::Tcl, 401) => ClientError::Session,
        (Step::Resource(path), 403) => ClientError::Denied { what: path.to_owned() },
        (Step::Resource(path), 404) => ClientError::NotFound { what: path.to_owned() },
        (_, status) => ClientError::protocol(format!("status {status} without a reason")),
    })
}

fn refused(step: Step<'_>, refusal: Refusal, count: Option<u64>) -> ClientError {
    match (step, refusal.code) {
        (Step::Resource(_) | Step::Tcl, code) if code == reason::ATTESTOR_SESSION => ClientError::Session,
        (Step::Resource(path), code) if code == reason::ATTESTOR_NOT_FOUND => {
            ClientError::NotFound { what: path.to_owned() }
        }
        (Step::Resource(path), code) if code == reason::ATTESTOR_DENIED => {
            ClientError::Denied { what: path.to_owned() }
        }
        _ => ClientError::Refused { refusal: Box::new(refusal.by(Source::Attestor)), count },
    }
}

/// A stranger's sentence, short enough for a line.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The request for a challenge.
pub(crate) fn auth(tee: Tee, tcl: bool) -> kbs::Request {
    let extra_params = if tcl { json!({ "tcl": Hello { version: TCL_VERSION } }) } else { json!("") };
    kbs::Request { version: kbs::VERSION.to_owned(), tee, extra_params }
}

/// Reads a challenge. With our own attestor the reply must be there and of our version.
pub(crate) fn challenge(body: &[u8], tcl: bool) -> Result<Challenge, ClientError> {
    #[derive(Deserialize)]
    struct Reply {
        tcl: HelloReply,
    }
    let challenge: Challenge = json_of(body, "challenge")?;
    if un_b64(&challenge.nonce).map_or(true, |nonce| nonce.len() != 32) {
        return Err(ClientError::protocol("the challenge's nonce is not 32 bytes of base64"));
    }
    if tcl {
        let Reply { tcl } = Reply::deserialize(&challenge.extra_params)
            .map_err(|_| ClientError::protocol("it does not bind the log's head: not an attestor of ours"))?;
        if tcl.version != TCL_VERSION {
            return Err(ClientError::protocol(format!("version {} of the handshake's additions", tcl.version)));
        }
    }
    Ok(challenge)
}

/// A token and the second it runs out, where it says so.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) expires: Option<u64>,
}

/// Reads the answer to an attestation.
pub(crate) fn token(body: &[u8]) -> Result<Token, ClientError> {
    let TokenResponse { token } = json_of(body, "token")?;
    if token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ClientError::protocol("the token does not fit a request's head"));
    }
    // Only a hint of when to attest again: the attestor decides, so nobody's signature is checked.
    let claims = token.split('.').nth(1).and_then(|part| un_b64url(part).ok());
    let claims = claims.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let expires = claims.as_ref().and_then(|claims| claims.get("exp")).and_then(Value::as_u64);
    Ok(Token { text: token, expires })
}

/// A nonce of this side, in standard base64.
pub(crate) fn nonce() -> Result<String, ClientError> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| ClientError::Request { what: "the system gives no randomness" })?;
    Ok(b64(&bytes))
}

/// The signed body of a decide request.
pub(crate) fn decide(
    nonce: &str,
    question: &Question,
    delivery: Delivery,
    key: &p256::ecdsa::SigningKey,
) -> Result<String, ClientError> {
    let Question { cid, seq, reference, image, process } = question.clone();
    let claims = DecideRequest { nonce: nonce.to_owned(), cid, seq, reference, image, process, delivery };
    sign(DECIDE_TYP, &claims, key)
}

/// The signed body of an events request.
pub(crate) fn events(nonce: &str, delivery: Delivery, key: &p256::ecdsa::SigningKey) -> Result<String, ClientError> {
    sign(EVENTS_TYP, &EventsRequest { nonce: nonce.to_owned(), delivery }, key)
}

fn sign<T: serde::Serialize>(typ: &str, claims: &T, key: &p256::ecdsa::SigningKey) -> Result<String, ClientError> {
    let body = jws::sign(typ, None, claims, key).map_err(|_| ClientError::Request { what: "it has no JSON form" })?;
    if body.len() > kbs::MAX_BODY {
        return Err(ClientError::Request { what: "it is larger than the attestor reads" });
    }
    Ok(body)
}

/// Reads JSON of a kind; the error names the kind and no content.
pub(crate) fn json_of<T: for<'de> Deserialize<'de>>(body: &[u8], what: &str) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|_| ClientError::protocol(format!("not a {what}")))
}
