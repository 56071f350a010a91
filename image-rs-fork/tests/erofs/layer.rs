//! Writes layers and mounts them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use image_rs_fork::erofs::{ErofsError, ErofsLimits, Finished, LayerReader, LayerWriter, SALT, inherited};
use image_rs_fork::tar::{Parser, TarLimits};
use image_rs_fork::verity::{BLOCK, Blocks};
use protocols::digest::Sha256Digest;
use tempfile::TempDir;

/// A layer on disk with what its writer said of it.
pub(crate) struct Layer {
    pub(crate) dir: TempDir,
    pub(crate) finished: Finished,
}

/// Pushes an archive through parser and writer in pieces of `piece` bytes.
pub(crate) fn stream<O: image_rs_fork::verity::BlockOut>(
    writer: &mut LayerWriter<O>,
    archive: &[u8],
    piece: usize,
) -> Result<(), ErofsError> {
    let mut parser = Parser::new(TarLimits::default());
    for bytes in archive.chunks(piece) {
        parser.push(bytes, writer)?;
    }
    parser.finish()?;
    Ok(())
}

/// An image in memory.
pub(crate) fn in_memory(archive: &[u8], piece: usize) -> Result<(Finished, Vec<u8>), ErofsError> {
    let mut writer = LayerWriter::new(Blocks::new(), ErofsLimits::default());
    stream(&mut writer, archive, piece)?;
    let (finished, out) = writer.into_streamed()?.finish(&Sha256Digest::of(archive))?;
    Ok((finished, out.as_bytes().to_vec()))
}

impl Layer {
    /// Writes an archive above other layers, the nearest first.
    pub(crate) fn above(archive: &[u8], lowers: &[&Self]) -> Result<Self, ErofsError> {
        Self::write(archive, lowers, true)
    }

    /// Writes an archive with all its whiteouts, as if they had something to hide.
    pub(crate) fn with_whiteouts(archive: &[u8]) -> Result<Self, ErofsError> {
        Self::write(archive, &[], false)
    }

    fn write(archive: &[u8], lowers: &[&Self], settle: bool) -> Result<Self, ErofsError> {
        let dir = tempfile::tempdir().unwrap();
        let open = |name| File::options().read(true).write(true).create_new(true).open(dir.path().join(name)).unwrap();
        let mut writer = LayerWriter::spilling(open("image"), Box::new(open("spill")), ErofsLimits::default());
        stream(&mut writer, archive, 64 * 1024)?;
        let mut streamed = writer.into_streamed()?;
        let readers: Vec<_> = lowers.iter().map(|layer| layer.reader()).collect();
        for path in streamed.implied_directories() {
            if let Some(attributes) = inherited(&readers, &path).unwrap() {
                streamed.set_attributes(&path, &attributes)?;
            }
        }
        if settle {
            streamed.settle_whiteouts(|path| Ok(inherited(&readers, path)?.is_some())).unwrap();
        }
        let (finished, _) = streamed.finish(&Sha256Digest::of(archive))?;
        fs::remove_file(dir.path().join("spill")).unwrap();
        Ok(Self { dir, finished })
    }

    pub(crate) fn new(archive: &[u8]) -> Result<Self, ErofsError> {
        Self::above(archive, &[])
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub(crate) fn reader(&self) -> LayerReader<File> {
        LayerReader::open(File::open(self.path()).unwrap()).unwrap()
    }

    /// Checks the file's size, the file system with `fsck.erofs` (Debian's erofs-utils) and the hash tree with
    /// `veritysetup` (cryptsetup-bin), both of which must be installed.
    pub(crate) fn check(&self) {
        let image = fs::read(self.path()).unwrap();
        assert_eq!(image.len() as u64, self.finished.file_bytes());
        run(Command::new("fsck.erofs").arg("--extract").arg(self.path()));
        let (data, tree) = image.split_at(usize::try_from(self.finished.hash_offset()).unwrap());
        assert_eq!(data.len(), usize::try_from(self.finished.tree.data_blocks).unwrap() * BLOCK);
        let (data_file, tree_file) = (self.dir.path().join("data"), self.dir.path().join("tree"));
        fs::write(&data_file, data).unwrap();
        fs::write(&tree_file, b"").unwrap();
        let said = run(Command::new("/usr/sbin/veritysetup")
            .args(["format", "--no-superblock", "--salt", &hex::encode(SALT)])
            .args([&data_file, &tree_file]));
        let root = said.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim();
        assert_eq!(root, self.finished.tree.root_hash.hex());
        assert!(fs::read(&tree_file).unwrap() == tree, "the hash tree differs from veritysetup's");
    }

    /// Mounts the image; needs root.
    pub(crate) fn mount(&self) -> Mounted {
        Mounted::new(Command::new("mount").args(["-t", "erofs", "-o", "ro,noatime"]).arg(self.path()))
    }
}

/// A mount that ends with this value.
pub(crate) struct Mounted {
    dir: TempDir,
}

impl Mounted {
    /// Runs a `mount` command, to which the mount point is added.
    pub(crate) fn new(command: &mut Command) -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(command.arg(dir.path()));
        Self { dir }
    }

    /// Mounted layers, at least two, stacked by overlayfs, the topmost first.
    pub(crate) fn overlay(layers: &[&Self]) -> Self {
        let lowers: Vec<_> = layers.iter().map(|layer| layer.path().to_str().unwrap()).collect();
        let options = format!("ro,lowerdir={}", lowers.join(":"));
        Self::new(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]))
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// Runs a command that must succeed; gives what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}
