//! Devices that a host names by where they are attached: found in sysfs, waited for, and opened as exactly those.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{SandboxError, cut};
use crate::roots::Roots;
use crate::uevent::wait_for;

/// How deep PCI bridges may be nested.
const MAX_BRIDGES: usize = 8;

/// Where a host says a block device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// Slots of PCI bridges and the device, such as `02/01`.
    Pci(PciPath),
    /// SCSI target and unit, such as `0:1`.
    Scsi(u32, u32),
    /// A node's name beneath `/dev`.
    Node(String),
}

/// A PCI path: slot and function on each bus on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PciPath(Vec<(u8, u8)>);

impl PciPath {
    /// Reads `SLOT[.FUNCTION]` between slashes, in hexadecimal.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let slot = |part: &str| {
            let (slot, function) = part.split_once('.').unwrap_or((part, "0"));
            let sound = slot.len() == 2 && function.len() == 1 && !slot.starts_with('+');
            let slot = u8::from_str_radix(slot, 16).ok().filter(|slot| sound && *slot < 32)?;
            let function = function.parse::<u8>().ok().filter(|function| *function < 8)?;
            Some((slot, function))
        };
        let slots = text.split('/').map(slot).collect::<Option<Vec<_>>>()?;
        (slots.len() <= MAX_BRIDGES).then_some(Self(slots))
    }

    /// The device's directory, when all of the way is there.
    fn find(&self, sys: &Path) -> Option<PathBuf> {
        let mut bus = "0000:00".to_owned();
        let mut dir = sys.join("devices/pci0000:00");
        let mut slots = self.0.iter().peekable();
        while let Some((slot, function)) = slots.next() {
            dir = dir.join(format!("{bus}:{slot:02x}.{function}"));
            if slots.peek().is_some() {
                bus = only_name(&dir.join("pci_bus"))?;
            }
        }
        dir.is_dir().then_some(dir)
    }
}

/// Finds devices beneath `roots`, waiting for at most `timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Devices {
    sys: PathBuf,
    dev: PathBuf,
    timeout: Duration,
}

impl Devices {
    pub(crate) fn new(roots: &Roots, timeout: Duration) -> Self {
        Self { sys: roots.sys.clone(), dev: roots.dev.clone(), timeout }
    }

    /// Waits for a block device and opens its node, with `O_PATH`: the very device that sysfs has at that address.
    pub(crate) fn block(&self, address: &Address) -> Result<OwnedFd, SandboxError> {
        if let Address::Scsi(target, unit) = address {
            self.rescan(*target, *unit);
        }
        self.wait("block", format!("{address:?}"), || {
            let (name, number) = self.block_name(address)?;
            self.node(&name, number)
        })
    }

    /// Waits for the network device at a PCI path, and gives its name.
    pub(crate) fn net(&self, path: &PciPath) -> Result<String, SandboxError> {
        self.wait("net", format!("{path:?}"), || {
            let device = path.find(&self.sys)?;
            only_name(&device.join("net")).or_else(|| only_name(&child(&device, "virtio")?.join("net")))
        })
    }

