//! A port of a guest as a plain unix socket, for clients that do not speak hybrid vsock's first line.

use std::io::copy;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use guest_vm::connect;

/// Listens at `path`, and leads each connection to `port` of the guest behind `hybrid`; its threads end with the
/// process. Gives the `unix://` address.
///
/// # Panics
/// When it cannot listen there.
#[must_use]
pub fn bridge(hybrid: &Path, port: u32, path: &Path) -> String {
    let listener = UnixListener::bind(path).unwrap();
    let hybrid = hybrid.to_path_buf();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let hybrid: PathBuf = hybrid.clone();
            std::thread::spawn(move || _ = lead(&near, &hybrid, port));
        }
    });
    format!("unix://{}", path.display())
}

fn lead(near: &UnixStream, hybrid: &Path, port: u32) -> std::io::Result<()> {
    let far = connect(hybrid, port)?;
    let (mut near_in, mut far_out) = (near.try_clone()?, far.try_clone()?);
    let up = std::thread::spawn(move || {
        let _ = copy(&mut near_in, &mut far_out);
        // Both ways at once: vsock's other end drops its answer after half of a close.
        let _ = far_out.shutdown(Shutdown::Both);
    });
    let _ = copy(&mut &far, &mut &*near);
    let _ = near.shutdown(Shutdown::Both);
    let _ = up.join();
    Ok(())
}
