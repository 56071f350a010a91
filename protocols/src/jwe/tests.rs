use super::*;
use crate::encoding::b64url;

/// Test keys: EC in PKCS#8.
const P521: [&str; 2] =
    [include_str!("../../tests/data/jwe/p521-1.pem"), include_str!("../../tests/data/jwe/p521-2.pem")];
/// Test keys: RSA in PKCS#8, and in PKCS#1 as CoCo's clients keep it.
const RSA: [&str; 2] = [include_str!("../../tests/data/jwe/rsa-1.pem"), include_str!("../../tests/data/jwe/rsa-2.pem")];

fn pem(text: &str) -> SecretKey {
    SecretKey::from_pem(text).unwrap()
}

fn pair() -> (SecretKey, TeePubKey) {
    let key = SecretKey::P256(generate().unwrap());
    let jwk = key.public_key().jwk();
    (key, jwk)
}

/// RFC 7518 appendix C: Alice's ephemeral key and Bob's, and the key they agree on.
#[test]
fn kdf_gives_the_key_of_rfc_7518_appendix_c() {
    let alice = un_b64url("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo").unwrap();
    let (x, y) = ("weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ", "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck");
    let alice = p256::SecretKey::from_slice(&alice).unwrap();
    let shared = ecdh::agreed(&alice, &ecdh::point(x, y).unwrap());
    let key = concat_kdf(&shared, "A128GCM", b"Alice", b"Bob", 128);
    assert_eq!(b64url(&key[..16]), "VqqN6vgjbSBcIijNcacQGg");
}

#[test]
fn what_is_encrypted_to_a_key_is_read_by_that_key_alone() {
    for [key, other] in [[pair().0, pair().0], P521.map(pem), RSA.map(pem)] {
        let jwk = key.public_key().jwk();
        assert_eq!(PublicKey::of(&jwk).unwrap(), key.public_key());
        for plaintext in [&b""[..], b"hello-secret", &[7; 100_000]] {
            let response = encrypt(&jwk, plaintext).unwrap();
            assert_eq!(decrypt(&key, &response).unwrap().as_slice(), plaintext);
            assert_eq!(decrypt(&other, &response).unwrap_err(), JweError::Decrypt);
        }
    }
}

#[test]
fn every_jwe_of_a_recipient_has_a_content_key_of_its_own() {
    for key in [pair().0, pem(P521[0]), pem(RSA[0])] {
        let recipient = Recipient::new(&key.public_key().jwk()).unwrap();
        let [one, two] = [(); 2].map(|()| recipient.encrypt(b"the same").unwrap());
        assert_eq!(one.protected, two.protected);
        assert!(one.encrypted_key != two.encrypted_key && one.iv != two.iv && one.ciphertext != two.ciphertext);
        for response in [one, two] {
            assert_eq!(decrypt(&key, &response).unwrap().as_slice(), b"the same");
        }
    }
}

#[test]
fn a_key_that_is_made_and_kept_is_the_same_again() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P521, KeyAlgorithm::Rsa] {
        let key = SecretKey::generate(algorithm).unwrap();
        let kept = key.to_pem().unwrap();
        let kind = if algorithm == KeyAlgorithm::Rsa { "RSA PRIVATE KEY" } else { "PRIVATE KEY" };
        assert!(kept.starts_with(&format!("-----BEGIN {kind}-----\n")), "{algorithm:?}");
        let again = SecretKey::from_pem(&kept).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_ne!(SecretKey::generate(algorithm).unwrap().public_key(), key.public_key());
        assert_eq!(decrypt(&again, &encrypt(&key.public_key().jwk(), b"x").unwrap()).unwrap().as_slice(), b"x");
    }
}

#[test]
fn a_key_of_one_kind_reads_nothing_made_for_another() {
    let keys = || [pair().0, pem(P521[0]), pem(RSA[0])];
    for (a, key) in keys().iter().enumerate() {
        for (b, other) in keys().iter().enumerate() {
            let response = encrypt(&key.public_key().jwk(), b"x").unwrap();
            if a != b {
                assert_eq!(decrypt(other, &response).unwrap_err(), JweError::Malformed("algorithms"));
            }
        }
    }
}

