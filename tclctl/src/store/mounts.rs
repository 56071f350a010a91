//! What `tclctl mount` has mounted: `mounts/<id>/` with the mount itself, `mounts/<id>.json` with what it is.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use protocols::image::Layout;
use serde::{Deserialize, Serialize};

use super::{coded, folder_for_root, replace};
use crate::outcome::Failure;

const MOUNTS: &str = "mounts";
/// Where a root file system takes writes, below its directory.
const UPPER: &str = "upper";

/// One mounted image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mount {
    /// Where people see it, absolute.
    pub(crate) target: PathBuf,
    /// The reference that was mounted.
    pub(crate) reference: String,
    pub(crate) manifest: Sha256Digest,
    pub(crate) layout: Layout,
    /// DiffIDs, lowest first: layers in use.
    pub(crate) layers: Vec<Sha256Digest>,
}

impl Mount {
    /// A free directory for one more mount in the store at `root`.
    pub(crate) fn free(root: &Path) -> Result<PathBuf, Failure> {
        let folder = root.join(MOUNTS);
        folder_for_root(&folder)?;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|error| Failure::Fault(format!("no random bytes: {error}")))?;
        Ok(folder.join(hex::encode(id)))
    }

    /// Notes it before it is mounted at `dir`: what is mounted is noted, whenever the machine stops.
    pub(crate) fn record(&self, dir: &Path) -> Result<(), Failure> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| Failure::Fault(error.to_string()))?;
        replace(&record_of(dir), &bytes)
    }

    /// Every mount of the store at `root`, by its directory; those that are no more are cleared away.
    pub(crate) fn all(root: &Path) -> Result<Vec<(PathBuf, Self)>, Failure> {
        let folder = root.join(MOUNTS);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| Failure::file(&folder, error))?,
        };
        let table = mount_table()?;
        let mut live = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| Failure::file(&folder, error))?.path();
            let dir = path.with_extension("");
            if path == dir || path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = fs::read(&path).map_err(|error| Failure::file(&path, error))?;
            let mount: Self = serde_json::from_slice(&bytes).map_err(|error| Failure::file(&path, error))?;
            if table.iter().any(|line| line.upper.as_deref() == Some(dir.join(UPPER).as_path())) {
                live.push((dir, mount));
            } else {
                forget(&dir)?;
            }
        }
        Ok(live)
    }
}

fn record_of(dir: &Path) -> PathBuf {
    dir.with_extension("json")
}

/// Ends what is mounted at `dir` and its record.
pub(crate) fn forget(dir: &Path) -> Result<(), Failure> {
    image_rs_fork::remove_rootfs(dir).map_err(|error| coded(&error))?;
    let record = record_of(dir);
    match fs::remove_file(&record) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::file(&record, error)),
        _ => Ok(()),
    }
}

/// The directory and record of what is mounted at `target`, if `tclctl mount` has mounted it.
pub(crate) fn find_mount(target: &Path) -> Result<Option<(PathBuf, Mount)>, Failure> {
    // The last line is the uppermost mount.
    let table = mount_table()?;
    let Some(line) = table.iter().rev().find(|line| line.at == target) else { return Ok(None) };
    let Some(dir) = line.upper.as_deref().and_then(Path::parent) else { return Ok(None) };
    let Ok(bytes) = fs::read(record_of(dir)) else { return Ok(None) };
    let mount: Mount = serde_json::from_slice(&bytes).map_err(|error| Failure::file(&record_of(dir), error))?;
    // An overlay of somebody else may name any directory.
    Ok((mount.target == target).then(|| (dir.to_owned(), mount)))
}

/// One line of the mount table, as far as we need it.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    at: PathBuf,
    /// An overlay's writable directory.
    upper: Option<PathBuf>,
}

fn mount_table() -> Result<Vec<Line>, Failure> {
    let path = Path::new("/proc/self/mountinfo");
    let table = fs::read(path).map_err(|error| Failure::file(path, error))?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Reads a line such as `36 35 0:40 / /mnt rw - overlay overlay ro,lowerdir=/a,upperdir=/b`.
fn parse(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = PathBuf::from(unescape(fields.nth(4)?));
    let mut after = fields.skip_while(|field| *field != b"-").skip(1);
    let options = (after.next()? == b"overlay").then(|| after.nth(1)).flatten();
    let upper = options.and_then(|options| {
        options.split(|byte| *byte == b',').find_map(|option| option.strip_prefix(b"upperdir=").map(unescape))
    });
    Some(Line { at, upper: upper.map(PathBuf::from) })
}

/// The kernel writes blanks, commas and backslashes as three octal digits.
fn unescape(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, more)) = rest.split_first() {
        let octal = (*byte == b'\\').then(|| more.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(OsString::from_vec(digits.to_vec()).to_str()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = more.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = more;
            }
        }
    }
    OsString::from_vec(out)
}

/// An absolute path without symbolic links; it must exist.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|error| Failure::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let line = br"40 28 0:51 / /mnt/a\040b ro,nosuid shared:7 - overlay overlay rw,lowerdir=/l,upperdir=/s\054\134x/upper,workdir=/w";
        let read = parse(line).unwrap();
        assert_eq!(read, Line { at: "/mnt/a b".into(), upper: Some(r"/s,\x/upper".into()) });
        let other = parse(b"41 28 0:52 / /proc rw - proc upperdir=/x rw").unwrap();
        assert_eq!(other, Line { at: "/proc".into(), upper: None });
        assert_eq!(parse(b""), None);
        assert_eq!(unescape(br"\04"), r"\04");
    }

    #[test]
    fn a_mount_that_is_no_more_is_cleared_away() {
        let store = tempfile::tempdir().unwrap();
        let dir = Mount::free(store.path()).unwrap();
        fs::create_dir(&dir).unwrap();
        let digest = Sha256Digest::of(b"");
        let mount = Mount {
            target: "/mnt".into(),
            reference: "r/i:t".to_owned(),
            manifest: digest,
            layout: Layout::TreeV1,
            layers: vec![digest],
        };
        mount.record(&dir).unwrap();
        assert_eq!(Mount::all(store.path()).unwrap().len(), 0);
        assert_eq!(fs::read_dir(store.path().join(MOUNTS)).unwrap().count(), 0);
    }
}
