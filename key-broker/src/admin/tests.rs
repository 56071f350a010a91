use std::path::Path;
use std::process::Command;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use p256::pkcs8::EncodePrivateKey as _;
use protocols::encoding::b64url;
use protocols::jwe::SecretKey;
use protocols::keys::{KeyKind, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::*;
use crate::config::{AdminConfig, ConfigError};

const NOW: Timestamp = Timestamp(1_750_000_000);
const TOKEN: &str = "a-token-that-is-long-enough-to-count";

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.path().join(name), text).unwrap();
        self.path(name)
    }

    fn administrators(&self, toml: &str) -> Result<Administrators, ConfigError> {
        let config: AdminConfig = toml::from_str(toml).map_err(ConfigError::Syntax)?;
        config.administrators(None, Some(Path::new(&self.path("broker.redb"))))
    }

    fn refused(&self, toml: &str) -> String {
        self.administrators(toml).unwrap_err().to_string()
    }
}

/// The name of who may do what `R` stands for, or the code of the refusal.
fn who<R: Needed + std::fmt::Debug>(all: &Administrators, bearer: &str) -> Result<String, &'static str> {
    let shown = Shown { bearer: Some(bearer), certificates: &[] };
    named(all.check::<R>(shown, NOW))
}

fn named<R>(checked: Result<Administrator<R>, BrokerError>) -> Result<String, &'static str> {
    checked.map(|by| by.name().to_owned()).map_err(|error| error.refusal().code.as_str())
}

#[test]
fn a_token_does_what_its_roles_are_for_and_nothing_else() {
    let files = Files::new();
    let file = files.write("audit", format!("{TOKEN}\n"));
    let hash = Sha256Digest::of(b"another-token-that-is-long-enough-too");
    let all = files
        .administrators(&format!(
            "[[token]]\nname = \"auditor\"\nfile = \"{file}\"\nroles = [\"audit\"]\n\
             [[token]]\nname = \"chief\"\nsha256 = \"{hash}\"\nroles = [\"admin\"]\n"
        ))
        .unwrap();
    assert_eq!(who::<Audit>(&all, TOKEN), Ok("auditor".to_owned()));
    assert_eq!(who::<Resources>(&all, TOKEN), Err("attestor.role"));
    assert_eq!(who::<Resources>(&all, "another-token-that-is-long-enough-too"), Ok("chief".to_owned()));
    for wrong in ["", "x", &TOKEN[1..], &format!("{TOKEN} ")] {
        assert_eq!(who::<Audit>(&all, wrong), Err("attestor.denied"), "{wrong:?}");
    }
    let nothing = Shown { bearer: None, certificates: &[] };
    assert_eq!(named(all.check::<Audit>(nothing, NOW)), Err("attestor.denied"));
}

#[test]
fn administrators_are_listed_whole_or_not_at_all() {
    let files = Files::new();
    let token = |rest: &str| format!("[[token]]\nname = \"a\"\n{rest}");
    let hash = Sha256Digest::of(b"");
    for (toml, told) in [
        (token("roles = [\"audit\"]"), "file or sha256"),
        (token(&format!("sha256 = \"{hash}\"\nfile = \"/x\"\nroles = [\"audit\"]")), "file or sha256"),
        (token(&format!("sha256 = \"{hash}\"\nroles = []")), "no role"),
        (token(&format!("sha256 = \"{hash}\"\nroles = [\"root\"]")), "unknown variant"),
        (token(&format!("sha256 = \"{hash}\"")), "roles"),
        (format!("closed = true\n{}", token(&format!("sha256 = \"{hash}\"\nroles = [\"admin\"]"))), "closed"),
        (
            format!("first_token = \"/x\"\n{}", token(&format!("sha256 = \"{hash}\"\nroles = [\"admin\"]"))),
            "first_token",
        ),
        ("closed = true\nfirst_token = \"/x\"".to_owned(), "closed"),
        (
            format!(
                "[[certificate]]\nname = \"a\"\nroot = \"{}\"\nsan = \"dns:a\"\nroles = [\"audit\"]",
                files.write("none.pem", "")
            ),
            "no certificate",
        ),
        ("[[certificate]]\nname = \"a\"\nroot = \"/x\"\nsan = \"cn:a\"\nroles = [\"audit\"]".to_owned(), "dns:"),
    ] {
        let refused = files.refused(&toml);
        assert!(refused.contains(told), "{toml}: {refused}");
    }
    let nobody = files.administrators("closed = true").unwrap();
    assert_eq!(who::<Audit>(&nobody, TOKEN), Err("attestor.denied"));
}

