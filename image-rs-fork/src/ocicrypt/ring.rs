//! Keys at hand: files of private keys and of key brokers' keys.

use std::collections::BTreeMap;

use async_trait::async_trait;
use protocols::resource::ResourcePath;
use zeroize::Zeroizing;

use super::jwe::{self, DecryptionKey};
use super::packet::{ATTESTATION_AGENT, Packet, WrappingKey};
use super::{KeyError, KeyProvider, WrappedKey};

/// Opens secrets with keys that were given to it, and asks nobody.
#[derive(Debug, Default)]
pub struct KeyRing {
    private: Vec<DecryptionKey>,
    wrapping: BTreeMap<ResourcePath, WrappingKey>,
}

impl KeyRing {
    /// Adds a private key for JWE.
    pub fn add_private(&mut self, key: DecryptionKey) {
        self.private.push(key);
    }

    /// Adds what a key broker holds at `path`.
    pub fn add_wrapping(&mut self, path: ResourcePath, key: WrappingKey) {
        self.wrapping.insert(path, key);
    }
}

#[async_trait]
impl KeyProvider for KeyRing {
    async fn unwrap(&self, wrapped: &WrappedKey) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match wrapped.scheme.as_str() {
            jwe::SCHEME => jwe::open(&wrapped.packet, &self.private).map_err(KeyError::NoKey),
            ATTESTATION_AGENT => {
                let packet = Packet::parse(&wrapped.packet)?;
                match self.wrapping.get(packet.key_id()) {
                    Some(key) => packet.open(key),
                    None => Err(KeyError::NoKey(format!("{} is not among the keys", packet.key_id()))),
                }
            }
            _ => Err(KeyError::NoKey("an unknown scheme".to_owned())),
        }
    }
}
