//! TDX quotes.

use std::path::PathBuf;

use endorsements::{Directory, PlatformName};
use protocols::encoding::b64;
use protocols::kbs::TdxEvidence;
use protocols::reason::{self, Refusal};
use protocols::tdx::{Quote, TdReport, TdxError, trim};
use protocols::time::Timestamp;
use serde_json::{Map, Value, json};
use verifier::tdx::{TcbStatus, TdxCollateral, TdxMeasurements, TdxPolicy, TdxRoot};
use verifier::{ExpectedMeasurement, TdxClaims, Trace, verify_tdx};

use super::snp::Unchecked;
use super::{Appraisal, Passed, bytes, collect, environment, exactly, needed, text};
use crate::cli::EvidenceVerifyArguments;
use crate::outcome::Failure;

pub(super) fn verify(arguments: &EvidenceVerifyArguments, now: Timestamp) -> Result<Appraisal, Failure> {
    let options = &arguments.tdx;
    let shown = arguments.evidence.as_ref().map(|path| super::parsed::<TdxEvidence>(path)).transpose()?;
    let (buffer, own_log) = match shown {
        Some(shown) => (shown.quote, shown.cc_eventlog),
        None => (bytes(needed(options.quote.as_ref(), "--quote or --evidence")?)?, None),
    };
    // Hosts hand out whole pages: zero bytes behind a quote are no part of it.
    let quote = trim(&buffer).unwrap_or(&buffer).to_vec();
    let parsed = Quote::parse(&quote);
    let mut unchecked = Unchecked::new();
    let policy = policy(arguments, parsed.as_ref(), &mut unchecked)?;
    let own = parsed.ok().map(|quote| quote.report);
    let report_data = match &arguments.snp.report_data {
        Some(text) => exactly(text, "--report-data")?,
        None => {
            unchecked.push(("report data", "--report-data HEX"));
            own.as_ref().map_or([0; 64], |own| own.report_data)
        }
    };
    let given = options.ccel.as_ref().map(|path| bytes(path).map(|log| b64(&log))).transpose()?;
    let cc_eventlog = given.or(own_log);
    if cc_eventlog.is_none() {
        unchecked.push(("firmware log", "--ccel FILE"));
    }
    let mut trace = Trace::on();
    let mut result = verify_tdx(&TdxEvidence { cc_eventlog, quote }, &report_data, &policy, now, &mut trace);
    match (&options.mrconfigid, &result) {
        (None, _) => unchecked.push(("MRCONFIGID", "--mrconfigid HEX")),
        (Some(text), Ok(claims)) => {
            let check = ("MRCONFIGID", reason::EVIDENCE_INITDATA);
            let actual = hex::encode(claims.mr_config_id());
            if let Err(refusal) = trace.compare(check, &text.to_lowercase(), &actual) {
                result = Err(refusal);
            }
        }
        (Some(_), Err(_)) => {}
    }
    let result = result.map(|claims| Passed { simulated: claims.simulated(), claims: self::claims(&claims) });
    Ok(Appraisal { trace, unchecked, result })
}

/// The policy that the options make; `own` stands in for expectations that were not given.
pub(super) fn policy(
    arguments: &EvidenceVerifyArguments,
    quote: Result<&Quote, &TdxError>,
    unchecked: &mut Unchecked,
) -> Result<TdxPolicy, Failure> {
    let options = &arguments.tdx;
    let own = quote.ok().map(|quote| &quote.report);
    let (path, json) = collateral(arguments, quote)?;
    let collateral = TdxCollateral::parse(&json).map_err(|error| {
        let subject = path.display().to_string();
        let expected = "collateral of one kind of platform";
        Failure::by_command(Refusal::new(reason::EVIDENCE_COLLATERAL, subject, expected, error.to_string()))
    })?;
    let root = match &options.root {
        None => TdxRoot::intel().map_err(|error| Failure::Fault(error.to_string()))?,
        Some(path) => TdxRoot::from_pem(&text(path)?, false).map_err(|error| {
            let subject = path.display().to_string();
            Failure::by_command(Refusal::new(reason::EVIDENCE_CHAIN, subject, "one root", error.to_string()))
        })?,
    };
    if options.minimum_evaluation.is_none() {
        unchecked.push(("evaluation data number", "--minimum-evaluation NUMBER"));
    }
    let mut statuses = options.tcb_status.clone();
    if statuses.is_empty() {
        statuses.push("UpToDate".to_owned());
    }
    let statuses = statuses
        .into_iter()
        .map(|status| {
            serde_json::from_value::<TcbStatus>(json!(status))
                .map_err(|_| Failure::Usage(format!("--tcb-status {status}: not a TCB status")))
        })
        .collect::<Result<_, _>>()?;
    let mut listed = |(check, name): (&'static str, &'static str), given: &[String], own: Option<[u8; 48]>| {
        if given.is_empty() {
            unchecked.push((check, name));
            return Ok(ExpectedMeasurement::Listed(own.into_iter().collect()));
        }
        given.iter().map(|text| exactly(text, name)).collect::<Result<_, _>>().map(ExpectedMeasurement::Listed)
    };
    let register = |number: usize| own.and_then(|own| own.rtmr.get(number).copied());
    let measurements = TdxMeasurements {
        mr_td: listed(("MRTD", "--mrtd HEX"), &options.mrtd, own.map(|own| own.mr_td))?,
        rtmr: [
            listed(("RTMR0", "--rtmr0 HEX"), &options.rtmr0, register(0))?,
            listed(("RTMR1", "--rtmr1 HEX"), &options.rtmr1, register(1))?,
            listed(("RTMR2", "--rtmr2 HEX"), &options.rtmr2, register(2))?,
        ],
    };
    Ok(TdxPolicy {
        roots: vec![root],
        collateral: vec![collateral],
        statuses,
        advisories: options.advisory.clone(),
        minimum_evaluation: options.minimum_evaluation.unwrap_or_default(),
        measurements,
        environment: environment(arguments),
    })
}

