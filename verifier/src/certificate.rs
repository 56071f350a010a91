//! The little of X.509 that endorsement chains need, over the bytes as they were received.

use protocols::encoding;
use ring::signature::{ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode as _, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::name::Name;
use x509_cert::{Certificate as X509, Version};

const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// Size of an RSA-4096 signature in bytes.
const RSA_4096: usize = 512;
/// The mark of simulated certificates, their organisation.
const SIMULATED: &[u8] = b"SIMULATED";

/// A parsed certificate and the bytes its signature covers.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    x509: X509,
    tbs: Vec<u8>,
}

impl Certificate {
    /// Reads one DER certificate of version 3 without trailing bytes. Critical extensions other than basic
    /// constraints and key usage are refused, because nobody here would honour them.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, &'static str> {
        let x509 = X509::from_der(der).map_err(|_| "not a DER certificate")?;
        let tbs = tbs(der).map_err(|_| "not a DER certificate")?.to_vec();
        let inner = x509.tbs_certificate();
        if inner.version() != Version::V3 {
            return Err("not a certificate of version 3");
        }
        if x509.signature_algorithm() != inner.signature() {
            return Err("two different signature algorithms");
        }
        let known = |oid: ObjectIdentifier| oid == BASIC_CONSTRAINTS || oid == KEY_USAGE;
        if inner.extensions().into_iter().flatten().any(|e| e.critical && !known(e.extn_id)) {
            return Err("an unknown critical extension");
        }
        Ok(Self { x509, tbs })
    }

    /// Whether `self` is issued in the name of `issuer`.
    pub(crate) fn names_issuer(&self, issuer: &Self) -> bool {
        self.x509.tbs_certificate().issuer() == issuer.x509.tbs_certificate().subject()
    }

    /// Whether it is issued in its own name.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.names_issuer(self)
    }

    /// Checks the signature of `issuer`, a CA with an RSA-4096 key: PSS with SHA-384 and a salt of 48 bytes,
    /// whatever parameters the certificate claims.
    pub(crate) fn check_signature(&self, issuer: &Self) -> Result<(), &'static str> {
        if !issuer.is_ca() {
            return Err("the issuer is not a certificate authority");
        }
        let signature = self.x509.signature().as_bytes().ok_or("a signature of odd length")?;
        issuer.check_pss(&self.tbs, &self.x509.signature_algorithm().oid, signature)
    }

    /// Checks a signature of this key over a revocation list's signed part, as [`Certificate::check_signature`].
    pub(crate) fn check_signed_list(
        &self,
        tbs: &[u8],
        algorithm: &ObjectIdentifier,
        signature: &[u8],
    ) -> Result<(), &'static str> {
        if self.key_usage().is_some_and(|usage| !usage.crl_sign()) {
            return Err("the issuer may not sign revocation lists");
        }
        self.check_pss(tbs, algorithm, signature)
    }

    fn check_pss(&self, tbs: &[u8], algorithm: &ObjectIdentifier, signature: &[u8]) -> Result<(), &'static str> {
        if *algorithm != RSA_PSS {
            return Err("not signed with RSA-PSS");
        }
        let key = self.key(RSA).ok_or("the issuer's key is not RSA")?;
        if signature.len() != RSA_4096 {
            return Err("not signed with RSA-4096");
        }
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(tbs, signature)
            .map_err(|_| "the issuer's signature does not verify")
    }

    /// Who it is.
    pub(crate) fn subject(&self) -> &Name {
        self.x509.tbs_certificate().subject()
    }

    /// Checks the signature of `issuer`, a CA with a P-256 key: ECDSA with SHA-256.
    pub(crate) fn check_p256_signature(&self, issuer: &Self) -> Result<(), &'static str> {
        if !issuer.is_ca() {
            return Err("the issuer is not a certificate authority");
        }
        if self.x509.signature_algorithm().oid != ECDSA_SHA256 {
            return Err("not signed with ECDSA and SHA-256");
        }
        let key = issuer.point(SECP256R1).ok_or("the issuer's key is not on P-256")?;
        let signature = self.x509.signature().as_bytes().ok_or("a signature of odd length")?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&self.tbs, signature)
            .map_err(|_| "the issuer's signature does not verify")
    }

    /// The issuer's name as DER.
    pub(crate) fn issuer_der(&self) -> Vec<u8> {
        self.x509.tbs_certificate().issuer().to_der().unwrap_or_default()
    }

    /// The serial number's bytes, big-endian as DER has them.
    pub(crate) fn serial(&self) -> &[u8] {
        self.x509.tbs_certificate().serial_number().as_bytes()
    }

    /// The validity in seconds since 1970, both ends included.
    pub(crate) fn validity(&self) -> (u64, u64) {
        let validity = self.x509.tbs_certificate().validity();
        (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
    }

    /// The uncompressed point of a P-384 key.
    pub(crate) fn p384_point(&self) -> Option<&[u8]> {
        self.point(SECP384R1)
    }

    fn point(&self, expected: ObjectIdentifier) -> Option<&[u8]> {
        let algorithm = &self.x509.tbs_certificate().subject_public_key_info().algorithm;
        let curve = algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
        if curve != expected {
            return None;
        }
        self.key(EC)
    }

    /// The value of an extension that is there exactly once.
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let mut found = self.x509.tbs_certificate().extensions().into_iter().flatten().filter(|e| e.extn_id == oid);
        match (found.next(), found.next()) {
            (Some(extension), None) => Some(extension.extn_value.as_bytes()),
            _ => None,
        }
    }

    /// Whether an extension is there at all.
    pub(crate) fn has_extension(&self, oid: ObjectIdentifier) -> bool {
        self.x509.tbs_certificate().extensions().into_iter().flatten().any(|e| e.extn_id == oid)
    }

    /// Whether subject or issuer carries `O=SIMULATED`.
    pub(crate) fn is_simulated(&self) -> bool {
        is_simulated(&self.x509)
    }

    fn is_ca(&self) -> bool {
        let constraints = self.extension(BASIC_CONSTRAINTS).and_then(|der| BasicConstraints::from_der(der).ok());
        let usage = self.key_usage();
        // A CA without key usage may sign certificates; one with it must say so.
        let may_sign = usage.map_or(!self.has_extension(KEY_USAGE), |usage| usage.key_cert_sign());
        constraints.is_some_and(|constraints| constraints.ca) && may_sign
    }

    fn key_usage(&self) -> Option<KeyUsage> {
        self.extension(KEY_USAGE).and_then(|der| KeyUsage::from_der(der).ok())
    }

    fn key(&self, algorithm: ObjectIdentifier) -> Option<&[u8]> {
        let spki = self.x509.tbs_certificate().subject_public_key_info();
        if spki.algorithm.oid != algorithm {
            return None;
        }
        spki.subject_public_key.as_bytes()
    }
}

/// Whether subject or issuer carries `O=SIMULATED`.
pub(crate) fn is_simulated(certificate: &X509) -> bool {
    let inner = certificate.tbs_certificate();
    let mut attributes = inner.subject().iter().chain(inner.issuer().iter());
    attributes.any(|attribute| attribute.oid == ORGANIZATION && attribute.value.value() == SIMULATED)
}

/// A certificate's or list's first element as it stands in `der`, header included: what is signed. One
/// written again from its parts could differ.
pub(crate) fn tbs(der: &[u8]) -> x509_cert::der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    reader.sequence(|inner| {
        let tbs = inner.tlv_bytes()?;
        inner.tlv_bytes()?;
        inner.tlv_bytes()?;
        Ok(tbs)
    })
}

/// The DER of every certificate of a PEM file; text between them is ignored.
pub(crate) fn pem_certificates(pem: &str) -> Result<Vec<Vec<u8>>, &'static str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut certificates = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END).ok_or("a PEM certificate without an end")?;
        let body: String = body.split_ascii_whitespace().collect();
        certificates.push(encoding::un_b64(&body).map_err(|_| "a PEM certificate that is not base64")?);
        rest = after;
    }
    Ok(certificates)
}
