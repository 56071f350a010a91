//! Every request as a value and every answer judged, without a socket.

use protocols::encoding::{b64, un_b64, un_b64url};
use protocols::image::{ImageMeasurement, ProcessRequest};
use protocols::jws;
use protocols::kbs::{self, Challenge, ErrorBody, Tee, TokenResponse};
use protocols::reason::{self, Code, Refusal, Source};
use protocols::tcl::{
    DECIDE_TYP, DecideRequest, Delivery, EVENTS_TYP, EventsRequest, Hello, HelloReply, Place, TclError,
};
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
    /// How long the answer asks to wait before another request.
    pub(crate) retry_after: Option<std::time::Duration>,
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
    let coded = error.as_ref().and_then(|error| Some((Code::parse(error.reason.as_deref()?)?, &error.detail)));
    if let Some((code, detail)) = coded {
        return Err(refused(step, Refusal::new(code, "attestor", code.check(), shorten(detail)), None));
    }
    if let (Step::Resource(path), 401) = (step, status) {
        return Err(stock(path, error.as_ref()));
    }
    Err(match (step, status) {
        (_, 408 | 429 | 500..) => ClientError::unavailable(format!("it answered with status {status}")),
        (Step::Attest, 401 | 403) => ClientError::Denied { what: "a session for this evidence".to_owned() },
        (Step::Tcl, 401) => ClientError::Session,
        (Step::Resource(path), 403) => ClientError::Denied { what: path.to_owned() },
        (Step::Resource(path), 404) => ClientError::NotFound { what: path.to_owned() },
        (_, status) => ClientError::protocol(format!("status {status} without a reason")),
    })
}

/// A stock KBS answers every resource that it does not give with 401: only the error's type tells why.
fn stock(path: &str, error: Option<&ErrorBody>) -> ClientError {
    let variant = error.and_then(|error| error.error_type.rsplit('/').next()).unwrap_or_default();
    match variant {
        "PolicyDeny" => ClientError::Denied { what: path.to_owned() },
        "PluginInternalError" => ClientError::NotFound { what: path.to_owned() },
        _ => ClientError::Session,
    }
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
    // What is hashed here is hashed by SHA-384.
    let algorithm = challenge.extra_params.get("selected-hash-algorithm");
    if algorithm.is_some_and(|algorithm| algorithm != "sha384") {
        return Err(ClientError::protocol("it asks for another hash than SHA-384"));
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
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) expires: Option<u64>,
}

/// Reads the answer to an attestation.
pub(crate) fn token(body: &[u8]) -> Result<Token, ClientError> {
    let TokenResponse { token } = json_of(body, "token")?;
    token_of(token)
}

