//! The packet of the provider `attestation-agent`: a secret under a key that a key broker holds.
//!
//! JSON `{"kid","wrapped_data","iv","wrap_type"}`, base64 in the standard alphabet. `kid` is `kbs:///` and the
//! resource's path; an authority in it is passed over, the guest asks its own key broker and no other. `wrap_type` is
//! `A256GCM` with an iv of 12 bytes. `A256CTR` is refused: whoever carries the packet could flip bits of the secret,
//! and the tools that know the name do not write it. The later form of the packet adds `version`, `provider` and
//! settings; of it, `0.1.0` and `kbs` are taken.

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use protocols::encoding::{b64, un_b64};
use protocols::resource::ResourcePath;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{EncryptionError, KeyError};

/// The scheme's name in annotations.
pub const ATTESTATION_AGENT: &str = "provider.attestation-agent";

const WRAP_TYPE: &str = "A256GCM";

#[derive(Serialize, Deserialize)]
struct Raw {
    kid: String,
    wrapped_data: String,
    iv: String,
    wrap_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
}

/// A key that wraps layers' secrets, 32 bytes; erased when dropped.
#[derive(Clone)]
pub struct WrappingKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WrappingKey")
    }
}

impl WrappingKey {
    /// A key of exactly 32 bytes.
    ///
    /// # Errors
    /// [`EncryptionError::WrappingKey`] for any other length.
    pub fn new(bytes: &[u8]) -> Result<Self, EncryptionError> {
        let key = bytes.try_into().map_err(|_| EncryptionError::WrappingKey { length: bytes.len() })?;
        Ok(Self(Zeroizing::new(key)))
    }

    fn cipher(&self) -> Aes256Gcm {
        let key: &[u8; 32] = &self.0;
        Aes256Gcm::new(key.into())
    }
}

/// Reads the path out of `kbs:///repository/type/tag`, with or without scheme and authority.
///
/// # Errors
/// [`EncryptionError::KeyId`].
pub fn key_id(text: &str) -> Result<ResourcePath, EncryptionError> {
    let rest = text.strip_prefix("kbs://").unwrap_or(text);
    let path = rest.split_once('/').and_then(|(_, path)| path.parse().ok());
    path.ok_or_else(|| EncryptionError::KeyId { text: text.chars().take(128).collect() })
}

/// A secret wrapped under a key broker's key.
#[derive(Debug)]
pub struct Packet {
    kid: ResourcePath,
    iv: [u8; 12],
    wrapped: Vec<u8>,
}

