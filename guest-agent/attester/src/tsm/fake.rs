//! A kernel's part of configfs-tsm over a plain directory, for tests of every crate above: the real file
//! operations run on real files, and this answers the writes as a guest driver does.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Configfs, Tsm, TsmFs};

/// Makes a report of the 64 bytes and the privilege level.
pub type Report = Box<dyn Fn(&[u8], &str) -> Vec<u8> + Send + Sync>;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// The first so many reads of `outblob` answer "busy".
    Busy(u32),
    /// Reading `outblob` answers "timed out".
    TimedOut,
    /// Somebody else writes `inblob` right after we did.
    OtherWriter,
    /// The report has no bytes.
    Empty,
    /// The report has more bytes than any.
    Endless,
}

/// The driver's part.
pub struct FakeConfigfs {
    real: Configfs,
    root: PathBuf,
    provider: &'static str,
    report: Report,
    auxblob: Vec<u8>,
    trouble: Trouble,
    busy: AtomicU32,
}

impl std::fmt::Debug for FakeConfigfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeConfigfs").field("root", &self.root).field("trouble", &self.trouble).finish_non_exhaustive()
    }
}

impl FakeConfigfs {
    /// A driver that calls itself `provider` and answers with `report`.
    pub fn new(root: &Path, provider: &'static str, report: Report) -> Self {
        Self {
            real: Configfs::new(root),
            root: root.to_owned(),
            provider,
            report,
            auxblob: Vec::new(),
            trouble: Trouble::None,
            busy: AtomicU32::new(0),
        }
    }

    /// The same, with something that goes wrong.
    #[must_use]
    pub fn with_trouble(mut self, trouble: Trouble) -> Self {
        self.trouble = trouble;
        self.busy = AtomicU32::new(if let Trouble::Busy(times) = trouble { times } else { 0 });
        self
    }

    /// The same, with a certificate table.
    #[must_use]
    pub fn with_auxblob(mut self, auxblob: &[u8]) -> Self {
        self.auxblob = auxblob.to_vec();
        self
    }

    /// The interface over this, without pauses.
    #[must_use]
    pub const fn tsm(self) -> Tsm<Self> {
        Tsm::with(self, Duration::ZERO)
    }

    fn put(&self, name: &str, attribute: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let path = self.real.path(name, attribute);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
    }

    fn advance(&self, name: &str) -> io::Result<()> {
        let text = fs::read_to_string(self.real.path(name, "generation"))?;
        let next = text.trim().parse::<u64>().map_err(io::Error::other)? + 1;
        self.put(name, "generation", format!("{next}\n").as_bytes(), 0o444)
    }
}

impl TsmFs for FakeConfigfs {
    fn is_present(&self) -> bool {
        self.real.is_present()
    }

    fn create(&self, name: &str) -> io::Result<()> {
        self.real.create(name)?;
        self.put(name, "provider", format!("{}\n", self.provider).as_bytes(), 0o444)?;
        self.put(name, "generation", b"0\n", 0o444)?;
        self.put(name, "inblob", b"", 0o200)?;
        self.put(name, "privlevel", b"", 0o200)
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        self.real.write(name, attribute, bytes)?;
        self.advance(name)?;
        if attribute != "inblob" {
            return Ok(());
        }
        if self.trouble == Trouble::OtherWriter {
            self.real.write(name, attribute, &[0xEE; 64])?;
            self.advance(name)?;
        }
        let inblob = fs::read(self.real.path(name, "inblob"))?;
        let level = fs::read_to_string(self.real.path(name, "privlevel"))?;
        let report = match self.trouble {
            Trouble::Empty => Vec::new(),
            Trouble::Endless => vec![0; super::MAX_BLOB + 2],
            _ => (self.report)(&inblob, &level),
        };
        self.put(name, "outblob", &report, 0o444)?;
        self.put(name, "auxblob", &self.auxblob, 0o444)
    }

    fn read(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>> {
        if attribute == "outblob" {
            if self.trouble == Trouble::TimedOut {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.busy.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
        }
        self.real.read(name, attribute)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        for file in fs::read_dir(self.root.join(name))? {
            fs::remove_file(file?.path())?;
        }
        self.real.remove(name)
    }
}
