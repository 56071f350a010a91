//! The JWE that carries a resource to a session key: flattened JSON (RFC 7516 section 7.2.2),
//! ECDH-ES+A256KW on P-256 (RFC 7518 section 4.6, Concat KDF with SHA-256, no party info), A256GCM.
//!
//! Real clients rebuild the protected header to compute the AAD, so it is written exactly as
//! `{"alg":…,"enc":…,"epk":{"crv":…,"kty":…,"x":…,"y":…}}`, compact.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use aes_kw::KwAes256;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::{PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::encoding::{b64url, un_b64url};
use crate::kbs::{Response, TeePubKey};

/// Key agreement of every session of ours.
pub const ALG: &str = "ECDH-ES+A256KW";
/// Content encryption of every resource.
pub const ENC: &str = "A256GCM";

/// A resource could not be encrypted or decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JweError {
    /// The session key is not a P-256 key for [`ALG`].
    #[error("the session key is not a P-256 key for {ALG}")]
    Key,
    /// Not a JWE of this form.
    #[error("malformed JWE: {0}")]
    Malformed(&'static str),
    /// Encrypted to another key, or altered.
    #[error("the JWE does not decrypt under this key")]
    Decrypt,
    /// The system gave no randomness, or the cipher refused.
    #[error("the JWE cannot be made")]
    Encrypt,
}

/// The protected header; the order of the fields is the order on the wire.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    enc: String,
    epk: Epk,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epk {
    crv: String,
    kty: String,
    x: String,
    y: String,
}

/// A fresh P-256 key.
///
/// # Errors
/// [`JweError::Encrypt`] when the system gives no randomness.
pub fn generate() -> Result<SecretKey, JweError> {
    loop {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|_| JweError::Encrypt)?;
        // A seed outside the field's order (chance 2^-32) is drawn again.
        if let Ok(key) = SecretKey::from_slice(seed.as_slice()) {
            return Ok(key);
        }
    }
}

/// The JWK of a session key, with exactly the members that are hashed.
#[must_use]
pub fn jwk(key: &PublicKey) -> TeePubKey {
    let (x, y) = coordinates(key);
    TeePubKey::EC { crv: "P-256".to_owned(), alg: ALG.to_owned(), x, y }
}

/// Reads a session key: P-256, on the curve, coordinates of exactly 32 bytes, for [`ALG`].
///
/// # Errors
/// [`JweError::Key`] for any other key.
pub fn public_key(jwk: &TeePubKey) -> Result<PublicKey, JweError> {
    match jwk {
        TeePubKey::EC { crv, alg, x, y } if crv == "P-256" && alg == ALG => point(x, y).ok_or(JweError::Key),
        _ => Err(JweError::Key),
    }
}

/// Encrypts `plaintext` so that only the holder of `to` reads it.
///
/// # Errors
/// [`JweError::Key`], [`JweError::Encrypt`].
pub fn encrypt(to: &TeePubKey, plaintext: &[u8]) -> Result<Response, JweError> {
    let to = public_key(to)?;
    let ephemeral = generate()?;
    let (x, y) = coordinates(&ephemeral.public_key());
    let epk = Epk { crv: "P-256".to_owned(), kty: "EC".to_owned(), x, y };
    let header = Header { alg: ALG.to_owned(), enc: ENC.to_owned(), epk };
    let protected = b64url(&serde_json::to_vec(&header).map_err(|_| JweError::Encrypt)?);

    let mut content_key = Zeroizing::new([0u8; 32]);
    let mut iv = [0u8; 12];
    getrandom::fill(content_key.as_mut_slice()).map_err(|_| JweError::Encrypt)?;
    getrandom::fill(&mut iv).map_err(|_| JweError::Encrypt)?;
    let mut encrypted_key = [0u8; 40];
    wrapping_key(&ephemeral, &to)
        .wrap_key(content_key.as_slice(), &mut encrypted_key)
        .map_err(|_| JweError::Encrypt)?;

    let sealed = Aes256Gcm::new_from_slice(content_key.as_slice())
        .map_err(|_| JweError::Encrypt)?
        .encrypt(&Nonce::from(iv), Payload { msg: plaintext, aad: protected.as_bytes() })
        .map_err(|_| JweError::Encrypt)?;
    let (ciphertext, tag) = sealed.split_last_chunk::<16>().ok_or(JweError::Encrypt)?;
    Ok(Response {
        encrypted_key: b64url(&encrypted_key),
        iv: b64url(&iv),
        ciphertext: b64url(ciphertext),
        tag: b64url(tag),
        protected,
    })
}

