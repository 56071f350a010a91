//! What a root file system of many small files takes of a guest's memory: as a tree on tmpfs, and as one EROFS file.
//!
//! `cargo bench --profile dev -p image-rs-fork --bench guest_memory [-- FILES [ARCHIVE]]`, as root: 101,000 files
//! unless another number or a tar archive is given. Each form is put on a tmpfs of its own, whose own account of
//! its pages is what is compared: neither other programs nor caches that can be reclaimed are in it. A tree's
//! inodes, kernel memory outside of those pages, are told apart and not counted.

mod many;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use image_rs_fork::erofs::{ErofsLimits, LayerWriter};
use many::{feed, generate};
use protocols::digest::Sha256Digest;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let files: u32 = arguments.next().map_or(Ok(101_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let archive = match arguments.next() {
        Some(path) => path.into(),
        None => {
            let path = dir.path().join("layer.tar");
            generate(&path, files)?;
            path
        }
    };

    let tree = Tmpfs::mount(dir.path().join("tree"))?;
    let done = Command::new("tar").arg("-xpf").arg(&archive).arg("-C").arg(&tree.0).status()?;
    if !done.success() {
        return Err(format!("tar: {done}").into());
    }
    let (tree_bytes, inodes) = tree.used()?;
    drop(tree);

    let store = Tmpfs::mount(dir.path().join("store"))?;
    write(&archive, &store.0)?;
    let (file_bytes, _) = store.used()?;

    println!("tmpfs tree: {} MB in pages, and {inodes} inodes", tree_bytes / 1_000_000);
    println!("erofs-v1:   {} MB, hash tree included", file_bytes / 1_000_000);
    println!("ratio {:.3}", file_bytes as f64 / tree_bytes as f64);
    Ok(())
}

/// Writes the layer as a store does: the image stays, the spilled hashes go.
fn write(archive: &Path, store: &Path) -> Result<()> {
    let create = |name| File::options().read(true).write(true).create_new(true).open(store.join(name));
    let mut writer = LayerWriter::spilling(create("image")?, Box::new(create("spill")?), ErofsLimits::default());
    feed(archive, &mut writer)?;
    writer.into_streamed()?.finish(&Sha256Digest::of(b"bench"))?;
    std::fs::remove_file(store.join("spill"))?;
    Ok(())
}

/// A tmpfs that is unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf) -> Result<Self> {
        std::fs::create_dir(&at)?;
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &at, "tmpfs", flags, Some(c"size=4g,nr_inodes=0"))?;
        Ok(Self(at))
    }

    /// Bytes in pages of this file system, and its inodes.
    fn used(&self) -> Result<(u64, usize)> {
        let stat = rustix::fs::statvfs(&self.0)?;
        let pages = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
        Ok((pages, count(&self.0)?))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Names below `dir`: none of them is a hard link here.
fn count(dir: &Path) -> Result<usize> {
    let mut names = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        names += 1 + if entry.file_type()?.is_dir() { count(&entry.path())? } else { 0 };
    }
    Ok(names)
}
