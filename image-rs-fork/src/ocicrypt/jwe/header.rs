//! JOSE headers: which algorithms a JWE wants, and which we take.

use protocols::encoding::un_b64url;
use serde::{Deserialize, Serialize};

const CONTENT: &str = "A256GCM";
pub(super) const RSA_OAEP: &str = "RSA-OAEP";
const RSA_OAEP_256: &str = "RSA-OAEP-256";
pub(super) const ECDH_ES: &str = "ECDH-ES+A256KW";

/// The members we know; others carry no meaning we could miss, but for those that `crit` names.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Header {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epk: Option<PublicPoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    apv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Vec<String>>,
}

/// An ephemeral key, as JWK.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PublicPoint {
    pub(super) kty: String,
    pub(super) crv: String,
    #[serde(default)]
    pub(super) x: String,
    #[serde(default)]
    pub(super) y: String,
}

/// How one recipient's content key is wrapped.
#[derive(Debug)]
pub(super) enum Algorithm<'a> {
    RsaOaep,
    RsaOaep256,
    Ecdh {
        epk: &'a PublicPoint,
        /// What both parties say of themselves; part of the derivation.
        apu: Vec<u8>,
        apv: Vec<u8>,
    },
}

impl Header {
    /// The header of a recipient.
    pub(super) fn of(alg: &str, epk: Option<PublicPoint>) -> Self {
        Self { alg: Some(alg.to_owned()), epk, ..Self::default() }
    }

    /// Checks the protected header's own part.
    ///
    /// # Errors
    /// What we do not take, in words.
    pub(super) fn check_content(&self) -> Result<(), String> {
        if self.enc.as_deref() != Some(CONTENT) {
            return Err(format!("content encryption {}", shown(self.enc.as_deref())));
        }
        self.plain()
    }

    fn plain(&self) -> Result<(), String> {
        match (&self.zip, &self.crit) {
            (None, None) => Ok(()),
            (Some(_), _) => Err("compressed content".to_owned()),
            (_, Some(_)) => Err("critical extensions".to_owned()),
        }
    }

    /// This header with the content encryption we write.
    pub(super) fn with_content(self) -> Self {
        Self { enc: Some(CONTENT.to_owned()), ..self }
    }
}

impl<'a> Algorithm<'a> {
    /// What the two headers together say; no member may stand in both.
    ///
    /// # Errors
    /// What we do not take, in words.
    pub(super) fn of(protected: &'a Header, own: &'a Header) -> Result<Self, String> {
        own.plain()?;
        if own.enc.is_some() {
            return Err("content encryption that is not protected".to_owned());
        }
        let twice = || "a header that stands twice".to_owned();
        let alg = one(&protected.alg, &own.alg).map_err(|()| twice())?.map(String::as_str);
        let party = |a: &Option<String>, b: &Option<String>| match one(a, b).map_err(|()| twice())? {
            None => Ok(Vec::new()),
            Some(text) => un_b64url(text).map_err(|e| format!("apu or apv is {e}")),
        };
        match alg {
            Some(RSA_OAEP) => Ok(Self::RsaOaep),
            Some(RSA_OAEP_256) => Ok(Self::RsaOaep256),
            Some(ECDH_ES) => {
                let epk = one(&protected.epk, &own.epk).map_err(|()| twice())?.ok_or("no ephemeral key")?;
                if epk.kty != "EC" {
                    return Err(format!("an ephemeral key of type {}", shown(Some(&epk.kty))));
                }
                Ok(Self::Ecdh { epk, apu: party(&protected.apu, &own.apu)?, apv: party(&protected.apv, &own.apv)? })
            }
            other => Err(format!("algorithm {} is not taken", shown(other))),
        }
    }
}

fn one<'a, T>(a: &'a Option<T>, b: &'a Option<T>) -> Result<Option<&'a T>, ()> {
    match (a, b) {
        (Some(_), Some(_)) => Err(()),
        (a, b) => Ok(a.as_ref().or(b.as_ref())),
    }
}

/// Foreign text for an error: short, and on one line.
fn shown(text: Option<&str>) -> String {
    text.map_or_else(|| "none at all".to_owned(), |text| text.chars().take(32).flat_map(char::escape_debug).collect())
}
