//! `audit`: the attestor's audit log fetched, checked against what it signed, kept.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use audit_log::{
    AuditError, CHECKPOINT_PATH, Checkpoint, CheckpointResponse, ENTRIES_PATH, EntriesResponse, Entry, MAX_ENTRY,
    PROOF_PATH, ProofResponse, Verifier, leaf_hash, verify_inclusion,
};
use p256::ecdsa::VerifyingKey;
use protocols::reason::{self, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::attestor::Administration;
use crate::cli::{
    AuditExportArguments, AuditProveArguments, AuditShowArguments, AuditVerifyArguments, AuditedArguments,
};
use crate::outcome::Failure;
use crate::output::Output;

/// The longest line of an exported log, in bytes.
const MAX_LINE: usize = 2 * MAX_ENTRY;

/// The first line of an exported log, and the whole of a state file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    checkpoint: String,
}

/// Checks a whole log.
pub(crate) async fn verify(arguments: &AuditVerifyArguments, output: &Output) -> Result<(), Failure> {
    let key = pinned(&arguments.key)?;
    let before = arguments.state.as_deref().map(|state| remembered(state, &key)).transpose()?.flatten();
    let (newest, entries) = match (&arguments.file, &arguments.attestor, &arguments.admin_token) {
        (Some(file), _, _) => of_file(file, &key, before.as_ref())?,
        (None, Some(attestor), Some(token)) => {
            let attestor = Log { at: Administration::new(attestor, token)?, name: attestor };
            let others: Result<Vec<_>, _> = arguments
                .replica
                .iter()
                .map(|name| Ok::<_, Failure>(Log { at: Administration::new(name, token)?, name }))
                .collect();
            of_attestors(&attestor, &others?, &key, before.as_ref()).await?
        }
        _ => return Err(Failure::Usage("--attestor and --admin-token, or --file".to_owned())),
    };
    if let Some(state) = &arguments.state {
        remember(state, &newest.compact)?;
    }
    let Checkpoint { size, root, issued_at } = newest.checkpoint;
    let known = before.map(|before| before.checkpoint.size);
    output.tell(
        || json!({"size": size, "root": root, "issued_at": issued_at, "entries": entries, "before": known}),
        || {
            let grown = known.map_or_else(String::new, |known| format!(", grown from the {known} signed before"));
            vec![format!("verified: {entries} entries, signed up to {size}{grown}"), format!("root      {root}")]
        },
    )
}

/// A checkpoint whose signature holds.
struct Word {
    checkpoint: Checkpoint,
    compact: String,
}

impl Word {
    fn read(compact: String, key: &VerifyingKey, name: &str) -> Result<Self, Failure> {
        let checkpoint = Checkpoint::verify(&compact, key).map_err(|error| refused(name, &error))?;
        Ok(Self { checkpoint, compact })
    }
}

/// One attestor's log.
struct Log<'a> {
    at: Administration,
    name: &'a str,
}

impl Log<'_> {
    async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Failure> {
        let body = self.at.get(path, "the audit log").await?;
        serde_json::from_slice(&body).map_err(|error| Failure::Unavailable(format!("{}: {error}", self.name)))
    }

    async fn newest(&self, key: &VerifyingKey) -> Result<Word, Failure> {
        let CheckpointResponse { checkpoint } = self.get(CHECKPOINT_PATH).await?;
        Word::read(checkpoint, key, self.name)
    }

    async fn entries(&self, from: u64) -> Result<Vec<Vec<u8>>, Failure> {
        let EntriesResponse { entries } = self.get(&format!("{ENTRIES_PATH}?from={from}")).await?;
        Ok(entries.into_iter().map(|entry| entry.0).collect())
    }
}

