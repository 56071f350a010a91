//! What a host asks of a storage, and which drivers there are.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{SandboxError, cut};

/// Ways to get a storage, by the names the protocol has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Driver {
    /// tmpfs or huge pages: `ephemeral`.
    Ephemeral,
    /// A directory in guest memory: `local`.
    Local,
    /// virtio-blk at a PCI path: `blk`.
    Blk,
    /// virtio-scsi at a target and unit: `scsi`.
    Scsi,
    /// virtio-blk without PCI, by its node: `mmioblk`.
    MmioBlk,
    /// Persistent memory, by its node: `nvdimm`.
    Nvdimm,
    /// A directory of the host: `virtio-fs`.
    VirtioFs,
    /// The same over 9P: `9p`.
    NineP,
    /// A directory of the sandbox at a second place: `bind`.
    Bind,
    /// Directories of the sandbox joined: `overlayfs`.
    Overlay,
}

impl Driver {
    /// Every driver.
    pub const ALL: [Self; 10] = [
        Self::Ephemeral,
        Self::Local,
        Self::Blk,
        Self::Scsi,
        Self::MmioBlk,
        Self::Nvdimm,
        Self::VirtioFs,
        Self::NineP,
        Self::Bind,
        Self::Overlay,
    ];

    /// The protocol's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ephemeral => "ephemeral",
            Self::Local => "local",
            Self::Blk => "blk",
            Self::Scsi => "scsi",
            Self::MmioBlk => "mmioblk",
            Self::Nvdimm => "nvdimm",
            Self::VirtioFs => "virtio-fs",
            Self::NineP => "9p",
            Self::Bind => "bind",
            Self::Overlay => "overlayfs",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Driver {
    type Err = SandboxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|driver| driver.as_str() == text);
        found.ok_or_else(|| SandboxError::request("storage driver", format!("`{}` is none", cut(text).escape_debug())))
    }
}

/// What the measured configuration permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// The drivers that may be used.
    pub permitted: BTreeSet<Driver>,
    /// How long a device may take to appear.
    pub device_timeout: Duration,
    /// The most storages at one time.
    pub most: usize,
}

impl Default for StorageConfig {
    /// `ephemeral` and `local`, which are guest memory alone; 3 seconds; 256 storages.
    fn default() -> Self {
        let permitted = BTreeSet::from([Driver::Ephemeral, Driver::Local]);
        Self { permitted, device_timeout: Duration::from_secs(3), most: 256 }
    }
}

/// When the group of a volume's files is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupChange {
    /// Always.
    Always,
    /// When the volume's root has another group.
    OnRootMismatch,
}

/// The group that a volume's files are to belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsGroup {
    /// The group.
    pub gid: u32,
    /// When.
    pub change: GroupChange,
}

/// One storage, as the host asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageRequest {
    /// How.
    pub driver: Driver,
    /// A device's address, a directory, a tag; of `ephemeral` and `local` without meaning.
    pub source: String,
    /// The file system.
    pub fstype: String,
    /// Mount options, one or several to a string.
    pub options: Vec<String>,
    /// Where, as an absolute path in the guest.
    pub mount_point: String,
    /// Whose group.
    pub fs_group: Option<FsGroup>,
}

impl StorageRequest {
    pub(super) fn refused(&self, why: impl Into<String>) -> SandboxError {
        SandboxError::Storage { mount_point: cut(&self.mount_point), why: why.into() }
    }
}
