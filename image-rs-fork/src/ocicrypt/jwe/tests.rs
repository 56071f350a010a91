use p256::elliptic_curve::Generate as _;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"{\"symkey\":\"...\"}";

/// A pair of keys as files hold them.
fn pair(kind: &str) -> (DecryptionKey, RecipientKey) {
    macro_rules! pems {
        ($key:expr) => {{
            let key = $key;
            (key.to_pkcs8_pem(LineEnding::LF).unwrap(), key.public_key().to_public_key_pem(LineEnding::LF).unwrap())
        }};
    }
    let (private, public) = match kind {
        "P-256" => pems!(p256::SecretKey::generate()),
        "P-384" => pems!(p384::SecretKey::generate()),
        "P-521" => pems!(p521::SecretKey::generate()),
        _ => {
            let key = rsa::PrivateKey::new(&mut rand_core(), 2048).unwrap();
            let public = key.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
            (key.to_pkcs8_pem(LineEnding::LF).unwrap(), public)
        }
    };
    (DecryptionKey::from_pem(&private).unwrap(), RecipientKey::from_pem(&public).unwrap())
}

fn rand_core() -> impl rsa::rand_core::TryCryptoRng {
    struct Random;
    impl rsa::rand_core::TryRng for Random {
        type Error = std::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(getrandom::u32().unwrap())
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(getrandom::u64().unwrap())
        }
        fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Self::Error> {
            getrandom::fill(to).unwrap();
            Ok(())
        }
    }
    impl rsa::rand_core::TryCryptoRng for Random {}
    Random
}

#[test]
fn each_recipient_opens_it_and_nobody_else() {
    let kinds = ["RSA", "P-256", "P-384", "P-521"];
    let (private, public): (Vec<_>, Vec<_>) = kinds.into_iter().map(pair).unzip();
    let for_all = seal(SECRET, &public).unwrap();
    let value: Value = serde_json::from_slice(&for_all).unwrap();
    assert_eq!(value["recipients"].as_array().unwrap().len(), 4);
    // As go-jose writes it: the first recipient's key once more, beside the recipients.
    let mut value = value;
    value["encrypted_key"] = value["recipients"][0]["encrypted_key"].clone();
    let for_all = value.to_string().into_bytes();
    for (kind, (private, public)) in kinds.iter().zip(private.into_iter().zip(public)) {
        let keys = [private];
        assert_eq!(open(&for_all, &keys).unwrap().as_slice(), SECRET, "{kind}");
        let alone = seal(SECRET, &[public]).unwrap();
        assert_eq!(open(&alone, &keys).unwrap().as_slice(), SECRET, "{kind}");
        let other = [pair(if *kind == "RSA" { "P-256" } else { kind }).0];
        assert!(open(&alone, &other).unwrap_err().contains("none of 1 keys"), "{kind}");
        assert!(open(&alone, &[]).is_err(), "{kind}");
    }
}

/// A JWE for one P-256 key with its parts replaced.
fn altered(jwe: &[u8], alter: impl FnOnce(&mut Value, &mut Value)) -> Vec<u8> {
    let mut outer: Value = serde_json::from_slice(jwe).unwrap();
    let mut header: Value = serde_json::from_slice(&un_b64url(outer["protected"].as_str().unwrap()).unwrap()).unwrap();
    let before = header.clone();
    alter(&mut outer, &mut header);
    if header != before {
        outer["protected"] = b64url(header.to_string().as_bytes()).into();
    }
    outer.to_string().into_bytes()
}