/// Fetches every entry up to the longest checkpoint of any replica, and checks all of them on the way.
async fn of_attestors(
    attestor: &Log<'_>,
    others: &[Log<'_>],
    key: &VerifyingKey,
    before: Option<&Word>,
) -> Result<(Word, u64), Failure> {
    let refused = |error: AuditError| refused(attestor.name, &error);
    let mut verifier = Verifier::default();
    let mut newest = attestor.newest(key).await?;
    if let Some(before) = before {
        shrunk(before, &newest).map_err(refused)?;
        verifier.expect(&before.checkpoint).map_err(refused)?;
    }
    verifier.expect(&newest.checkpoint).map_err(refused)?;
    for other in others {
        let word = other.newest(key).await?;
        verifier.expect(&word.checkpoint).map_err(refused)?;
        if word.checkpoint.size > newest.checkpoint.size {
            newest = word;
        }
    }
    while verifier.size() < verifier.wanted() {
        let entries = attestor.entries(verifier.size()).await?;
        if entries.is_empty() {
            break;
        }
        let wanted = usize::try_from(verifier.wanted() - verifier.size()).unwrap_or(usize::MAX);
        for entry in entries.iter().take(wanted) {
            verifier.take(entry).map_err(refused)?;
        }
    }
    let tree = verifier.finish().map_err(refused)?;
    Ok((newest, tree.size()))
}

fn of_file(file: &Path, key: &VerifyingKey, before: Option<&Word>) -> Result<(Word, u64), Failure> {
    let name = file.display().to_string();
    let refused = |error: AuditError| refused(&name, &error);
    let opened = fs::File::open(file).map_err(|error| Failure::file(file, error))?;
    let mut lines = BufReader::new(opened).split(b'\n');
    let mut next = || lines.next().transpose().map_err(|error| Failure::file(file, error));
    let first = next()?.unwrap_or_default();
    let Signed { checkpoint } =
        serde_json::from_slice(&first).map_err(|_| Failure::file(file, "its first line is no checkpoint"))?;
    let word = Word::read(checkpoint, key, &name)?;
    let mut verifier = Verifier::default();
    if let Some(before) = before {
        shrunk(before, &word).map_err(refused)?;
        verifier.expect(&before.checkpoint).map_err(refused)?;
    }
    verifier.expect(&word.checkpoint).map_err(refused)?;
    while let Some(line) = next()? {
        if line.len() > MAX_LINE {
            return Err(Failure::file(file, "a line too long for an entry"));
        }
        verifier.take(&line).map_err(refused)?;
    }
    let tree = verifier.finish().map_err(refused)?;
    Ok((word, tree.size()))
}

fn shrunk(before: &Word, now: &Word) -> Result<(), AuditError> {
    let (expected, actual) = (before.checkpoint.size, now.checkpoint.size);
    if actual < expected { Err(AuditError::Shrunk { expected, actual }) } else { Ok(()) }
}

/// Writes the log to a file.
pub(crate) async fn export(arguments: &AuditExportArguments, output: &Output) -> Result<(), Failure> {
    let AuditedArguments { attestor, admin_token } = &arguments.audited;
    let log = Log { at: Administration::new(attestor, admin_token)?, name: attestor };
    let CheckpointResponse { checkpoint } = log.get(CHECKPOINT_PATH).await?;
    let path = &arguments.file;
    let file = |error: std::io::Error| Failure::file(path, error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(file)?;
    let mut line = |bytes: &[u8]| temporary.write_all(bytes).and_then(|()| temporary.write_all(b"\n")).map_err(file);
    line(json!({ "checkpoint": checkpoint }).to_string().as_bytes())?;
    let mut written = 0u64;
    loop {
        let entries = log.entries(written).await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            line(&entry)?;
            written += 1;
        }
    }
    temporary.as_file().sync_all().map_err(file)?;
    temporary.persist(path).map_err(|error| file(error.error))?;
    output
        .tell(|| json!({"file": path, "entries": written}), || vec![format!("{written} entries in {}", path.display())])
}

/// Prints entries; what each is, not whether it was signed.
pub(crate) async fn show(arguments: &AuditShowArguments, output: &Output) -> Result<(), Failure> {
    let AuditedArguments { attestor, admin_token } = &arguments.audited;
    let log = Log { at: Administration::new(attestor, admin_token)?, name: attestor };
    let mut place = arguments.from;
    let mut shown = Vec::new();
    loop {
        let entries = log.entries(place).await?;
        if entries.is_empty() {
            break;
        }
        for bytes in entries {
            shown.push(Entry::decode(&bytes, place).map_err(|error| refused(attestor, &error))?);
            place += 1;
        }
    }
    output.tell(|| json!(shown), || shown.iter().map(line_of).collect())
}

fn line_of(entry: &Entry) -> String {
    let event = json!(entry.event);
    let members = event.as_object().into_iter().flatten().filter(|(name, _)| *name != "kind");
    let members = members.map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    });
    let kind = event.get("kind").and_then(serde_json::Value::as_str).unwrap_or_default();
    format!("{:>8}  {}  {kind:<14} {}", entry.seq, entry.time, members.collect::<Vec<_>>().join(" "))
}

