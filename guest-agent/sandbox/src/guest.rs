//! What a host asks about the guest machine, and the few things it may change in it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::error::SandboxError;
use crate::program::run;
use crate::roots::Roots;

/// How long hot-plugged processors may take to appear.
const ONLINE: Duration = Duration::from_secs(1);
/// The most entropy that is taken at once.
const MAX_ENTROPY: usize = 64 << 10;
/// The most memory blocks in one request.
const MAX_BLOCKS: usize = 4096;
/// The latest time that is set: the year 2200.
const MAX_TIME: i64 = 7_258_118_400;

/// The guest machine, as sysfs shows it.
#[derive(Debug, Clone)]
pub struct Guest {
    sys: PathBuf,
    dev: PathBuf,
}

/// Space and inodes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeStats {
    /// Bytes in all, free for everybody, and in use.
    pub bytes: Usage,
    /// Inodes in all, free, and in use.
    pub inodes: Usage,
}

/// How much of something there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In all.
    pub total: u64,
    /// Still to be had.
    pub available: u64,
    /// In use.
    pub used: u64,
}

impl Guest {
    /// The guest whose sysfs and devices `roots` names.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { sys: roots.sys.clone(), dev: roots.dev.clone() }
    }

    /// Bytes of a memory block, the unit of hot-plugging; 0 for a kernel without it.
    ///
    /// # Errors
    /// [`SandboxError::System`] when the kernel says something that is no number.
    pub fn memory_block_bytes(&self) -> Result<u64, SandboxError> {
        let path = self.memory().join("block_size_bytes");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            read => read.map_err(SandboxError::system("read the size of a memory block"))?,
        };
        u64::from_str_radix(text.trim(), 16)
            .map_err(|error| std::io::Error::other(error.to_string()))
            .map_err(SandboxError::system("read the size of a memory block"))
    }

    /// Whether memory is announced by [`Guest::probe_memory`].
    #[must_use]
    pub fn probes_memory(&self) -> bool {
        self.memory().join("probe").exists()
    }

    /// Tells the kernel of memory blocks at these physical addresses.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for an address that starts no block, [`SandboxError::System`].
    pub fn probe_memory(&self, addresses: &[u64]) -> Result<(), SandboxError> {
        let block = self.memory_block_bytes()?;
        let starts = |address: &u64| address.checked_rem(block) == Some(0);
        if addresses.len() > MAX_BLOCKS || !addresses.iter().all(starts) {
            return Err(SandboxError::request("memory", "at most 4096 addresses where a block starts"));
        }
        let mut probe = OpenOptions::new().write(true).open(self.memory().join("probe"));
        for address in addresses {
            let probe = probe.as_mut().map_err(|error| std::io::Error::from(error.kind()));
            let written = probe.and_then(|probe| probe.write_all(format!("{address:#x}").as_bytes()));
            written.map_err(SandboxError::system("probe a memory block"))?;
        }
        Ok(())
    }

    /// Brings hot-plugged processors online, `count` of them, and with `memory` every memory block; gives the
    /// number of processors. With `wait` it gives the host a second to attach them.
    ///
    /// # Errors
    /// [`SandboxError::Device`] when with `wait` fewer appear; [`SandboxError::System`].
    pub fn online(&self, count: u32, memory: bool, wait: bool) -> Result<u32, SandboxError> {
        let cpus = self.sys.join("devices/system/cpu");
        let end = Instant::now() + ONLINE;
        let mut left = count;
        while left > 0 {
            left -= online_beneath(&cpus, "cpu", left)?;
            if left > 0 && (!wait || Instant::now() >= end) {
                break;
            }
            if left > 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if wait && left > 0 {
            let waited_ms = u64::try_from(ONLINE.as_millis()).unwrap_or(u64::MAX);
            return Err(SandboxError::Device { device: format!("{left} of {count} processors"), waited_ms });
        }
        if memory {
            online_beneath(&self.memory(), "memory", u32::MAX)?;
        }
        Ok(count - left)
    }

    /// Stirs bytes of the host into the kernel's random pool. They count for nothing, since the host knows them.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for more than 64 KiB, [`SandboxError::System`].
    pub fn reseed(&self, bytes: &[u8]) -> Result<(), SandboxError> {
        if bytes.is_empty() || bytes.len() > MAX_ENTROPY {
            return Err(SandboxError::request("entropy", "1 byte to 64 KiB"));
        }
        let random = OpenOptions::new().write(true).open(self.dev.join("random"));
        random.and_then(|mut random| random.write_all(bytes)).map_err(SandboxError::system("stir the random pool"))
    }

    /// Sets the guest's clock to the host's word. No check of a signature or a verdict rests on it alone.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for a time before 1970 or after 2200, [`SandboxError::System`].
    pub fn set_time(&self, seconds: i64, microseconds: i64) -> Result<(), SandboxError> {
        let time = time(seconds, microseconds)?;
        clock_settime(ClockId::Realtime, time).map_err(SandboxError::system("set the clock"))
    }

    fn memory(&self) -> PathBuf {
        self.sys.join("devices/system/memory")
    }
}

