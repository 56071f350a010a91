//! A TPM in software: PCRs, a reset counter, and quotes signed with a P-256 key.

use p256::ecdsa::signature::Signer as _;
use protocols::digest::Sha256Digest;
use protocols::kbs::{TeeEvidence, TpmEvidence, TpmQuote};
use protocols::keys::VerifyingKey;
use protocols::tpm::{ALG_SHA256, ALL_PCRS, PCR_COUNT, pcr_digest};

const TPM_GENERATED_VALUE: u32 = 0xFF54_4347;
const TPM_ST_ATTEST_QUOTE: u16 = 0x8018;
const TPM_ALG_ECDSA: u16 = 0x0018;

#[derive(Clone)]
pub(crate) struct SoftTpm {
    pub(crate) ak: p256::ecdsa::SigningKey,
    pub(crate) pcrs: [Sha256Digest; PCR_COUNT],
    pub(crate) reset_count: u32,
}

impl SoftTpm {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            ak: p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap(),
            pcrs: [Sha256Digest::new([0; 32]); PCR_COUNT],
            reset_count: 5,
        }
    }

    fn public(&self) -> VerifyingKey {
        VerifyingKey::EcdsaP256(*self.ak.verifying_key())
    }

    pub(crate) fn ak_pem(&self) -> String {
        self.public().to_pem().unwrap()
    }

    pub(crate) fn ak_der(&self) -> Vec<u8> {
        self.public().to_der()
    }

    pub(crate) fn extend(&mut self, pcr: usize, digest: &[u8]) {
        self.pcrs[pcr] = Sha256Digest::of_parts(&[self.pcrs[pcr].as_bytes(), digest]);
    }

    /// TPMS_ATTEST of a quote over `nonce`, and its TPMT_SIGNATURE, as evidence.
    pub(crate) fn quote(&self, nonce: &[u8; 32]) -> TeeEvidence {
        let mut message = Vec::new();
        message.extend_from_slice(&TPM_GENERATED_VALUE.to_be_bytes());
        message.extend_from_slice(&TPM_ST_ATTEST_QUOTE.to_be_bytes());
        sized(&mut message, b"signer");
        sized(&mut message, nonce);
        message.extend_from_slice(&1000u64.to_be_bytes());
        message.extend_from_slice(&self.reset_count.to_be_bytes());
        message.extend_from_slice(&0u32.to_be_bytes());
        message.push(1);
        message.extend_from_slice(&7u64.to_be_bytes());
        message.extend_from_slice(&1u32.to_be_bytes());
        message.extend_from_slice(&ALG_SHA256.to_be_bytes());
        message.push(ALL_PCRS.len() as u8);
        message.extend_from_slice(&ALL_PCRS);
        sized(&mut message, pcr_digest(&self.pcrs).as_bytes());

        let signed: p256::ecdsa::Signature = self.ak.sign(&message);
        let (r, s) = signed.split_bytes();
        let mut signature = Vec::new();
        signature.extend_from_slice(&TPM_ALG_ECDSA.to_be_bytes());
        signature.extend_from_slice(&ALG_SHA256.to_be_bytes());
        sized(&mut signature, &r);
        sized(&mut signature, &s);

        let pcrs = self.pcrs.iter().map(Sha256Digest::hex).collect();
        let evidence = TpmEvidence { tpm_quote: TpmQuote { signature, message, pcrs }, ak_public: self.ak_der() };
        TeeEvidence { primary_evidence: serde_json::to_value(evidence).unwrap(), additional_evidence: String::new() }
    }
}

fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}
