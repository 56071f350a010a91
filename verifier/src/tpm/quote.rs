//! A quote by itself: read, then verified under a key that somebody else trusts.

use protocols::digest::Sha256Digest;
use protocols::reason::{self, Refusal};
use protocols::tpm::{Attest, PCR_COUNT, Signature, TpmError, pcr_digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use subtle::ConstantTimeEq as _;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::{SUBJECT, refuse};
use crate::hex;
use crate::trace::Trace;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// A well-formed quote with the values it claims to cover. Nothing is believed before [`Quote::verify`].
pub(crate) struct Quote<'m> {
    pub(super) attest: Attest,
    pub(super) pcrs: [Sha256Digest; PCR_COUNT],
    message: &'m [u8],
    signature: Signature,
}

impl<'m> Quote<'m> {
    /// Reads TPMS_ATTEST, signature and 24 PCR values of 64 lower-case hex digits.
    pub(crate) fn read(
        message: &'m [u8],
        signature: Result<Signature, TpmError>,
        pcrs: &[String],
        trace: &mut Trace,
    ) -> Result<Self, Refusal> {
        let malformed = |error: TpmError| refuse(reason::EVIDENCE_MALFORMED, "a TPM quote", error.to_string());
        let read = || {
            let attest = Attest::parse(message).map_err(malformed)?;
            Ok(Self { attest, pcrs: values(pcrs)?, message, signature: signature.map_err(malformed)? })
        };
        trace.outcome(("quote", reason::EVIDENCE_MALFORMED), read(), |quote| {
            ("a TPM quote".to_owned(), format!("firmware {:#x}", quote.attest.firmware_version))
        })
    }

    /// Verifies signature, nonce, selection and values, in this order. `spki_der` must be trusted already.
    pub(crate) fn verify(&self, spki_der: &[u8], nonce: &[u8], trace: &mut Trace) -> Result<(), Refusal> {
        let verifies = verifies(spki_der, self.message, &self.signature);
        trace.require(
            (SUBJECT, "signature", reason::EVIDENCE_SIGNATURE),
            verifies,
            || "a quote signed by the attestation key".to_owned(),
            || (if verifies { "its signature" } else { "a signature that does not verify" }).to_owned(),
        )?;
        let attest = &self.attest;
        trace.require(
            (SUBJECT, "nonce", reason::EVIDENCE_NONCE),
            attest.extra_data.as_slice().ct_eq(nonce).into(),
            || format!("extraData {}", hex(nonce)),
            || hex(&attest.extra_data),
        )?;
        trace.require(
            (SUBJECT, "selection", reason::EVIDENCE_PCR),
            attest.selects_all_sha256(),
            || "one selection, SHA-256 PCRs 0 to 23".to_owned(),
            || {
                let one = |s: &protocols::tpm::PcrSelection| format!("bank {:#06x} bitmap {}", s.hash, hex(&s.select));
                attest.pcr_select.iter().map(one).collect::<Vec<_>>().join(", ")
            },
        )?;
        let digest = pcr_digest(&self.pcrs);
        trace.require(
            (SUBJECT, "PCR digest", reason::EVIDENCE_PCR),
            attest.pcr_digest == digest.as_bytes(),
            || format!("PCR digest {}", hex(&attest.pcr_digest)),
            || format!("{digest} of the values presented"),
        )
    }
}

/// Exactly 24 values of 64 lower-case hex digits.
pub(super) fn values(texts: &[String]) -> Result<[Sha256Digest; PCR_COUNT], Refusal> {
    let values: Option<Vec<Sha256Digest>> = texts.iter().map(|text| format!("sha256:{text}").parse().ok()).collect();
    values.and_then(|values| values.try_into().ok()).ok_or_else(|| {
        let expected = format!("{PCR_COUNT} PCR values of 64 hex digits");
        refuse(reason::EVIDENCE_MALFORMED, expected, format!("{} values, or others", texts.len()))
    })
}

/// Whether the signature fits the key's kind and verifies. A key of any other kind verifies nothing.
pub(super) fn verifies(spki_der: &[u8], message: &[u8], signature: &Signature) -> bool {
    let Ok(spki) = SubjectPublicKeyInfoOwned::from_der(spki_der) else { return false };
    let Some(key) = spki.subject_public_key.as_bytes() else { return false };
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match signature {
        Signature::EcdsaP256 { .. } if spki.algorithm.oid == EC && curve == Some(PRIME256V1) => {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
            signature.ecdsa_raw().is_some_and(|raw| key.verify(message, &raw).is_ok())
        }
        Signature::Rsassa(raw) if spki.algorithm.oid == RSA => {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, raw).is_ok()
        }
        _ => false,
    }
}
