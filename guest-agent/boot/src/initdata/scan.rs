//! Finds the block device that carries initdata.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Initdata, image};
use crate::BootError;

/// Devices of the kinds that a host can attach: virtio-blk and SCSI disks.
const PREFIXES: [&str; 2] = ["vd", "sd"];

/// Looks for initdata on every disk beneath `dev` (`/dev`). A disk that cannot be opened is none of ours; one that
/// begins as initdata does and is not well formed stops the start, as do two that begin so.
///
/// # Errors
/// [`BootError::Initdata`], [`BootError::InitdataTwice`], [`BootError::Io`] when `dev` cannot be listed.
pub fn find(dev: &Path) -> Result<Option<Initdata>, BootError> {
    let mut found: Option<(PathBuf, Initdata)> = None;
    for device in disks(dev).map_err(crate::error::io(dev.display().to_string()))? {
        let Some(text) = text_on(&device)? else { continue };
        if let Some((first, _)) = found {
            return Err(BootError::InitdataTwice { first, second: device });
        }
        let initdata = Initdata::parse(text, &device)?;
        found = Some((device, initdata));
    }
    Ok(found.map(|(_, initdata)| initdata))
}

fn disks(dev: &Path) -> io::Result<Vec<PathBuf>> {
    let mut disks = Vec::new();
    for entry in std::fs::read_dir(dev)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix))) {
            disks.push(entry.path());
        }
    }
    disks.sort();
    Ok(disks)
}

fn text_on(device: &Path) -> Result<Option<String>, BootError> {
    let mut file = match std::fs::File::open(device) {
        Ok(file) => file,
        Err(error) => {
            tracing::debug!(device = %device.display(), %error, "not looked at for initdata");
            return Ok(None);
        }
    };
    // A tray without a medium fails at the first read, and has no initdata.
    let mut start = [0; image::MAGIC.len()];
    match file.read_exact(&mut start) {
        Ok(()) if start == image::MAGIC => {}
        _ => return Ok(None),
    }
    image::read(&mut start.as_slice().chain(file))
        .map_err(|error| BootError::Initdata { device: device.to_owned(), what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::image;
    use super::*;

    const TEXT: &str = "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"policy.rego\" = \"x\"\n";

    #[test]
    fn the_one_disk_with_initdata_is_found_among_others() {
        let dev = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dev.path().join(name), bytes).unwrap();
        put("vda", &[0; 4096]);
        put("sdb", b"short");
        put("sr0", &image(TEXT.as_bytes()));
        assert_eq!(find(dev.path()).unwrap(), None, "optical drives are not looked at");
        put("vdc", &image(TEXT.as_bytes()));
        std::os::unix::fs::symlink("/nowhere", dev.path().join("vdb")).unwrap();
        std::fs::create_dir(dev.path().join("sda")).unwrap();
        assert_eq!(find(dev.path()).unwrap().unwrap().text(), TEXT);
        put("vdd", &image(TEXT.as_bytes()));
        assert!(matches!(find(dev.path()), Err(BootError::InitdataTwice { .. })), "also when both are the same");
    }

    #[test]
    fn broken_initdata_is_not_taken_for_none() {
        let dev = tempfile::tempdir().unwrap();
        let mut broken = image(TEXT.as_bytes());
        broken.truncate(30);
        for bytes in [broken, image(b"no toml")] {
            std::fs::write(dev.path().join("vda"), bytes).unwrap();
            assert!(matches!(find(dev.path()), Err(BootError::Initdata { .. })));
        }
    }
}
