//! TDs that were started without `SEPT_VE_DISABLE`, where the caller's policy lets them pass.
//!
//! The quote library refuses them whatever its caller says. So it is shown the quote with that one bit set, and, where it
//! verifies the quote's own signature, the bit is cleared again: what is verified are the bytes that were signed. It
//! sees to everything else as for every quote, and nothing of the altered quote is given on.

use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::configs::RingConfig;
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use protocols::tdx::{Quote, TdAttributes};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

use super::{TdxCollateral, TdxRoot};
use protocols::time::Timestamp;

type Ring = <RingConfig as Config>::Crypto;

/// Size of a quote's header; from version 5 on 6 bytes more before the TD report.
const HEADER: usize = 48;
/// Where a TD report has the TD's attributes, u64, little-endian.
const ATTRIBUTES: usize = 120;
/// Version, attestation key type and TEE type of quotes as their first 8 bytes. No certificate, list or JSON begins so.
const STARTS: [([u8; 8], usize); 2] =
    [([4, 0, 2, 0, 0x81, 0, 0, 0], HEADER), ([5, 0, 2, 0, 0x81, 0, 0, 0], HEADER + 6)];

/// Verifies `quote`, which has the bit cleared.
pub(super) fn verify(
    quote: &Quote,
    collateral: &TdxCollateral,
    root: &TdxRoot,
    now: Timestamp,
) -> Result<VerifiedReport, String> {
    let mut altered = quote.clone();
    altered.report.td_attributes.0 |= TdAttributes::SEPT_VE_DISABLE;
    QuoteVerifier::<Cleared>::new_with_config(root.der().to_vec())
        .verify(&altered.encode(), collateral.inner(), now.0)
        .map_err(|error| format!("{error:#}"))
}

/// As the library's own, with [`Algorithm`] for signatures.
struct Cleared;

impl Config for Cleared {
    type X509 = <RingConfig as Config>::X509;
    type SigEncoder = <RingConfig as Config>::SigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for Cleared {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &Algorithm
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        Ring::sha256(data)
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        Ring::sha384(data)
    }
}

/// ECDSA P-256 over the message, or, of a quote, over the message with the bit cleared.
#[derive(Debug)]
struct Algorithm;

impl SignatureVerificationAlgorithm for Algorithm {
    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let Some(place) = STARTS.iter().find(|(start, _)| message.starts_with(start)).map(|(_, header)| header) else {
            return Ring::sig_algo().verify_signature(key, message, signature);
        };
        let mut signed = message.to_vec();
        let attributes = signed.get_mut(place + ATTRIBUTES..).and_then(<[u8]>::first_chunk_mut::<8>);
        let attributes = attributes.ok_or(InvalidSignature)?;
        *attributes = (u64::from_le_bytes(*attributes) & !TdAttributes::SEPT_VE_DISABLE).to_le_bytes();
        Ring::sig_algo().verify_signature(key, &signed, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        Ring::sig_algo().public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        Ring::sig_algo().signature_alg_id()
    }
}
