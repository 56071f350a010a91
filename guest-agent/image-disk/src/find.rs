//! Which of the guest's disks it is.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::DiskError;
use crate::settings::MAX_SERIAL;

/// Bytes of a sector as sysfs counts them.
const SECTOR: u64 = 512;
/// How often the disks are looked through while none is there.
const PAUSE: Duration = Duration::from_millis(100);

/// A disk and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) node: PathBuf,
    pub(crate) bytes: u64,
}

/// The one disk with this serial, among those that `disks` lists (`/sys/block`), as soon as it appears.
pub(crate) fn wait(disks: &Path, serial: &str, patience: Duration) -> Result<Found, DiskError> {
    let deadline = Instant::now() + patience;
    loop {
        match find(disks, serial) {
            Err(DiskError::Absent { .. }) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            found => return found,
        }
    }
}

fn find(disks: &Path, serial: &str) -> Result<Found, DiskError> {
    let fail = |source| DiskError::Look { at: disks.to_owned(), source };
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(disks).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if has_serial(&path, serial) {
            found.push(path);
        }
    }
    match found.as_slice() {
        [] => Err(DiskError::Absent { serial: serial.to_owned() }),
        [one] => {
            let size = fs::read_to_string(one.join("size")).map_err(fail)?;
            let sectors: Option<u64> = size.trim_end().parse().ok();
            let bytes = sectors.and_then(|sectors| sectors.checked_mul(SECTOR));
            let bytes = bytes.ok_or_else(|| fail(std::io::Error::from(ErrorKind::InvalidData)))?;
            Ok(Found { node: Path::new("/dev").join(one.file_name().unwrap_or_default()), bytes })
        }
        several => Err(DiskError::Several { serial: serial.to_owned(), count: several.len() }),
    }
}

/// A virtio disk has its serial as an attribute, an NVMe one as its controller's.
fn has_serial(disk: &Path, serial: &str) -> bool {
    ["serial", "device/serial"].iter().any(|place| {
        let text = fs::read(disk.join(place)).unwrap_or_default();
        // The host's bytes: without an end, or longer than they may be, they are no serial of ours.
        let text = text.split(|byte| *byte == 0 || *byte == b'\n').next().unwrap_or_default();
        text.len() <= 2 * MAX_SERIAL && text.trim_ascii() == serial.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(at: &Path, name: &str, attribute: &str, serial: &str) {
        let path = at.join(name).join(attribute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, serial).unwrap();
        fs::write(at.join(name).join("size"), "2048\n").unwrap();
    }

    #[test]
    fn the_one_disk_with_the_serial_is_found_and_its_size_is_told() {
        let disks = tempfile::tempdir().unwrap();
        let at = disks.path();
        disk(at, "vda", "serial", "initdata");
        disk(at, "vdb", "serial", "tcl-images");
        fs::create_dir(at.join("loop0")).unwrap();
        let found = wait(at, "tcl-images", Duration::ZERO).unwrap();
        assert_eq!(found, Found { node: "/dev/vdb".into(), bytes: 1024 * 1024 });
        disk(at, "nvme0n1", "device/serial", "other-images         \n");
        assert_eq!(wait(at, "other-images", Duration::ZERO).unwrap().node, Path::new("/dev/nvme0n1"));
    }

    #[test]
    fn no_disk_and_two_disks_are_refused() {
        let disks = tempfile::tempdir().unwrap();
        let at = disks.path();
        disk(at, "vda", "serial", "tcl-images-2");
        let absent = wait(at, "tcl-images", Duration::from_millis(1));
        assert!(matches!(absent, Err(DiskError::Absent { .. })), "the beginning of a serial is not the serial");
        disk(at, "vdb", "serial", "tcl-images");
        disk(at, "vdc", "serial", "tcl-images");
        assert!(matches!(wait(at, "tcl-images", Duration::ZERO), Err(DiskError::Several { count: 2, .. })));
    }

    #[test]
    fn a_disk_that_comes_late_is_waited_for() {
        let disks = tempfile::tempdir().unwrap();
        let at = disks.path().to_owned();
        let late = std::thread::spawn(move || {
            std::thread::sleep(PAUSE);
            disk(&at, "vdb", "serial", "tcl-images");
        });
        // The attribute may be there before the size is.
        let found = wait(disks.path(), "tcl-images", Duration::from_secs(30));
        late.join().unwrap();
        assert!(matches!(found, Ok(_) | Err(DiskError::Look { .. })), "{found:?}");
    }
}
