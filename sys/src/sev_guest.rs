//! SNP reports through `/dev/sev-guest`, for kernels whose configfs-tsm does not offer them.
//!
//! Structures and request numbers are those of `include/uapi/linux/sev-guest.h`; the answer's layout is
//! MSG_REPORT_RSP (AMD 56860).
#![allow(unsafe_code)] // ioctls

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

use crate::error::DeviceError;

/// The most bytes of certificates that are made room for.
pub const MAX_CERTIFICATES: usize = 256 * 1024;
/// Certificates come in whole pages.
const PAGE: usize = 4096;
/// The request needs more room for certificates: upper half of `exitinfo2`.
const VMM_ERR_INVALID_LEN: u64 = 1;
const MESSAGE_VERSION: u8 = 1;
const RESPONSE: usize = 4000;
/// MSG_REPORT_RSP: status u32, report size u32, 24 reserved, the report.
const REPORT_AT: usize = 0x20;

/// `struct snp_report_req`.
#[repr(C)]
struct ReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
}
const _: () = assert!(size_of::<ReportRequest>() == 96);

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedRequest {
    data: ReportRequest,
    certs_address: u64,
    certs_len: u32,
}
const _: () = assert!(size_of::<ExtendedRequest>() == 112);

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct GuestRequest {
    msg_version: u8,
    req_data: u64,
    resp_data: u64,
    exitinfo2: u64,
}
const _: () = assert!(size_of::<GuestRequest>() == 32);

/// `SNP_GET_EXT_REPORT`.
const SNP_GET_EXT_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 2);
const _: () = assert!(SNP_GET_EXT_REPORT == 0xC020_5302);

/// A report's bytes and the certificate table that the host gave, empty where it gave none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedReport {
    /// The attestation report.
    pub report: Vec<u8>,
    /// The certificate table (GHCB specification).
    pub certificates: Vec<u8>,
}

/// The three buffers of one request, which outlive the ioctl.
struct Exchange {
    request: ExtendedRequest,
    response: Box<[u8; RESPONSE]>,
    certificates: Vec<u8>,
    outer: GuestRequest,
}

// SAFETY: `as_ptr` gives a `struct snp_guest_request_ioctl` whose two addresses are a `struct snp_ext_report_req`
// and 4000 bytes, as the header asks for; the request names the certificates' buffer with its length. All belong
// to `self`, which is borrowed for as long as the kernel works.
unsafe impl Ioctl for &mut Exchange {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        SNP_GET_EXT_REPORT
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.request.certs_len = u32::try_from(self.certificates.len()).unwrap_or_default();
        self.request.certs_address =
            if self.certificates.is_empty() { 0 } else { self.certificates.as_mut_ptr().expose_provenance() as u64 };
        self.outer.req_data = (&raw mut self.request).expose_provenance() as u64;
        self.outer.resp_data = self.response.as_mut_ptr().expose_provenance() as u64;
        (&raw mut self.outer).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Asks the firmware for a report over 64 bytes at a privilege level, with the host's certificates.
///
/// # Errors
/// [`DeviceError::Absent`] without the device, [`DeviceError::Answer`] for an answer that holds no report, otherwise
/// what the kernel said.
pub fn extended_report(device: &Path, user_data: &[u8; 64], vmpl: u32) -> Result<ExtendedReport, DeviceError> {
    let file = open(device)?;
    let request = ReportRequest { user_data: *user_data, vmpl, reserved: [0; 28] };
    let mut exchange = Exchange {
        request: ExtendedRequest { data: request, certs_address: 0, certs_len: 0 },
        response: Box::new([0; RESPONSE]),
        certificates: Vec::new(),
        outer: GuestRequest { msg_version: MESSAGE_VERSION, req_data: 0, resp_data: 0, exitinfo2: 0 },
    };
    let mut asked = exchange.send(&file);
    let wanted = usize::try_from(exchange.request.certs_len).unwrap_or(usize::MAX);
    // Without room the kernel answers how much there must be; nothing else is tried twice.
    if asked.is_err() && exchange.outer.exitinfo2 >> 32 == VMM_ERR_INVALID_LEN && wanted > 0 {
        if wanted > MAX_CERTIFICATES {
            return Err(DeviceError::Answer("SNP_GET_EXT_REPORT"));
        }
        exchange.certificates = vec![0; wanted.next_multiple_of(PAGE)];
        asked = exchange.send(&file);
    }
    asked.map_err(DeviceError::request("SNP_GET_EXT_REPORT"))?;
    let report = report(exchange.response.as_slice()).ok_or(DeviceError::Answer("SNP_GET_EXT_REPORT"))?.to_vec();
    Ok(ExtendedReport { report, certificates: exchange.certificates })
}

impl Exchange {
    fn send(&mut self, file: &File) -> Result<(), Errno> {
        self.outer.exitinfo2 = 0;
        // SAFETY: `Exchange` describes this request, see there.
        unsafe { ioctl(file, self) }
    }
}

/// The report in a MSG_REPORT_RSP: status 0 and a size within the answer.
fn report(response: &[u8]) -> Option<&[u8]> {
    let (status, rest) = response.split_first_chunk::<4>()?;
    let (size, _) = rest.split_first_chunk::<4>()?;
    if *status != [0; 4] {
        return None;
    }
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    response.get(REPORT_AT..)?.get(..size).filter(|report| !report.is_empty())
}

fn open(device: &Path) -> Result<File, DeviceError> {
    OpenOptions::new().read(true).write(true).open(device).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => DeviceError::Absent("SNP guest device"),
            errno => DeviceError::Node { path: device.to_owned(), errno: errno.unwrap_or(Errno::IO) },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_device_is_told_from_one_that_refuses() {
        let absent = extended_report(Path::new("/dev/none-sev-guest"), &[0; 64], 0);
        assert!(matches!(absent, Err(DeviceError::Absent("SNP guest device"))));
        let other = extended_report(Path::new("/dev/null"), &[0; 64], 0);
        assert!(matches!(other, Err(DeviceError::Request { request: "SNP_GET_EXT_REPORT", errno: Errno::NOTTY })));
    }

    #[test]
    fn the_answer_holds_a_report_of_the_size_it_says() {
        let mut answer = vec![0; RESPONSE];
        assert_eq!(report(&answer), None, "no bytes");
        answer[4..8].copy_from_slice(&1184u32.to_le_bytes());
        answer[0x20] = 3;
        assert_eq!(report(&answer).unwrap().len(), 1184);
        assert_eq!(report(&answer).unwrap()[0], 3);
        answer[0] = 0x16;
        assert_eq!(report(&answer), None, "invalid parameters");
        answer[0] = 0;
        answer[4..8].copy_from_slice(&4000u32.to_le_bytes());
        assert_eq!(report(&answer), None, "more than there is");
        assert_eq!(report(&answer[..7]), None);
    }
}
