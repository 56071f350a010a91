//! `mount` and `umount`: a pulled image as a directory, without a network.

use std::path::Path;

use image_rs_fork::{ImagePolicy, KeyProvider, Limits, MeasuredImage, NoProgress, SignaturePolicy};
use protocols::image::Layout;
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;
use registry::ImageReference;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use serde_json::json;

use crate::cli::{MountArguments, UmountArguments};
use crate::encryption;
use crate::issue;
use crate::outcome::Failure;
use crate::output::Output;
use crate::store::{self, Mount, OnlyStored, Record, Store, absolute, coded, find_mount, forget};

/// Verifies the recorded documents by digest, measures the layers again, and mounts them.
pub(crate) async fn mount(arguments: &MountArguments, output: &Output) -> Result<(), Failure> {
    let reference = issue::reference(&arguments.reference)?;
    let root = absolute(&arguments.store.store)?;
    let target = absolute(&arguments.target)?;
    let record = store::find(&root, &reference)?;
    let store = Store::open(&root, arguments.layout.map_or(record.layout, Layout::from), None)?;
    Mount::all(&root)?;
    let keys = encryption::ring(&arguments.decryption)?;
    let image = assemble(&store, &reference, &record, &keys).await?;
    let measured = image.measurement();
    if let Some(expected) = arguments.rootfs.filter(|expected| *expected != measured.rootfs.digest) {
        let (expected, actual) = (expected.to_string(), measured.rootfs.digest.to_string());
        return Err(Failure::by_command(Refusal::new(reason::IMAGE_ROOTFS, reference.to_string(), expected, actual)));
    }
    let mount = Mount {
        target: target.clone(),
        reference: reference.to_string(),
        manifest: measured.manifest,
        layout: measured.rootfs.layout,
        layers: measured.layers.clone(),
    };
    let dir = Mount::free(&root)?;
    mount.record(&dir)?;
    let mounted = image.mount(&dir).map_err(|error| coded(&error)).and_then(|rootfs| {
        show(rootfs.path(), &target, arguments.writable)?;
        let enforcement = rootfs.enforcement();
        let _ = rootfs.keep();
        Ok(enforcement)
    });
    let enforcement = match mounted {
        Ok(enforcement) => enforcement.as_str(),
        Err(failure) => {
            forget(&dir)?;
            return Err(failure);
        }
    };
    let layout = measured.rootfs.layout.as_str();
    output.tell(
        || {
            json!({
                "reference": reference, "manifest": measured.manifest, "layout": layout,
                "rootfs": {layout: measured.rootfs.digest}, "enforcement": enforcement, "target": target,
                "writable": arguments.writable,
            })
        },
        || {
            vec![
                format!("{} at {}", measured.manifest, target.display()),
                format!("  root file system {} ({layout})", measured.rootfs.digest),
                format!("  what keeps it so: {enforcement}"),
            ]
        },
    )
}

/// The image from what is stored.
async fn assemble(
    store: &Store,
    reference: &ImageReference,
    record: &Record,
    keys: &dyn KeyProvider,
) -> Result<MeasuredImage, Failure> {
    let documents = store.documents();
    let pinned = reference.pinned(record.manifest);
    let found = image_rs_fork::fetch(&pinned, &documents).await.map_err(|error| coded(&error))?;
    // Signatures were asked for at the pull, by `--policy`; here is no registry that has them.
    let signatures = SignaturePolicy::insecure_accept_anything();
    let policy = ImagePolicy::for_platform(record.platform.clone(), signatures, Timestamp::now());
    let verified = found.verify(&policy, &documents).await.map_err(|error| coded(&error))?;
    let layers = OnlyStored::new(store.layers());
    let measured = image_rs_fork::pull(verified, &documents, &layers, keys, &Limits::default(), &NoProgress).await;
    measured.map_err(|error| layers.corrupt().map_or_else(|| coded(&error), Failure::by_command))
}

/// Shows the root file system at `target`: read-only unless asked otherwise, and never as a source of devices or
/// of programs with another user's rights.
fn show(rootfs: &Path, target: &Path, writable: bool) -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| Failure::file(target, std::io::Error::from(error));
    mount_bind(rootfs, target).map_err(failed)?;
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    if !writable {
        flags |= MountFlags::RDONLY;
    }
    mount_remount(target, flags, "").map_err(|error| {
        let _ = unmount(target, UnmountFlags::DETACH);
        failed(error)
    })
}

/// Ends a mount and what was written into it.
pub(crate) fn umount(arguments: &UmountArguments, output: &Output) -> Result<(), Failure> {
    let target = absolute(&arguments.target)?;
    let Some((dir, mount)) = find_mount(&target)? else {
        return Err(Failure::Usage(format!("{}: nothing that `tclctl mount` has mounted", target.display())));
    };
    unmount(&target, UnmountFlags::NOFOLLOW).map_err(|error| Failure::file(&target, std::io::Error::from(error)))?;
    forget(&dir)?;
    output.tell(|| json!({"target": target, "manifest": mount.manifest}), Vec::new)
}
