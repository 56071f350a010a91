//! Device-mapper: read-only devices whose every block is checked against a dm-verity root hash when it is read, and
//! writable ones whose blocks are encrypted and authenticated.
//!
//! A [`VerityDevice`] or [`SealedDevice`] is asked to go as soon as it is dropped, and the kernel lets it live for as long as
//! something is mounted from it: nothing has to be remembered for the teardown.

mod mapped;
mod request;
mod sealed;
mod verity;

use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::DeviceError;
use crate::node::Node;
use request::{Command, Request};
pub use sealed::{SealKey, SealedDevice};
pub use verity::{VerityDevice, VerityStatus, VerityTable};

const MISC_MAJOR: u32 = 10; // include/uapi/linux/major.h

/// What the names of our devices begin with.
pub const PREFIX: &str = "tcl-";

/// The driver's control node, with the targets that it was opened for known to be there.
#[derive(Debug, Clone)]
pub struct DeviceMapper {
    control: Arc<Node>,
    version: (u32, u32),
}

impl DeviceMapper {
    /// Opens the driver and asks for its `verity` target, which the kernel loads where it can. Needs root.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] where the kernel has no device-mapper or no such target, otherwise what the kernel
    /// said.
    pub fn open() -> Result<Self, DeviceError> {
        Self::with_targets(&[("verity", "dm-verity")])
    }

    /// The same with the targets of a [`SealedDevice`].
    ///
    /// # Errors
    /// As [`DeviceMapper::open`].
    pub fn open_for_sealing() -> Result<Self, DeviceError> {
        Self::with_targets(&[("integrity", "dm-integrity"), ("crypt", "dm-crypt")])
    }

    fn with_targets(targets: &[(&str, &'static str)]) -> Result<Self, DeviceError> {
        let minor = minor().ok_or(DeviceError::Absent("device-mapper"))?;
        let control = Node::control(Path::new("/dev/mapper/control"), MISC_MAJOR, minor)?;
        let version = Request::new(Command::Version, "", "", 0)?.send(&control.fd)?.version();
        for (target, module) in targets {
            match Request::new(Command::GetTargetVersion, target, "", 0)?.send(&control.fd) {
                Ok(_) => {}
                Err(DeviceError::Request { errno: Errno::INVAL | Errno::NXIO, .. }) => {
                    return Err(DeviceError::Absent(module));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { control: Arc::new(control), version })
    }

    /// Whether this kernel can hold a device to a verity root hash.
    #[must_use]
    pub fn available() -> bool {
        Self::open().is_ok()
    }

    /// Major and minor version of the driver's interface.
    #[must_use]
    pub const fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Names of all devices that begin with [`PREFIX`].
    ///
    /// # Errors
    /// What the kernel said.
    pub fn list(&self) -> Result<Vec<String>, DeviceError> {
        let answer = Request::new(Command::ListDevices, "", "", 0)?.send(&self.control.fd)?;
        let mut names = answer.names()?;
        names.retain(|name| name.starts_with(PREFIX));
        Ok(names)
    }
}

/// The minor number the kernel gave the driver.
fn minor() -> Option<u32> {
    let misc = std::fs::read_to_string("/proc/misc").ok()?;
    misc.lines().find_map(|line| line.trim().strip_suffix(" device-mapper")?.trim().parse().ok())
}