fn time(seconds: i64, microseconds: i64) -> Result<Timespec, SandboxError> {
    if !(0..MAX_TIME).contains(&seconds) || !(0..1_000_000).contains(&microseconds) {
        return Err(SandboxError::request("time", "1970 to 2200, with less than a million microseconds"));
    }
    Ok(Timespec { tv_sec: seconds, tv_nsec: microseconds * 1000 })
}

/// Writes 1 to up to `most` files `PREFIX*/online` that say 0; gives how many.
fn online_beneath(dir: &Path, prefix: &str, most: u32) -> Result<u32, SandboxError> {
    let failed = |error| SandboxError::system(format!("bring {prefix} online"))(error);
    let mut done = 0;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let numbered =
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()) && !number.is_empty());
        if !numbered || done == most {
            continue;
        }
        let file = entry.path().join("online");
        // The first processor has no such file; a block may go while it is looked at.
        if fs::read_to_string(&file).is_ok_and(|text| text.trim() == "0") {
            fs::write(&file, "1").map_err(failed)?;
            done += 1;
        }
    }
    Ok(done)
}

/// How full the volume is that `fd` is on.
///
/// # Errors
/// [`SandboxError::System`].
pub fn volume_stats(fd: impl AsFd) -> Result<VolumeStats, SandboxError> {
    // fstatvfs takes no `O_PATH` descriptor on old kernels; a directory or file is opened again for reading.
    let stat = rustix::fs::fstatvfs(&fd).or_else(|_| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&fd, ".", flags, Mode::empty()).and_then(rustix::fs::fstatvfs)
    });
    let stat = stat.map_err(SandboxError::system("read the state of a volume"))?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(VolumeStats {
        bytes: Usage {
            total: bytes(stat.f_blocks),
            available: bytes(stat.f_bavail),
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        },
        inodes: Usage {
            total: stat.f_files,
            available: stat.f_favail,
            used: stat.f_files.saturating_sub(stat.f_ffree),
        },
    })
}

/// Swapping to a device of the host, which then sees guest memory: for configurations that say so, in development.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swap {
    permitted: bool,
    program: PathBuf,
    devices: crate::devices::Devices,
}

impl Swap {
    /// Off unless `permitted`.
    #[must_use]
    pub fn new(roots: &Roots, permitted: bool, timeout: Duration) -> Self {
        Self { permitted, program: "/usr/sbin/swapon".into(), devices: crate::devices::Devices::new(roots, timeout) }
    }

