//! The image that the chart's DaemonSet runs on nodes: the installer, and the guest image that it installs.

use std::path::Path;

use crate::oci::{self, Settings};
use crate::{Epoch, Programs, Result, Tree};

/// Writes the image's OCI layout into `folder`, which must not be there, and gives its manifest's digest. `guest` is a folder
/// of a guest image's files.
///
/// # Errors
/// [`crate::PackagingError`].
pub fn image(programs: &Programs, guest: &Path, folder: &Path, epoch: Epoch) -> Result<String> {
    let mut installer = Tree::default();
    programs.install_with_libraries(&mut installer, "node-installer")?;
    installer.folder("run/node-installer", 0o755, 0);
    installer.folder("host", 0o755, 0);
    installer.folder("configuration", 0o755, 0);
    // Another guest image is another layer; the installer's stays.
    let mut files = Tree::default();
    files.copy_folder("guest", guest)?;
    let settings = Settings {
        user: "0:0",
        entrypoint: &["/usr/bin/node-installer"],
        arguments: &["--help"],
        environment: &["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        labels: &[
            ("org.opencontainers.image.title", "node-installer"),
            ("org.opencontainers.image.description", "Installs guests of Trusted Container Launcher on nodes"),
            ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
        ],
        ports: &[],
    };
    oci::write(folder, env!("CARGO_PKG_VERSION"), &[installer, files], &settings, epoch)
}
