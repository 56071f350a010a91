//! Decisions written down as questions that `tclctl appraise --offline` decides again; in development only.

use std::path::PathBuf;

use protocols::tcl::{DecideRequest, RecordBytes};
use protocols::time::Timestamp;
use verifier::rehearsal::{Mark, Rehearsal, VERSION};
use verifier::{HighWater, SignerConfig};

use crate::config::Settings;
use crate::decide::Found;
use crate::files;

/// Where questions are written.
#[derive(Debug)]
pub struct Recording {
    /// The directory; it must be there.
    pub(crate) directory: PathBuf,
    /// The signers as configuration names them.
    pub(crate) signers: Vec<SignerConfig>,
}

/// Everything that decided one launch.
pub(crate) fn question(
    recording: &Recording,
    settings: &Settings,
    request: &DecideRequest,
    (found, high_water): (&Found, HighWater),
    now: Timestamp,
) -> Rehearsal {
    let golden = found.golden.as_ref().ok();
    let mark = match (golden, high_water) {
        (Some(golden), HighWater::Accepted { version, payload }) => {
            Some(Mark { series_h: golden.reference().series_h, version, payload })
        }
        _ => None,
    };
    Rehearsal {
        v: VERSION,
        environment: settings.evidence.environment,
        now,
        image: request.image.clone(),
        process: request.process.clone(),
        signers: recording.signers.clone(),
        envelopes: found.envelopes.iter().cloned().map(RecordBytes).collect(),
        revocations: found.revocations.clone().map(RecordBytes),
        unavailable: found.unavailable.clone(),
        revoked: found.revoked.iter().copied().collect(),
        high_water: mark.into_iter().collect(),
    }
}

/// Writes a question under the decision's id. What cannot be written is told, and decides nothing.
pub(crate) async fn write(recording: &Recording, id: &str, question: &Rehearsal) {
    let path = recording.directory.join(format!("{id}.json"));
    let Ok(bytes) = serde_json::to_vec_pretty(question) else { return };
    let written = tokio::task::spawn_blocking(move || files::create(&path, &bytes));
    match written.await {
        Ok(Ok(())) => tracing::debug!(id, "recorded"),
        Ok(Err(error)) => tracing::warn!(id, "a decision's question was not recorded: {error}"),
        Err(error) => tracing::warn!(id, "a decision's question was not recorded: {error}"),
    }
}
