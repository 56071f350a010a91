//! An image as layers of `erofs-v1`, mounted one on the other by the kernel.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use image_rs_fork::Limits;
use image_rs_fork::erofs::{ErofsError, ErofsLimits, Finished, LayerReader, LayerWriter, inherited};
use image_rs_fork::framing::{Buffer, Compression, Decompressor, FramingError, FramingLimits};
use image_rs_fork::tar::{Parser, TarLimits};
use image_rs_fork::verity::Blocks;
use protocols::digest::Sha256Digest;
use protocols::reason::{Code, IMAGE_DIFF_ID, IMAGE_LAYER_FORMAT};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, unmount,
};

use sha2::{Digest as _, Sha256};

use crate::support::image::{GZIP, LayerBlob, TAR};

#[derive(Debug)]
struct Refused(Code);

impl From<FramingError> for Refused {
    fn from(error: FramingError) -> Self {
        Self(error.code())
    }
}

impl From<ErofsError> for Refused {
    fn from(error: ErofsError) -> Self {
        Self(error.code())
    }
}

/// One layer's image, in memory, above others, the lowest first.
fn write(layer: &LayerBlob, lower: &[Blocks], limits: &Limits) -> Result<(Finished, Blocks), Refused> {
    let tar = TarLimits {
        archive_bytes: limits.layer_bytes,
        file_bytes: limits.layer_bytes,
        entries: limits.entries,
        ..TarLimits::default()
    };
    let framing = FramingLimits { output_bytes: limits.layer_bytes, ratio: limits.ratio, ..FramingLimits::default() };
    let mut parser = Parser::new(tar);
    let mut writer = LayerWriter::new(Blocks::new(), ErofsLimits::default());
    let mut hasher = Sha256::new();
    let mut full = |buffer: Buffer| -> Result<Buffer, Refused> {
        hasher.update(buffer.filled());
        parser.push(buffer.filled(), &mut writer)?;
        Ok(buffer)
    };
    let declared = match layer.media_type {
        TAR => Compression::None,
        GZIP => Compression::Gzip,
        _ => Compression::Zstd,
    };
    let mut decompressor = Decompressor::new(declared, framing, Buffer::new(64 * 1024));
    decompressor.push(&layer.blob, &mut full)?;
    if decompressor.finish(&mut full)?.compression != declared {
        return Err(Refused(IMAGE_LAYER_FORMAT));
    }
    parser.finish().map_err(ErofsError::from)?;
    if Sha256Digest::new(hasher.finalize().into()) != layer.diff_id {
        return Err(Refused(IMAGE_DIFF_ID));
    }
    let mut streamed = writer.into_streamed()?;
    let readers: Vec<_> = lower.iter().rev().map(|image| LayerReader::open(image).unwrap()).collect();
    for path in streamed.implied_directories() {
        if let Some(attributes) = inherited(&readers, &path).unwrap() {
            streamed.set_attributes(&path, &attributes)?;
        }
    }
    Ok(streamed.finish(&layer.diff_id)?)
}

/// Mounts below a directory, all of them ended with this value.
pub(crate) struct Stack {
    dir: tempfile::TempDir,
    mounts: Vec<String>,
}

impl Stack {
    /// Writes the layers and mounts them; the code of what was refused.
    pub(crate) fn new(layers: &[LayerBlob], limits: &Limits) -> Result<Self, Code> {
        let mut images = Vec::new();
        let mut bottom = 0;
        for (number, layer) in layers.iter().enumerate() {
            let (finished, image) = write(layer, &images, limits).map_err(|refused| refused.0)?;
            if finished.opaque {
                // Overlayfs does not look for the mark on a layer's root.
                bottom = number;
            }
            images.push(image);
        }
        let mut stack = Self { dir: tempfile::tempdir().unwrap(), mounts: Vec::new() };
        // One layer alone is no overlay, and would show its whiteouts.
        let lowest = stack.make("lowest");
        let mut lowers = vec![lowest];
        for (number, image) in images.iter().enumerate().skip(bottom) {
            let (file, at) = (stack.dir.path().join(format!("{number}.erofs")), stack.make(&number.to_string()));
            std::fs::write(&file, image.as_bytes()).unwrap();
            let done = Command::new("mount").args(["-t", "erofs", "-o", "ro"]).arg(&file).arg(&at).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            stack.mounts.push(at.clone());
            lowers.push(at);
        }
        let at = stack.make("all");
        overlay(&lowers, Path::new(&at));
        stack.mounts.push(at);
        Ok(stack)
    }

    fn make(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(self.mounts.last().unwrap())
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for mount in self.mounts.iter().rev() {
            let _ = unmount(mount.as_str(), UnmountFlags::DETACH);
        }
    }
}

/// Layer by layer: an option of one page would not hold many.
fn overlay(lowers: &[String], at: &Path) {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    let overlay = overlay.as_fd();
    for lower in lowers.iter().rev() {
        fsconfig_set_string(overlay, "lowerdir+", lower.as_str()).unwrap();
    }
    fsconfig_create(overlay).unwrap();
    let mount = fsmount(overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let to = File::open(at).unwrap();
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, "", &to, "", flags).unwrap();
}
