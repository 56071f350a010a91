//! Encrypted layers in the ocicrypt form: who can have the key, and the bytes behind it.
//!
//! A layer whose media type ends in `+encrypted` is AES-256-CTR ciphertext of the blob that the rest of the media
//! type names. Its descriptor's annotations carry
//! - `org.opencontainers.image.enc.pubopts`: base64 of `{"cipher","hmac","cipheroptions"}`, and
//! - `org.opencontainers.image.enc.keys.<scheme>`: base64 packets, joined by commas, each of which wraps the same
//!   secret `{"symkey","digest","cipheroptions":{"nonce"}}` for somebody. Known schemes are `jwe` and
//!   `provider.<name>`; what a packet is, is a matter of the [`KeyProvider`].
//!
//! # Decisions
//!
//! **Order.** SHA-256 of the blob, then HMAC and decryption, then decompression, then the diffID. Nothing is committed
//! before size, digest, HMAC and diffID of the layer have been found right. The HMAC is over the ciphertext under the
//! same key; it tells a wrong key (`image.decrypt`) from a bad layer. What protects the content is the diffID.
//!
//! **Keys before caches.** Every encrypted layer's key is asked for at every pull, also where the layer is stored
//! already: whoever may not have the key may not use what somebody else's key has unlocked.
//!
//! **Stricter than ocicrypt.** The nonce is taken from the wrapped secret alone, which is authenticated; public cipher
//! options are refused. The HMAC must be there, 32 bytes long. JWE only with the algorithms ocicrypt writes for PEM
//! keys, and RSA-OAEP-256.

mod annotations;
mod cipher;
mod encrypt;
mod error;
mod jwe;
mod keys;
mod packet;
mod ring;
mod secret;

pub use annotations::WrappedKey;
pub use encrypt::{LayerEncryptor, Recipients};
pub use error::EncryptionError;
pub use jwe::{DecryptionKey, RecipientKey};
pub use keys::{KeyError, KeyProvider, NoKeys};
pub use packet::{ATTESTATION_AGENT, Packet, WrappingKey, key_id};
pub use ring::KeyRing;

pub(crate) use annotations::{Encryption, media_type};
pub(crate) use cipher::Decryptor;
pub(crate) use keys::resolve;
pub(crate) use secret::LayerSecret;

/// A message authentication code of a layer, HMAC-SHA-256.
pub(crate) type Mac = [u8; 32];