/// What the captured server answered to captured clients with such keys.
#[test]
fn headers_for_every_kind_of_key_are_those_real_clients_rebuild() {
    let p521 = r#"{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"P-521","kty":"EC","x":"AFG6vkg-6S2AedKgciSbxlaSudIwdAL2fOw4U0EYKobEBR8jzcIv7nMb1om_RlHZ-ZhxRLvKCFZepMZiQQLDgsFb","y":"AZ8Z4oBF__XZB9gEJlEF_fl-d-oQXefoSJWp7fUzgsgTWcLAMVLhS2EMLBEQKyjKFO98ruBmT-4jEOd7GrHVLX-r"}}"#;
    let header = |key: &SecretKey| {
        let response = encrypt(&key.public_key().jwk(), b"x").unwrap();
        String::from_utf8(un_b64url(&response.protected).unwrap()).unwrap()
    };
    assert_eq!(header(&pem(RSA[0])), r#"{"alg":"RSA-OAEP-256","enc":"A256GCM"}"#);
    let ours = header(&pem(P521[0]));
    let frame = |text: &str| text.split('"').filter(|part| part.len() < 80).collect::<Vec<_>>().join("\"");
    assert_eq!((ours.len(), frame(&ours)), (p521.len(), frame(p521)));
}

/// The response to the captured client: same members, same header, same sizes.
#[test]
fn response_has_the_shape_real_clients_read() {
    let captured = r#"{"protected":"eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJlcGsiOnsiY3J2IjoiUC0yNTYiLCJrdHkiOiJFQyIsIngiOiJfVnc3QnRXMGp6dnV2VHUtQmhPMDJYS0xtcmpFaTU3WDQwYlpKOVpmTVJvIiwieSI6Im9nclY0VFVsUDJWX1kxOUptNmtpUXczUGF0NE9uRDdjRFdZMnZYUk5YT0UifX0","encrypted_key":"aR1kNABQ52Y_Tuzmxo6ciYRhQltCyuky06Yekfh1EH6PlIRrP1s2Ug","iv":"SnuaJvxBWFRMlNKV","ciphertext":"5DgR6oQeDM_KbAmm","tag":"RBynT9QTFKaY4pKS_R1wxw"}"#;
    let captured: Response = serde_json::from_str(captured).unwrap();
    let (key, jwk) = pair();
    let ours = encrypt(&jwk, b"hello-secret").unwrap();

    let shape = |r: &Response| {
        let mut header: serde_json::Value = serde_json::from_slice(&un_b64url(&r.protected).unwrap()).unwrap();
        let epk = header.get_mut("epk").unwrap().as_object_mut().unwrap();
        for name in ["x", "y"] {
            assert_eq!(epk.insert(name.into(), "".into()).unwrap().as_str().unwrap().len(), 43);
        }
        let sizes = [&r.encrypted_key, &r.iv, &r.ciphertext, &r.tag, &r.protected].map(String::len);
        (header, sizes)
    };
    assert_eq!(shape(&ours), shape(&captured));
    // The order is part of what real clients rebuild; the captured header in our types writes the same bytes.
    let header: Header = serde_json::from_slice(&un_b64url(&captured.protected).unwrap()).unwrap();
    assert_eq!(b64url(&serde_json::to_vec(&header).unwrap()), captured.protected);
    let text = serde_json::to_string(&ours).unwrap();
    let places: Vec<_> =
        ["\"protected\"", "\"encrypted_key\"", "\"iv\"", "\"ciphertext\"", "\"tag\""].map(|n| text.find(n)).into();
    assert!(places.is_sorted() && places.iter().all(Option::is_some));
    // And the captured one is well formed, only not for this key.
    assert_eq!(decrypt(&key, &captured).unwrap_err(), JweError::Decrypt);
}

#[test]
fn altered_in_any_part_it_does_not_decrypt() {
    let (key, jwk) = pair();
    let good = encrypt(&jwk, b"hello-secret").unwrap();
    let flip = |text: &str, place: usize| {
        let mut bytes = un_b64url(text).unwrap();
        bytes[place] ^= 1;
        b64url(&bytes)
    };
    for place in 0..12 {
        let r = Response { ciphertext: flip(&good.ciphertext, place), ..good.clone() };
        assert_eq!(decrypt(&key, &r).unwrap_err(), JweError::Decrypt);
        let r = Response { iv: flip(&good.iv, place), ..good.clone() };
        assert_eq!(decrypt(&key, &r).unwrap_err(), JweError::Decrypt);
        let r = Response { tag: flip(&good.tag, place), ..good.clone() };
        assert_eq!(decrypt(&key, &r).unwrap_err(), JweError::Decrypt);
        let r = Response { encrypted_key: flip(&good.encrypted_key, place), ..good.clone() };
        assert_eq!(decrypt(&key, &r).unwrap_err(), JweError::Decrypt);
    }
    // The header is authenticated: the same header with other spacing is another header.
    let header = String::from_utf8(un_b64url(&good.protected).unwrap()).unwrap();
    let r = Response { protected: b64url(header.replace(':', ": ").as_bytes()), ..good };
    assert_eq!(decrypt(&key, &r).unwrap_err(), JweError::Decrypt);
}

#[test]
fn malformed_parts_are_named() {
    let (key, jwk) = pair();
    let good = encrypt(&jwk, b"x").unwrap();
    let header = String::from_utf8(un_b64url(&good.protected).unwrap()).unwrap();
    let with = |header: String| Response { protected: b64url(header.as_bytes()), ..good.clone() };
    for bad in [
        Response { iv: "AAAA".into(), ..good.clone() },
        Response { tag: "AAAA".into(), ..good.clone() },
        Response { encrypted_key: String::new(), ..good.clone() },
        Response { ciphertext: "?".into(), ..good.clone() },
        with(header.replace(ALG, "ECDH-ES")),
        with(header.replace(ALG, RSA_ALG)),
        with(header.replace("P-256", "P-521")),
        with(header.replace(ENC, "A128GCM")),
        with(header.replace("{\"alg\"", "{\"crit\":[],\"alg\"")),
        with("{}".into()),
    ] {
        assert!(matches!(decrypt(&key, &bad), Err(JweError::Malformed(_))), "{bad:?}");
    }
}

#[test]
fn keys_off_the_curve_of_other_length_or_purpose_are_refused() {
    let ec = |crv: &str, alg: &str, x: &str, y: &str| TeePubKey::EC {
        crv: crv.into(),
        alg: alg.into(),
        x: x.into(),
        y: y.into(),
    };
    let rsa = |alg: &str, n: &str, e: &str| TeePubKey::RSA { alg: alg.into(), n: n.into(), e: e.into() };
    let mut bad = vec![ec("P-384", ALG, "AA", "AA")];
    for key in [pair().0, pem(P521[0])] {
        let TeePubKey::EC { crv, alg, x, y } = key.public_key().jwk() else { panic!() };
        assert!(PublicKey::of(&ec(&crv, &alg, &x, &y)).is_ok());
        bad.extend([
            ec(&crv, &alg, &y, &x),
            ec(&crv, &alg, "AA", &y),
            ec(&crv, &alg, "AA", "AA"),
            ec(&crv, &alg, "", ""),
            ec(&crv, &alg, &format!("AAAA{x}"), &y),
            ec(if crv == "P-256" { "P-521" } else { "P-256" }, &alg, &x, &y),
            ec(&crv, "ECDH-ES", &x, &y),
            ec(&crv, RSA_ALG, &x, &y),
        ]);
    }
    let TeePubKey::RSA { alg, n, e } = pem(RSA[0]).public_key().jwk() else { panic!() };
    assert!(PublicKey::of(&rsa(&alg, &n, &e)).is_ok());
    let short = b64url(&[0xff; 128]);
    let (even, long) = (b64url(&[0xfe; 256]), b64url(&[0xff; 1025]));
    let padded = b64url(&[&[0], un_b64url(&n).unwrap().as_slice()].concat());
    bad.extend([&short, &even, &long, &padded, &String::new()].map(|n| rsa(&alg, n, &e)));
    bad.extend(["", "AQ", "AA", "AAEAAQ", "AgAAAAE", "Ag"].map(|e| rsa(&alg, &n, e)));
    bad.extend(["RSA1_5", "RSA-OAEP", ALG].map(|alg| rsa(alg, &n, &e)));
    for bad in bad {
        assert_eq!(PublicKey::of(&bad).unwrap_err(), JweError::Key, "{bad:?}");
        assert_eq!(encrypt(&bad, b"x").unwrap_err(), JweError::Key);
    }
}
