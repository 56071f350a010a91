//! `COSE_Sign1` around a CoRIM: ES256 and ES384, the key never taken from what is read.

use ciborium::Value;
use coset::iana::Algorithm;
use coset::{CoseSign1, Label, RegisteredLabel, RegisteredLabelWithPrivate, TaggedCborSerializable as _};
use p256::ecdsa::signature::Verifier as _;
use protocols::keys::VerifyingKey;

use super::cbor::{self, Map};
use super::{CorimError, MAX_CORIM, MAX_DEPTH, Meta};
use crate::signers::{Signer, SignerKey, Signers};

/// Header parameters: the CoRIM's own, CWT claims, and certificates, which are not used.
const CORIM_META: i64 = 8;
const CWT_CLAIMS: i64 = 15;
/// What the payload says it is; the second by earlier drafts.
pub(super) const CONTENT_TYPES: [&str; 2] = ["application/rim+cbor", "application/corim-unsigned+cbor"];

/// A signed CoRIM whose signature nobody has checked yet.
#[derive(Debug)]
pub(crate) struct Signed {
    sign1: CoseSign1,
    algorithm: Algorithm,
    payload: Vec<u8>,
    meta: Meta,
}

/// How a signature stands to the listed signers.
#[derive(Debug)]
pub(crate) enum Standing<'s> {
    /// These keys made it.
    By(Vec<&'s Signer>),
    /// The key that it names did not make it.
    Bad(&'s Signer),
    /// No listed key made it.
    Unknown,
}

/// Reads the structure and its protected header.
pub(crate) fn open(bytes: &[u8]) -> Result<Signed, CorimError> {
    if bytes.len() > MAX_CORIM {
        return Err(CorimError::new(format!("has {} bytes, more than {MAX_CORIM}", bytes.len())));
    }
    // Bounds the nesting before the second reader, whose bound is far higher.
    cbor::item(bytes)?;
    let sign1 = CoseSign1::from_tagged_slice(bytes)
        .map_err(|error| CorimError::new(format!("is no COSE_Sign1 of at most {MAX_DEPTH} levels: {error}")))?;
    let (header, other) = (&sign1.protected.header, &sign1.unprotected);
    if !header.crit.is_empty() || !other.crit.is_empty() {
        return Err(CorimError::new("has a critical header parameter"));
    }
    if other.alg.is_some() || other.content_type.is_some() || other.rest.iter().any(|(label, _)| ours(label)) {
        return Err(CorimError::new("has a header parameter unprotected that must be protected"));
    }
    let algorithm = match &header.alg {
        Some(RegisteredLabelWithPrivate::Assigned(known @ (Algorithm::ES256 | Algorithm::ES384))) => *known,
        _ => return Err(CorimError::new("is signed by another algorithm than ES256 or ES384")),
    };
    match &header.content_type {
        Some(RegisteredLabel::Text(text)) if CONTENT_TYPES.contains(&text.as_str()) => {}
        _ => return Err(CorimError::new("is signed as another content type")),
    }
    let payload = sign1.payload.clone().ok_or_else(|| CorimError::new("has no payload with it"))?;
    let meta = meta(&header.rest)?;
    Ok(Signed { algorithm, payload, meta, sign1 })
}

fn ours(label: &Label) -> bool {
    matches!(label, Label::Int(CORIM_META | CWT_CLAIMS))
}

/// `corim-meta`, CWT claims, or both; they must name one signer.
fn meta(parameters: &[(Label, Value)]) -> Result<Meta, CorimError> {
    let find = |wanted| parameters.iter().find(|(label, _)| *label == Label::Int(wanted)).map(|(_, value)| value);
    let mut named: Vec<Meta> = Vec::new();
    if let Some(value) = find(CORIM_META) {
        let inner = cbor::item(cbor::bytes(value, "corim-meta")?)?;
        let map = Map::of(&inner, "corim-meta")?;
        map.only(&[0, 1])?;
        let signer = Map::of(map.need(0, "a signer")?, "signer")?;
        signer.only(&[0, 1])?;
        let issuer = cbor::text(signer.need(0, "a name")?, "signer's name")?.to_owned();
        let (from, until) = match map.get(1).map(cbor::validity).transpose()? {
            Some((from, until)) => (from, Some(until)),
            None => (None, None),
        };
        named.push(Meta { issuer, from, until });
    }
    if let Some(value) = find(CWT_CLAIMS) {
        let map = Map::of(value, "map of CWT claims")?;
        let issuer = cbor::text(map.need(1, "an issuer")?, "CWT issuer")?.to_owned();
        // NumericDate has no tag.
        let date = |value: &Value| cbor::time(&Value::Tag(1, Box::new(value.clone())));
        named.push(Meta { issuer, from: map.get(5).map(date).transpose()?, until: map.get(4).map(date).transpose()? });
    }
    match named.as_slice() {
        [one] => Ok(one.clone()),
        [one, two] if one.issuer == two.issuer => Ok(Meta {
            issuer: one.issuer.clone(),
            from: one.from.max(two.from),
            until: [one.until, two.until].into_iter().flatten().min(),
        }),
        _ => Err(CorimError::new("does not name one signer in its protected header")),
    }
}

impl Signed {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) const fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The key id, from either header; a hint.
    pub(crate) fn kid(&self) -> &[u8] {
        let protected = &self.sign1.protected.header.key_id;
        if protected.is_empty() { &self.sign1.unprotected.key_id } else { protected }
    }

    /// Who of the listed signers signed this. A key id of ours chooses among them and vouches for nothing; a key counts
    /// only under the algorithm of its own curve.
    pub(crate) fn standing<'s>(&self, signers: &'s Signers) -> Standing<'s> {
        let message = self.sign1.tbs_data(&[]);
        let by: Vec<&Signer> = signers.iter().filter(|signer| self.verifies(signer.key(), &message)).collect();
        if !by.is_empty() {
            return Standing::By(by);
        }
        match signers.iter().find(|signer| signer.keyid().as_bytes().as_slice() == self.kid()) {
            Some(named) => Standing::Bad(named),
            None => Standing::Unknown,
        }
    }

    fn verifies(&self, key: &SignerKey, message: &[u8]) -> bool {
        let signature = self.sign1.signature.as_slice();
        match (self.algorithm, key) {
            (Algorithm::ES256, SignerKey::General(VerifyingKey::EcdsaP256(key))) => {
                p256::ecdsa::Signature::from_slice(signature).is_ok_and(|s| key.verify(message, &s).is_ok())
            }
            (Algorithm::ES384, SignerKey::P384(key)) => {
                p384::ecdsa::Signature::from_slice(signature).is_ok_and(|s| key.verify(message, &s).is_ok())
            }
            _ => false,
        }
    }
}