    /// Swaps to the block device at a PCI path (`02/01`) or node (`/dev/NAME`).
    ///
    /// # Errors
    /// [`SandboxError::Request`] when it is off or the address is none, [`SandboxError::Device`],
    /// [`SandboxError::System`].
    pub fn add(&self, address: &str) -> Result<(), SandboxError> {
        use crate::devices::{Address, PciPath};
        if !self.permitted {
            return Err(SandboxError::request("swap", "it is not permitted: the host would see guest memory"));
        }
        let address = PciPath::parse(address).map(Address::Pci).or_else(|| Address::node(address));
        let address = address.ok_or_else(|| SandboxError::request("swap", "no device's address"))?;
        let node = self.devices.block(&address)?;
        // The program opens our descriptor: no name can lead to another device.
        let number = std::os::fd::AsRawFd::as_raw_fd(&node);
        let path = format!("/proc/{}/fd/{number}", std::process::id());
        run(&self.program, &[&path], b"").map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(dir: &Path) -> Guest {
        let guest = Guest::new(&Roots::beneath(dir));
        fs::create_dir_all(guest.memory()).unwrap();
        guest
    }

    fn put(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_memory_block_has_a_size_in_hexadecimal_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        assert_eq!(guest.memory_block_bytes().unwrap(), 0);
        assert!(!guest.probes_memory());
        put(&guest.memory(), "block_size_bytes", "8000000\n");
        assert_eq!(guest.memory_block_bytes().unwrap(), 128 << 20);
        put(&guest.memory(), "block_size_bytes", "many\n");
        assert!(guest.memory_block_bytes().is_err());
        assert_eq!(Guest::new(&Roots::guest()).memory_block_bytes().unwrap().count_ones(), 1);
    }

    #[test]
    fn memory_is_probed_where_blocks_start() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        assert!(guest.probe_memory(&[0]).is_err(), "no block size is known");
        put(&guest.memory(), "block_size_bytes", "8000000\n");
        put(&guest.memory(), "probe", "");
        guest.probe_memory(&[0x1_0000_0000]).unwrap();
        assert_eq!(fs::read_to_string(guest.memory().join("probe")).unwrap(), "0x100000000");
        assert!(guest.probe_memory(&[0x1_0000_0001]).is_err());
        assert!(guest.probe_memory(&vec![0; MAX_BLOCKS + 1]).is_err());
    }

    #[test]
    fn as_many_processors_as_asked_and_all_memory_come_online() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        let cpus = dir.path().join("sys/devices/system/cpu");
        put(&cpus, "cpu0/topology", "");
        put(&cpus, "cpufreq/online", "0");
        for (cpu, state) in [("cpu1", "1"), ("cpu2", "0"), ("cpu3", "0")] {
            put(&cpus, &format!("{cpu}/online"), state);
        }
        put(&guest.memory(), "memory32/online", "0\n");
        let online = |name: &str| fs::read_to_string(dir.path().join("sys/devices/system").join(name)).unwrap();
        assert_eq!(guest.online(1, false, false).unwrap(), 1);
        assert_eq!(online("memory/memory32/online"), "0\n");
        assert_eq!(guest.online(1, true, true).unwrap(), 1);
        assert!(
            ["cpu/cpu2/online", "cpu/cpu3/online", "memory/memory32/online"].iter().all(|name| online(name) == "1")
        );
        assert_eq!(online("cpu/cpufreq/online"), "0");
        assert_eq!(guest.online(0, false, true).unwrap(), 0);
        assert!(matches!(guest.online(1, false, true), Err(SandboxError::Device { .. })));
        assert_eq!(guest.online(1, false, false).unwrap(), 0, "without waiting none is missed");
    }

    #[test]
    fn entropy_is_stirred_in_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let guest = guest(dir.path());
        put(dir.path(), "dev/random", "");
        guest.reseed(b"dice").unwrap();
        assert_eq!(fs::read(dir.path().join("dev/random")).unwrap(), b"dice");
        assert!(guest.reseed(b"").is_err() && guest.reseed(&[0; MAX_ENTROPY + 1]).is_err());
        Guest::new(&Roots::guest()).reseed(b"dice").unwrap();
    }

    #[test]
    fn a_time_is_between_1970_and_2200() {
        for (seconds, microseconds) in [(-1, 0), (MAX_TIME, 0), (0, -1), (0, 1_000_000), (i64::MAX, i64::MAX)] {
            assert!(time(seconds, microseconds).is_err(), "{seconds} {microseconds}");
        }
        assert_eq!(time(1, 500).unwrap(), Timespec { tv_sec: 1, tv_nsec: 500_000 });
    }

    #[test]
    fn a_volume_says_how_full_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let open = || rustix::fs::open(dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let stats = volume_stats(open()).unwrap();
        assert!(stats.bytes.total > 0 && stats.bytes.total >= stats.bytes.used);
        assert!(stats.inodes.total >= stats.inodes.used);
    }

    #[test]
    fn nothing_is_swapped_to_the_host_unless_permitted() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::beneath(dir.path());
        let refused = Swap::new(&roots, false, Duration::ZERO).add("/dev/vda").unwrap_err();
        assert!(matches!(refused, SandboxError::Request { .. }));
        let permitted = Swap::new(&roots, true, Duration::ZERO);
        assert!(matches!(permitted.add("/dev/../vda"), Err(SandboxError::Request { .. })));
        assert!(matches!(permitted.add("/dev/vda"), Err(SandboxError::Device { .. })));
    }
}
