//! What strangers send to the key broker: the bodies of the handshake, and the challenge that comes back to it.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::{Request, header};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use key_broker::broker::Broker;
use key_broker::challenge::{Challenge, Sealer};
use key_broker::config::Config;
use key_broker::http::router;

use protocols::encoding::b64;
use protocols::jwe::{KeyAlgorithm, SecretKey};
use protocols::kbs::{self, Attestation, InitData, RuntimeData, Tee, TeeEvidence};
use protocols::keys::{KeyKind, SigningKey};
use protocols::time::Timestamp;
use registry::{HttpRegistry, RegistryConfig};
use serde_json::{Value, json};

use super::runtime;

/// The clock stands still, so that challenges do not expire.
const NOW: Timestamp = Timestamp(1_750_000_000);

/// A request for a challenge: 200 exactly for what can be read as one.
///
/// # Panics
/// When it is answered otherwise.
pub fn kbs_auth(bytes: &[u8]) {
    let status = post("/kbs/v0/auth", None, bytes);
    assert!([200, 401, 413].contains(&status), "{status}");
    assert!(status != 200 || serde_json::from_slice::<kbs::Request>(bytes).is_ok());
}

/// An attestation: 200 only for evidence over the challenge's nonce and the key shown with it.
///
/// # Panics
/// When it is answered otherwise.
pub fn kbs_attest(bytes: &[u8]) {
    let scene = scene();
    let status = post("/kbs/v0/attest", Some(&scene.cookie), bytes);
    assert!([200, 401, 413].contains(&status), "{status}");
    if status == 200 {
        let shown: Attestation = serde_json::from_slice(bytes).unwrap();
        assert_eq!(shown.runtime_data.nonce, scene.challenge.nonce_text());
        let digest = shown.runtime_data.digest(&shown.tee_evidence.additional_evidence).unwrap();
        assert_eq!(shown.tee_evidence.primary_evidence.get("report_data"), Some(&b64(digest.as_bytes()).into()));
    }
}

/// A cookie: only what was sealed opens, as what it was.
///
/// # Panics
/// When another opens.
pub fn kbs_cookie(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let scene = scene();
    match scene.sealer.open(text, NOW) {
        Ok(challenge) => assert!(text == scene.cookie && challenge == scene.challenge),
        Err(error) => assert_eq!(error.refusal().code.as_str(), "attestor.session"),
    }
}

struct Scene {
    service: TowerToHyperService<axum::Router>,
    sealer: Sealer,
    challenge: Challenge,
    cookie: String,
    _folder: tempfile::TempDir,
}

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let signing = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let pem = signing.to_pem().unwrap();
        std::fs::write(folder.path().join("signing.pem"), pem.as_bytes()).unwrap();
        std::fs::write(folder.path().join("store.key"), "5a".repeat(32)).unwrap();
        let text = format!(
            "environment = \"development\"\nlisten = \"127.0.0.1:0\"\nstore = \"{0}/broker.redb\"\n\
             store_key = {{ file = \"{0}/store.key\" }}\nsigning_key = \"{0}/signing.pem\"\nchallenge_seconds = 120\ntoken_seconds = 300\n\
             revocation_seconds = 0\n[[signers]]\nissuer = \"a\"\nkey = \"\"\"{1}\"\"\"\nmin_version = 1\n\
             revocations = \"optional\"\n[policy]\nregisters = [\"software\"]\n[sample]\naccept = true\n",
            folder.path().display(),
            signing.verifying_key().to_pem().unwrap(),
        );
        let settings = Config::parse(&text).unwrap().settings().unwrap();
        let sealer = Sealer::new(&settings.signing).unwrap();
        let challenge = Challenge::new(Tee::Sample, false, NOW.plus(60)).unwrap();
        let cookie = sealer.seal(&challenge).unwrap();
        let store = runtime().block_on(settings.store.open()).unwrap();
        let registry = Arc::new(HttpRegistry::new(RegistryConfig::default()).unwrap());
        let broker = runtime().block_on(Broker::new(settings, store, registry, Arc::new(|| NOW))).unwrap();
        let service = TowerToHyperService::new(router(Arc::new(broker)));
        Scene { service, sealer, challenge, cookie, _folder: folder }
    })
}

fn post(path: &str, cookie: Option<&str>, body: &[u8]) -> u16 {
    let mut request = Request::post(path);
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, format!("{}={cookie}", kbs::SESSION_COOKIE));
    }
    let request = request.body(Body::from(body.to_vec())).unwrap();
    runtime().block_on(scene().service.call(request)).unwrap().status().as_u16()
}

pub(super) fn requests() -> Vec<Vec<u8>> {
    let ours = json!({ "tcl": { "version": 1 } });
    let stock = json!({ "supported-hash-algorithms": ["sha256", "sha384", "sha512", "sm3"] });
    let request = |tee, extra: &Value| {
        json!({ "version": kbs::VERSION, "tee": tee, "extra-params": extra }).to_string().into_bytes()
    };
    vec![request("sample", &stock), request("tpm", &ours), request("snp", &json!("")), request("se", &stock)]
}

pub(super) fn attestations() -> Vec<Vec<u8>> {
    let nonce = scene().challenge.nonce_text();
    let body = "algorithm = \"sha384\"\nversion = \"0.1.0\"\n[data]\n\"aa.toml\" = \"x = 1\"\n".to_owned();
    let initdata = InitData { format: "toml".to_owned(), body };
    let mut seeds = Vec::new();
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P521] {
        let tee_pubkey = SecretKey::generate(algorithm).unwrap().public_key().jwk();
        let runtime_data = RuntimeData { nonce: nonce.clone(), tee_pubkey, log: None };
        let over = |svn: &str, digest: protocols::digest::Sha384Digest| json!({ "svn": svn, "report_data": b64(digest.as_bytes()) });
        let device = json!({ "sampledevice": over("2", runtime_data.device_digest().unwrap()) }).to_string();
        for (init_data, additional_evidence) in [(None, String::new()), (Some(initdata.clone()), device)] {
            let primary_evidence = over("1", runtime_data.digest(&additional_evidence).unwrap());
            let tee_evidence = TeeEvidence { primary_evidence, additional_evidence };
            let attestation = Attestation { init_data, runtime_data: runtime_data.clone(), tee_evidence };
            seeds.push(serde_json::to_vec(&attestation).unwrap());
        }
    }
    seeds
}

pub(super) fn cookies() -> Vec<Vec<u8>> {
    vec![scene().cookie.clone().into_bytes()]
}