/// Takes a token and looks when it runs out.
pub(crate) fn token_of(token: String) -> Result<Token, ClientError> {
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
    receipted: Place,
    key: &p256::ecdsa::SigningKey,
) -> Result<String, ClientError> {
    let Question { cid, seq, reference, image, process } = question.clone();
    let claims = DecideRequest { nonce: nonce.to_owned(), cid, seq, reference, image, process, receipted };
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

#[cfg(test)]
mod tests {
    use protocols::kbs::ERROR_TYPE_PREFIX;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, cookie: None, retry_after: None, body: body.as_bytes().to_vec() }
    }

    fn code(step: Step<'_>, status: u16, body: &str) -> &'static str {
        judge(step, answer(status, body)).unwrap_err().code().as_str()
    }

    fn kbs_error(reason: &str) -> String {
        json!({ "type": format!("{ERROR_TYPE_PREFIX}AttestationError"), "detail": "x", "reason": reason }).to_string()
    }

    #[test]
    fn a_status_without_a_reason_means_what_was_asked_for() {
        let resource = Step::Resource("a/b/c");
        for (step, status, expected) in [
            (Step::Challenge, 401, "attestor.protocol"),
            (Step::Attest, 401, "attestor.denied"),
            (resource, 401, "attestor.session"),
            (resource, 403, "attestor.denied"),
            (resource, 404, "attestor.not_found"),
            (Step::Tcl, 401, "attestor.session"),
            (Step::Tcl, 404, "attestor.protocol"),
            (Step::Tcl, 302, "attestor.protocol"),
            (Step::Tcl, 204, "attestor.protocol"),
            (Step::Challenge, 500, "attestor.unavailable"),
            (Step::Attest, 503, "attestor.unavailable"),
            (resource, 429, "attestor.unavailable"),
            (Step::Tcl, 408, "attestor.unavailable"),
        ] {
            // What a stock server says, what a proxy says, and nothing.
            let stock = json!({ "type": format!("{ERROR_TYPE_PREFIX}TokenNotFound"), "detail": "x" }).to_string();
            for body in [&stock, "<html>", ""] {
                assert_eq!(code(step, status, body), expected, "{step:?} {status}");
            }
        }
    }

    #[test]
    fn a_reason_is_passed_on_as_the_attestors() {
        let error = judge(Step::Attest, answer(401, &kbs_error("evidence.ak"))).unwrap_err();
        let refusal = error.refusal();
        assert_eq!((refusal.code, refusal.source), (reason::EVIDENCE_AK, Source::Attestor));
        let body = TclError { refusal: Refusal::new(reason::LOG_GAP, "log", "5", "9"), count: Some(5), id: None };
        let error = judge(Step::Tcl, answer(409, &serde_json::to_string(&body).unwrap())).unwrap_err();
        assert_eq!((error.code(), error.count(), error.refusal().source), (reason::LOG_GAP, Some(5), Source::Attestor));
        // An unavailable golden value stays one, whatever the status.
        let body = TclError { refusal: Refusal::new(reason::GOLDEN_UNAVAILABLE, "", "", ""), count: None, id: None };
        assert_eq!(code(Step::Tcl, 503, &serde_json::to_string(&body).unwrap()), "golden.unavailable");
        // An unknown code is none.
        assert_eq!(code(Step::Attest, 401, &kbs_error("made.up")), "attestor.denied");
    }

    #[test]
    fn an_ended_session_is_told_apart_from_a_refused_handshake() {
        let session = kbs_error("attestor.session");
        assert!(judge(Step::Resource("a/b/c"), answer(401, &session)).unwrap_err().session_ended());
        assert!(judge(Step::Tcl, answer(401, &session)).unwrap_err().session_ended());
        // A challenge that is refused is not attested again.
        assert!(!judge(Step::Attest, answer(401, &session)).unwrap_err().session_ended());
    }

    #[test]
    fn our_attestor_must_say_that_it_binds_the_log() {
        let nonce = b64(&[7; 32]);
        let body = |extra: Value| json!({ "nonce": nonce, "extra-params": extra }).to_string();
        assert!(challenge(body(json!({ "tcl": { "version": 1 } })).as_bytes(), true).is_ok());
        for extra in [json!(""), json!({}), json!({ "tcl": { "version": 2 } }), json!({ "tcl": 1 }), Value::Null] {
            let error = challenge(body(extra).as_bytes(), true).unwrap_err();
            assert_eq!(error.code(), reason::ATTESTOR_PROTOCOL);
        }
        assert!(challenge(body(json!("")).as_bytes(), false).is_ok());
    }

    #[test]
    fn a_nonce_is_32_bytes() {
        for nonce in [String::new(), b64(&[7; 31]), b64(&[7; 33]), "?".repeat(44)] {
            let body = json!({ "nonce": nonce, "extra-params": "" }).to_string();
            assert_eq!(challenge(body.as_bytes(), false).unwrap_err().code(), reason::ATTESTOR_PROTOCOL);
        }
    }

    /// As captured from a real server.
    #[test]
    fn a_stock_servers_challenge_and_token_are_read() {
        let captured = br#"{"nonce":"nyPHQrcFJaEtIg76hzfbl0owXtuYkVkRCJVI5KWbE9k=","extra-params":""}"#;
        assert_eq!(challenge(captured, false).unwrap().nonce, "nyPHQrcFJaEtIg76hzfbl0owXtuYkVkRCJVI5KWbE9k=");
        let exp = protocols::encoding::b64url(br#"{"exp":1795480275,"iss":"CoCo-Attestation-Service"}"#);
        let token_body = json!({ "token": format!("e30.{exp}.c2ln") }).to_string();
        assert_eq!(token(token_body.as_bytes()).unwrap().expires, Some(1_795_480_275));
        assert_eq!(token(br#"{"token":"opaque"}"#).unwrap().expires, None);
        for bad in [
            "{}".to_owned(),
            json!({ "token": "a\r\nb" }).to_string(),
            json!({ "token": "a".repeat(MAX_TOKEN + 1) }).to_string(),
        ] {
            assert!(token(bad.as_bytes()).is_err());
        }
    }

    #[test]
    fn the_request_asks_for_our_protocol_only_of_our_attestor() {
        let text = |tcl| serde_json::to_string(&auth(Tee::Tpm, tcl)).unwrap();
        assert_eq!(text(true), r#"{"version":"0.4.0","tee":"tpm","extra-params":{"tcl":{"version":1}}}"#);
        assert_eq!(text(false), r#"{"version":"0.4.0","tee":"tpm","extra-params":""}"#);
    }
}
