//! The measurement registers of a trust domain through sysfs (Linux 6.16), behind a seam: a plain directory
//! has no TDX module that extends.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use protocols::digest::Sha384Digest;

/// Where the kernel shows the registers.
pub const ROOT: &str = "/sys/devices/virtual/misc/tdx_guest/measurements";

pub(crate) const RTMR3: &str = "rtmr3:sha384";
pub(super) const MRCONFIGID: &str = "mrconfigid";
/// RTMR0 to RTMR2.
pub(super) const RTMR: [&str; 3] = ["rtmr0:sha384", "rtmr1:sha384", "rtmr2:sha384"];

/// Registers by their files' names: `mrtd:sha384`, `rtmr0:sha384` to `rtmr3:sha384`, `mrconfigid`.
pub trait Measurements: Debug + Send + Sync {
    /// Whether no hardware stands behind them.
    fn simulated(&self) -> bool;

    /// Whether there are any.
    fn is_present(&self) -> bool;

    /// The register's 48 bytes.
    ///
    /// # Errors
    /// The system's; another length is [`io::ErrorKind::InvalidData`].
    fn read(&self, name: &str) -> io::Result<[u8; 48]>;

    /// Extends the register: its new value is SHA-384(old || digest).
    ///
    /// # Errors
    /// The system's.
    fn extend(&self, name: &str, digest: &[u8; 48]) -> io::Result<()>;
}

/// The kernel's own.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// Registers beneath `root`, which is [`ROOT`] but in tests.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Measurements for Sysfs {
    fn simulated(&self) -> bool {
        false
    }

    fn is_present(&self) -> bool {
        self.root.is_dir()
    }

    fn read(&self, name: &str) -> io::Result<[u8; 48]> {
        let bytes = fs::read(self.root.join(name))?;
        let length = bytes.len();
        bytes
            .try_into()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{name} has {length} bytes, not 48")))
    }

    fn extend(&self, name: &str, digest: &[u8; 48]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.root.join(name))?;
        // The kernel takes exactly 48 bytes at offset 0, in one write.
        if file.write(digest)? == digest.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// A TDX module's part over a plain directory, for tests of every crate above: the real file operations run on
/// real files, and this turns what was written into what a register then holds.
#[derive(Debug)]
pub struct FakeMeasurements {
    real: Sysfs,
    root: PathBuf,
}

impl FakeMeasurements {
    /// Registers beneath `root`, all zero but those that exist there.
    ///
    /// # Errors
    /// The system's.
    pub fn new(root: &Path) -> io::Result<Self> {
        for name in
            ["mrtd:sha384", "rtmr0:sha384", "rtmr1:sha384", "rtmr2:sha384", "rtmr3:sha384", "mrconfigid", "mrowner"]
        {
            let path = root.join(name);
            if !path.exists() {
                fs::write(path, [0; 48])?;
            }
        }
        Ok(Self { real: Sysfs::new(root), root: root.to_owned() })
    }
}

impl Measurements for FakeMeasurements {
    fn simulated(&self) -> bool {
        self.real.simulated()
    }

    fn is_present(&self) -> bool {
        self.real.is_present()
    }

    fn read(&self, name: &str) -> io::Result<[u8; 48]> {
        self.real.read(name)
    }

    fn extend(&self, name: &str, digest: &[u8; 48]) -> io::Result<()> {
        let before = self.real.read(name)?;
        self.real.extend(name, digest)?;
        let written = self.real.read(name)?;
        fs::write(self.root.join(name), Sha384Digest::of_parts(&[&before, &written]).as_bytes())
    }
}
