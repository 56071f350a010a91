//! `evidence verify` and `evidence show`: evidence in files, one module per platform.

mod azure;
mod collect;
pub(crate) mod platform;
mod simulate;
mod snp;
mod tdx;
mod tpm;

pub(crate) use collect::collect_endorsements;
pub(crate) use platform::{collect, detect};
pub(crate) use simulate::simulate;

use std::path::Path;

use protocols::environment::Environment;
use protocols::kbs;
use protocols::reason::Refusal;
use protocols::time::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use verifier::{Check, Trace};

use crate::cli::{EvidenceShowArguments, EvidenceVerifyArguments, TeeArgument};
use crate::files::read;
use crate::inspect::challenge;
use crate::outcome::Failure;
use crate::output::{Output, columns};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What verifying came to.
pub(super) struct Appraisal {
    /// Every check that was made; those whose input was not given are in `unchecked` too.
    pub(super) trace: Trace,
    /// Checks that could not be made, by name, each with what to give.
    pub(super) unchecked: Vec<(&'static str, &'static str)>,
    /// What the evidence says, where it passed.
    pub(super) result: Result<Passed, Refusal>,
}

/// Evidence that passed every check that was made.
pub(super) struct Passed {
    /// Whether a simulated root or key vouches for it.
    pub(super) simulated: bool,
    /// Names and values.
    pub(super) claims: Map<String, Value>,
}

/// Verifies, prints every check, and refuses with the first one that did not pass.
pub(crate) fn verify(arguments: &EvidenceVerifyArguments, output: &Output) -> Result<(), Failure> {
    let now = time(&arguments.at)?;
    let (name, appraisal) = appraise(&with_challenge(arguments)?, now)?;
    let Appraisal { trace, unchecked, result } = appraisal;
    let skipped = |check: &&Check| check.passed && unchecked.iter().any(|(name, _)| *name == check.name);
    let made: Vec<&Check> = trace.checks().iter().filter(|check| !skipped(check)).collect();
    output.tell(
        || {
            let checks: Vec<Value> = made.iter().map(|check| shown(check)).collect();
            let unchecked: Vec<Value> =
                unchecked.iter().map(|(name, how)| json!({"name": name, "give": how})).collect();
            let mut value =
                json!({"tee": name, "at": now, "verified": result.is_ok(), "checks": checks, "not_checked": unchecked});
            if let (Ok(passed), Some(members)) = (&result, value.as_object_mut()) {
                members.insert("simulated".to_owned(), json!(passed.simulated));
                members.insert("claims".to_owned(), Value::Object(passed.claims.clone()));
            }
            value
        },
        || {
            let mut rows: Vec<Vec<String>> = made.iter().map(|check| row(check)).collect();
            let absent =
                |(name, how): &(&str, &str)| vec!["not checked".to_owned(), (*name).to_owned(), (*how).to_owned()];
            rows.extend(unchecked.iter().map(absent));
            let mut lines = columns(&rows);
            if let Ok(passed) = &result {
                let stamp = if passed.simulated { ", SIMULATED" } else { "" };
                let but =
                    if unchecked.is_empty() { String::new() } else { format!(", {} not checked", unchecked.len()) };
                lines.push(format!("verified: {name} evidence at {now}, {} checks passed{but}{stamp}", made.len()));
            }
            lines
        },
    )?;
    result.map(|_| ()).map_err(Failure::by_command)
}

fn appraise(arguments: &EvidenceVerifyArguments, now: Timestamp) -> Result<(&'static str, Appraisal), Failure> {
    Ok(match arguments.tee {
        TeeArgument::Snp => ("snp", snp::verify(arguments, now)?),
        TeeArgument::Tdx => ("tdx", tdx::verify(arguments, now)?),
        TeeArgument::Tpm => ("tpm", tpm::verify(arguments)?),
        TeeArgument::AzSnpVtpm => ("az-snp-vtpm", azure::verify_snp(arguments, now)?),
        TeeArgument::AzTdxVtpm => ("az-tdx-vtpm", azure::verify_tdx(arguments, now)?),
    })
}

