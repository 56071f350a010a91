//! Who may sign golden values: pinned in measured configuration, never taken from what is appraised.

use std::collections::BTreeMap;

use protocols::digest::Sha256Digest;
use protocols::keys::{KeyError, VerifyingKey};
use serde::{Deserialize, Serialize};

/// Whether golden values of a signer count without a current revocation list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RevocationRule {
    /// A list that is found is honoured; none is needed.
    Optional,
    /// Without an authentic list that has not expired nothing by this signer counts.
    Required,
}

/// One `[[signers]]` table of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerConfig {
    /// The name golden values by this key must carry as their issuer.
    pub issuer: String,
    /// The public key, SPKI PEM.
    pub key: String,
    /// Golden values below this version are refused; at least 1.
    pub min_version: u64,
    /// Higher floors for single series.
    #[serde(default)]
    pub series: BTreeMap<String, u64>,
    /// Whether a revocation list is needed.
    pub revocations: RevocationRule,
}

/// A list of signers that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignersError {
    /// No signer at all: nothing could ever be launched.
    #[error("at least one [[signers]] entry is needed")]
    Empty,
    /// An issuer without a name.
    #[error("a signer's issuer must not be empty")]
    Issuer,
    /// A key that could not be read.
    #[error("signer `{issuer}`: {source}")]
    Key {
        /// Whose key.
        issuer: String,
        /// Why.
        source: KeyError,
    },
    /// A minimum version of 0, which nothing signed has.
    #[error("signer `{issuer}`: min_version and series floors are at least 1")]
    MinVersion {
        /// Whose.
        issuer: String,
    },
    /// One key listed twice: its rules would be ambiguous.
    #[error("signer `{issuer}`: the key {keyid} is listed twice")]
    DuplicateKey {
        /// The second entry's issuer.
        issuer: String,
        /// The key.
        keyid: String,
    },
}

/// One pinned signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    issuer: String,
    key: VerifyingKey,
    keyid: Sha256Digest,
    min_version: u64,
    series: BTreeMap<String, u64>,
    revocations: RevocationRule,
}

impl Signer {
    /// The name its golden values must carry.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// SHA-256 of the key's SPKI DER.
    #[must_use]
    pub const fn keyid(&self) -> Sha256Digest {
        self.keyid
    }

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> &VerifyingKey {
        &self.key
    }
}

/// The pinned signers: at least one, no key twice. Several keys may stand for one issuer, so that keys
/// can be changed; the strictest of their floors and revocation rules then holds for all of them,
/// because versions count within (issuer, series) and not per key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedSigners(Vec<Signer>);

impl TrustedSigners {
    /// Checks the `[[signers]]` of a configuration.
    ///
    /// # Errors
    /// [`SignersError`].
    pub fn new(configs: Vec<SignerConfig>) -> Result<Self, SignersError> {
        let mut signers: Vec<Signer> = Vec::with_capacity(configs.len());
        for config in configs {
            let SignerConfig { issuer, key, min_version, series, revocations } = config;
            if issuer.is_empty() {
                return Err(SignersError::Issuer);
            }
            if min_version == 0 || series.values().any(|floor| *floor == 0) {
                return Err(SignersError::MinVersion { issuer });
            }
            let key = match VerifyingKey::from_pem(&key) {
                Ok(key) => key,
                Err(source) => return Err(SignersError::Key { issuer, source }),
            };
            let keyid = Sha256Digest::of(&key.to_der());
            if signers.iter().any(|signer| signer.keyid == keyid) {
                return Err(SignersError::DuplicateKey { issuer, keyid: keyid.hex() });
            }
            signers.push(Signer { issuer, key, keyid, min_version, series, revocations });
        }
        if signers.is_empty() {
            return Err(SignersError::Empty);
        }
        Ok(Self(signers))
    }

    /// In the configuration's order.
    pub fn iter(&self) -> impl Iterator<Item = &Signer> {
        self.0.iter()
    }