    fn wait<T>(&self, subsystem: &str, device: String, look: impl FnMut() -> Option<T>) -> Result<T, SandboxError> {
        wait_for(subsystem, self.timeout, look).ok_or_else(|| SandboxError::Device {
            device: cut(&device),
            waited_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// The name and number sysfs has at that address now.
    fn block_name(&self, address: &Address) -> Option<(String, (u32, u32))> {
        let dir = match address {
            Address::Pci(path) => {
                let device = path.find(&self.sys)?;
                let block = child(&device, "virtio").map(|virtio| virtio.join("block"))?;
                block.join(only_name(&block)?)
            }
            Address::Scsi(target, unit) => {
                let suffix = format!(":0:{target}:{unit}");
                let devices = self.sys.join("class/scsi_device");
                let name = names(&devices).into_iter().find(|name| name.ends_with(&suffix))?;
                let block = devices.join(name).join("device/block");
                block.join(only_name(&block)?)
            }
            Address::Node(name) => self.sys.join("class/block").join(name),
        };
        let number = fs::read_to_string(dir.join("dev")).ok()?;
        let (major, minor) = number.trim_end().split_once(':')?;
        let name = dir.file_name()?.to_str()?.to_owned();
        Some((name, (major.parse().ok()?, minor.parse().ok()?)))
    }

    fn node(&self, name: &str, (major, minor): (u32, u32)) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::open(self.dev.join(name), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&node).ok()?;
        let same = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice
            && stat.st_rdev == rustix::fs::makedev(major, minor);
        same.then_some(node)
    }

    /// Asks every SCSI host to look at one address; one that cannot is passed over.
    fn rescan(&self, target: u32, unit: u32) {
        let hosts = self.sys.join("class/scsi_host");
        for host in names(&hosts) {
            let _ = fs::write(hosts.join(host).join("scan"), format!("0 {target} {unit}"));
        }
    }
}

impl Address {
    /// A SCSI address `TARGET:UNIT` in decimal.
    pub(crate) fn scsi(text: &str) -> Option<Self> {
        let (target, unit) = text.split_once(':')?;
        let number = |text: &str| text.parse().ok().filter(|number| *number < 16_384 && !text.starts_with('+'));
        Some(Self::Scsi(number(target)?, number(unit)?))
    }

    /// A node `/dev/NAME` with a name of letters and digits.
    pub(crate) fn node(text: &str) -> Option<Self> {
        let name = text.strip_prefix("/dev/")?;
        let plain = !name.is_empty() && name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plain.then(|| Self::Node(name.to_owned()))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The one entry of a directory; with none or several it is not known which is meant.
fn only_name(dir: &Path) -> Option<String> {
    let mut names = names(dir);
    let name = names.pop()?;
    names.is_empty().then_some(name)
}

fn child(dir: &Path, prefix: &str) -> Option<PathBuf> {
    names(dir).into_iter().find(|name| name.starts_with(prefix)).map(|name| dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(dir: &Path, timeout: Duration) -> Devices {
        Devices { sys: dir.join("sys"), dev: dir.join("dev"), timeout }
    }

    fn plug(dir: &Path, sysfs: &str, number: &str, name: &str) {
        let at = dir.join("sys").join(sysfs);
        fs::create_dir_all(&at).unwrap();
        fs::create_dir_all(dir.join("dev")).unwrap();
        let (major, minor) = number.split_once(':').unwrap();
        let number_of = rustix::fs::makedev(major.parse().unwrap(), minor.parse().unwrap());
        let node = dir.join("dev").join(name);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, node, FileType::BlockDevice, mode, number_of).unwrap();
        fs::write(at.join("dev"), format!("{number}\n")).unwrap();
    }

    fn rdev(fd: &OwnedFd) -> (u32, u32) {
        let stat = rustix::fs::fstat(fd).unwrap();
        (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
    }

    #[test]
    fn a_device_behind_a_bridge_is_found_by_its_slots_and_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(150)); // hot-plugged after the request
                let bridge = dir.path().join("sys/devices/pci0000:00/0000:00:02.0");
                fs::create_dir_all(bridge.join("pci_bus/0000:01")).unwrap();
                plug(dir.path(), "devices/pci0000:00/0000:00:02.0/0000:01:1f.0/virtio3/block/vdb", "254:16", "vdb");
            });
            let path = PciPath::parse("02/1f").unwrap();
            devices(dir.path(), Duration::from_secs(60)).block(&Address::Pci(path)).unwrap()
        });
        assert_eq!(rdev(&found), (254, 16));
    }

    #[test]
    fn a_node_that_is_another_device_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        plug(dir.path(), "class/block/vda", "254:0", "vda");
        fs::write(dir.path().join("sys/class/block/vda/dev"), "254:99").unwrap();
        let devices = devices(dir.path(), Duration::from_millis(1));
        let error = devices.block(&Address::node("/dev/vda").unwrap()).unwrap_err();
        assert!(matches!(error, SandboxError::Device { .. }), "{error}");
    }

    #[test]
    fn a_scsi_disk_is_found_by_target_and_unit() {
        let dir = tempfile::tempdir().unwrap();
        plug(dir.path(), "class/scsi_device/2:0:0:1/device/block/sda", "8:0", "sda");
        plug(dir.path(), "class/scsi_device/2:0:10:1/device/block/sdb", "8:16", "sdb");
        let devices = devices(dir.path(), Duration::from_millis(1));
        let at = |text| devices.block(&Address::scsi(text).unwrap()).map(|fd| rdev(&fd));
        assert_eq!(at("0:1").unwrap(), (8, 0));
        assert_eq!(at("10:1").unwrap(), (8, 16));
        assert!(at("1:1").is_err());
    }

    #[test]
    fn a_network_device_is_found_by_its_slots() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0");
        fs::create_dir_all(device).unwrap();
        let devices = devices(dir.path(), Duration::from_millis(1));
        assert_eq!(devices.net(&PciPath::parse("03").unwrap()).unwrap(), "eth0");
        assert!(devices.net(&PciPath::parse("04").unwrap()).is_err());
    }

    #[test]
    fn addresses_are_no_paths() {
        for bad in ["", "/", "2", "02/", "../01", "20", "02.8", "+2", "02/01/02/01/02/01/02/01/02", "0g"] {
            assert_eq!(PciPath::parse(bad), None, "{bad}");
        }
        for bad in ["", "0", "0:", ":0", "-1:0", "0:0:0", "+1:0", "99999:0"] {
            assert_eq!(Address::scsi(bad), None, "{bad}");
        }
        for bad in ["", "/dev/", "vda", "/dev/../vda", "/dev/mapper/x", "/dev/vd.a", "/sys/vda"] {
            assert_eq!(Address::node(bad), None, "{bad}");
        }
    }
}
