//! The secret of one layer: key and nonce, as they come out of a wrapped key.

use std::collections::BTreeMap;

use protocols::encoding::un_b64;
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::Mac;

/// What decrypts one layer; erased when dropped.
pub(crate) struct LayerSecret {
    pub(super) key: Zeroizing<[u8; 32]>,
    pub(super) nonce: [u8; 16],
    pub(super) mac: Mac,
}

impl std::fmt::Debug for LayerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LayerSecret")
    }
}

/// Its `digest`, of the blob before it was encrypted, is passed over: the diffID says more.
#[derive(Deserialize)]
struct Private {
    symkey: String,
    #[serde(default)]
    cipheroptions: BTreeMap<String, String>,
}

impl Drop for Private {
    fn drop(&mut self) {
        self.symkey.zeroize();
        self.cipheroptions.values_mut().for_each(|option| option.zeroize());
    }
}

impl LayerSecret {
    /// Reads an unwrapped secret: exactly 32 bytes of key and 16 of nonce.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub(super) fn parse(unwrapped: &[u8], mac: Mac) -> Result<Self, String> {
        // The parser's own message could quote the secret.
        let private: Private =
            serde_json::from_slice(unwrapped).map_err(|_| "the wrapped key holds no cipher options".to_owned())?;
        let bytes = |text: &str| un_b64(text).map(Zeroizing::new).map_err(|_| "a key or nonce that is not base64");
        let symkey = bytes(&private.symkey)?;
        let key = symkey.as_slice().try_into().map_err(|_| format!("a key of {} bytes", symkey.len()))?;
        let nonce = private.cipheroptions.get("nonce").ok_or("no nonce beside the key")?;
        let nonce = bytes(nonce)?;
        let nonce = nonce.as_slice().try_into().map_err(|_| format!("a nonce of {} bytes", nonce.len()))?;
        Ok(Self { key: Zeroizing::new(key), nonce, mac })
    }
}

#[cfg(test)]
mod tests {
    use protocols::encoding::b64;

    use super::*;

    fn parse(key: usize, nonce: &str) -> Result<LayerSecret, String> {
        let json = format!(r#"{{"symkey":"{}","digest":"sha256:00","cipheroptions":{nonce}}}"#, b64(&vec![1; key]));
        LayerSecret::parse(json.as_bytes(), [0; 32])
    }

    fn nonce(length: usize) -> String {
        format!(r#"{{"nonce":"{}"}}"#, b64(&vec![2; length]))
    }

    #[test]
    fn only_exact_lengths_are_a_secret() {
        let good = parse(32, &nonce(16)).unwrap();
        assert_eq!((*good.key, good.nonce), ([1; 32], [2; 16]));
        assert_eq!(parse(16, &nonce(16)).unwrap_err(), "a key of 16 bytes");
        assert_eq!(parse(32, &nonce(12)).unwrap_err(), "a nonce of 12 bytes");
        assert_eq!(parse(32, &nonce(17)).unwrap_err(), "a nonce of 17 bytes");
        assert_eq!(parse(32, "{}").unwrap_err(), "no nonce beside the key");
        assert_eq!(parse(32, r#"{"nonce":"?"}"#).unwrap_err(), "a key or nonce that is not base64");
    }

    #[test]
    fn an_error_never_quotes_the_secret() {
        let error = LayerSecret::parse(br#"{"symkey":"c2VjcmV0","cipheroptions":"c2VjcmV0"}"#, [0; 32]).unwrap_err();
        assert!(!error.contains("c2Vj"), "{error}");
        assert_eq!(format!("{:?}", parse(32, &nonce(16)).unwrap()), "LayerSecret");
    }
}
