//! Requests to the driver: `include/uapi/linux/dm-ioctl.h`, interface version 4.
#![allow(unsafe_code)] // ioctls

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::DeviceError;

/// Major version of the interface; the driver refuses another one itself.
const INTERFACE: u32 = 4;

/// Bytes of names and tables in one request or answer; the kernel says when an answer does not fit.
const DATA: usize = 32 * 1024;

const GROUP: u8 = 0xfd;

pub(super) const READ_ONLY: u32 = 1 << 0;
const BUFFER_FULL: u32 = 1 << 8;
/// The driver wipes its own copy of the request.
pub(super) const SECURE_DATA: u32 = 1 << 15;
pub(super) const DEFERRED_REMOVE: u32 = 1 << 17;

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event: u32,
    padding: u32,
    device: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}
const _: () = assert!(size_of::<Header>() == 312);
const HEADER: u32 = 312;

/// `struct dm_target_spec`, as bytes: two u64, an i32 status, a u32 offset of the next, a 16-byte type.
const TARGET_SPEC: usize = 40;

/// What is asked of the driver, by the header's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Version = 0,
    ListDevices = 2,
    Create = 3,
    Remove = 4,
    /// `DM_DEV_SUSPEND`; without the suspend flag it resumes.
    Resume = 6,
    LoadTable = 9,
    TableStatus = 12,
    GetTargetVersion = 17,
}

impl Command {
    const fn name(self) -> &'static str {
        match self {
            Self::Version => "DM_VERSION",
            Self::ListDevices => "DM_LIST_DEVICES",
            Self::Create => "DM_DEV_CREATE",
            Self::Remove => "DM_DEV_REMOVE",
            Self::Resume => "DM_DEV_SUSPEND",
            Self::LoadTable => "DM_TABLE_LOAD",
            Self::TableStatus => "DM_TABLE_STATUS",
            Self::GetTargetVersion => "DM_GET_TARGET_VERSION",
        }
    }
}

/// One buffer: the header, then what it points to. The driver answers in the same buffer.
#[repr(C)]
struct Buffer {
    header: Header,
    data: [u8; DATA],
}
const _: () = assert!(size_of::<Buffer>() == size_of::<Header>() + DATA);

/// A request that can be sent once.
pub(super) struct Request {
    command: Command,
    buffer: Box<Buffer>,
}

// SAFETY: every device-mapper request takes a `struct dm_ioctl` whose `data_size` is the size of the whole
// buffer, and the driver reads and writes no further; `Request::new` sets it to the size of `Buffer`.
unsafe impl Ioctl for &mut Request {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<Header>(GROUP, self.command as u8)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(&mut *self.buffer).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

impl Request {
    /// A request about the device (or target) `name`; where `uuid` is given the driver looks for nothing else.
    pub(super) fn new(command: Command, name: &str, uuid: &str, flags: u32) -> Result<Self, DeviceError> {
        let mut header = Header {
            version: [INTERFACE, 0, 0],
            data_size: u32::try_from(size_of::<Buffer>()).map_err(|_| DeviceError::Answer(command.name()))?,
            data_start: HEADER,
            target_count: 0,
            open_count: 0,
            flags,
            event: 0,
            padding: 0,
            device: 0,
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
        };
        text(&mut header.name, name)?;
        text(&mut header.uuid, uuid)?;
        Ok(Self { command, buffer: Box::new(Buffer { header, data: [0; DATA] }) })
    }

    /// Adds the only target of a table: `length` sectors of 512 bytes from the start of the device.
    pub(super) fn target(mut self, length: u64, kind: &str, parameters: &str) -> Result<Self, DeviceError> {
        let size = TARGET_SPEC + parameters.len() + 1;
        let next = u32::try_from(size.next_multiple_of(8)).map_err(|_| DeviceError::Table("too long"))?;
        let mut spec = Zeroizing::new(Vec::with_capacity(size));
        spec.extend(0u64.to_ne_bytes());
        spec.extend(length.to_ne_bytes());
        spec.extend(0i32.to_ne_bytes());
        spec.extend(next.to_ne_bytes());
        let mut name = [0; 16];
        text(&mut name, kind)?;
        spec.extend(name);
        spec.extend(parameters.as_bytes());
        spec.push(0);
        self.buffer.data.get_mut(..spec.len()).ok_or(DeviceError::Table("too long"))?.copy_from_slice(&spec);
        self.buffer.header.target_count = 1;
        Ok(self)
    }

