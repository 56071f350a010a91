//! One device of the driver, whatever its target.

use std::sync::Arc;

use super::request::{Command, DEFERRED_REMOVE, Request};
use crate::error::DeviceError;
use crate::node::{BlockDevice, Node};

/// A device of the driver, removed on drop as soon as nobody has it open.
#[derive(Debug)]
pub(super) struct Mapped {
    control: Arc<Node>,
    name: String,
    device: BlockDevice,
}

impl Mapped {
    /// Makes a device without a table. A name that is taken is `EBUSY`.
    pub(super) fn create(control: &Arc<Node>, name: &str, uuid: &str, flags: u32) -> Result<Self, DeviceError> {
        let answer = Request::new(Command::Create, name, uuid, flags)?.send(&control.fd)?;
        let (major, minor) = answer.device();
        Ok(Self { control: Arc::clone(control), name: name.to_owned(), device: BlockDevice { major, minor } })
    }

    /// Gives it its only target, `sectors` of 512 bytes long, and starts it.
    pub(super) fn start(&self, sectors: u64, kind: &str, parameters: &str, flags: u32) -> Result<(), DeviceError> {
        let load = Request::new(Command::LoadTable, &self.name, "", flags)?;
        load.target(sectors, kind, parameters)?.send(&self.control.fd)?;
        Request::new(Command::Resume, &self.name, "", flags)?.send(&self.control.fd).map(drop)
    }

    /// The target's own words of how it is.
    pub(super) fn status(&self) -> Result<String, DeviceError> {
        Request::new(Command::TableStatus, &self.name, "", 0)?.send(&self.control.fd)?.status()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn device(&self) -> BlockDevice {
        self.device
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = remove(&self.control, &self.name);
    }
}

/// Asks for a device's removal, by name, when its last user is gone.
pub(super) fn remove(control: &Node, name: &str) -> Result<(), DeviceError> {
    Request::new(Command::Remove, name, "", DEFERRED_REMOVE)?.send(&control.fd).map(drop)
}
