//! Secrets at rest: each is sealed by the store's data key, and the data key lies in the store wrapped by a key from
//! outside. So the outer key can be kept by something that never hands it out, and be changed without touching a secret.

use async_trait::async_trait;
use protocols::resource::ResourcePath;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use zeroize::Zeroizing;

/// Bytes of a data key and of a local store key.
const KEY_LEN: usize = 32;
/// First byte of everything that is sealed here: AES-256-GCM, then the nonce, the ciphertext and the tag.
const AES_256_GCM_V1: u8 = 1;
/// What a wrapped data key is bound to.
const DATA_KEY: &[u8] = b"tcl-store-data-key-v1";
/// What the key of resources is derived for, and what each is bound to together with its path.
const RESOURCE: &[u8] = b"tcl-store-resource-v1";
/// What the key of backups' checksums is derived for.
const BACKUP: &[u8] = b"tcl-store-backup-v1";

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// What was sealed does not open: another key sealed it, or it was changed since.
    #[error("{0} does not open with this key: another key sealed it, or it was changed")]
    Wrong(&'static str),
    /// A key that is none.
    #[error("a store key is 64 hexadecimal digits")]
    Malformed,
    /// Whoever holds the key does not answer, or the system gives no randomness.
    #[error("{0}")]
    Unavailable(String),
}

/// The key that seals a store's secrets.
pub struct DataKey(Zeroizing<[u8; KEY_LEN]>);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey")
    }
}

impl DataKey {
    /// A data key of these bytes, as a [`StoreKey`] gives it back.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; KEY_LEN]>) -> Self {
        Self(bytes)
    }

    /// The bytes, to be wrapped.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub(crate) fn generate() -> Result<Self, KeyError> {
        Ok(Self(random_key()?))
    }

    fn derive(&self, purpose: &[u8]) -> Zeroizing<Vec<u8>> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        Zeroizing::new(hmac::sign(&key, purpose).as_ref().to_vec())
    }
}

/// The key outside of the store, or whoever holds it: a file, the environment, a key management service.
#[async_trait]
pub trait StoreKey: std::fmt::Debug + Send + Sync {
    /// Wraps a data key, so that only [`unwrap_key`](Self::unwrap_key) of the same outer key gives it back.
    async fn wrap_key(&self, key: &DataKey) -> Result<Vec<u8>, KeyError>;

    /// Gives a wrapped data key back; [`KeyError::Wrong`] when another outer key wrapped it.
    async fn unwrap_key(&self, wrapped: &[u8]) -> Result<DataKey, KeyError>;
}

/// A store key whose bytes the operator hands over.
pub struct LocalKey(Sealing);

impl std::fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalKey")
    }
}

impl LocalKey {
    /// Reads 64 hexadecimal digits; white space around them is ignored.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| KeyError::Malformed)?;
        Ok(Self(Sealing::new(bytes.as_slice())?))
    }

    /// The text of a new key.
    ///
    /// # Errors
    /// [`KeyError::Unavailable`] when the system gives no randomness.
    pub fn generate_hex() -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(hex::encode(random_key()?.as_slice())))
    }
}

#[async_trait]
impl StoreKey for LocalKey {
    async fn wrap_key(&self, key: &DataKey) -> Result<Vec<u8>, KeyError> {
        self.0.seal(DATA_KEY, key.as_bytes())
    }

    async fn unwrap_key(&self, wrapped: &[u8]) -> Result<DataKey, KeyError> {
        let wrong = KeyError::Wrong("the store's data key");
        let Some(bytes) = self.0.open(DATA_KEY, wrapped) else { return Err(wrong) };
        let mut key = Zeroizing::new([0; KEY_LEN]);
        match bytes.len() == KEY_LEN {
            true => key.copy_from_slice(&bytes),
            false => return Err(wrong),
        }
        Ok(DataKey(key))
    }
}

/// A store's data key, and what is done with it in here.
pub struct Vault {
    key: DataKey,
    resources: Sealing,
    backups: hmac::Key,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    pub(crate) fn new(key: DataKey) -> Result<Self, KeyError> {
        let resources = Sealing::new(&key.derive(RESOURCE))?;
        let backups = hmac::Key::new(hmac::HMAC_SHA256, &key.derive(BACKUP));
        Ok(Self { key, resources, backups })
    }

