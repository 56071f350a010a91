//! Secrets wrapped by JWE, JSON serialization (RFC 7516 section 7.2): flattened for one recipient, general for more.
//!
//! Read and written: RSA-OAEP (SHA-1, what ocicrypt writes for RSA keys) and ECDH-ES+A256KW on P-256, P-384 and
//! P-521, content by A256GCM; read only: RSA-OAEP-256. Everything else is refused: `none` and `dir` by not being
//! among these, compression and critical headers by name.

mod header;
mod keys;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use protocols::encoding::{b64url, un_b64url};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::header::{Algorithm, Header};
pub use self::keys::{DecryptionKey, RecipientKey};
use super::EncryptionError;

/// The scheme's name in annotations.
pub(super) const SCHEME: &str = "jwe";
/// The most recipients of one JWE; each may cost an RSA operation.
const MAX_RECIPIENTS: usize = 16;

type ContentKey = Zeroizing<[u8; 32]>;

#[derive(Serialize, Deserialize)]
struct Jwe {
    protected: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unprotected: Option<Header>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<Recipient>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header: Option<Header>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encrypted_key: Option<String>,
    iv: String,
    ciphertext: String,
    tag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aad: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Recipient {
    #[serde(default)]
    header: Header,
    #[serde(default)]
    encrypted_key: String,
}

/// Opens a JWE with whichever of the keys fits one of its recipients.
///
/// # Errors
/// In words: it is malformed, of algorithms we do not take, or for somebody else.
pub(super) fn open(json: &[u8], keys: &[DecryptionKey]) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut jwe: Jwe = serde_json::from_slice(json).map_err(|e| format!("not a JWE in JSON: {e}"))?;
    let protected = decode(&jwe.protected, "protected header")?;
    let protected: Header = serde_json::from_slice(&protected).map_err(|e| format!("its protected header: {e}"))?;
    if jwe.unprotected.is_some() {
        return Err("a header that is shared and not protected".to_owned());
    }
    protected.check_content()?;
    let header = jwe.header.take();
    if jwe.recipients.is_empty() {
        let encrypted_key = jwe.encrypted_key.take().ok_or("no recipient")?;
        jwe.recipients.push(Recipient { header: header.unwrap_or_default(), encrypted_key });
    } else if header.is_some() {
        // A lone `encrypted_key` beside recipients repeats the first one's: go-jose writes it, it means nothing.
        return Err("a header of one recipient beside several".to_owned());
    }
    if jwe.recipients.len() > MAX_RECIPIENTS {
        return Err(format!("more than {MAX_RECIPIENTS} recipients"));
    }
    let mut refused = Vec::new();
    for recipient in &jwe.recipients {
        let algorithm = match Algorithm::of(&protected, &recipient.header) {
            Ok(algorithm) => algorithm,
            Err(problem) => {
                refused.push(problem);
                continue;
            }
        };
        let encrypted_key = decode(&recipient.encrypted_key, "encrypted key")?;
        for content_key in keys.iter().filter_map(|key| key.unwrap(&algorithm, &encrypted_key)) {
            // Another key of the same kind may unwrap to noise.
            if let Some(plain) = jwe.content(&content_key)? {
                return Ok(plain);
            }
        }
    }
    refused.push(format!("none of {} keys is a recipient's", keys.len()));
    Err(refused.join(", "))
}

/// Wraps `secret` for each of the keys.
///
/// # Errors
/// [`EncryptionError::Random`] and [`EncryptionError::PublicKey`].
pub(super) fn seal(secret: &[u8], recipients: &[RecipientKey]) -> Result<Vec<u8>, EncryptionError> {
    let mut content_key = Zeroizing::new([0; 32]);
    let mut iv = [0; 12];
    getrandom::fill(content_key.as_mut_slice()).map_err(|_| EncryptionError::Random)?;
    getrandom::fill(&mut iv).map_err(|_| EncryptionError::Random)?;
    let wrapped = recipients.iter().map(|key| key.wrap(&content_key)).collect::<Result<Vec<_>, _>>()?;
    let mut wrapped: Vec<Recipient> =
        wrapped.into_iter().map(|(header, key)| Recipient { header, encrypted_key: b64url(&key) }).collect();
    // With one recipient its header is protected too.
    let alone = if wrapped.len() == 1 { wrapped.pop() } else { None };
    let (header, encrypted_key) = match alone {
        Some(recipient) => (recipient.header, Some(recipient.encrypted_key)),
        None => (Header::default(), None),
    };
    let protected = serde_json::to_vec(&header.with_content()).map_err(|_| EncryptionError::Cipher)?;
    let protected = b64url(&protected);
    let sealed = cipher(&content_key)
        .encrypt(&Nonce::from(iv), Payload { msg: secret, aad: protected.as_bytes() })
        .map_err(|_| EncryptionError::Cipher)?;
    let (ciphertext, tag) = sealed.split_last_chunk::<16>().ok_or(EncryptionError::Cipher)?;
    let jwe = Jwe {
        protected,
        unprotected: None,
        recipients: wrapped,
        header: None,
        encrypted_key,
        iv: b64url(&iv),
        ciphertext: b64url(ciphertext),
        tag: b64url(tag),
        aad: None,
    };
    serde_json::to_vec(&jwe).map_err(|_| EncryptionError::Cipher)
}

impl Jwe {
    /// The content, if this is its key.
    fn content(&self, key: &ContentKey) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let iv: [u8; 12] = decode(&self.iv, "iv")?.try_into().map_err(|_| "an iv that is not 12 bytes long")?;
        let tag: [u8; 16] = decode(&self.tag, "tag")?.try_into().map_err(|_| "a tag that is not 16 bytes long")?;
        let mut sealed = decode(&self.ciphertext, "ciphertext")?;
        sealed.extend_from_slice(&tag);
        let mut aad = self.protected.clone();
        if let Some(more) = &self.aad {
            aad.push('.');
            aad.push_str(more);
        }
        let opened = cipher(key).decrypt(&Nonce::from(iv), Payload { msg: &sealed, aad: aad.as_bytes() });
        Ok(opened.ok().map(Zeroizing::new))
    }
}

fn cipher(key: &ContentKey) -> Aes256Gcm {
    let key: &[u8; 32] = key;
    Aes256Gcm::new(key.into())
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>, String> {
    un_b64url(text).map_err(|e| format!("its {what} is {e}"))
}

#[cfg(test)]
mod tests;