#[test]
fn a_first_start_makes_one_token_and_keeps_its_hash() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::new();
    let mut first = files.administrators("").unwrap();
    let path = first.establish().unwrap().unwrap();
    assert_eq!(path, Path::new(&files.path("admin.token")));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&path).unwrap();
    let token = token.trim();
    assert_eq!(token.len(), 64);
    assert_eq!(who::<Resources>(&first, token), Ok("first".to_owned()));
    assert!(!format!("{first:?}").contains(token));

    // Taken away by its owner, it still counts; the next start makes no other.
    std::fs::remove_file(&path).unwrap();
    let mut second = files.administrators("").unwrap();
    assert_eq!(second.establish().unwrap(), None);
    assert!(!path.exists());
    assert_eq!(who::<Audit>(&second, token), Ok("first".to_owned()));

    // A start that ended between the two files is taken up.
    std::fs::remove_file(files.path("admin.token.sha256")).unwrap();
    std::fs::write(&path, TOKEN).unwrap();
    let mut third = files.administrators("").unwrap();
    assert_eq!(who::<Audit>(&third, token), Err("attestor.denied"), "none before one is made");
    third.establish().unwrap();
    assert_eq!(
        (who::<Audit>(&third, TOKEN), who::<Audit>(&third, token)),
        (Ok("first".into()), Err("attestor.denied"))
    );
    // What lies there and is no token is not made one.
    std::fs::remove_file(files.path("admin.token.sha256")).unwrap();
    std::fs::write(&path, "short").unwrap();
    assert!(files.administrators("").unwrap().establish().is_err());
}

/// A provider with a key of each algorithm.
struct Idp {
    files: Files,
    signers: Vec<(Algorithm, EncodingKey, &'static str)>,
}

impl Idp {
    fn new() -> Self {
        let files = Files::new();
        let jwk = |key: &SecretKey, id: &str| {
            let mut jwk = serde_json::to_value(key.public_key().jwk()).unwrap();
            let jwk_members = jwk.as_object_mut().unwrap();
            jwk_members.remove("alg");
            jwk_members.insert("kid".into(), id.into());
            jwk
        };
        let ec = protocols::jwe::generate().unwrap();
        let ec_der = ec.to_pkcs8_der().unwrap();
        let pem = include_str!("../../../protocols/tests/data/jwe/rsa-2.pem");
        let rsa = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let ed = SigningKey::generate(KeyKind::Ed25519).unwrap();
        let ed_public = ed.verifying_key().to_der();
        let ed_pem = ed.to_pem().unwrap();
        let ed = PrivateKeyDer::from_pem_slice(ed_pem.as_bytes()).unwrap();
        let keys = json!({ "keys": [
            jwk(&SecretKey::P256(ec), "ec"),
            jwk(&SecretKey::from_pem(pem).unwrap(), "rsa"),
            { "kty": "OKP", "crv": "Ed25519", "x": b64url(&ed_public[ed_public.len() - 32..]), "kid": "ed" },
            { "kty": "oct", "k": b64url(b"a shared secret that no JWKS should hold"), "kid": "shared" },
            { "kty": "EC", "crv": "P-256", "use": "enc", "x": "AA", "y": "AA" },
        ]});
        files.write("jwks.json", keys.to_string());
        let signers = vec![
            (Algorithm::ES256, EncodingKey::from_ec_der(ec_der.as_bytes()), "ec"),
            (Algorithm::RS256, EncodingKey::from_rsa_der(rsa.secret_der()), "rsa"),
            (Algorithm::EdDSA, EncodingKey::from_ed_der(ed.secret_der()), "ed"),
        ];
        Self { files, signers }
    }

    fn config(&self) -> String {
        format!(
            "[[jwt]]\nissuer = \"https://idp.example\"\naudience = \"key-broker\"\nkeys = \"{}\"\n\
             role_claim = \"/realm/roles\"\nleeway_seconds = 30\n\
             [jwt.roles]\nauditors = [\"audit\"]\noperators = [\"resources\", \"policy\"]\n",
            self.files.path("jwks.json")
        )
    }

