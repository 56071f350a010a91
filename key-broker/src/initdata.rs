//! Initdata shown with evidence: it must be what the evidence is bound to, under an algorithm that fits.

use protocols::digest::Sha256Digest;
use protocols::kbs::InitData;
use protocols::reason::{self, Refusal};
use protocols::tpm;
use serde::Deserialize;
use verifier::EvidenceClaims;

#[derive(Deserialize)]
struct Document {
    algorithm: String,
}

/// Checks that the evidence is bound to this text.
pub(crate) fn check(claims: &EvidenceClaims, init_data: &InitData) -> Result<(), Refusal> {
    let refuse = |code, expected: &str, actual: String| Refusal::new(code, "initdata", expected, actual);
    if init_data.format != "toml" {
        let actual: String = init_data.format.chars().take(32).collect();
        return Err(refuse(reason::EVIDENCE_INITDATA, "format toml", actual));
    }
    let document: Document = toml::from_str(&init_data.body)
        .map_err(|_| refuse(reason::EVIDENCE_INITDATA, "TOML with an algorithm", "something else".to_owned()))?;
    // Both places hold 32 bytes: a longer digest would have to be cut.
    if document.algorithm != "sha256" {
        let actual: String = document.algorithm.chars().take(32).collect();
        return Err(refuse(reason::EVIDENCE_INITDATA_ALGORITHM, "sha256", actual));
    }
    let digest = Sha256Digest::of(init_data.body.as_bytes());
    let (expected, bound) = match claims {
        EvidenceClaims::Snp(claims) => (digest, Some(Sha256Digest::new(*claims.host_data()))),
        EvidenceClaims::Tpm(claims) => (tpm::initdata_pcr(&digest), claims.pcr(tpm::INITDATA_PCR)),
        EvidenceClaims::Azure(claims) => (tpm::initdata_pcr(&digest), claims.tpm().pcr(tpm::INITDATA_PCR)),
    };
    if bound == Some(expected) {
        return Ok(());
    }
    let actual = bound.map_or_else(|| "nothing".to_owned(), |bound| bound.to_string());
    Err(refuse(reason::EVIDENCE_INITDATA, &expected.to_string(), actual))
}
