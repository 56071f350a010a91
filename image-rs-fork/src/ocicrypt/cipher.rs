//! AES-256-CTR with HMAC-SHA-256 over the ciphertext, in place and in pieces of any size.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::{LayerSecret, Mac};

/// Decrypts one layer as it streams. What it gives is not authentic before [`Decryptor::verify`].
pub(crate) struct Decryptor {
    cipher: Ctr128BE<Aes256>,
    hmac: Hmac<Sha256>,
    expected: Mac,
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decryptor")
    }
}

/// The ciphertext is not what was encrypted under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl Decryptor {
    /// Starts at the layer's first byte.
    pub(crate) fn new(secret: &LayerSecret) -> Self {
        let key: &[u8; 32] = &secret.key;
        let cipher = Ctr128BE::new(key.into(), (&secret.nonce).into());
        Self { cipher, hmac: hmac(key), expected: secret.mac }
    }

    /// Authenticates the next bytes of ciphertext and puts the plaintext in their place. More than 2^132 bytes
    /// would exhaust the counter.
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        self.hmac.update(bytes);
        self.cipher.apply_keystream(bytes);
    }

    /// Whether all that was given is what was encrypted; compared in constant time.
    ///
    /// # Errors
    /// [`NotAuthentic`] for altered, missing or added bytes, and for another key.
    pub(crate) fn verify(self) -> Result<(), NotAuthentic> {
        self.hmac.verify(&self.expected.into()).map_err(|_| NotAuthentic)
    }
}

/// HMAC-SHA-256 takes its 32-byte key as one block, padded with zeros.
pub(super) fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    let mut block = [0u8; 64];
    for (place, byte) in block.iter_mut().zip(key) {
        *place = *byte;
    }
    let hmac = Hmac::new(&block.into());
    zeroize::Zeroize::zeroize(&mut block);
    hmac
}
