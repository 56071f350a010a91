//! Evidence of Azure's confidential VMs.

use protocols::azure::{AzureSnpEvidence, AzureTdxEvidence};
use protocols::hcl::{Hardware, HclReport};
use protocols::kbs::TdxEvidence;
use protocols::reason::{self, Refusal};
use protocols::snp::Report;
use protocols::tdx::{Quote, trim};
use protocols::time::Timestamp;
use serde_json::{Map, Value, json};
use verifier::{AzurePolicy, TdxClaims, Trace, UserData, check_azure_tdx_vtpm, verify_azure_snp};

use super::snp::Unchecked;
use super::{Appraisal, Passed, needed, parsed, snp, tdx, tpm};
use crate::cli::EvidenceVerifyArguments;
use crate::outcome::Failure;

/// From this version on the hardware report is made for the nonce.
const USER_DATA_VERSION: u32 = 2;

pub(super) fn verify_snp(arguments: &EvidenceVerifyArguments, now: Timestamp) -> Result<Appraisal, Failure> {
    let value: Value = parsed(needed(arguments.evidence.as_ref(), "--evidence")?)?;
    let evidence = AzureSnpEvidence::from_json(&value).map_err(malformed)?;
    let mut unchecked = Vec::new();
    let own = HclReport::parse(&evidence.hcl_report).ok().and_then(|hcl| match hcl.hardware() {
        Hardware::Snp(report) => Report::parse(report).ok(),
        Hardware::Tdx(_) => None,
    });
    let snp = snp::policy(arguments, own.as_ref(), &mut unchecked)?;
    let nonce = tpm::nonce(arguments, &evidence.quote.message, &mut unchecked)?;
    let policy = AzurePolicy { snp, user_data: user_data(evidence.version, &mut unchecked) };
    let mut trace = Trace::on();
    let result = verify_azure_snp(&evidence, &nonce, &policy, now, &mut trace);
    unchecked.push(("PCR values", "compare them with what the VM should have booted"));
    let passed = result.map(|claims| {
        let mut out = tpm::claims(claims.tpm());
        out.insert("hardware".to_owned(), Value::Object(snp::claims(claims.snp())));
        out.insert("vm-configuration".to_owned(), claims.configuration().clone());
        Passed { simulated: claims.simulated(), claims: out }
    });
    Ok(Appraisal { trace, unchecked, result: passed })
}

pub(super) fn verify_tdx(arguments: &EvidenceVerifyArguments, now: Timestamp) -> Result<Appraisal, Failure> {
    let value: Value = parsed(needed(arguments.evidence.as_ref(), "--evidence")?)?;
    let evidence = AzureTdxEvidence::from_json(&value).map_err(malformed)?;
    let mut unchecked = Unchecked::new();
    let nonce = tpm::nonce(arguments, &evidence.quote.message, &mut unchecked)?;
    let mut trace = Trace::on();
    let user_data = user_data(evidence.version, &mut unchecked);
    let result = match check_azure_tdx_vtpm(&evidence, &nonce, user_data, &mut trace) {
        Ok(pcrs) => td_quote(arguments, &evidence, now, &mut unchecked, &mut trace)?.map(|quote| (pcrs, quote)),
        Err(refusal) => Err(refusal),
    };
    unchecked.push(("PCR values", "compare them with what the VM should have booted"));
    let passed = result.map(|(pcrs, quote)| {
        let pcrs: Map<String, Value> =
            pcrs.iter().enumerate().map(|(number, pcr)| (number.to_string(), json!(pcr.hex()))).collect();
        let hardware = Value::Object(tdx::claims(&quote));
        let claims = [("pcrs".to_owned(), Value::Object(pcrs)), ("hardware".to_owned(), hardware)];
        Passed { simulated: quote.simulated(), claims: Map::from_iter(claims) }
    });
    Ok(Appraisal { trace, unchecked, result: passed })
}

/// Verifies the TD quote over the runtime claims. Without collateral nothing vouches for the vTPM's key: anybody could
/// have written the rest.
fn td_quote(
    arguments: &EvidenceVerifyArguments,
    evidence: &AzureTdxEvidence,
    now: Timestamp,
    unchecked: &mut Unchecked,
    trace: &mut Trace,
) -> Result<Result<TdxClaims, Refusal>, Failure> {
    const GIVEN: &str = "--collateral FILE or --endorsements DIR, for the TD quote";
    let given = if arguments.tdx.collateral.is_some() || arguments.endorsements.is_some() { GIVEN } else { "none" };
    if let Err(refusal) = trace.compare(("TD collateral", reason::EVIDENCE_COLLATERAL), GIVEN, given) {
        return Ok(Err(refusal));
    }
    let quote = trim(&evidence.td_quote).unwrap_or(&evidence.td_quote).to_vec();
    let policy = tdx::policy(arguments, Quote::parse(&quote).as_ref(), unchecked)?;
    let report_data = HclReport::parse(&evidence.hcl_report).map_err(malformed)?.report_data();
    let evidence = TdxEvidence { cc_eventlog: None, quote };
    Ok(verifier::verify_tdx(&evidence, &report_data, &policy, now, trace))
}

fn user_data(version: u32, unchecked: &mut Vec<(&'static str, &'static str)>) -> UserData {
    if version >= USER_DATA_VERSION {
        return UserData::Nonce;
    }
    unchecked.push(("user data", "only evidence of version 2 makes the hardware report for the nonce"));
    UserData::AnyUserData
}

pub(super) fn show(value: &Value) -> Result<Value, Failure> {
    let (version, hcl, quote) = match AzureSnpEvidence::from_json(value) {
        Ok(evidence) => (evidence.version, evidence.hcl_report, evidence.quote),
        Err(_) => {
            let evidence = AzureTdxEvidence::from_json(value).map_err(malformed)?;
            (evidence.version, evidence.hcl_report, evidence.quote)
        }
    };
    let report = HclReport::parse(&hcl).map_err(malformed)?;
    let hardware = match report.hardware() {
        Hardware::Snp(bytes) => json!({"snp": snp::show(bytes)?}),
        Hardware::Tdx(bytes) => json!({"tdreport": hex::encode(bytes)}),
    };
    let user_data = report.user_data().map(hex::encode).map_err(malformed)?;
    Ok(json!({
        "version": version,
        "quote": tpm::quote(&quote.message)?,
        "pcrs": quote.pcrs,
        "hardware": hardware,
        "user-data": user_data,
        "vm-configuration": report.configuration(),
    }))
}

fn malformed(error: impl std::fmt::Display) -> Failure {
    let expected = "evidence of an Azure confidential VM";
    let code = reason::EVIDENCE_MALFORMED;
    Failure::by_command(Refusal::new(code, "Azure vTPM evidence", expected, error.to_string()))
}
