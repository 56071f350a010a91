//! A folder as an image layer, the same bytes every time: sorted entries, no times, owner root.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use protocols::digest::Sha256Digest;

/// A layer: its blob, and the digest of the tar inside.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The gzip'd tar.
    pub(crate) blob: Vec<u8>,
    /// SHA-256 of the tar.
    pub(crate) diff_id: Sha256Digest,
}

/// Packs a folder.
pub(crate) fn pack(folder: &Path) -> io::Result<Layer> {
    let mut paths = Vec::new();
    walk(folder, Path::new(""), &mut paths)?;
    let mut tar = tar::Builder::new(Vec::new());
    for path in &paths {
        append(&mut tar, folder, path)?;
    }
    let tar = tar.into_inner()?;
    let mut gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::default());
    gzip.write_all(&tar)?;
    Ok(Layer { blob: gzip.finish()?, diff_id: Sha256Digest::of(&tar) })
}

/// Depth first, names in byte order, a folder before what is in it.
fn walk(root: &Path, under: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(root.join(under))?.map(|entry| entry.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    names.sort_unstable();
    for name in names {
        let path = under.join(name);
        let is_folder = fs::symlink_metadata(root.join(&path))?.is_dir();
        paths.push(path.clone());
        if is_folder {
            walk(root, &path, paths)?;
        }
    }
    Ok(())
}

fn append<W: Write>(tar: &mut tar::Builder<W>, root: &Path, path: &Path) -> io::Result<()> {
    let full = root.join(path);
    let metadata = fs::symlink_metadata(&full)?;
    let kind = metadata.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_mode(metadata.permissions().mode() & 0o7777);
    header.set_size(0);
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, path, io::empty())
    } else if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        tar.append_link(&mut header, path, fs::read_link(&full)?)
    } else if kind.is_file() {
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(metadata.len());
        tar.append_data(&mut header, path, fs::File::open(&full)?)
    } else {
        let what = if kind.is_socket() { "a socket" } else { "a device or pipe" };
        Err(io::Error::other(format!("{} is {what}; only files, folders and links are packed", full.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn example(folder: &Path) {
        fs::create_dir_all(folder.join("b/deep")).unwrap();
        fs::write(folder.join("b/deep/file"), "content").unwrap();
        fs::write(folder.join("a"), "first").unwrap();
        symlink("a", folder.join("link")).unwrap();
        fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
    }

    #[test]
    fn the_same_folder_gives_the_same_bytes_whatever_its_times() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        example(one.path());
        std::thread::sleep(std::time::Duration::from_millis(20));
        example(other.path());
        let (one, other) = (pack(one.path()).unwrap(), pack(other.path()).unwrap());
        assert_eq!((one.diff_id, &one.blob), (other.diff_id, &other.blob));
    }

    #[test]
    fn entries_are_sorted_owned_by_root_and_keep_their_modes() {
        let folder = tempfile::tempdir().unwrap();
        example(folder.path());
        let layer = pack(folder.path()).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer.blob.as_slice()));
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            seen.push((entry.path().unwrap().display().to_string(), header.mode().unwrap()));
        }
        let names: Vec<&str> = seen.iter().map(|(name, _)| name.trim_end_matches('/')).collect();
        assert_eq!(names, ["a", "b", "b/deep", "b/deep/file", "link"]);
        assert_eq!(seen[0].1, 0o4755);
    }
}