/// With the nonce or report data that follow from the challenge, where one was given.
fn with_challenge(arguments: &EvidenceVerifyArguments) -> Result<EvidenceVerifyArguments, Failure> {
    let mut given = arguments.clone();
    if let Some(text) = &arguments.challenge {
        let binding = kbs::challenge_binding(&challenge(text)?);
        match arguments.tee {
            TeeArgument::Snp | TeeArgument::Tdx => {
                given.snp.report_data = Some(hex::encode(kbs::report_data(&binding)))
            }
            TeeArgument::Tpm => given.tpm.nonce = Some(hex::encode(kbs::tpm_nonce(&binding))),
            TeeArgument::AzSnpVtpm | TeeArgument::AzTdxVtpm => given.tpm.nonce = Some(hex::encode(binding.as_bytes())),
        }
    }
    Ok(given)
}

fn shown(check: &Check) -> Value {
    json!({"name": check.name, "code": check.code, "expected": check.expected, "actual": check.actual, "passed": check.passed})
}

fn row(check: &Check) -> Vec<String> {
    let word = if check.passed { "passed" } else { "REFUSED" };
    let found = format!("expected {}; got {}", check.expected, check.actual);
    vec![word.to_owned(), check.name.to_owned(), found]
}

/// Prints what evidence says. Nothing of it is verified, and the first line says so.
pub(crate) fn show(arguments: &EvidenceShowArguments, output: &Output) -> Result<(), Failure> {
    let value = match arguments.tee {
        TeeArgument::Snp => snp::show(&bytes(&arguments.file)?)?,
        TeeArgument::Tdx => tdx::show(&bytes(&arguments.file)?)?,
        TeeArgument::Tpm => tpm::show(&parsed(&arguments.file)?)?,
        TeeArgument::AzSnpVtpm | TeeArgument::AzTdxVtpm => azure::show(&parsed(&arguments.file)?)?,
    };
    output.tell(
        || json!({"verified": false, "evidence": value}),
        || {
            let mut rows = Vec::new();
            flat("", &value, &mut rows);
            let mut lines = vec![format!("{}: NOT verified, only read", arguments.file.display())];
            lines.extend(columns(&rows));
            lines
        },
    )
}

/// One row for every leaf.
fn flat(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flat(&name, value, rows);
            }
        }
        Value::String(text) => rows.push(vec![name.to_owned(), text.clone()]),
        other => rows.push(vec![name.to_owned(), other.to_string()]),
    }
}

/// Production unless simulated evidence was asked for.
pub(super) const fn environment(arguments: &EvidenceVerifyArguments) -> Environment {
    if arguments.allow_simulated { Environment::Development } else { Environment::Production }
}

fn time(text: &str) -> Result<Timestamp, Failure> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    Timestamp::parse(&whole).ok_or_else(|| Failure::Usage(format!("--at {text}: not a time")))
}

/// An option that this kind of evidence needs.
pub(super) fn needed<'o, T>(option: Option<&'o T>, name: &str) -> Result<&'o T, Failure> {
    option.ok_or_else(|| Failure::Usage(format!("this kind of evidence needs {name}")))
}

pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, MAX_FILE)
}

/// A JSON file of the form that evidence of its kind has.
pub(super) fn parsed<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let wrong = |error: serde_json::Error| {
        let actual: String = error.to_string().chars().take(200).collect();
        let code = protocols::reason::EVIDENCE_MALFORMED;
        Failure::by_command(Refusal::new(code, path.display().to_string(), "evidence as JSON", actual))
    };
    serde_json::from_slice(&bytes(path)?).map_err(wrong)
}

pub(super) fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(bytes(path)?).map_err(|_| Failure::file(path, "not text"))
}

/// Exactly `N` bytes in hex, from the option `name`.
pub(super) fn exactly<const N: usize>(text: &str, name: &str) -> Result<[u8; N], Failure> {
    let bytes = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Failure::Usage(format!("{name}: expected {N} bytes in hex")))
}
