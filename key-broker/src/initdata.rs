//! Initdata shown with evidence: it must be what the evidence is bound to, under an algorithm that fits.

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::kbs::InitData;
use protocols::reason::{self, Refusal};
use protocols::register::RegisterValue;
use protocols::tpm;
use serde::Deserialize;
use verifier::{EvidenceClaims, TpmClaims};

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
    let text = init_data.body.as_bytes();
    let quoted = |claims: &TpmClaims| {
        let expected = tpm::initdata_pcr(&Sha256Digest::of(text));
        ("sha256", RegisterValue::Sha256(expected), claims.pcr(tpm::INITDATA_PCR).map(RegisterValue::Sha256))
    };
    let (algorithm, expected, bound) = match claims {
        EvidenceClaims::Snp(claims) => {
            let bound = RegisterValue::Sha256(Sha256Digest::new(*claims.host_data()));
            ("sha256", RegisterValue::Sha256(Sha256Digest::of(text)), Some(bound))
        }
        EvidenceClaims::Tpm(claims) => quoted(claims),
        EvidenceClaims::Azure(claims) => quoted(claims.tpm()),
        EvidenceClaims::Tdx(claims) => {
            let bound = RegisterValue::Sha384(Sha384Digest::new(*claims.mr_config_id()));
            ("sha384", RegisterValue::Sha384(Sha384Digest::of(text)), Some(bound))
        }
    };
    // Each place holds a digest of one length: another would have to be cut or padded.
    if document.algorithm != algorithm {
        let actual: String = document.algorithm.chars().take(32).collect();
        return Err(refuse(reason::EVIDENCE_INITDATA_ALGORITHM, algorithm, actual));
    }
    if bound == Some(expected) {
        return Ok(());
    }
    let actual = bound.map_or_else(|| "nothing".to_owned(), |bound| bound.to_string());
    Err(refuse(reason::EVIDENCE_INITDATA, &expected.to_string(), actual))
}
