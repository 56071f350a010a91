//! A directory of endorsements: an air-gap bundle, or the cache beside a service.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocols::time::Timestamp;
use verifier::tdx::TdxCollateral;

use crate::{EndorsementError, PlatformName, VekName};

/// The most files that [`Directory::keep`] leaves; the oldest go first.
pub const MAX_KEPT: usize = 4096;
/// The longest file that is read or kept, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// A directory of endorsements, each under a name that tells whose it is.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`; it need not be there.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The VEK's certificate, DER, where it is there.
    ///
    /// # Errors
    /// [`EndorsementError::File`].
    pub fn vek(&self, name: &VekName) -> Result<Option<Vec<u8>>, EndorsementError> {
        self.read(&name.file())
    }

    /// The product's revocation list, DER, where it is there.
    ///
    /// # Errors
    /// [`EndorsementError::File`].
    pub fn crl(&self, name: &VekName) -> Result<Option<Vec<u8>>, EndorsementError> {
        self.read(&name.crl_file())
    }

    /// The platform's collateral as JSON, whether or not it still counts.
    ///
    /// # Errors
    /// [`EndorsementError::File`].
    pub fn collateral(&self, name: &PlatformName) -> Result<Option<Vec<u8>>, EndorsementError> {
        self.read(&name.file())
    }

    /// Keeps bytes under a name that [`VekName`] or [`PlatformName`] gave, in place of what was there. Whoever reads
    /// at the same time finds the old bytes or the new.
    ///
    /// # Errors
    /// [`EndorsementError::File`].
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<(), EndorsementError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| EndorsementError::File { path, source }
        };
        fs::create_dir_all(&self.path).map_err(failed(&self.path))?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed(&self.path)(io::Error::other(error.to_string())))?;
        let (path, beside) = (self.path.join(name), self.path.join(format!(".{name}.{}", hex::encode(random))));
        let written = fs::OpenOptions::new().write(true).create_new(true).open(&beside);
        let written = written.and_then(|mut file| file.write_all(bytes)).and_then(|()| fs::rename(&beside, &path));
        if written.is_err() {
            // What stands half written must not stay; there is nothing else to be done about it.
            let _ = fs::remove_file(&beside);
        }
        written.map_err(failed(&path))?;
        self.bound().map_err(failed(&self.path))
    }

    fn bound(&self) -> io::Result<()> {
        let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let file = entry.metadata()?;
            if file.is_file() {
                kept.push((file.modified()?, entry.path()));
            }
        }
        kept.sort();
        let above = kept.len().saturating_sub(MAX_KEPT);
        kept.into_iter().take(above).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, EndorsementError> {
        let path = self.path.join(name);
        let failed = |source| EndorsementError::File { path: path.clone(), source };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        if u64::try_from(bytes.len()).is_ok_and(|size| size > MAX_FILE) {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "longer than any endorsement")));
        }
        Ok(Some(bytes))
    }
}

/// Whether collateral counts at `now` and will for some time yet: a quarter of its life is left.
pub(crate) fn is_fresh(json: &[u8], now: Timestamp) -> bool {
    window(json).is_some_and(|(from, to)| {
        let margin = to.0.saturating_sub(from.0) / 4;
        from <= now && now.0 < to.0.saturating_sub(margin)
    })
}

/// Whether collateral counts at `now`.
pub(crate) fn counts(json: &[u8], now: Timestamp) -> bool {
    window(json).is_some_and(|(from, to)| from <= now && now <= to)
}

/// Whether `other` is collateral for the same platforms that does not supersede `json`'s.
pub(crate) fn goes_back(json: &[u8], other: &[u8]) -> bool {
    match (TdxCollateral::parse(json), TdxCollateral::parse(other)) {
        (Ok(known), Ok(other)) => other.is_like(&known) && !other.supersedes(&known),
        _ => false,
    }
}

fn window(json: &[u8]) -> Option<(Timestamp, Timestamp)> {
    Some(TdxCollateral::parse(json).ok()?.window())
}
