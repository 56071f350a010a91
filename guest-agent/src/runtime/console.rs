//! The socket on which a runtime hands over the master of a container's terminal.

use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::io::Interest;
use tokio::net::UnixListener;

/// How long a runtime that has finished may still take to hand over the terminal.
const HANDOVER_TIME: Duration = Duration::from_secs(5);

/// A listening socket in the bundle.
#[derive(Debug)]
pub(super) struct ConsoleSocket {
    listener: UnixListener,
}

impl ConsoleSocket {
    /// The name of the first process's socket in the bundle.
    pub(super) const NAME: &'static str = "console.sock";

    /// Listens as `name` in `bundle`, a short path: sockets have at most 107 bytes of it.
    pub(super) fn bind(bundle: &Path, name: &str) -> std::io::Result<Self> {
        Ok(Self { listener: UnixListener::bind(bundle.join(name))? })
    }

    /// Takes the terminal's master from the first connection.
    pub(super) async fn master(self) -> std::io::Result<OwnedFd> {
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            stream.async_io(Interest::READABLE, || receive(&stream)).await
        };
        tokio::time::timeout(HANDOVER_TIME, receive)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("the runtime handed over no terminal")))
    }
}

fn receive(stream: &tokio::net::UnixStream) -> std::io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0u8; 4096];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message
            && let Some(fd) = fds.into_iter().next()
        {
            return Ok(fd);
        }
    }
    Err(std::io::Error::other("the runtime sent no descriptor"))
}
