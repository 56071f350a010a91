//! Who may sign reference values: named in the attestor's configuration, never by what is read.

use std::collections::BTreeMap;

use p384::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use protocols::digest::Sha256Digest;
use protocols::keys::{KeyError, VerifyingKey};
use serde::{Deserialize, Serialize};
use verifier::SignersError;

/// One `[[reference.signer]]` of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerConfig {
    /// The name that documents by this key must carry as their issuer.
    pub issuer: String,
    /// The public key, SPKI PEM: ECDSA P-256 or Ed25519; P-384 signs CoRIM alone.
    pub key: String,
    /// Documents below this version are refused; at least 1.
    pub min_version: u64,
    /// Higher floors for single series.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub series: BTreeMap<String, u64>,
}

/// A signer's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignerKey {
    /// ECDSA P-256 or Ed25519: envelopes, and P-256 for CoRIM too (ES256).
    General(VerifyingKey),
    /// ECDSA P-384: CoRIM alone (ES384).
    P384(p384::ecdsa::VerifyingKey),
}

impl SignerKey {
    fn from_pem(pem: &str) -> Result<Self, KeyError> {
        VerifyingKey::from_pem(pem)
            .map(Self::General)
            .or_else(|error| p384::ecdsa::VerifyingKey::from_public_key_pem(pem).map(Self::P384).map_err(|_| error))
    }

    /// SHA-256 of the SPKI DER. Of no bytes only if the key could not be encoded, which no valid key gives.
    #[must_use]
    pub fn keyid(&self) -> Sha256Digest {
        match self {
            Self::General(key) => Sha256Digest::of(&key.to_der()),
            Self::P384(key) => Sha256Digest::of(
                key.to_public_key_der().map(|der| der.as_bytes().to_vec()).unwrap_or_default().as_slice(),
            ),
        }
    }
}

/// One signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    issuer: String,
    key: SignerKey,
    keyid: Sha256Digest,
    min_version: u64,
    series: BTreeMap<String, u64>,
}

impl Signer {
    /// The name its documents must carry.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// SHA-256 of the key's SPKI DER.
    #[must_use]
    pub const fn keyid(&self) -> Sha256Digest {
        self.keyid
    }

    /// Its key, where it can sign envelopes.
    #[must_use]
    pub const fn envelope_key(&self) -> Option<&VerifyingKey> {
        match &self.key {
            SignerKey::General(key) => Some(key),
            SignerKey::P384(_) => None,
        }
    }

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> &SignerKey {
        &self.key
    }
}

/// Those who may sign, no key twice; none is a list too, under which no signed document counts. Several keys may stand
/// for one issuer, so that keys can be changed; the highest of their floors then holds for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers(Vec<Signer>);

impl Signers {
    /// Checks the `[[reference.signer]]` of a configuration.
    ///
    /// # Errors
    /// [`SignersError`].
    pub fn new(configs: &[SignerConfig]) -> Result<Self, SignersError> {
        let mut signers: Vec<Signer> = Vec::with_capacity(configs.len());
        for SignerConfig { issuer, key, min_version, series } in configs.iter().cloned() {
            if issuer.is_empty() {
                return Err(SignersError::Issuer);
            }
            if min_version == 0 || series.values().any(|floor| *floor == 0) {
                return Err(SignersError::MinVersion { issuer });
            }
            let key = match SignerKey::from_pem(&key) {
                Ok(key) => key,
                Err(source) => return Err(SignersError::Key { issuer, source }),
            };
            let keyid = key.keyid();
            if signers.iter().any(|signer| signer.keyid == keyid) {
                return Err(SignersError::DuplicateKey { issuer, keyid: keyid.hex() });
            }
            signers.push(Signer { issuer, key, keyid, min_version, series });
        }
        Ok(Self(signers))
    }

    /// In the configuration's order.
    pub fn iter(&self) -> impl Iterator<Item = &Signer> {
        self.0.iter()
    }

    /// The lowest version that counts within (issuer, series).
    #[must_use]
    pub fn floor(&self, issuer: &str, series: &str) -> u64 {
        let floor = |signer: &Signer| signer.min_version.max(signer.series.get(series).copied().unwrap_or(0));
        self.0.iter().filter(|signer| signer.issuer == issuer).map(floor).max().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use protocols::keys::{KeyKind, SigningKey};

    use super::*;

    fn signer(issuer: &str) -> SignerConfig {
        let key = SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap();
        SignerConfig { issuer: issuer.into(), key, min_version: 1, series: BTreeMap::new() }
    }

    #[test]
    fn a_list_that_cannot_be_used_is_refused() {
        let good = signer("a");
        let again = SignerConfig { issuer: "b".into(), ..good.clone() };
        Signers::new(&[good.clone(), signer("a")]).unwrap();
        assert!(Signers::new(&[]).unwrap().iter().next().is_none());
        assert_eq!(Signers::new(&[signer("")]), Err(SignersError::Issuer));
        for wrong in [
            SignerConfig { min_version: 0, ..good.clone() },
            SignerConfig { series: [("s".into(), 0)].into(), ..good.clone() },
        ] {
            assert_eq!(Signers::new(&[wrong]), Err(SignersError::MinVersion { issuer: "a".into() }));
        }
        let no_key = SignerConfig { key: "no key".into(), ..good.clone() };
        assert!(matches!(Signers::new(&[no_key]), Err(SignersError::Key { .. })));
        assert!(matches!(Signers::new(&[good, again]), Err(SignersError::DuplicateKey { .. })));
    }

    #[test]
    fn the_highest_floor_of_an_issuers_entries_holds() {
        let old = SignerConfig { min_version: 2, ..signer("a") };
        let new = SignerConfig { min_version: 5, series: [("s".into(), 9)].into(), ..signer("a") };
        let signers = Signers::new(&[old, new, signer("b")]).unwrap();
        let floors =
            [("a", "s"), ("a", "t"), ("b", "s"), ("c", "s")].map(|(issuer, series)| signers.floor(issuer, series));
        assert_eq!(floors, [9, 5, 1, u64::MAX]);
    }
}
