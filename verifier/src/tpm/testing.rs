//! Quotes for tests, under fixed keys.

use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::EncodePublicKey as _;
use protocols::digest::Sha256Digest;
use protocols::kbs::{TpmEvidence, TpmQuote};
use protocols::tpm::pcr_digest;

pub(crate) const NONCE: [u8; 32] = [0x5A; 32];

/// A fixed P-256 key per number.
pub(crate) fn key(number: u8) -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap()
}

pub(crate) fn spki(key: &p256::ecdsa::SigningKey) -> Vec<u8> {
    key.verifying_key().to_public_key_der().unwrap().into_vec()
}

/// What a TPMS_ATTEST is made of, good as it stands.
#[derive(Clone)]
pub(crate) struct Quote {
    pub(crate) magic: u32,
    pub(crate) kind: u16,
    pub(crate) extra_data: Vec<u8>,
    pub(crate) selections: Vec<(u16, Vec<u8>)>,
    pub(crate) digest: Vec<u8>,
    pub(crate) pcrs: Vec<String>,
}

impl Quote {
    pub(crate) fn good() -> Self {
        let pcrs: Vec<Sha256Digest> = (0u8..24).map(|number| Sha256Digest::new([number; 32])).collect();
        Self {
            magic: 0xFF54_4347,
            kind: 0x8018,
            extra_data: NONCE.to_vec(),
            selections: vec![(0x000B, vec![0xFF; 3])],
            digest: pcr_digest(&pcrs).as_bytes().to_vec(),
            pcrs: pcrs.iter().map(Sha256Digest::hex).collect(),
        }
    }

    /// Another value, with the digest to match.
    pub(crate) fn set_pcr(&mut self, number: usize, value: Sha256Digest) {
        self.pcrs[number] = value.hex();
        let values: Vec<Sha256Digest> = self.pcrs.iter().map(|hex| format!("sha256:{hex}").parse().unwrap()).collect();
        self.digest = pcr_digest(&values).as_bytes().to_vec();
    }

    fn message(&self) -> Vec<u8> {
        let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let mut out = Vec::new();
        out.extend_from_slice(&self.magic.to_be_bytes());
        out.extend_from_slice(&self.kind.to_be_bytes());
        out.extend_from_slice(&sized(&[0; 34]));
        out.extend_from_slice(&sized(&self.extra_data));
        out.extend_from_slice(&1_234_567u64.to_be_bytes()); // clock
        out.extend_from_slice(&89u32.to_be_bytes()); // resetCount
        out.extend_from_slice(&7u32.to_be_bytes()); // restartCount
        out.push(1); // safe
        out.extend_from_slice(&0x2019_1023_0016_3636u64.to_be_bytes()); // firmwareVersion
        out.extend_from_slice(&u32::try_from(self.selections.len()).unwrap().to_be_bytes());
        for (hash, select) in &self.selections {
            out.extend_from_slice(&hash.to_be_bytes());
            out.push(u8::try_from(select.len()).unwrap());
            out.extend_from_slice(select);
        }
        out.extend_from_slice(&sized(&self.digest));
        out
    }

    pub(crate) fn signed(&self, key: &p256::ecdsa::SigningKey) -> TpmEvidence {
        let message = self.message();
        let signature: p256::ecdsa::Signature = key.sign(&message);
        let (r, s) = signature.split_bytes();
        let part = |bytes: &[u8]| [&[0, 32], bytes].concat();
        let signature = [&[0x00, 0x18, 0x00, 0x0B][..], &part(&r), &part(&s)].concat();
        TpmEvidence { tpm_quote: TpmQuote { signature, message, pcrs: self.pcrs.clone() }, ak_public: spki(key) }
    }
}
