//! The other direction: encrypting a layer for recipients.

use std::collections::BTreeMap;

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use hmac::{Hmac, Mac as _};
use protocols::digest::Sha256Digest;
use protocols::encoding::b64;
use protocols::resource::ResourcePath;
use serde_json::json;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::annotations::{CIPHER, KEYS, PUBOPTS};
use super::jwe::{self, RecipientKey};
use super::packet::{ATTESTATION_AGENT, Packet, WrappingKey};
use super::{EncryptionError, cipher};

/// Who can open what is encrypted.
#[derive(Debug, Default)]
pub struct Recipients {
    public: Vec<RecipientKey>,
    wrapping: Vec<(ResourcePath, WrappingKey)>,
}

impl Recipients {
    /// Adds the holder of a private key.
    pub fn add_public(&mut self, key: RecipientKey) {
        self.public.push(key);
    }

    /// Adds whoever gets `path` from the key broker.
    pub fn add_wrapping(&mut self, path: ResourcePath, key: WrappingKey) {
        self.wrapping.push((path, key));
    }

    /// Whether nobody could open it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.public.is_empty() && self.wrapping.is_empty()
    }
}

/// Encrypts one layer's blob as it streams, under a key and nonce of its own.
pub struct LayerEncryptor {
    cipher: Ctr128BE<Aes256>,
    hmac: Hmac<Sha256>,
    secret: Zeroizing<String>,
}

impl std::fmt::Debug for LayerEncryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LayerEncryptor")
    }
}

impl LayerEncryptor {
    /// Starts a blob whose digest, before it is encrypted, is `blob`.
    ///
    /// # Errors
    /// [`EncryptionError::Random`].
    pub fn new(blob: &Sha256Digest) -> Result<Self, EncryptionError> {
        let mut key = Zeroizing::new([0u8; 32]);
        let mut nonce = [0u8; 16];
        getrandom::fill(key.as_mut_slice()).map_err(|_| EncryptionError::Random)?;
        getrandom::fill(&mut nonce).map_err(|_| EncryptionError::Random)?;
        let symkey = Zeroizing::new(b64(key.as_slice()));
        let secret = Zeroizing::new(format!(
            r#"{{"symkey":"{}","digest":"{blob}","cipheroptions":{{"nonce":"{}"}}}}"#,
            *symkey,
            b64(&nonce)
        ));
        let cipher = Ctr128BE::new((&*key).into(), (&nonce).into());
        Ok(Self { cipher, hmac: cipher::hmac(&key), secret })
    }

    /// Puts ciphertext in the place of the blob's next bytes.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        self.cipher.apply_keystream(bytes);
        self.hmac.update(bytes);
    }

    /// The annotations of the encrypted layer's descriptor.
    ///
    /// # Errors
    /// [`EncryptionError::NoRecipient`], and whatever keeps a recipient from getting the secret.
    pub fn finish(self, recipients: &Recipients) -> Result<BTreeMap<String, String>, EncryptionError> {
        if recipients.is_empty() {
            return Err(EncryptionError::NoRecipient);
        }
        let secret = self.secret.as_bytes();
        let mut annotations = BTreeMap::new();
        if !recipients.public.is_empty() {
            let jwe = jwe::seal(secret, &recipients.public)?;
            annotations.insert(format!("{KEYS}{}", jwe::SCHEME), b64(&jwe));
        }
        let packets = recipients.wrapping.iter().map(|(path, key)| Packet::seal(secret, path, key).map(|p| b64(&p)));
        let packets = packets.collect::<Result<Vec<_>, _>>()?;
        if !packets.is_empty() {
            annotations.insert(format!("{KEYS}{ATTESTATION_AGENT}"), packets.join(","));
        }
        let mac = self.hmac.finalize().into_bytes();
        let public = json!({ "cipher": CIPHER, "hmac": b64(&mac), "cipheroptions": {} });
        annotations.insert(PUBOPTS.to_owned(), b64(public.to_string().as_bytes()));
        Ok(annotations)
    }
}