/// Decrypts what was encrypted to `key`.
///
/// # Errors
/// [`JweError::Malformed`], [`JweError::Decrypt`].
pub fn decrypt(key: &SecretKey, response: &Response) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let bytes = |text: &str, what| un_b64url(text).map_err(|_| JweError::Malformed(what));
    let header: Header = serde_json::from_slice(&bytes(&response.protected, "protected header")?)
        .map_err(|_| JweError::Malformed("protected header"))?;
    if header.alg != ALG || header.enc != ENC || header.epk.kty != "EC" || header.epk.crv != "P-256" {
        return Err(JweError::Malformed("algorithms"));
    }
    let epk = point(&header.epk.x, &header.epk.y).ok_or(JweError::Malformed("ephemeral key"))?;
    let encrypted_key: [u8; 40] =
        bytes(&response.encrypted_key, "key")?.try_into().map_err(|_| JweError::Malformed("key"))?;
    let iv: [u8; 12] = bytes(&response.iv, "iv")?.try_into().map_err(|_| JweError::Malformed("iv"))?;
    let tag: [u8; 16] = bytes(&response.tag, "tag")?.try_into().map_err(|_| JweError::Malformed("tag"))?;
    let mut sealed = bytes(&response.ciphertext, "ciphertext")?;
    sealed.extend_from_slice(&tag);

    let mut content_key = Zeroizing::new([0u8; 32]);
    wrapping_key(key, &epk).unwrap_key(&encrypted_key, content_key.as_mut_slice()).map_err(|_| JweError::Decrypt)?;
    Aes256Gcm::new_from_slice(content_key.as_slice())
        .map_err(|_| JweError::Decrypt)?
        .decrypt(&Nonce::from(iv), Payload { msg: &sealed, aad: response.protected.as_bytes() })
        .map(Zeroizing::new)
        .map_err(|_| JweError::Decrypt)
}

fn coordinates(key: &PublicKey) -> (String, String) {
    // A public key is never the point at infinity, so an uncompressed point has both coordinates.
    let point = key.as_affine().to_sec1_point(false);
    let text = |part: Option<&_>| part.map(|bytes: &p256::FieldBytes| b64url(bytes)).unwrap_or_default();
    (text(point.x()), text(point.y()))
}

fn point(x: &str, y: &str) -> Option<PublicKey> {
    let x: [u8; 32] = un_b64url(x).ok()?.try_into().ok()?;
    let y: [u8; 32] = un_b64url(y).ok()?.try_into().ok()?;
    let mut sec1 = vec![0x04];
    sec1.extend_from_slice(&x);
    sec1.extend_from_slice(&y);
    PublicKey::from_sec1_bytes(&sec1).ok()
}

fn wrapping_key(secret: &SecretKey, public: &PublicKey) -> KwAes256 {
    let shared = p256::ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    let key = Zeroizing::new(concat_kdf(shared.raw_secret_bytes(), ALG, b"", b"", 256));
    KwAes256::new((&*key).into())
}

/// One round of the Concat KDF (NIST SP 800-56A section 5.8.1, RFC 7518 section 4.6.2), enough for 256 bits.
#[must_use]
pub fn concat_kdf(shared: &[u8], alg: &str, apu: &[u8], apv: &[u8], bits: u32) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(1u32.to_be_bytes());
    hasher.update(shared);
    for field in [alg.as_bytes(), apu, apv] {
        // The fields have a few bytes.
        hasher.update(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(field);
    }
    hasher.update(bits.to_be_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (SecretKey, TeePubKey) {
        let key = generate().unwrap();
        let jwk = jwk(&key.public_key());
        (key, jwk)
    }

    /// RFC 7518 appendix C: Alice's ephemeral key and Bob's, and the key they agree on.
    #[test]
    fn kdf_gives_the_key_of_rfc_7518_appendix_c() {
        let alice = un_b64url("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo").unwrap();
        let bob = point("weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ", "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck")
            .unwrap();
        let alice = SecretKey::from_slice(&alice).unwrap();
        let shared = p256::ecdh::diffie_hellman(alice.to_nonzero_scalar(), bob.as_affine());
        let key = concat_kdf(shared.raw_secret_bytes(), "A128GCM", b"Alice", b"Bob", 128);
        assert_eq!(b64url(&key[..16]), "VqqN6vgjbSBcIijNcacQGg");
    }

    #[test]
    fn what_is_encrypted_to_a_key_is_read_by_that_key_alone() {
        let (key, jwk) = pair();
        let (other, _) = pair();
        for plaintext in [&b""[..], b"hello-secret", &[7; 100_000]] {
            let response = encrypt(&jwk, plaintext).unwrap();
            assert_eq!(decrypt(&key, &response).unwrap().as_slice(), plaintext);
            assert_eq!(decrypt(&other, &response).unwrap_err(), JweError::Decrypt);
        }
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
            with(header.replace(ENC, "A128GCM")),
            with(header.replace("{\"alg\"", "{\"crit\":[],\"alg\"")),
            with("{}".into()),
        ] {
            assert!(matches!(decrypt(&key, &bad), Err(JweError::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn keys_off_the_curve_of_other_length_or_purpose_are_refused() {
        let (_, good) = pair();
        let TeePubKey::EC { crv, alg, x, y } = good else { panic!() };
        let ec = |crv: &str, alg: &str, x: &str, y: &str| TeePubKey::EC {
            crv: crv.into(),
            alg: alg.into(),
            x: x.into(),
            y: y.into(),
        };
        assert!(public_key(&ec(&crv, &alg, &x, &y)).is_ok());
        for bad in [
            ec(&crv, &alg, &y, &x),
            ec(&crv, &alg, "AA", &y),
            ec(&crv, &alg, &format!("AAAA{x}"), &y),
            ec("P-521", &alg, &x, &y),
            ec(&crv, "ECDH-ES", &x, &y),
            TeePubKey::RSA { alg: "RSA-OAEP-256".into(), n: "AA".into(), e: "AQAB".into() },
        ] {
            assert_eq!(public_key(&bad).unwrap_err(), JweError::Key);
            assert_eq!(encrypt(&bad, b"x").unwrap_err(), JweError::Key);
        }
    }
}