    /// Whether this key is pinned under this name.
    #[must_use]
    pub fn pins(&self, keyid: &Sha256Digest, issuer: &str) -> bool {
        self.0.iter().any(|signer| signer.keyid == *keyid && signer.issuer == issuer)
    }

    /// The lowest version that counts within (issuer, series).
    #[must_use]
    pub fn floor(&self, issuer: &str, series: &str) -> u64 {
        let floor = |signer: &Signer| signer.min_version.max(signer.series.get(series).copied().unwrap_or(0));
        self.of(issuer).map(floor).max().unwrap_or(u64::MAX)
    }

    /// Whether golden values of this issuer need a current revocation list.
    #[must_use]
    pub fn revocations(&self, issuer: &str) -> RevocationRule {
        self.of(issuer).map(|signer| signer.revocations).max().unwrap_or(RevocationRule::Required)
    }

    fn of<'s>(&'s self, issuer: &'s str) -> impl Iterator<Item = &'s Signer> {
        self.0.iter().filter(move |signer| signer.issuer == issuer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ISSUER, key, signer};

    #[test]
    fn a_list_that_cannot_be_used_is_refused() {
        let good = signer(&key(1), ISSUER);
        let with = |change: fn(&mut SignerConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config
        };
        let renamed = with(|c| c.issuer = "another name".into());
        let cases: Vec<(Vec<SignerConfig>, SignersError)> = vec![
            (vec![], SignersError::Empty),
            (vec![with(|c| c.issuer.clear())], SignersError::Issuer),
            (vec![with(|c| c.min_version = 0)], SignersError::MinVersion { issuer: ISSUER.into() }),
            (vec![with(|c| c.series = [("s".into(), 0)].into())], SignersError::MinVersion { issuer: ISSUER.into() }),
            (
                vec![with(|c| c.key = "no key".into())],
                SignersError::Key { issuer: ISSUER.into(), source: KeyError::Public },
            ),
            (
                vec![good.clone(), renamed.clone()],
                SignersError::DuplicateKey { issuer: renamed.issuer.clone(), keyid: key(1).verifying_key().keyid() },
            ),
        ];
        for (configs, expected) in cases {
            assert_eq!(TrustedSigners::new(configs), Err(expected));
        }
    }

    #[test]
    fn the_strictest_of_an_issuers_entries_holds() {
        let old = SignerConfig { min_version: 2, ..signer(&key(1), ISSUER) };
        let series = [("s".to_owned(), 9)].into();
        let new =
            SignerConfig { min_version: 5, series, revocations: RevocationRule::Required, ..signer(&key(2), ISSUER) };
        let signers = TrustedSigners::new(vec![old, new, signer(&key(3), "other")]).unwrap();
        assert_eq!(signers.floor(ISSUER, "s"), 9);
        assert_eq!(signers.floor(ISSUER, "t"), 5);
        assert_eq!(signers.floor("other", "s"), 1);
        assert_eq!(signers.floor("nobody", "s"), u64::MAX);
        assert_eq!(signers.revocations(ISSUER), RevocationRule::Required);
        assert_eq!(signers.revocations("other"), RevocationRule::Optional);
        assert_eq!(signers.revocations("nobody"), RevocationRule::Required);
    }

    #[test]
    fn the_configurations_fields_are_strict_and_needed() {
        let json = serde_json::to_value(signer(&key(1), ISSUER)).unwrap();
        serde_json::from_value::<SignerConfig>(json.clone()).unwrap();
        for name in ["issuer", "key", "min_version", "revocations"] {
            let mut without = json.clone();
            without.as_object_mut().unwrap().remove(name);
            serde_json::from_value::<SignerConfig>(without).expect_err(name);
        }
        let mut more = json;
        more.as_object_mut().unwrap().insert("minimum".into(), 1.into());
        serde_json::from_value::<SignerConfig>(more).unwrap_err();
    }
}
