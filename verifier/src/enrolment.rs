//! Enrolment of a TPM's attestation key by the endorsement certificate of its TPM (TPM 2.0 part 1, section 24).
//!
//! [`challenge`] encrypts a secret so that only the certificate's TPM can open it, and only if it holds the very key
//! of the request; [`enrol`] compares what came back. The checks, in their fixed order:
//!
//! | # | code | passes when |
//! |---|---|---|
//! | 1 | `policy.environment` | a software TPM's request, or a root that says `O=SIMULATED`, is challenged as one |
//! | 2 | `enrol.key` | the public area is a restricted signing key's: fixedTPM, fixedParent, sensitiveDataOrigin, SHA-256 |
//! | 3 | `enrol.endorsement` | the certificate is for endorsement keys (2.23.133.8.1), valid at the time, leads to a self-issued certificate among the roots, and its key is RSA 2048 or P-256 |
//! | 4 | `enrol.answer` | the answer is the secret |
//!
//! The key's name is computed from its public area, never received. No revocation list is read.

mod credential;

use protocols::digest::Sha256Digest;
use protocols::enrolment::{EnrolmentAnswer, EnrolmentChallenge, EnrolmentRequest, EnrolmentSecret};
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;
use protocols::tpm::{Public, TpmError, object_name};
use rand_core::TryCryptoRng;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use subtle::ConstantTimeEq as _;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring as algorithms};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use crate::certificate::is_simulated;
use crate::tpm::{EnrolledAk, Enrolment};
use credential::EkKey;

/// tcg-kp-EKCertificate.
const EK_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.1");
/// How manufacturers sign.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
];

/// Whose endorsement certificates count.
#[derive(Debug, Clone)]
pub struct EkRoots {
    /// DER: self-issued certificates are trusted, others only lead to one of those.
    pub certificates: Vec<Vec<u8>>,
    /// The roots are of software TPMs: what they vouch for counts in development only.
    pub simulated: bool,
}

fn refused(code: reason::Code, subject: &str, expected: &str, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, subject, expected, actual)
}

/// Makes the challenge for a request, and what the challenger must keep to itself. `secret` is random and used once.
///
/// # Errors
/// `policy.environment`, `enrol.key`, `enrol.endorsement`; see the module's table.
pub fn challenge<R: TryCryptoRng>(
    request: &EnrolmentRequest,
    roots: &EkRoots,
    now: Timestamp,
    secret: [u8; 32],
    rng: &mut R,
) -> Result<(EnrolmentChallenge, EnrolmentSecret), Refusal> {
    let endorsement_refused =
        |actual: String| refused(reason::ENROL_ENDORSEMENT, "endorsement certificate", EK_EXPECTED, actual);
    let given: Vec<CertificateDer<'_>> =
        roots.certificates.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let anchors = Anchors::read(&given).map_err(endorsement_refused)?;
    for (simulated, actual) in
        [(request.simulated, "a SIMULATED TPM's request"), (anchors.simulated, "a SIMULATED root")]
    {
        if simulated && !roots.simulated {
            return Err(refused(reason::POLICY_ENVIRONMENT, "enrolment", "a TPM in hardware", actual));
        }
    }
    let key_refused = |actual: TpmError| {
        let expected = "a restricted signing key that never leaves its TPM";
        refused(reason::ENROL_KEY, "attestation key", expected, actual.to_string())
    };
    let public = Public::parse(&request.ak_public).map_err(key_refused)?;
    let ak_spki = public.to_spki_der().map_err(key_refused)?;
    let ek = endorsement(&request.ek_certificate, &anchors, now).map_err(endorsement_refused)?;
    let challenge = ek
        .make_credential(&object_name(&request.ak_public), &secret, rng)
        .map_err(|actual| refused(reason::ENROL_ENDORSEMENT, "endorsement key", EK_EXPECTED, actual))?;
    let kept = EnrolmentSecret {
        secret,
        ak_spki,
        ek_certificate: Sha256Digest::of(&request.ek_certificate),
        simulated: roots.simulated,
    };
    Ok((challenge, kept))
}

const EK_EXPECTED: &str = "a TPM's endorsement certificate under a root that was given";

/// The key that the attestor may enrol, once the TPM has opened the challenge.
///
/// # Errors
/// `enrol.answer`.
pub fn enrol(kept: &EnrolmentSecret, answer: &EnrolmentAnswer) -> Result<EnrolledAk, Refusal> {
    if !bool::from(answer.secret.ct_eq(&kept.secret)) {
        let (expected, actual) = ("the secret of the challenge", "another value");
        return Err(refused(reason::ENROL_ANSWER, "answer", expected, actual));
    }
    Ok(EnrolledAk { spki_der: kept.ak_spki.clone(), simulated: kept.simulated, enrolment: Enrolment::Endorsed })
}

/// The roots, read: trusted ones, and those that only lead to one.
struct Anchors<'r> {
    trusted: Vec<TrustAnchor<'r>>,
    intermediates: Vec<CertificateDer<'r>>,
    simulated: bool,
}

impl<'r> Anchors<'r> {
    fn read(certificates: &'r [CertificateDer<'r>]) -> Result<Self, String> {
        let mut anchors = Self { trusted: Vec::new(), intermediates: Vec::new(), simulated: false };
        for der in certificates {
            let parsed = Certificate::from_der(der).map_err(|_| "a root that is not a certificate")?;
            anchors.simulated |= is_simulated(&parsed);
            let inner = parsed.tbs_certificate();
            if inner.issuer() == inner.subject() {
                let anchor = anchor_from_trusted_cert(der).map_err(|error| format!("a root: {error}"))?;
                anchors.trusted.push(anchor);
            } else {
                anchors.intermediates.push(der.clone());
            }
        }
        Ok(anchors)
    }
}

/// The key of an endorsement certificate that holds.
fn endorsement(der: &[u8], anchors: &Anchors<'_>, now: Timestamp) -> Result<EkKey, String> {
    let received = CertificateDer::from(der);
    let leaf = EndEntityCert::try_from(&received).map_err(|error| error.to_string())?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.0));
    // Asked of the whole path: makers' issuing certificates seldom name a usage, the leaf must.
    let usage = KeyUsage::required_if_present(EK_USAGE.as_bytes());
    leaf.verify_for_usage(ALGORITHMS, &anchors.trusted, &anchors.intermediates, time, usage, None, None)
        .map_err(|error| error.to_string())?;
    let parsed = Certificate::from_der(der).map_err(|_| "not a DER certificate")?;
    let certificate = parsed.tbs_certificate();
    match certificate.get_extension::<ExtendedKeyUsage>() {
        Ok(Some((_, usages))) if usages.0.contains(&EK_USAGE) => {}
        _ => return Err("a certificate that is not for endorsement keys".to_owned()),
    }
    let spki = certificate.subject_public_key_info().to_der().map_err(|_| "a malformed key")?;
    EkKey::read(&spki).ok_or_else(|| "neither an RSA 2048 nor a P-256 key".to_owned())
}

#[cfg(test)]
mod tests;
