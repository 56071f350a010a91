//! The agent's socket for the shim, which expects plain ttrpc behind it: each connection goes on to the guest's vsock port.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// The longest first line of the vsock device, in bytes.
const LINE: usize = 64;

/// Serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Bridge(JoinHandle<()>);

impl Drop for Bridge {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Bridge {
    /// Listens at `socket`, and gives each connection on to `port` behind the hybrid vsock socket `vsock`.
    pub(crate) fn start(socket: &Path, vsock: &Path, port: u32) -> std::io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let vsock = vsock.to_owned();
        Ok(Self(tokio::spawn(async move {
            // They end with the bridge.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let vsock = vsock.clone();
                connections.spawn(async move {
                    if let Err(error) = carry(near, &vsock, port).await {
                        tracing::debug!(%error, "a connection to the guest ended");
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        })))
    }
}

async fn carry(mut near: UnixStream, vsock: &Path, port: u32) -> std::io::Result<()> {
    let mut far = UnixStream::connect(vsock).await?;
    far.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut line = Vec::new();
    while line.len() < LINE && line.last() != Some(&b'\n') {
        line.push(far.read_u8().await?);
    }
    if !line.starts_with(b"OK") {
        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    }
    copy_bidirectional(&mut near, &mut far).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_reaches_the_port_without_a_preamble() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, vsock) = (dir.path().join("agent"), dir.path().join("vsock"));
        let device = UnixListener::bind(&vsock).unwrap();
        let _bridge = Bridge::start(&socket, &vsock, 1024).unwrap();
        let mut shim = UnixStream::connect(&socket).await.unwrap();
        shim.write_all(b"ping").await.unwrap();
        let (mut guest, _) = device.accept().await.unwrap();
        let mut asked = [0; 13];
        guest.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"CONNECT 1024\n");
        guest.write_all(b"OK 4096\npong").await.unwrap();
        let mut heard = [0; 4];
        guest.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        shim.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
    }
}
