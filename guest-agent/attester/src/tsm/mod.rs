//! Hardware reports through the kernel's configfs-tsm (Linux 6.7): TDX quotes and SNP reports.
//!
//! One directory beneath `/sys/kernel/config/tsm/report` per report. Every attribute that is written moves
//! `generation` by one, and the report belongs to exactly what was written only if `generation` is the number
//! of our own writes: somebody else's write, before or after, shows.

mod configfs;
pub mod fake;

use std::io;
use std::path::Path;
use std::time::Duration;

pub use configfs::{Configfs, TsmFs};

use crate::AttesterError;

/// Where the kernel offers reports.
pub const ROOT: &str = "/sys/kernel/config/tsm/report";
/// The driver's name for TDX guests.
pub const PROVIDER_TDX: &str = "tdx_guest";
/// The driver's name for SNP guests.
pub const PROVIDER_SNP: &str = "sev_guest";
/// The longest attribute that is read: reports are a few kilobytes, with certificates some tens.
pub const MAX_BLOB: usize = 1024 * 1024;
/// How often a report is asked for while the host holds the buffer.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);
const NAME_BYTES: usize = 16;

/// What is asked for besides the 64 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ask {
    /// SNP's privilege level (VMPL); absent: the kernel's default. TDX has none.
    pub privlevel: Option<u32>,
    /// Whether `auxblob`, SNP's certificate table, is wanted.
    pub auxblob: bool,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsmReport {
    /// The quote or report.
    pub outblob: Vec<u8>,
    /// The certificate table, where it was asked for; empty where the host gave none.
    pub auxblob: Option<Vec<u8>>,
}

/// The kernel's report interface.
#[derive(Debug)]
pub struct Tsm<F = Configfs> {
    fs: F,
    pause: Duration,
}

impl Tsm {
    /// The interface beneath `root`, which is [`ROOT`] but in tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self::with(Configfs::new(root), PAUSE)
    }
}

impl<F: TsmFs> Tsm<F> {
    /// The interface over other file operations; `pause` lies between two attempts.
    pub const fn with(fs: F, pause: Duration) -> Self {
        Self { fs, pause }
    }

    /// Whether the kernel offers reports here at all.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.fs.is_present()
    }

    /// Who makes reports here: its driver's name.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`] where nobody does, or this process may not ask.
    pub fn provider(&self) -> Result<String, AttesterError> {
        self.directory(|name| self.text(name, "provider"))
    }

    /// A report of `provider` over `inblob`. Blocks, on TDX for as long as the host's quoting service needs.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`]: no such interface, another provider, a host that stays busy, a
    /// report that somebody else's write reached, or one of no or too many bytes.
    pub fn report(&self, provider: &str, inblob: &[u8; 64], ask: Ask) -> Result<TsmReport, AttesterError> {
        self.directory(|name| self.fill(name, provider, inblob, ask))
    }

    /// Makes a directory of our own, and removes it whatever happened.
    fn directory<T>(&self, run: impl FnOnce(&str) -> Result<T, AttesterError>) -> Result<T, AttesterError> {
        let name = fresh_name()?;
        self.fs.create(&name).map_err(|error| self.failed("no directory for a report", &error))?;
        let done = run(&name);
        match (done, self.fs.remove(&name)) {
            (Ok(_), Err(error)) => Err(self.failed("the report's directory stays", &error)),
            (done, _) => done,
        }
    }

    fn fill(&self, name: &str, provider: &str, inblob: &[u8; 64], ask: Ask) -> Result<TsmReport, AttesterError> {
        let found = self.text(name, "provider")?;
        if found != provider {
            return Err(refused(format!("reports come from `{found}` here, not from `{provider}`")));
        }
        let mut writes = 0u64;
        if let Some(level) = ask.privlevel {
            self.write(name, "privlevel", level.to_string().as_bytes())?;
            writes += 1;
        }
        self.write(name, "inblob", inblob)?;
        writes += 1;

        let outblob = self.outblob(name)?;
        let auxblob = ask.auxblob.then(|| self.read(name, "auxblob")).transpose()?;
        // Read last: it also says that nobody wrote between the two blobs.
        let generation = self.text(name, "generation")?;
        if generation != writes.to_string() {
            return Err(refused(format!("generation {generation} after {writes} writes: somebody else wrote too")));
        }
        if outblob.is_empty() {
            return Err(refused("the report is empty".to_owned()));
        }
        Ok(TsmReport { outblob, auxblob })
    }

    /// The buffer is shared with the host, which may still hold it: that ends by itself, or not at all.
    fn outblob(&self, name: &str) -> Result<Vec<u8>, AttesterError> {
        let mut attempt = 1;
        loop {
            match self.fs.read(name, "outblob") {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(self.pause);
                }
                read => return self.bounded("outblob", read),
            }
        }
    }

    fn read(&self, name: &str, attribute: &str) -> Result<Vec<u8>, AttesterError> {
        self.bounded(attribute, self.fs.read(name, attribute))
    }

    fn bounded(&self, attribute: &str, read: io::Result<Vec<u8>>) -> Result<Vec<u8>, AttesterError> {
        let bytes = read.map_err(|error| self.failed(attribute, &error))?;
        if bytes.len() > MAX_BLOB {
            return Err(refused(format!("{attribute} is longer than {MAX_BLOB} bytes")));
        }
        Ok(bytes)
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> Result<(), AttesterError> {
        self.fs.write(name, attribute, bytes).map_err(|error| self.failed(attribute, &error))
    }

    /// An attribute of text, without its line's end.
    fn text(&self, name: &str, attribute: &str) -> Result<String, AttesterError> {
        let text =
            String::from_utf8(self.read(name, attribute)?).map_err(|_| refused(format!("{attribute} is not text")))?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn failed(&self, step: &str, error: &io::Error) -> AttesterError {
        let hint = if self.is_present() { "" } else { "; configfs-tsm needs Linux 6.7 and its guest driver" };
        refused(format!("{step}: {error}{hint}"))
    }
}

const fn refused(detail: String) -> AttesterError {
    AttesterError::EvidenceUnavailable { detail }
}

/// A name nobody else has or can foresee.
fn fresh_name() -> Result<String, AttesterError> {
    let mut random = [0; NAME_BYTES];
    getrandom::fill(&mut random).map_err(|error| refused(error.to_string()))?;
    Ok(random.iter().fold("tcl-".to_owned(), |name, byte| format!("{name}{byte:02x}")))
}

#[cfg(test)]
mod tests;
