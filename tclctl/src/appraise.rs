//! `appraise --offline`: a launch decided from files, by the functions that decide it in a launch.

use std::path::Path;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::dsse::Envelope;
use protocols::events::GoldenRef;
use protocols::golden::{GoldenValue, Statement};
use protocols::image::{ImageMeasurement, ProcessRequest};
use protocols::reason::Source;
use protocols::tcl::{Outcome, RecordBytes};
use protocols::time::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use verifier::SignerConfig;
use verifier::rehearsal::{Mark, Rehearsal, VERSION};

use crate::cli::AppraiseArguments;
use crate::files::read;
use crate::outcome::Failure;
use crate::output::Output;

/// The largest file we read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Decides, and tells the verdict as the attestor would give it.
pub(crate) fn appraise(arguments: &AppraiseArguments, output: &Output) -> Result<(), Failure> {
    let question = match &arguments.question {
        Some(path) => recorded(path)?,
        None => assembled(arguments)?,
    };
    let outcome = decided(&question)?;
    let manifest = question.image.manifest;
    match &outcome {
        Outcome::Pass(golden) => output.tell(
            || json!({ "outcome": outcome }),
            || vec![format!("passed: {manifest} by version {} (payload {})", golden.version, golden.payload)],
        ),
        Outcome::Refused { refusal, .. } => {
            if output.json() {
                output.tell(|| json!({ "outcome": outcome }), Vec::new)?;
            }
            Err(Failure::from(refusal.as_ref().clone()))
        }
    }
}

/// The verdict on a question.
pub(crate) fn decided(question: &Rehearsal) -> Result<Outcome, Failure> {
    question.outcome(Source::Command).map_err(|error| Failure::Usage(error.to_string()))
}

fn recorded(path: &Path) -> Result<Rehearsal, Failure> {
    let question: Rehearsal = json_of(path)?;
    if question.v != VERSION {
        return Err(Failure::Usage(format!("{}: version {}, not {VERSION}", path.display(), question.v)));
    }
    Ok(question)
}

fn assembled(arguments: &AppraiseArguments) -> Result<Rehearsal, Failure> {
    let (Some(measurement), Some(signers)) = (&arguments.measurement, &arguments.signers) else {
        return Err(Failure::Usage("--measurement and --signers are needed, or a recorded question".to_owned()));
    };
    let image = image(measurement)?;
    let process = match &arguments.process {
        Some(path) => json_of(path)?,
        None => ProcessRequest::from(&image.process),
    };
    let envelopes: Vec<_> =
        arguments.golden.iter().map(|path| read(path, MAX_FILE).map(RecordBytes)).collect::<Result<_, _>>()?;
    let now = match arguments.at.as_deref() {
        Some(text) => {
            Timestamp::parse(text).ok_or_else(|| Failure::Usage(format!("--at {text}: not RFC 3339 in UTC")))?
        }
        None => Timestamp::now(),
    };
    let high_water = match arguments.high_water.as_deref() {
        Some(text) => marks(text, &envelopes)?,
        None => Vec::new(),
    };
    Ok(Rehearsal {
        v: VERSION,
        environment: arguments.environment.into(),
        now,
        image,
        process,
        signers: listed(signers)?,
        envelopes,
        revocations: arguments.revocations.as_deref().map(|path| read(path, MAX_FILE).map(RecordBytes)).transpose()?,
        unavailable: None,
        revoked: Vec::new(),
        high_water,
    })
}

/// One measurement, alone or as `measure` prints it.
fn image(path: &Path) -> Result<ImageMeasurement, Failure> {
    #[derive(Deserialize)]
    struct Printed {
        measurement: ImageMeasurement,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Measured {
        Printed(Vec<Printed>),
        Alone(Box<ImageMeasurement>),
    }
    match json_of(path)? {
        Measured::Alone(image) => Ok(*image),
        Measured::Printed(printed) => {
            let mut printed = printed.into_iter();
            match (printed.next(), printed.next()) {
                (Some(Printed { measurement }), None) => Ok(measurement),
                _ => Err(Failure::Usage(format!("{}: not exactly one measured manifest", path.display()))),
            }
        }
    }
}

/// The `[[signers]]` of a configuration, whatever else it has.
fn listed(path: &Path) -> Result<Vec<SignerConfig>, Failure> {
    #[derive(Deserialize)]
    struct Listing {
        signers: Vec<SignerConfig>,
    }
    let text = String::from_utf8(read(path, MAX_FILE)?)
        .map_err(|_| Failure::Usage(format!("{}: not text", path.display())))?;
    let listing: Listing =
        toml::from_str(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok(listing.signers)
}

/// The mark, within every series that the golden values are of.
fn marks(text: &str, envelopes: &[RecordBytes]) -> Result<Vec<Mark>, Failure> {
    let wrong = || Failure::Usage(format!("--high-water {text}: not VERSION:sha256:HEX"));
    let (version, payload) = text.split_once(':').ok_or_else(wrong)?;
    let version = version.parse().map_err(|_| wrong())?;
    let payload: Sha256Digest = payload.parse().map_err(|_| wrong())?;
    let mut series: Vec<Sha384Digest> = envelopes.iter().filter_map(|bytes| series_of(&bytes.0)).collect();
    series.sort_unstable();
    series.dedup();
    Ok(series.into_iter().map(|series_h| Mark { series_h, version, payload }).collect())
}

/// The series that an envelope says it is of; whether that counts is for the verdict.
fn series_of(bytes: &[u8]) -> Option<Sha384Digest> {
    let envelope = Envelope::parse(bytes).ok()?;
    let value = Statement::<GoldenValue>::parse(&envelope.payload).ok()?.predicate;
    Some(GoldenRef::series_hash(&value.issuer, &value.series))
}

fn json_of<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    serde_json::from_slice(&read(path, MAX_FILE)?)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests;