#[test]
fn no_other_algorithm_is_taken() {
    let (private, public) = pair("P-256");
    let (keys, jwe) = ([private], seal(SECRET, &[public]).unwrap());
    for algorithm in ["none", "dir", "RSA1_5", "ECDH-ES", "A256KW", "PBES2-HS256+A128KW", ""] {
        let problem = open(&altered(&jwe, |_, header| header["alg"] = algorithm.into()), &keys).unwrap_err();
        assert!(problem.contains("is not taken"), "{algorithm}: {problem}");
    }
    type Alter = fn(&mut Value, &mut Value);
    let cases: [(&str, Alter); 13] = [
        ("is not taken", |_, header| drop(header.as_object_mut().unwrap().remove("alg"))),
        ("content encryption A128GCM", |_, header| header["enc"] = "A128GCM".into()),
        ("content encryption none", |_, header| drop(header.as_object_mut().unwrap().remove("enc"))),
        ("compressed", |_, header| header["zip"] = "DEF".into()),
        ("critical", |_, header| header["crit"] = json!(["b64"])),
        ("shared and not protected", |outer, _| outer["unprotected"] = json!({"alg": "dir"})),
        ("stands twice", |outer, _| outer["header"] = json!({"alg": "ECDH-ES+A256KW"})),
        ("not protected", |outer, _| outer["header"] = json!({"enc": "A256GCM"})),
        ("beside several", |outer, _| {
            outer["recipients"] = json!([{"encrypted_key": ""}]);
            outer["header"] = json!({});
        }),
        ("no recipient", |outer, _| drop(outer.as_object_mut().unwrap().remove("encrypted_key"))),
        ("no ephemeral key", |_, header| drop(header.as_object_mut().unwrap().remove("epk"))),
        ("of type OKP", |_, header| header["epk"]["kty"] = "OKP".into()),
        ("iv that is not 12", |outer, _| outer["iv"] = "AAAA".into()),
    ];
    for (words, alter) in cases {
        let problem = open(&altered(&jwe, alter), &keys).unwrap_err();
        assert!(problem.contains(words), "{words}: {problem}");
    }
    let many = altered(&jwe, |outer, _| {
        outer["recipients"] = vec![json!({"encrypted_key": ""}); MAX_RECIPIENTS + 1].into();
        outer.as_object_mut().unwrap().remove("encrypted_key");
    });
    assert!(open(&many, &keys).unwrap_err().contains("more than 16 recipients"));
    assert!(open(b"a.b.c.d.e", &keys).unwrap_err().contains("not a JWE in JSON"));
}

#[test]
fn altered_in_any_part_it_does_not_open() {
    let (private, public) = pair("P-384");
    let (keys, jwe) = ([private], seal(SECRET, &[public]).unwrap());
    for part in ["encrypted_key", "iv", "ciphertext", "tag"] {
        let jwe = altered(&jwe, |outer, _| {
            let mut bytes = un_b64url(outer[part].as_str().unwrap()).unwrap();
            bytes[0] ^= 1;
            outer[part] = b64url(&bytes).into();
        });
        assert!(open(&jwe, &keys).is_err(), "{part}");
    }
    // Members without a meaning are authenticated too.
    assert!(open(&altered(&jwe, |_, header| header["kid"] = "x".into()), &keys).is_err());
    assert!(open(&altered(&jwe, |outer, _| outer["aad"] = "AAAA".into()), &keys).is_err());
    // An ephemeral key off the curve, and one of another curve.
    for epk in [json!({"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA"}), json!({"kty": "EC", "crv": "P-256"})] {
        assert!(open(&altered(&jwe, |_, header| header["epk"] = epk), &keys).is_err());
    }
}

#[test]
fn short_rsa_and_other_keys_are_refused() {
    let short = rsa::PrivateKey::new(&mut rand_core(), 1024).unwrap();
    let pem = short.to_pkcs8_pem(LineEnding::LF).unwrap();
    assert_eq!(DecryptionKey::from_pem(&pem).unwrap_err(), EncryptionError::PrivateKey);
    let pem = short.to_public_key().to_public_key_pem(LineEnding::LF).unwrap();
    assert_eq!(RecipientKey::from_pem(&pem).unwrap_err(), EncryptionError::PublicKey);
    for pem in ["", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----\n", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n"] {
        assert_eq!(DecryptionKey::from_pem(pem).unwrap_err(), EncryptionError::PrivateKey);
        assert_eq!(RecipientKey::from_pem(pem).unwrap_err(), EncryptionError::PublicKey);
    }
}
