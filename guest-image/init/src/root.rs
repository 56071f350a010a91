//! The verity root: found among the disks, checked by reading, and entered.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use sys::BlockDevice;
use sys::device_mapper::{DeviceMapper, VerityDevice, VerityTable};

use crate::AGENT;
use crate::error::{InitError, io};
use crate::parameters::Root;

const BLOCK: usize = 4096;
/// How long a disk may take to appear.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Where it is mounted before it is `/`.
const PLACE: &str = "/sysroot";
/// What is mounted already and goes along.
const ALONG: [&str; 3] = ["proc", "sys", "dev"];

impl Root {
    /// Mounts the disk that holds this root and makes it `/`. Which of the host's disks that is, its content says.
    pub(crate) fn enter(&self) -> Result<(), InitError> {
        let mapper = DeviceMapper::open().map_err(std::io::Error::other).map_err(io("device-mapper"))?;
        let device = self.find(&mapper)?;
        fs::create_dir(PLACE).map_err(io(PLACE))?;
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        mount(device.path(), PLACE, "erofs", flags, None)
            .map_err(|errno| InitError::Root(format!("mount the verified disk: {errno}")))?;
        intact(Path::new(PLACE))?;
        switch().map_err(io("enter the root file system"))
        // The device is removed by the kernel when nothing is mounted from it any more: with the machine.
    }

    fn find(&self, mapper: &DeviceMapper) -> Result<VerityDevice, InitError> {
        let begun = Instant::now();
        loop {
            let mut seen = Vec::new();
            for name in disks()? {
                match self.on(mapper, &name) {
                    Ok(device) => return Ok(device),
                    Err(why) => seen.push(format!("{name}: {why}")),
                }
            }
            if begun.elapsed() >= PATIENCE {
                let seen = if seen.is_empty() { "there is no disk".to_owned() } else { seen.join("; ") };
                return Err(InitError::Root(seen));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// The disk held to the root hash, its first block read; otherwise why it is not this root.
    fn on(&self, mapper: &DeviceMapper, name: &str) -> Result<VerityDevice, String> {
        let sectors = fs::read_to_string(format!("/sys/block/{name}/size")).map_err(|error| error.to_string())?;
        let size = sectors.trim().parse::<u64>().map_err(|error| error.to_string())?.saturating_mul(512);
        if size < self.size() {
            return Err("too small".to_owned());
        }
        let disk = File::open(Path::new("/dev").join(name)).map_err(|error| error.to_string())?;
        let device = BlockDevice::of(&disk).map_err(|error| error.to_string())?;
        let table = VerityTable {
            data: device,
            hash: device,
            data_blocks: self.blocks,
            hash_start: self.blocks,
            root: self.hash,
            salt: &[],
        };
        let device = mapper.verity(&table).map_err(|error| error.to_string())?;
        // A device with a wrong root hash can be made: what was altered shows when it is read.
        let reader = File::from(device.fd().try_clone_to_owned().map_err(|error| error.to_string())?);
        reader.read_exact_at(&mut [0; BLOCK], 0).map_err(|_| "not what its root hash says".to_owned())?;
        Ok(device)
    }
}

/// Reads what runs next whole: as a page of a running first process, a block that does not match ends the machine
/// without a word.
fn intact(root: &Path) -> Result<(), InitError> {
    let agent = root.join(AGENT.trim_start_matches('/'));
    let mut file = File::open(&agent).map_err(|error| InitError::Root(format!("{AGENT}: {error}")))?;
    std::io::copy(&mut file, &mut std::io::sink())
        .map_err(|error| InitError::Root(format!("{AGENT} was altered on the disk: {error}")))?;
    Ok(())
}

fn disks() -> Result<Vec<String>, InitError> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block").map_err(io("/sys/block"))? {
        let entry = entry.map_err(io("/sys/block"))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Devices of the kernel's own making lead to no host.
        if !["dm-", "loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn switch() -> std::io::Result<()> {
    let new = PathBuf::from(PLACE);
    for name in ALONG {
        mount_move(Path::new("/").join(name), new.join(name))?;
    }
    // What the initrd holds would take memory for good.
    fs::remove_dir_all("/usr")?;
    fs::remove_file("/init")?;
    rustix::process::chdir(&new)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}
