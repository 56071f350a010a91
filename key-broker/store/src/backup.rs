//! A store's whole content in one file, the same for every kind of store: so it is also the way from one kind to another.
//!
//! Lines of JSON. The first is the [`Header`], with the wrapped data key; then one line per row; the last is the
//! [`Footer`]: how many rows, and an HMAC-SHA256 over every byte before it under a key derived from the data key. Secrets
//! are in it as they lie in the store, sealed.

use std::io::{BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::time::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::keys::{StoreKey, Vault};
use crate::rows::Row;
use crate::{Store, StoreError};

/// What the first line says it is.
const FORMAT: &str = "tcl-broker-store";
/// Version of the format.
const VERSION: u32 = 1;
/// The longest line that is read, in bytes: far above the largest record or resource.
const MAX_LINE: u64 = 16 * 1024 * 1024;
/// Rows on their way into the store.
const ON_THE_WAY: usize = 64;

/// Why a backup was not written or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be written or read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no backup, of another version, cut, or changed since it was written.
    #[error("the backup {0}")]
    Malformed(&'static str),
    /// The store failed, is not empty, or in use.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rows in it.
    pub rows: u64,
    /// When it was written.
    pub created: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    created: Timestamp,
    #[serde(with = "protocols::encoding::standard")]
    data_key: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Footer {
    rows: u64,
    #[serde(with = "protocols::encoding::standard")]
    hmac: Vec<u8>,
}

/// Writes everything in a store, as it is at one moment, into a new file for its owner alone.
///
/// # Errors
/// [`BackupError`]; a file that was begun is removed.
pub async fn backup(store: &dyn Store, path: &Path, now: Timestamp) -> Result<Summary, BackupError> {
    let mut rows = store.export().await?;
    let Some(Row::DataKey { wrapped }) = rows.recv().await.transpose()? else {
        return Err(StoreError::Corrupt("the data key").into());
    };
    let mac = store.vault().checksum();
    let path = path.to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        let file_error = |error| BackupError::File { path: path.clone(), error };
        let file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(file_error)?;
        let header = Header { format: FORMAT.to_owned(), version: VERSION, created: now, data_key: wrapped };
        let written = (|| {
            let mut out = Out { file: BufWriter::new(file), mac };
            out.line(&header).map_err(file_error)?;
            let mut count = 0u64;
            loop {
                match rows.blocking_recv().ok_or(StoreError::Corrupt("rows that end too early"))?? {
                    Row::End => break,
                    row => out.line(&row).map_err(file_error)?,
                }
                count = count.saturating_add(1);
            }
            out.finish(count).map_err(file_error)?;
            Ok(Summary { rows: count, created: now })
        })();
        if written.is_err() {
            // Half a backup is none; the error is what is told.
            let _ = std::fs::remove_file(&path);
        }
        written
    });
    writing.await.map_err(|error| StoreError::Io(error.to_string()))?
}

struct Out {
    file: BufWriter<std::fs::File>,
    mac: hmac::Context,
}

impl Out {
    fn line<T: Serialize>(&mut self, value: &T) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.mac.update(&line);
        self.file.write_all(&line)
    }

    fn finish(self, rows: u64) -> std::io::Result<()> {
        let Self { mut file, mac } = self;
        let footer = Footer { rows, hmac: mac.sign().as_ref().to_vec() };
        file.write_all(&serde_json::to_vec(&footer)?)?;
        file.write_all(b"\n")?;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()
    }
}

/// Takes a backup into a store that holds nothing, whole or not at all. The store has to be opened anew afterwards; the
/// store key is the one under which the backup was made.
///
/// # Errors
/// [`BackupError`]: nothing was taken.
pub async fn restore(store: Arc<dyn Store>, path: &Path, key: &dyn StoreKey) -> Result<Summary, BackupError> {
    let file = std::fs::File::open(path).map_err(|error| BackupError::File { path: path.to_owned(), error })?;
    let (lines, header) = tokio::task::spawn_blocking(move || {
        let mut lines = Lines(BufReader::new(file));
        let header = lines.next()?;
        Ok::<_, BackupError>((lines, header))
    })
    .await
    .map_err(|error| StoreError::Io(error.to_string()))??;
    let Header { format, version, created, data_key } =
        serde_json::from_slice(&header).map_err(|_| BackupError::Malformed("does not begin with a header"))?;
    if format != FORMAT || version != VERSION {
        return Err(BackupError::Malformed("is of another kind or version"));
    }
    let vault = Vault::new(key.unwrap_key(&data_key).await.map_err(StoreError::Key)?).map_err(StoreError::Key)?;
    let mut mac = vault.checksum();
    mac.update(&header);
    let (send, rows) = mpsc::channel(ON_THE_WAY);
    let reading = tokio::task::spawn_blocking(move || read(lines, mac, data_key, &send));
    let imported = store.import(rows).await;
    let read = reading.await.map_err(|error| StoreError::Io(error.to_string()))?;
    // What is wrong with the backup says more than that its rows ended too early.
    match (read, imported) {
        (Ok(rows), Ok(())) => Ok(Summary { rows, created }),
        (Err(error @ BackupError::Malformed(_)), _) => Err(error),
        (_, Err(error)) => Err(error.into()),
        (Err(error), Ok(())) => Err(error),
    }
}

/// Sends every row, and that it was the last only once the checksum holds.
fn read(
    mut lines: Lines<BufReader<std::fs::File>>,
    mut mac: hmac::Context,
    wrapped: Vec<u8>,
    send: &mpsc::Sender<Result<Row, StoreError>>,
) -> Result<u64, BackupError> {
    let sent = |row| send.blocking_send(Ok(row)).map_err(|_| StoreError::Io("the store took no more rows".to_owned()));
    sent(Row::DataKey { wrapped })?;
    let mut count = 0u64;
    loop {
        let line = lines.next()?;
        if let Ok(footer) = serde_json::from_slice::<Footer>(&line) {
            // Constant time is of no use to whoever holds the file; equality is all that is asked.
            if mac.sign().as_ref() != footer.hmac || footer.rows != count {
                return Err(BackupError::Malformed("was changed since it was written: its checksum is another"));
            }
            if lines.next().is_ok() {
                return Err(BackupError::Malformed("goes on after its end"));
            }
            sent(Row::End)?;
            return Ok(count);
        }
        mac.update(&line);
        match serde_json::from_slice(&line) {
            Ok(Row::DataKey { .. } | Row::End) | Err(_) => {
                return Err(BackupError::Malformed("has a line that is no row"));
            }
            Ok(row) => sent(row)?,
        }
        count = count.saturating_add(1);
    }
}

struct Lines<R>(R);

impl<R: BufRead> Lines<R> {
    /// The next line, with its end.
    fn next(&mut self) -> Result<Vec<u8>, BackupError> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.ends_with(b"\n") => Ok(line),
            Ok(_) => Err(BackupError::Malformed("is cut, or has a line that is too long")),
            Err(error) => Err(StoreError::Io(error.to_string()).into()),
        }
    }
}
