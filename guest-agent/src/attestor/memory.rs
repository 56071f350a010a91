//! The last receipt, kept over a restart of the agent: where the history goes on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::PathBuf;

use kbs_client::VerifiedReceipt;

/// The largest receipt read back, in bytes.
const MAX_RECEIPT: u64 = 16 * 1024;

/// The file of the last receipt. It holds what the attestor signed and is checked again when it is read.
#[derive(Debug)]
pub(super) struct ReceiptFile {
    path: PathBuf,
}

impl ReceiptFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The kept receipt; `None` when there is none.
    pub(super) fn read(&self) -> std::io::Result<Option<String>> {
        let file = match std::fs::File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut text = String::new();
        file.take(MAX_RECEIPT).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// Replaces the kept receipt. A lost one costs a few requests at the next start, nothing else: no fsync.
    pub(super) fn write(&self, receipt: &VerifiedReceipt) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        std::fs::File::create(&new)?.write_all(receipt.compact().as_bytes())?;
        std::fs::rename(new, &self.path)
    }
}
