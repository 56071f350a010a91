//! The attestor's container image.

use std::path::Path;

use crate::oci::{self, Settings};
use crate::{Epoch, Programs, Result, Tree};

/// User and group of the attestor in its container: nobody's on any machine.
pub const USER: u32 = 65532;
/// Where Debian's `ca-certificates` keeps the roots.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Writes the image's OCI layout into `folder`, which must not be there, and gives its manifest's digest.
///
/// It holds `key-broker`, the libraries it is linked against, the CA certificates of this machine, and no shell.
///
/// # Errors
/// [`crate::PackagingError`].
pub fn image(programs: &Programs, folder: &Path, epoch: Epoch) -> Result<String> {
    let mut tree = Tree::default();
    programs.install_with_libraries(&mut tree, "key-broker")?;
    tree.copy("etc/ssl/certs/ca-certificates.crt", 0o644, Path::new(ROOTS))?;
    tree.file(
        "etc/passwd",
        0o644,
        format!("root:x:0:0:root:/:/sbin/nologin\nkey-broker:x:{USER}:{USER}::/var/lib/key-broker:/sbin/nologin\n"),
    );
    tree.file("etc/group", 0o644, format!("root:x:0:\nkey-broker:x:{USER}:\n"));
    // The order in which the C library looks for hosts.
    tree.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n");
    tree.folder("etc/key-broker", 0o755, 0);
    tree.folder("var/lib/key-broker", 0o700, USER);
    let user = format!("{USER}:{USER}");
    let settings = Settings {
        user: &user,
        entrypoint: &["/usr/bin/key-broker"],
        arguments: &["--config", "/etc/key-broker/key-broker.toml"],
        environment: &["PATH=/usr/bin"],
        labels: &[
            ("org.opencontainers.image.title", "key-broker"),
            ("org.opencontainers.image.description", "The remote attestor of Trusted Container Launcher"),
            ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
        ],
        ports: &[8080, 9090],
    };
    oci::write(folder, env!("CARGO_PKG_VERSION"), &[tree], &settings, epoch)
}
