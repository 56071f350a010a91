//! Layers in the layout `erofs-v1`, from trees on this machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use image_rs_fork::erofs::{ErofsLimits, Finished, LayerWriter};
use image_rs_fork::tar::{Parser, TarLimits};
use image_rs_fork::verity::{BLOCK, Blocks};
use integration_tests::command::tool;
use integration_tests::vm::listing;
use protocols::digest::Sha256Digest;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};

/// One layer's file and what its writer said of it.
pub(crate) struct Layer {
    pub(crate) bytes: Vec<u8>,
    pub(crate) finished: Finished,
}

impl Layer {
    pub(crate) fn write(archive: &[u8]) -> Self {
        let mut writer = LayerWriter::new(Blocks::new(), ErofsLimits::default());
        let mut parser = Parser::new(TarLimits::default());
        parser.push(archive, &mut writer).unwrap();
        parser.finish().unwrap();
        let (finished, out) = writer.into_streamed().unwrap().finish(&Sha256Digest::of(archive)).unwrap();
        Self { bytes: out.as_bytes().to_vec(), finished }
    }

    /// The guest tool's arguments after the image's name.
    pub(crate) fn table(&self) -> String {
        format!("{} {}", self.finished.tree.data_blocks, self.finished.tree.root_hash.hex())
    }

    /// Where `bytes` are in the file system.
    pub(crate) fn find(&self, bytes: &[u8]) -> usize {
        let image = &self.bytes[..usize::try_from(self.finished.hash_offset()).unwrap()];
        image.windows(bytes.len()).position(|window| window == bytes).expect("these bytes are in the image")
    }

    /// Where the hash tree's block `number` is; the tree's top is block 0.
    pub(crate) fn tree_block(&self, number: u64) -> usize {
        assert!(number < self.finished.tree.tree_blocks);
        usize::try_from(self.finished.hash_offset()).unwrap() + usize::try_from(number).unwrap() * BLOCK
    }
}

/// `tar` of the folder `of`, with all attributes.
pub(crate) fn archive(of: &Path) -> Vec<u8> {
    let out = of.with_extension("tar");
    let (of, path) = (of.to_str().unwrap(), out.to_str().unwrap());
    let _ = tool("tar", &["--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", of, "-cpf", path, "."]).ok();
    fs::read(out).unwrap()
}

/// What `tar -xp` makes of an archive, as the guest lists it.
pub(crate) fn unpacked(archive: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (tar, to) = (dir.path().join("layer.tar"), dir.path().join("tree"));
    fs::write(&tar, archive).unwrap();
    fs::create_dir(&to).unwrap();
    let arguments = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", tar.to_str().unwrap()];
    let _ = tool("tar", &[&arguments[..], &["-C", to.to_str().unwrap()]].concat()).ok();
    listing(&to)
}

/// The bytes of the file `large` of [`tree`]: more blocks than one hash block covers, no two alike.
pub(crate) fn large() -> Vec<u8> {
    (0u32..180 * 1024).flat_map(|word| word.wrapping_mul(0x9E37_79B1).to_le_bytes()).collect()
}

/// The target of the link `link` of [`tree`]: an inode's neighbour in the image.
pub(crate) const TARGET: &str = "to/where/this/link/leads";

/// One of everything.
pub(crate) fn tree(at: &Path) {
    fs::create_dir(at).unwrap();
    let path = |name: &str| at.join(name);
    fs::write(path("large"), large()).unwrap();
    symlink(TARGET, path("link")).unwrap();
    fs::write(path("empty"), b"").unwrap();
    fs::write(path("set-user-id"), b"#!/bin/sh\n").unwrap();
    chown(path("set-user-id"), Some(0), Some(42)).unwrap();
    fs::set_permissions(path("set-user-id"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(path("set-user-id"), path("another-name")).unwrap();
    setxattr(path("empty"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    mknodat(CWD, path("null"), FileType::CharacterDevice, Mode::from(0o666), rustix::fs::makedev(1, 3)).unwrap();
    mknodat(CWD, path("pipe"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
    for folder in 0..3 {
        let folder = path(&format!("folder-{folder}"));
        fs::create_dir(&folder).unwrap();
        for file in 0..60 {
            let content = format!("{} {file}\n", folder.display()).repeat(1 + file * 2);
            fs::write(folder.join(format!("file-{file}")), content).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
    }
}

/// An archive of these entries: a name that ends in `/` is a directory, other names have their content.
pub(crate) fn small(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(5);
        header.set_size(content.len() as u64);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
        } else {
            header.set_mode(0o644);
        }
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}
