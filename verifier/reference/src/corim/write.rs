//! Writing a document as a CoRIM with one CoMID: what [`super::read`] reads back, the same bytes for the same document.

use std::collections::BTreeMap;

use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};
use p256::ecdsa::signature::Signer as _;
use p384::pkcs8::DecodePrivateKey as _;
use protocols::environment::Environment;
use protocols::keys::{KeyError, SigningKey, VerifyingKey};
use protocols::time::Timestamp;

use super::cose::CONTENT_TYPES;
use super::table::{self, Key};
use super::{CorimError, PROFILE, PROFILE_DEVELOPMENT};
use crate::document::Document;
use crate::names;
use crate::signers::SignerKey;

/// A private key that signs CoRIMs.
pub enum CorimKey {
    /// ES256.
    P256(p256::ecdsa::SigningKey),
    /// ES384.
    P384(p384::ecdsa::SigningKey),
}

impl std::fmt::Debug for CorimKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CorimKey({})", self.public().keyid())
    }
}

impl CorimKey {
    /// Reads PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Private`]: not ECDSA on P-256 or P-384.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if let Ok(SigningKey::EcdsaP256(key)) = SigningKey::from_pem(pem) {
            return Ok(Self::P256(key));
        }
        p384::ecdsa::SigningKey::from_pkcs8_pem(pem).map(Self::P384).map_err(|_| KeyError::Private)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> SignerKey {
        match self {
            Self::P256(key) => SignerKey::General(VerifyingKey::EcdsaP256(*key.verifying_key())),
            Self::P384(key) => SignerKey::P384(*key.verifying_key()),
        }
    }

    const fn algorithm(&self) -> iana::Algorithm {
        match self {
            Self::P256(_) => iana::Algorithm::ES256,
            Self::P384(_) => iana::Algorithm::ES384,
        }
    }

    /// RFC 6979.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Self::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        }
    }
}

/// Writes and signs.
///
/// # Errors
/// [`CorimError`]: a document that would not be read again.
pub fn sign(document: &Document, key: &CorimKey) -> Result<Vec<u8>, CorimError> {
    let payload = unsigned(document)?;
    let meta = map([(0, map([(0, document.issuer.as_str().into())]))]);
    let protected = HeaderBuilder::new()
        .algorithm(key.algorithm())
        .content_type(CONTENT_TYPES[0].to_owned())
        .key_id(key.public().keyid().as_bytes().to_vec())
        .value(8, Value::Bytes(encoded(meta)?))
        .build();
    CoseSign1Builder::new()
        .protected(protected)
        .payload(payload)
        .create_signature(&[], |message| key.sign(message))
        .build()
        .to_tagged_vec()
        .map_err(|error| CorimError::new(format!("cannot be written: {error}")))
}

/// Writes without a signature.
///
/// # Errors
/// [`CorimError`]: a document that would not be read again.
pub fn unsigned(document: &Document) -> Result<Vec<u8>, CorimError> {
    document.check().map_err(|error| CorimError::new(format!("would not be read: {error}")))?;
    // One triple for each class, in the order of names.
    let mut classes: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
    for (name, values) in document.values.values() {
        let (vendor, model, key) =
            table::place(name).ok_or_else(|| CorimError::new(format!("has no place for {name}")))?;
        let key = match key {
            Key::Number(number) => Value::from(number),
            Key::Text(text) => text.into(),
        };
        let algorithm = names::size(name).and_then(table::algorithm).map(|(number, _)| number);
        let algorithm = algorithm.ok_or_else(|| CorimError::new(format!("has no digest for {name}")))?;
        for value in values {
            let digest = Value::Array(vec![algorithm.into(), Value::Bytes(unhex(value))]);
            let mval = map([(2, Value::Array(vec![digest]))]);
            classes.entry((vendor, model)).or_default().push(map([(0, key.clone()), (1, mval)]));
        }
    }
    let triples = classes.into_iter().map(|((vendor, model), measurements)| {
        let class = map([(1, vendor.into()), (2, model.into())]);
        Value::Array(vec![map([(0, class)]), Value::Array(measurements)])
    });
    let comid = map([
        (1, map([(0, document.series.as_str().into()), (1, document.version.into())])),
        (4, map([(0, Value::Array(triples.collect()))])),
    ]);
    let profile = match document.environment {
        Environment::Production => PROFILE,
        Environment::Development => PROFILE_DEVELOPMENT,
    };
    let time = |time: Timestamp| Value::Tag(1, Box::new(time.0.into()));
    let corim = map([
        (0, document.series.as_str().into()),
        (1, Value::Array(vec![Value::Tag(506, Box::new(Value::Bytes(encoded(comid)?)))])),
        (3, Value::Tag(32, Box::new(profile.into()))),
        (4, map([(0, time(document.issued_at)), (1, time(document.expires))])),
    ]);
    encoded(Value::Tag(501, Box::new(corim)))
}

fn map<const N: usize>(members: [(u32, Value); N]) -> Value {
    Value::Map(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

fn encoded(value: Value) -> Result<Vec<u8>, CorimError> {
    value.to_vec().map_err(|error| CorimError::new(format!("cannot be written: {error}")))
}

/// Of values that were checked to be hex.
fn unhex(text: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    text.as_bytes().chunks(2).map(|pair| pair.iter().fold(0u8, |byte, c| byte << 4 | digit(*c))).collect()
}
