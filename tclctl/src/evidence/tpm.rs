//! TPM quotes.

use protocols::kbs::TpmEvidence;
use protocols::reason::{self, Refusal};
use protocols::tpm::Attest;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use verifier::{EnrolledAk, Enrolment, TpmClaims, TpmPolicy, Trace, verify_tpm};

use super::{Appraisal, Passed, environment, needed, parsed, text};
use crate::cli::EvidenceVerifyArguments;
use crate::outcome::Failure;

pub(super) fn verify(arguments: &EvidenceVerifyArguments) -> Result<Appraisal, Failure> {
    let evidence: TpmEvidence = parsed(needed(arguments.evidence.as_ref(), "--evidence")?)?;
    let mut unchecked = Vec::new();
    let nonce = nonce(arguments, &evidence.tpm_quote.message, &mut unchecked)?;
    let mut aks = Vec::new();
    if let Some(path) = &arguments.tpm.ak {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(text(path)?.as_bytes())
            .map_err(|_| Failure::Usage(format!("{}: not an SPKI PEM public key", path.display())))?;
        let spki_der = spki.as_ref().to_vec();
        aks.push(EnrolledAk { spki_der, simulated: arguments.allow_simulated, enrolment: Enrolment::Listed });
    }
    // No log is compared here, so no PCR holds one.
    let policy = TpmPolicy { aks, pcr: 0, environment: environment(arguments) };
    let mut trace = Trace::on();
    let result = verify_tpm(&evidence, &nonce, &policy, &mut trace);
    unchecked.push(("PCR values", "compare them with what the machine should have booted"));
    Ok(Appraisal {
        trace,
        unchecked,
        result: result.map(|claims| Passed { simulated: claims.simulated(), claims: self::claims(&claims) }),
    })
}

/// The nonce given; the quote's own, named as not checked, otherwise.
pub(super) fn nonce(
    arguments: &EvidenceVerifyArguments,
    message: &[u8],
    unchecked: &mut Vec<(&'static str, &'static str)>,
) -> Result<Vec<u8>, Failure> {
    if let Some(text) = &arguments.tpm.nonce {
        return hex::decode(text).map_err(|_| Failure::Usage("--nonce: expected bytes in hex".to_owned()));
    }
    unchecked.push(("nonce", "--nonce HEX"));
    Ok(Attest::parse(message).map(|attest| attest.extra_data).unwrap_or_default())
}

pub(super) fn claims(claims: &TpmClaims) -> Map<String, Value> {
    let mut out = Map::new();
    let pcrs: Map<String, Value> =
        claims.pcrs().iter().enumerate().map(|(number, pcr)| (number.to_string(), json!(pcr.hex()))).collect();
    out.insert("pcrs".to_owned(), Value::Object(pcrs));
    out.insert("clock".to_owned(), json!(claims.clock()));
    out.insert("reset_count".to_owned(), json!(claims.reset_count()));
    out.insert("restart_count".to_owned(), json!(claims.restart_count()));
    out.insert("firmware_version".to_owned(), json!(format!("{:#x}", claims.firmware_version())));
    out
}

pub(super) fn show(evidence: &TpmEvidence) -> Result<Value, Failure> {
    let mut value = quote(&evidence.tpm_quote.message)?;
    let key = protocols::digest::Sha256Digest::of(&evidence.ak_public);
    value.insert("ak".to_owned(), json!(key));
    value.insert("pcrs".to_owned(), json!(evidence.tpm_quote.pcrs));
    Ok(Value::Object(value))
}

/// What a TPMS_ATTEST says.
pub(super) fn quote(message: &[u8]) -> Result<Map<String, Value>, Failure> {
    let attest = Attest::parse(message).map_err(|error| {
        let code = reason::EVIDENCE_MALFORMED;
        Failure::by_command(Refusal::new(code, "TPM quote", "TPMS_ATTEST of a quote", error.to_string()))
    })?;
    let select: Vec<Value> = attest
        .pcr_select
        .iter()
        .map(|selection| json!({"bank": selection.hash, "bitmap": hex::encode(&selection.select)}))
        .collect();
    let value = json!({
        "extra_data": hex::encode(&attest.extra_data),
        "clock": attest.clock_info.clock,
        "reset_count": attest.clock_info.reset_count,
        "restart_count": attest.clock_info.restart_count,
        "firmware_version": format!("{:#x}", attest.firmware_version),
        "selections": select,
        "pcr_digest": hex::encode(&attest.pcr_digest),
    });
    Ok(value.as_object().cloned().unwrap_or_default())
}