    fn administrators(&self) -> Administrators {
        self.files.administrators(&self.config()).unwrap()
    }
}

fn claims() -> Value {
    json!({ "iss": "https://idp.example", "aud": ["other", "key-broker"], "nbf": NOW.0 - 10, "exp": NOW.0 + 60,
            "sub": "ann", "realm": { "roles": ["auditors", "unknown"] } })
}

#[test]
fn jwts_of_three_algorithms_give_the_roles_that_are_mapped() {
    let idp = Idp::new();
    let all = idp.administrators();
    for (algorithm, key, id) in &idp.signers {
        for kid in [Some(*id), None] {
            let header = Header { kid: kid.map(str::to_owned), ..Header::new(*algorithm) };
            let jwt = encode(&header, &claims(), key).unwrap();
            assert_eq!(who::<Audit>(&all, &jwt), Ok("ann of https://idp.example".to_owned()), "{algorithm:?}");
            assert_eq!(who::<Resources>(&all, &jwt), Err("attestor.role"));
        }
        // A key of another name is not tried.
        let header = Header { kid: Some("another".into()), ..Header::new(*algorithm) };
        assert_eq!(who::<Audit>(&all, &encode(&header, &claims(), key).unwrap()), Err("attestor.denied"));
    }
}

#[test]
fn a_jwt_that_lacks_or_misses_one_claim_is_nobodys() {
    let idp = Idp::new();
    let all = idp.administrators();
    let (algorithm, key, _) = &idp.signers[0];
    let sign = |claims: &Value| encode(&Header::new(*algorithm), claims, key).unwrap();
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        sign(&claims)
    };
    for name in ["exp", "nbf", "iss", "aud"] {
        let mut without = claims();
        without.as_object_mut().unwrap().remove(name);
        assert_eq!(who::<Audit>(&all, &sign(&without)), Err("attestor.denied"), "{name}");
        assert_eq!(who::<Audit>(&all, &with(name, Value::Null)), Err("attestor.denied"), "{name}");
    }
    for (name, value, counts) in [
        ("exp", json!(NOW.0 - 29), true),
        ("exp", json!(NOW.0 - 30), false),
        ("exp", json!("9999999999"), false),
        ("nbf", json!(NOW.0 + 30), true),
        ("nbf", json!(NOW.0 + 31), false),
        ("iss", json!("https://idp.example/"), false),
        ("iss", json!("https://evil.example"), false),
        ("aud", json!("key-broker"), true),
        ("aud", json!(["other"]), false),
    ] {
        let found = who::<Audit>(&all, &with(name, value.clone()));
        assert_eq!(found.is_ok(), counts, "{name} {value}: {found:?}");
    }
    // No role, or one that nobody mapped: somebody, who may do nothing.
    for roles in [json!({}), json!({ "roles": "admin" }), json!("auditors"), json!({ "roles": [7] })] {
        assert_eq!(who::<Audit>(&all, &with("realm", roles)), Err("attestor.role"));
    }
    assert!(who::<Audit>(&all, &with("realm", json!({ "roles": "auditors" }))).is_ok());
}