/// Checks that one entry is in the log.
pub(crate) async fn prove(arguments: &AuditProveArguments, output: &Output) -> Result<(), Failure> {
    let AuditedArguments { attestor, admin_token } = &arguments.audited;
    let key = pinned(&arguments.key)?;
    let log = Log { at: Administration::new(attestor, admin_token)?, name: attestor };
    let word = log.newest(&key).await?;
    let (place, size) = (arguments.place, word.checkpoint.size);
    if place >= size {
        return Err(Failure::Usage(format!("the log has {size} entries, counted from 0")));
    }
    let refused = |error: AuditError| refused(attestor, &error);
    let bytes = log.entries(place).await?.into_iter().next().unwrap_or_default();
    let entry = Entry::decode(&bytes, place).map_err(refused)?;
    let ProofResponse { proof } = log.get(&format!("{PROOF_PATH}?place={place}&size={size}")).await?;
    verify_inclusion(leaf_hash(&bytes), place, size, &proof, &word.checkpoint.root).map_err(refused)?;
    output.tell(
        || json!({"entry": entry, "checkpoint": word.compact, "proof": proof}),
        || vec![line_of(&entry), format!("verified: entry {place} of the {size} signed by {} hashes", proof.len())],
    )
}

fn refused(name: &str, error: &AuditError) -> Failure {
    let expected = "a log that is what the attestor signed";
    Failure::by_command(Refusal::new(reason::ATTESTOR_AUDIT, name, expected, error.to_string()))
}

fn pinned(path: &Path) -> Result<VerifyingKey, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, error))?;
    match protocols::keys::VerifyingKey::from_pem(&text) {
        Ok(protocols::keys::VerifyingKey::EcdsaP256(key)) => Ok(key),
        Ok(_) => Err(Failure::file(path, "not a P-256 key, which attestors have")),
        Err(error) => Err(Failure::file(path, error)),
    }
}

/// The checkpoint of an earlier run; none where there was no earlier run.
fn remembered(path: &Path, key: &VerifyingKey) -> Result<Option<Word>, Failure> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| Failure::file(path, error))?,
    };
    let Signed { checkpoint } =
        serde_json::from_slice(&bytes).map_err(|_| Failure::file(path, "not the state of an earlier run"))?;
    Word::read(checkpoint, key, &path.display().to_string()).map(Some)
}

fn remember(path: &Path, checkpoint: &str) -> Result<(), Failure> {
    let file = |error: std::io::Error| Failure::file(path, error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(file)?;
    let text = json!({ "checkpoint": checkpoint }).to_string();
    temporary.write_all(text.as_bytes()).and_then(|()| temporary.as_file().sync_all()).map_err(file)?;
    temporary.persist(path).map(drop).map_err(|error| file(error.error))
}