    /// The data key, to be wrapped anew.
    pub(crate) fn key(&self) -> &DataKey {
        &self.key
    }

    /// Seals a resource to its path: under another it does not open.
    pub(crate) fn seal(&self, path: &ResourcePath, bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.resources.seal(&bound(path), bytes)
    }

    pub(crate) fn open(&self, path: &ResourcePath, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let opened = self.resources.open(&bound(path), sealed).ok_or(KeyError::Wrong("a resource"))?;
        Ok(opened.to_vec())
    }

    /// The keyed checksum over a backup, to be fed and signed or verified.
    pub(crate) fn checksum(&self) -> hmac::Context {
        hmac::Context::with_key(&self.backups)
    }
}

fn bound(path: &ResourcePath) -> Vec<u8> {
    [RESOURCE, b"\0", path.as_str().as_bytes()].concat()
}

/// AES-256-GCM with random nonces: a key is good for 2^32 of them, which is not reached by secrets of administrators.
struct Sealing(LessSafeKey);

impl Sealing {
    fn new(key: &[u8]) -> Result<Self, KeyError> {
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| KeyError::Malformed)?)))
    }

    fn seal(&self, bound: &[u8], bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(no_randomness)?;
        let mut sealed = bytes.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut sealed)
            .map_err(|_| KeyError::Unavailable("AES-256-GCM took no more bytes".to_owned()))?;
        Ok([&[AES_256_GCM_V1][..], &nonce, &sealed].concat())
    }

    fn open(&self, bound: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (&AES_256_GCM_V1, rest) = sealed.split_first()? else { return None };
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = Zeroizing::new(ciphertext.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, Aad::from(bound), bytes.as_mut_slice()).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

fn random_key() -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    getrandom::fill(bytes.as_mut_slice()).map_err(no_randomness)?;
    Ok(bytes)
}

fn no_randomness(_: getrandom::Error) -> KeyError {
    KeyError::Unavailable("the system gives no randomness".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking
mod tests {
    use super::*;

    fn path(text: &str) -> ResourcePath {
        text.parse().unwrap()
    }

    #[test]
    fn a_resource_opens_under_its_own_path_and_unchanged_alone() {
        let vault = Vault::new(DataKey::generate().unwrap()).unwrap();
        let sealed = vault.seal(&path("default/key/one"), b"secret").unwrap();
        assert_eq!(vault.open(&path("default/key/one"), &sealed).unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, vault.seal(&path("default/key/one"), b"secret").unwrap(), "each has a nonce of its own");
        assert!(vault.open(&path("default/key/two"), &sealed).is_err(), "another path");
        let other = Vault::new(DataKey::generate().unwrap()).unwrap();
        assert!(other.open(&path("default/key/one"), &sealed).is_err(), "another key");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(vault.open(&path("default/key/one"), &changed).is_err(), "byte {place}");
            assert!(vault.open(&path("default/key/one"), &sealed[..place]).is_err(), "cut at {place}");
        }
    }

    #[tokio::test]
    async fn a_data_key_unwraps_under_the_key_that_wrapped_it_alone() {
        let key = LocalKey::from_hex(&LocalKey::generate_hex().unwrap()).unwrap();
        let data = DataKey::generate().unwrap();
        let wrapped = key.wrap_key(&data).await.unwrap();
        assert_eq!(key.unwrap_key(&wrapped).await.unwrap().as_bytes(), data.as_bytes());
        let other = LocalKey::from_hex(&LocalKey::generate_hex().unwrap()).unwrap();
        assert!(matches!(other.unwrap_key(&wrapped).await, Err(KeyError::Wrong(_))));
        assert!(matches!(key.unwrap_key(&wrapped[1..]).await, Err(KeyError::Wrong(_))));
        assert!(matches!(key.unwrap_key(&[]).await, Err(KeyError::Wrong(_))));
    }

    #[test]
    fn a_store_key_is_sixty_four_digits() {
        let text = LocalKey::generate_hex().unwrap();
        assert_eq!(text.len(), 64);
        assert!(LocalKey::from_hex(&format!(" {}\n", *text)).is_ok());
        for wrong in ["", "00", &text[1..], &format!("{}00", *text), &format!("g{}", &text[1..])] {
            assert!(matches!(LocalKey::from_hex(wrong), Err(KeyError::Malformed)), "{wrong}");
        }
    }
}
