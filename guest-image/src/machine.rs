//! A machine that boots an image, to be started with `guest-vm`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use guest_vm::{Boot, Disk, Machine, Programs};

use crate::build::names;
use crate::error::{ImageError, io};

/// Debian's firmware, and the variables it begins with.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The program that gives guests their vsock, and its version: `cargo install` builds it.
pub const VSOCK: (&str, &str) = ("vhost-device-vsock", "0.3.0");

/// What starts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// OVMF starts the UKI, so that kernel, initrd and command line are measured.
    Firmware,
    /// QEMU gives kernel, initrd and command line to the guest; nothing measures them.
    Kernel,
}

/// A machine for the image in the folder `image`, its root on the first disk. `folder` is what the machine will be
/// started in, `tools` holds [`VSOCK`].
///
/// # Errors
/// Files of the image cannot be read, or not be laid out for the firmware.
pub fn machine(image: &Path, start: Start, folder: &Path, tools: &Path) -> Result<Machine, ImageError> {
    let (boot, arguments) = match start {
        Start::Firmware => {
            let boot = Boot::Firmware { code: FIRMWARE.into(), variables: VARIABLES.into() };
            (boot, system_partition(&image.join(names::UKI), &folder.join("esp"))?)
        }
        Start::Kernel => {
            let path = image.join(names::COMMAND_LINE);
            let command_line = fs::read_to_string(&path).map_err(io(&path))?;
            let (kernel, initrd) = (image.join(names::KERNEL), image.join(names::INITRD));
            (Boot::Kernel { kernel, initrd, command_line }, Vec::new())
        }
    };
    let root = Some(image.join(names::ROOT)).filter(|root| root.exists());
    let disks = root.map(|file| Disk { file, serial: None, writable: false }).into_iter().collect();
    let programs = Programs { vsock: tools.join(VSOCK.0), ..Programs::default() };
    Ok(Machine { programs, disks, arguments, ..Machine::new(boot) })
}

/// A disk whose boot program is the UKI; the firmware is told to start nothing else.
fn system_partition(uki: &Path, esp: &Path) -> Result<Vec<OsString>, ImageError> {
    let folder = esp.join("EFI/BOOT");
    fs::create_dir_all(&folder).map_err(io(&folder))?;
    let program = folder.join("BOOTX64.EFI");
    fs::copy(uki, &program).map_err(io(&program))?;
    let mut drive = OsString::from("if=none,id=esp,format=raw,readonly=on,file=fat:");
    drive.push(esp);
    Ok(vec!["-drive".into(), drive, "-device".into(), "virtio-blk-pci,drive=esp,bootindex=0".into()])
}