/// The collateral that was given, or the one that the directory of endorsements has for the quote.
fn collateral(
    arguments: &EvidenceVerifyArguments,
    quote: Result<&Quote, &TdxError>,
) -> Result<(PathBuf, Vec<u8>), Failure> {
    let Some(directory) = &arguments.endorsements else {
        let path = needed(arguments.tdx.collateral.as_ref(), "--collateral or --endorsements")?;
        return Ok((path.clone(), bytes(path)?));
    };
    let name = PlatformName::of(quote.map_err(malformed)?).map_err(collect::failure)?;
    let path = directory.join(name.file());
    let found = Directory::new(directory).collateral(&name).map_err(collect::failure)?;
    let json = found.ok_or_else(|| Failure::file(&path, "not there"))?;
    Ok((path, json))
}

fn malformed(error: impl std::fmt::Display) -> Failure {
    Failure::by_command(Refusal::new(reason::EVIDENCE_MALFORMED, "TDX quote", "a TDX quote", error.to_string()))
}

/// A quote without the zero bytes behind it.
pub(super) fn quote(buffer: &[u8]) -> Result<Quote, Failure> {
    Quote::parse(trim(buffer).map_err(malformed)?).map_err(malformed)
}

pub(super) fn claims(claims: &TdxClaims) -> Map<String, Value> {
    let mut out = report(claims.report());
    out.insert("tcb_status".to_owned(), json!(claims.tcb_status()));
    out.insert("advisories".to_owned(), json!(claims.advisories()));
    out.insert("evaluation".to_owned(), json!(claims.evaluation()));
    out.insert("fmspc".to_owned(), json!(hex::encode(claims.fmspc())));
    out.insert("platform".to_owned(), json!(hex::encode(claims.platform())));
    out
}

fn report(report: &TdReport) -> Map<String, Value> {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = report.rtmr.map(hex::encode);
    let mut out = Map::new();
    for (name, value) in [
        ("tee_tcb_svn", hex::encode(report.tee_tcb_svn)),
        ("mr_seam", hex::encode(report.mr_seam)),
        ("mr_signer_seam", hex::encode(report.mr_signer_seam)),
        ("td_attributes", report.td_attributes.to_string()),
        ("xfam", report.xfam.to_string()),
        ("mr_td", hex::encode(report.mr_td)),
        ("mr_config_id", hex::encode(report.mr_config_id)),
        ("mr_owner", hex::encode(report.mr_owner)),
        ("mr_owner_config", hex::encode(report.mr_owner_config)),
        ("rtmr0", rtmr0),
        ("rtmr1", rtmr1),
        ("rtmr2", rtmr2),
        ("rtmr3", rtmr3),
        ("report_data", hex::encode(report.report_data)),
    ] {
        out.insert(name.to_owned(), json!(value));
    }
    if let Some(v15) = &report.v15 {
        out.insert("tee_tcb_svn2".to_owned(), json!(hex::encode(v15.tee_tcb_svn2)));
        out.insert("mr_service_td".to_owned(), json!(hex::encode(v15.mr_service_td)));
    }
    out
}

/// What a quote says.
pub(super) fn show(buffer: &[u8]) -> Result<Value, Failure> {
    let quote = quote(buffer)?;
    let mut out = report(&quote.report);
    let qe = &quote.signature.qe_report;
    out.insert("version".to_owned(), json!(format!("{:?}", quote.header.version)));
    out.insert("qe_mr_signer".to_owned(), json!(hex::encode(qe.mr_signer)));
    out.insert("qe_isv_svn".to_owned(), json!(qe.isv_svn));
    out.insert("certificates".to_owned(), json!(quote.signature.pck_chain.certificates().len()));
    Ok(Value::Object(out))
}
