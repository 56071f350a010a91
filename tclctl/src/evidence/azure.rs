//! Evidence of Azure's confidential VMs.

use protocols::azure::{AzureSnpEvidence, AzureTdxEvidence};
use protocols::hcl::{Hardware, HclReport};
use protocols::reason::{self, Refusal};
use protocols::snp::Report;
use protocols::tdx::{Quote, trim};
use protocols::time::Timestamp;
use serde_json::{Value, json};
use verifier::{
    AzureClaims, AzureHardware, AzurePolicy, AzureTdxPolicy, SeptVe, Trace, UserData, check_azure_tdx_vtpm,
    verify_azure_snp, verify_azure_tdx,
};

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
    Ok(Appraisal { trace, unchecked, result: result.map(|claims| passed(&claims)) })
}

fn passed(claims: &AzureClaims) -> Passed {
    let hardware = match claims.hardware() {
        AzureHardware::Snp(claims) => snp::claims(claims),
        AzureHardware::Tdx(claims) => tdx::claims(claims),
    };
    let mut out = tpm::claims(claims.tpm());
    out.insert("hardware".to_owned(), Value::Object(hardware));
    out.insert("vm-configuration".to_owned(), claims.configuration().clone());
    Passed { simulated: claims.simulated(), claims: out }
}

pub(super) fn verify_tdx(arguments: &EvidenceVerifyArguments, now: Timestamp) -> Result<Appraisal, Failure> {
    let value: Value = parsed(needed(arguments.evidence.as_ref(), "--evidence")?)?;
    let mut evidence = AzureTdxEvidence::from_json(&value).map_err(malformed)?;
    // Hosts hand out whole pages: zero bytes behind a quote are no part of it.
    if let Ok(quote) = trim(&evidence.td_quote) {
        evidence.td_quote = quote.to_vec();
    }
    let mut unchecked = Unchecked::new();
    let nonce = tpm::nonce(arguments, &evidence.quote.message, &mut unchecked)?;
    let mut trace = Trace::on();
    let user_data = user_data(evidence.version, &mut unchecked);
    let given = arguments.tdx.collateral.is_some() || arguments.endorsements.is_some();
    let result = if given {
        let tdx = tdx::policy(arguments, Quote::parse(&evidence.td_quote).as_ref(), &mut unchecked)?;
        let sept_ve = if arguments.tdx.without_sept_ve_disable { SeptVe::NotRequired } else { SeptVe::Required };
        let policy = AzureTdxPolicy { tdx, sept_ve, user_data };
        verify_azure_tdx(&evidence, &nonce, &policy, now, &mut trace)
    } else {
        // Without collateral nothing vouches for the vTPM's key: anybody could have written the rest.
        const GIVEN: &str = "--collateral FILE or --endorsements DIR, for the TD quote";
        match check_azure_tdx_vtpm(&evidence, &nonce, user_data, &mut trace) {
            Err(refusal) => Err(refusal),
            Ok(_) => match trace.compare(("TD collateral", reason::EVIDENCE_COLLATERAL), GIVEN, "none") {
                Err(refusal) => Err(refusal),
                Ok(()) => return Err(Failure::Usage(GIVEN.to_owned())),
            },
        }
    };
    unchecked.push(("PCR values", "compare them with what the VM should have booted"));
    Ok(Appraisal { trace, unchecked, result: result.map(|claims| passed(&claims)) })
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