impl Packet {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`KeyError::NoKey`] for another form, another cipher and another vault than a key broker.
    pub fn parse(json: &[u8]) -> Result<Self, KeyError> {
        let refused = |problem: String| KeyError::NoKey(problem);
        let raw: Raw = serde_json::from_slice(json).map_err(|e| refused(format!("not an annotation packet: {e}")))?;
        for (member, value, only) in [
            ("version", &raw.version, "0.1.0"),
            ("provider", &raw.provider, "kbs"),
            ("wrap_type", &Some(raw.wrap_type), WRAP_TYPE),
        ] {
            if let Some(value) = value.as_deref().filter(|value| *value != only) {
                let value: String = value.chars().take(32).flat_map(char::escape_debug).collect();
                return Err(refused(format!("{member} {value}, only {only} is taken")));
            }
        }
        let bytes = |text: &str| un_b64(text).map_err(|e| refused(format!("an annotation packet that is {e}")));
        let iv = bytes(&raw.iv)?;
        Ok(Self {
            kid: key_id(&raw.kid).map_err(|e| refused(e.to_string()))?,
            wrapped: bytes(&raw.wrapped_data)?,
            iv: iv.try_into().map_err(|iv: Vec<u8>| refused(format!("an iv of {} bytes", iv.len())))?,
        })
    }

    /// Which of the key broker's keys opens it.
    #[must_use]
    pub const fn key_id(&self) -> &ResourcePath {
        &self.kid
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`KeyError::NoKey`] under another key, or when it was altered.
    pub fn open(&self, key: &WrappingKey) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let opened = key.cipher().decrypt(&Nonce::from(self.iv), self.wrapped.as_slice());
        opened.map(Zeroizing::new).map_err(|_| KeyError::NoKey(format!("it does not open under {}", self.kid)))
    }

    /// Wraps a secret.
    ///
    /// # Errors
    /// [`EncryptionError::Random`].
    pub(super) fn seal(secret: &[u8], kid: &ResourcePath, key: &WrappingKey) -> Result<Vec<u8>, EncryptionError> {
        let mut iv = [0; 12];
        getrandom::fill(&mut iv).map_err(|_| EncryptionError::Random)?;
        let wrapped = key.cipher().encrypt(&Nonce::from(iv), secret).map_err(|_| EncryptionError::Cipher)?;
        let raw = Raw {
            kid: format!("kbs:///{kid}"),
            wrapped_data: b64(&wrapped),
            iv: b64(&iv),
            wrap_type: WRAP_TYPE.to_owned(),
            version: None,
            provider: None,
        };
        serde_json::to_vec(&raw).map_err(|_| EncryptionError::Cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form key providers of the field write.
    const FIELD: &str = r#"{"kid":"kbs:///default/key/1","wrapped_data":"AAECAwQFBgcICQ==","iv":"AAAAAAAAAAAAAAAB","wrap_type":"A256GCM"}"#;

    fn refused(json: &str, words: &str) {
        match Packet::parse(json.as_bytes()) {
            Err(KeyError::NoKey(problem)) => assert!(problem.contains(words), "{words}: {problem}"),
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn packets_of_the_field_are_read_in_both_versions() {
        let packet = Packet::parse(FIELD.as_bytes()).unwrap();
        assert_eq!((packet.key_id().as_str(), packet.wrapped.len()), ("default/key/1", 10));
        let later =
            FIELD.replace('}', r#","version":"0.1.0","provider":"kbs","provider_settings":{},"annotations":{}}"#);
        assert_eq!(Packet::parse(later.as_bytes()).unwrap().key_id().as_str(), "default/key/1");
        refused(&later.replace("\"kbs\"", "\"aliyun\""), "provider aliyun");
        refused(&later.replace("0.1.0", "0.2.0"), "version 0.2.0");
        refused(&FIELD.replace("A256GCM", "A256CTR"), "wrap_type A256CTR");
        refused(&FIELD.replace("AAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA"), "iv of 15 bytes");
        refused(&FIELD.replace("kbs:///", "kbs+pkcs11:///"), "is not kbs:///");
        refused(&FIELD.replace("/default/", "/../"), "is not kbs:///");
        refused("{}", "missing field");
    }

    #[test]
    fn a_key_id_is_a_path_whatever_stands_before_it() {
        for text in ["kbs:///a/b/c", "kbs://broker.example:8080/a/b/c", "/a/b/c", "broker.example/a/b/c"] {
            assert_eq!(key_id(text).unwrap().as_str(), "a/b/c");
        }
        for text in ["", "a/b", "kbs://a/b/c", "kbs:///a/b/c/d", "kbs:///a/b/", "kbs:///a/../c"] {
            assert!(key_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_same_key_opens_a_packet() {
        let (key, other) = (WrappingKey::new(&[1; 32]).unwrap(), WrappingKey::new(&[2; 32]).unwrap());
        assert_eq!(WrappingKey::new(&[1; 31]).unwrap_err(), EncryptionError::WrappingKey { length: 31 });
        let sealed = Packet::seal(b"secret", &key_id("/a/b/c").unwrap(), &key).unwrap();
        let mut packet = Packet::parse(&sealed).unwrap();
        assert_eq!(packet.open(&key).unwrap().as_slice(), b"secret");
        assert!(packet.open(&other).is_err());
        packet.wrapped[0] ^= 1;
        assert!(packet.open(&key).is_err());
    }
}
