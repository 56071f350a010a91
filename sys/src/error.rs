//! What can go wrong with a device.

use std::path::PathBuf;

use rustix::io::Errno;

/// Why a loop or device-mapper device could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// This kernel has no such driver, or shows it to nobody.
    #[error("this kernel offers no {0}")]
    Absent(&'static str),
    /// A device node cannot be opened or made.
    #[error("device node {path}: {errno}")]
    Node {
        /// Where the node is, or would be.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// What should be a block device is something else.
    #[error("not a block device")]
    NotABlockDevice,
    /// One request to a driver failed.
    #[error("{request}: {errno}")]
    Request {
        /// The request, as the kernel's headers name it.
        request: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// Others took every free device before we could, this many times in a row.
    #[error("no free {driver} in {attempts} attempts")]
    Contended {
        /// The driver.
        driver: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// A value that no device-mapper table can hold.
    #[error("device-mapper table: {0}")]
    Table(&'static str),
    /// The driver's answer does not have the form its header promises.
    #[error("{0}: malformed answer")]
    Answer(&'static str),
}

impl DeviceError {
    pub(crate) fn request(request: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Request { request, errno }
    }
}
