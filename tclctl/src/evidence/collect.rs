//! `evidence collect-endorsements`: what AMD or Intel say, fetched, verified and kept.

#![allow(clippy::result_large_err)] // a refusal ends the command: its size is no matter

use std::path::Path;

use endorsements::{Directory, EndorsementError, Limits, PlatformName, Service, VekName};
use protocols::kbs::{SnpEvidence, TdxEvidence};
use protocols::reason::{self, Refusal};
use protocols::snp::Report;
use protocols::time::Timestamp;
use serde_json::json;
use verifier::snp::Product;

use super::{appraise, bytes, needed, parsed, tdx, time};
use crate::cli::{
    CollectArguments, EndorsedArgument, EvidenceVerifyArguments, SnpArguments, TdxArguments, TeeArgument, TpmArguments,
};
use crate::outcome::Failure;
use crate::output::Output;

/// Fetches, verifies the evidence with what came as `evidence verify --endorsements` does, and keeps it only then.
pub(crate) async fn collect_endorsements(arguments: &CollectArguments, output: &Output) -> Result<(), Failure> {
    let now = arguments.at.as_deref().map_or_else(|| Ok(Timestamp::now()), time)?;
    let service = Service::new(&arguments.from, Limits::default()).map_err(failure)?;
    let kept = Directory::new(&arguments.out);
    // The same code judges that judges later: it is shown a directory of what came and nothing else.
    let shown = tempfile::tempdir().map_err(|error| Failure::Io(error.to_string()))?;
    let evidence = shown.path().join("evidence");
    let (found, verify) = match arguments.tee {
        EndorsedArgument::Snp => {
            let report = report(arguments)?;
            write(&evidence, report.to_bytes())?;
            let name = vek_name(&report, arguments.product.as_deref())?;
            let mut found = vec![(name.file(), service.vek(&name, &kept).await.map_err(failure)?)];
            if arguments.crl {
                found.push((name.crl_file(), service.crl(&name).await.map_err(failure)?));
            }
            let snp = SnpArguments {
                report: Some(evidence),
                chain: arguments.chain.clone(),
                product: arguments.product.clone(),
                vmpl: report.fields().vmpl,
                ..SnpArguments::default()
            };
            (found, verifying(arguments, TeeArgument::Snp, shown.path(), snp, TdxArguments::default()))
        }
        EndorsedArgument::Tdx => {
            let buffer = quote(arguments)?;
            write(&evidence, &buffer)?;
            let name = PlatformName::of(&tdx::quote(&buffer)?).map_err(failure)?;
            let found = vec![(name.file(), service.collateral(&name, &kept, now).await.map_err(failure)?)];
            let tdx = TdxArguments {
                quote: Some(evidence),
                root: arguments.root.clone(),
                tcb_status: arguments.tcb_status.clone(),
                advisory: arguments.advisory.clone(),
                ..TdxArguments::default()
            };
            (found, verifying(arguments, TeeArgument::Tdx, shown.path(), SnpArguments::default(), tdx))
        }
    };
    keep(&Directory::new(shown.path()), &found)?;
    let (tee, appraisal) = appraise(&verify, now)?;
    let passed = appraisal.result.map_err(Failure::by_command)?;
    keep(&kept, &found)?;
    let files: Vec<String> = found.iter().map(|(name, _)| arguments.out.join(name).display().to_string()).collect();
    let stamp = if passed.simulated { " SIMULATED" } else { "" };
    output.tell(
        || json!({"tee": tee, "at": now, "simulated": passed.simulated, "kept": files}),
        || files.iter().map(|file| format!("kept{stamp} {file}")).collect(),
    )
}

fn verifying(
    arguments: &CollectArguments,
    tee: TeeArgument,
    endorsements: &Path,
    snp: SnpArguments,
    tdx: TdxArguments,
) -> EvidenceVerifyArguments {
    EvidenceVerifyArguments {
        tee,
        // The time itself is handed over beside it.
        at: String::new(),
        allow_simulated: arguments.allow_simulated,
        evidence: None,
        challenge: None,
        endorsements: Some(endorsements.to_owned()),
        snp,
        tdx,
        tpm: TpmArguments::default(),
    }
}

/// Keeps what came, each under its name.
fn keep(directory: &Directory, found: &[(String, Vec<u8>)]) -> Result<(), Failure> {
    found.iter().try_for_each(|(name, bytes)| directory.keep(name, bytes).map_err(failure))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| Failure::file(path, error))
}

fn report(arguments: &CollectArguments) -> Result<Report, Failure> {
    let read = match &arguments.evidence {
        Some(path) => Report::from_json(&parsed::<SnpEvidence>(path)?.attestation_report),
        None => Report::parse(&bytes(needed(arguments.report.as_ref(), "--report or --evidence")?)?),
    };
    read.map_err(super::snp::malformed)
}

fn quote(arguments: &CollectArguments) -> Result<Vec<u8>, Failure> {
    match &arguments.evidence {
        Some(path) => Ok(parsed::<TdxEvidence>(path)?.quote),
        None => bytes(needed(arguments.quote.as_ref(), "--quote or --evidence")?),
    }
}

/// Whose endorsement a report needs; `product` is for reports that do not tell theirs.
pub(super) fn vek_name(report: &Report, product: Option<&str>) -> Result<VekName, Failure> {
    let wrong = |name: &str| Failure::Usage(format!("--product {name}: expected Milan, Genoa or Turin"));
    let product = product.map(|name| Product::parse(name).ok_or_else(|| wrong(name))).transpose()?;
    if report.fields().cpuid_fam_id.is_none() && product.is_none() {
        return Err(Failure::Usage("this version of report does not tell its product: it needs --product".to_owned()));
    }
    VekName::of(report, product).map_err(failure)
}

/// How a command ends that did not get an endorsement.
pub(super) fn failure(error: EndorsementError) -> Failure {
    match error {
        EndorsementError::Unnamed(what) => {
            let expected = "evidence that names an endorsement which a service has";
            Failure::by_command(Refusal::new(reason::EVIDENCE_ENDORSEMENT, "evidence", expected, what))
        }
        EndorsementError::Address { .. } => Failure::Usage(format!("--from {error}")),
        EndorsementError::File { .. } => Failure::Io(error.to_string()),
        EndorsementError::Unavailable { .. }
        | EndorsementError::Missing { .. }
        | EndorsementError::Malformed { .. } => Failure::Unavailable(error.to_string()),
    }
}