    /// Sends it to the driver.
    pub(super) fn send(mut self, control: &OwnedFd) -> Result<Answer, DeviceError> {
        let request = self.command.name();
        // SAFETY: `control` is the driver's control node, and the buffer is as large as it says.
        unsafe { ioctl(control, &mut self) }.map_err(DeviceError::request(request))?;
        if self.buffer.header.flags & BUFFER_FULL != 0 {
            return Err(DeviceError::Request { request, errno: Errno::NOBUFS });
        }
        Ok(Answer(self))
    }
}

/// A table may hold a key.
impl Drop for Buffer {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

/// What the driver wrote over a request.
pub(super) struct Answer(Request);

impl Answer {
    pub(super) fn version(&self) -> (u32, u32) {
        let [major, minor, _] = self.0.buffer.header.version;
        (major, minor)
    }

    /// Major and minor number of the device that was asked about.
    pub(super) fn device(&self) -> (u32, u32) {
        // The driver gives `huge_encode_dev`, the form that userspace's `dev_t` has.
        let device = self.0.buffer.header.device;
        (rustix::fs::major(device), rustix::fs::minor(device))
    }

    /// The first target's status text.
    pub(super) fn status(&self) -> Result<String, DeviceError> {
        let data = self.data()?;
        data.get(TARGET_SPEC..).and_then(string).ok_or_else(|| self.malformed())
    }

    /// The names in a list of `struct dm_name_list`: u64 device, u32 offset of the next, the name.
    pub(super) fn names(&self) -> Result<Vec<String>, DeviceError> {
        let mut rest = self.data()?;
        let mut names = Vec::new();
        loop {
            let device: &[u8; 8] = rest.first_chunk().ok_or_else(|| self.malformed())?;
            // No device at all is written as one entry of zeros.
            if u64::from_ne_bytes(*device) == 0 {
                return Ok(names);
            }
            let next: &[u8; 4] = rest.get(8..).and_then(<[u8]>::first_chunk).ok_or_else(|| self.malformed())?;
            names.push(rest.get(12..).and_then(string).ok_or_else(|| self.malformed())?);
            let next = usize::try_from(u32::from_ne_bytes(*next)).map_err(|_| self.malformed())?;
            if next == 0 {
                return Ok(names);
            }
            rest = rest.get(next..).ok_or_else(|| self.malformed())?;
        }
    }

    /// What follows the header, where the driver says it begins.
    fn data(&self) -> Result<&[u8], DeviceError> {
        let start = self.0.buffer.header.data_start.checked_sub(HEADER).ok_or_else(|| self.malformed())?;
        let start = usize::try_from(start).map_err(|_| self.malformed())?;
        self.0.buffer.data.get(start..).ok_or_else(|| self.malformed())
    }

    const fn malformed(&self) -> DeviceError {
        DeviceError::Answer(self.0.command.name())
    }
}

/// Writes a zero-ended text into a field of fixed size.
fn text(field: &mut [u8], value: &str) -> Result<(), DeviceError> {
    let fits = value.len() < field.len() && !value.contains('\0');
    let place = field.get_mut(..value.len()).filter(|_| fits).ok_or(DeviceError::Table("name too long"))?;
    place.copy_from_slice(value.as_bytes());
    Ok(())
}

/// Reads a zero-ended text.
fn string(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(bytes.get(..end)?).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_lies_as_the_header_says() {
        let request = Request::new(Command::LoadTable, "tcl-1", "", READ_ONLY).unwrap();
        let request = request.target(16, "verity", "1 7:0 7:0").unwrap();
        let data = &request.buffer.data;
        assert_eq!(data[8..16], 16u64.to_ne_bytes());
        assert_eq!(data[20..24], 56u32.to_ne_bytes(), "40 bytes, ten of text, up to a multiple of eight");
        assert_eq!(&data[24..31], b"verity\0");
        assert_eq!(string(&data[40..]).unwrap(), "1 7:0 7:0");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Request::new(Command::Create, &"n".repeat(127), "", 0).is_ok());
        assert!(Request::new(Command::Create, &"n".repeat(128), "", 0).is_err());
        assert!(Request::new(Command::Create, "n", &"u".repeat(129), 0).is_err());
        let request = Request::new(Command::LoadTable, "n", "", 0).unwrap();
        assert!(request.target(8, "verity", &"p".repeat(DATA)).is_err());
    }

    #[test]
    fn a_list_is_read_to_its_end_and_no_further() {
        let mut request = Request::new(Command::ListDevices, "", "", 0).unwrap();
        assert_eq!(Answer(Request::new(Command::ListDevices, "", "", 0).unwrap()).names().unwrap(), [""; 0]);
        let data = &mut request.buffer.data;
        data[0] = 1;
        data[8..12].copy_from_slice(&24u32.to_ne_bytes());
        data[12..15].copy_from_slice(b"one");
        data[24] = 2;
        data[36..39].copy_from_slice(b"two");
        let answer = Answer(request);
        assert_eq!(answer.names().unwrap(), ["one", "two"]);

        let Answer(mut request) = answer;
        request.buffer.data[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(matches!(Answer(request).names(), Err(DeviceError::Answer("DM_LIST_DEVICES"))));
    }
}