#[test]
fn a_jwt_under_another_key_or_algorithm_is_nobodys() {
    let idp = Idp::new();
    let all = idp.administrators();
    let (_, ec, _) = &idp.signers[0];
    let denied = |jwt: &str| assert_eq!(who::<Audit>(&all, jwt), Err("attestor.denied"), "{jwt}");
    let good = encode(&Header::new(Algorithm::ES256), &claims(), ec).unwrap();
    assert!(who::<Audit>(&all, &good).is_ok());
    denied(&encode(&Header::new(Algorithm::ES256), &claims(), &Idp::new().signers[0].1).unwrap());
    // A shared secret, whatever it is: the public key, the listed `oct` key, nothing.
    let jwks = std::fs::read(idp.files.path("jwks.json")).unwrap();
    for secret in [&jwks[..], b"a shared secret that no JWKS should hold", b""] {
        denied(&encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(secret)).unwrap());
    }
    let parts: Vec<&str> = good.split('.').collect();
    let header = |json: &str| format!("{}.{}.{}", b64url(json.as_bytes()), parts[1], parts[2]);
    for json in
        [r#"{"alg":"none"}"#, r#"{"alg":"ES384"}"#, r#"{"alg":"RS256"}"#, "{}", "", r#"{"alg":"ES256","b64":false}"#]
    {
        denied(&header(json));
    }
    denied(&format!("{}.{}.", parts[0], parts[1]));
    denied(&format!("{good}."));
    denied(&format!("{good}{}", "A".repeat(20_000)));
    // Signed, and with an extension that must be understood.
    let critical = format!("{}.{}", b64url(br#"{"alg":"ES256","crit":["x"],"x":1}"#), parts[1]);
    let signature = jsonwebtoken::crypto::sign(critical.as_bytes(), ec, Algorithm::ES256).unwrap();
    denied(&format!("{critical}.{signature}"));
}

#[test]
fn a_provider_is_described_whole() {
    let idp = Idp::new();
    let edited = |from: &str, to: &str| idp.files.refused(&idp.config().replace(from, to));
    assert!(edited("leeway_seconds = 30", "leeway_seconds = 301").contains("leeway_seconds"));
    assert!(edited("leeway_seconds = 30\n", "").contains("leeway_seconds"));
    assert!(edited("audience = \"key-broker\"", "audience = \"\"").contains("audience"));
    assert!(edited("auditors = [\"audit\"]\noperators = [\"resources\", \"policy\"]", "a = []").contains("no role"));
    for keys in ["", "[]", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}"] {
        idp.files.write("jwks.json", keys);
        assert!(idp.files.refused(&idp.config()).contains("jwks.json"), "{keys}");
    }
}

/// Runs openssl in a folder.
fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_certificate_counts_under_its_own_root_and_by_its_listed_name() {
    let files = Files::new();
    let folder = files.0.path();
    for root in ["root", "other"] {
        openssl(
            folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {root}.key -out {root}.pem -days 2 -subj /CN={root}"
            ),
        );
    }
    files.write(
        "names",
        "subjectAltName=DNS:ops.example,URI:spiffe://example/ops,email:ops@example.com\nextendedKeyUsage=clientAuth\n",
    );
    files.write("server", "subjectAltName=DNS:ops.example\nextendedKeyUsage=serverAuth\n");
    let issue = |name: &str, root: &str, extensions: &str| {
        openssl(
            folder,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /O=Example/CN=ops"
            ),
        );
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA {root}.pem -CAkey {root}.key -CAcreateserial -days 1 -extfile {extensions} -out {name}.pem"
            ),
        );
        vec![CertificateDer::from_pem_file(files.path(&format!("{name}.pem"))).unwrap()]
    };
    let own = issue("own", "root", "names");
    let foreign = issue("foreign", "other", "names");
    let server = issue("server-only", "root", "server");
    let now = Timestamp::now();
    let check = |named_by: &str, chain: &[CertificateDer<'static>], now| {
        let rule = format!(
            "[[certificate]]\nname = \"ops\"\nroot = \"{}\"\n{named_by}\nroles = [\"audit\"]",
            files.path("root.pem")
        );
        let all = files.administrators(&rule).unwrap();
        named(all.check::<Audit>(Shown { bearer: None, certificates: chain }, now))
    };
    let ok = || Ok("ops".to_owned());
    for by in [
        "san = \"dns:OPS.example\"",
        "san = \"uri:spiffe://example/ops\"",
        "san = \"email:ops@example.com\"",
        "subject = \"CN=ops,O=Example\"",
    ] {
        assert_eq!(check(by, &own, now), ok(), "{by}");
        assert_eq!(check(by, &foreign, now), Err("attestor.denied"), "{by}");
        assert_eq!(check(by, &server, now), Err("attestor.denied"), "{by}");
        assert_eq!(check(by, &own, now.plus(2 * 86_400)), Err("attestor.denied"), "expired");
        assert_eq!(check(by, &[], now), Err("attestor.denied"));
    }
    for by in [
        "san = \"dns:example\"",
        "san = \"uri:spiffe://example/\"",
        "san = \"dns:ops@example.com\"",
        "subject = \"CN=ops\"",
    ] {
        assert_eq!(check(by, &own, now), Err("attestor.denied"), "{by}");
    }
}
