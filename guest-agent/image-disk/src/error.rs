//! Why there is no image disk.

use std::path::PathBuf;

use protocols::reason::{self, Code};
use rustix::io::Errno;
use sys::DeviceError;

/// Why the image store's disk could not be had. The agent does not start without it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The guest has no disk with that serial.
    #[error("no disk has the serial {serial}")]
    Absent {
        /// What was looked for.
        serial: String,
    },
    /// More than one has it.
    #[error("{count} disks have the serial {serial}")]
    Several {
        /// What was looked for.
        serial: String,
        /// How many have it.
        count: usize,
    },
    /// The kernel's list of disks cannot be read.
    #[error("{}: {source}", at.display())]
    Look {
        /// Where it is.
        at: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no room on it.
    #[error("{} has {bytes} bytes, fewer than {}", disk.display(), crate::MINIMUM)]
    TooSmall {
        /// The disk.
        disk: PathBuf,
        /// Its size, in bytes.
        bytes: u64,
    },
    /// It cannot be encrypted and authenticated.
    #[error("{}: {source}", disk.display())]
    Seal {
        /// The disk.
        disk: PathBuf,
        /// Why.
        source: DeviceError,
    },
    /// No file system was made on it.
    #[error("{}: {what}", program.display())]
    Format {
        /// The program that was to make it.
        program: PathBuf,
        /// What happened.
        what: String,
    },
    /// It cannot be mounted, or what is mounted there cannot be let go.
    #[error("mount at {}: {errno}", at.display())]
    Mount {
        /// The mount point.
        at: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// Its root directory cannot be made ours alone.
    #[error("{}: {source}", at.display())]
    Root {
        /// The mount point.
        at: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something still uses the device of an earlier agent of this boot.
    #[error("{name} of an earlier agent is still in use")]
    InUse {
        /// The device's name in device-mapper.
        name: String,
    },
}

impl DiskError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        reason::STORE_DEVICE
    }
}
