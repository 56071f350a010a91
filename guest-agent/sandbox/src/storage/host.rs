//! Drivers that bring the host's data in. Off by default: the kernel then reads a file system that the host wrote.

use super::options::MountOptions;
use super::plan::{Device, Plan, Source};
use super::request::{Driver, StorageRequest};
use crate::devices::{Address, Devices, PciPath};
use crate::error::SandboxError;

/// File systems that a block device may hold, and the options each may be given.
const FILE_SYSTEMS: &[(&str, &[&str])] = &[
    ("ext4", &["noload", "discard", "data=", "errors="]),
    ("xfs", &["norecovery", "nouuid", "discard", "inode64"]),
    ("erofs", &[]),
    ("squashfs", &[]),
];
/// What 9P over virtio may be given.
const NINE_P: &[&str] = &["trans=", "version=", "msize=", "cache=", "access=", "posixacl"];

/// A block device, waited for.
pub(super) fn block(request: &StorageRequest, devices: &Devices) -> Result<Plan, SandboxError> {
    let known = FILE_SYSTEMS.iter().find(|(name, _)| *name == request.fstype);
    let (fstype, keys) = known.ok_or_else(|| request.refused("no file system that a device may hold"))?;
    let mut options = MountOptions::parse(&request.options, keys).map_err(|why| request.refused(why))?;
    if matches!(*fstype, "erofs" | "squashfs") {
        options.attributes |= rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let address = match request.driver {
        Driver::Blk => PciPath::parse(&request.source).map(Address::Pci),
        Driver::Scsi => Address::scsi(&request.source),
        _ => None,
    };
    // Some runtimes name the node itself.
    let by_node =
        || Some(&request.source).filter(|_| request.driver != Driver::Scsi).and_then(|text| Address::node(text));
    let address = address.or_else(by_node).ok_or_else(|| request.refused("its source is no device's address"))?;
    let node = devices.block(&address)?;
    let source = Source::New { fstype: (*fstype).to_owned(), device: Some(Device::Node(node)) };
    Ok(Plan { source, options, group: None, mode: None })
}

/// A directory of the host.
pub(super) fn directory(request: &StorageRequest) -> Result<Plan, SandboxError> {
    let (fstype, keys): (&str, &[&str]) = match request.driver {
        Driver::NineP => ("9p", NINE_P),
        _ => ("virtiofs", &[]),
    };
    let options = MountOptions::parse(&request.options, keys).map_err(|why| request.refused(why))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let tag = &request.source;
    if tag.is_empty() || tag.len() > 36 || !tag.bytes().all(plain) {
        return Err(request.refused("its source is no tag"));
    }
    let over_virtio = |(key, value): &(String, Option<String>)| key == "trans" && value.as_deref() == Some("virtio");
    if fstype == "9p" && !options.data.iter().any(over_virtio) {
        return Err(request.refused("9P needs trans=virtio"));
    }
    let source = Source::New { fstype: fstype.to_owned(), device: Some(Device::Tag(tag.clone())) };
    Ok(Plan { source, options, group: None, mode: None })
}
