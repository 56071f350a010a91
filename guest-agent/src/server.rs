//! The service's listeners: one per kind of caller.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use protocols::rpc::launch_ttrpc::create_launcher;
use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use crate::agent::Agent;
use crate::config::Listen;
use crate::gate::{Caller, ConfiguredGate, Gate};
use crate::service::Gated;

/// How long to wait when a connection cannot be accepted, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The running listeners.
#[allow(missing_debug_implementations)] // ttrpc's servers have none
pub struct Servers {
    servers: Vec<Server>,
}

impl Servers {
    /// Starts to serve: the agent's own service, and `others`.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub async fn start(
        listen: &Listen,
        agent: &Arc<Agent>,
        others: impl IntoIterator<Item = Server>,
    ) -> anyhow::Result<Self> {
        let allow = listen.vsock.as_ref().map(|vsock| vsock.allow.clone()).unwrap_or_default();
        let gate: Arc<dyn Gate> = Arc::new(ConfiguredGate::new(allow));
        let mut servers = vec![server(Listener::new(roots(root_socket(&listen.unix)?)), agent, &gate, Caller::Root)];
        if let Some(vsock) = &listen.vsock {
            servers.push(server(Listener::new(host(vsock.port)?), agent, &gate, Caller::Host));
        }
        servers.extend(others);
        for server in &mut servers {
            server.start().await?;
        }
        Ok(Self { servers })
    }

    /// Takes no more connections; those there are go on.
    pub async fn stop_listening(&mut self) {
        for server in &mut self.servers {
            server.stop_listen().await;
        }
    }

    /// Ends every connection.
    pub async fn shut_down(&mut self) {
        for server in &mut self.servers {
            let _ = server.shutdown().await; // it never fails
        }
    }
}

fn server(listener: Listener, agent: &Arc<Agent>, gate: &Arc<dyn Gate>, caller: Caller) -> Server {
    let gated = Gated::new(Arc::clone(agent), Arc::clone(gate), caller);
    Server::new().add_listener(listener).register_service(create_launcher(Arc::new(gated)))
}

/// A socket of mode 0600.
pub(crate) fn root_socket(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        crate::paths::private_dir(dir)?;
    }
    match std::fs::symlink_metadata(path) {
        // Left behind by an agent that was killed; the state directory's lock keeps two from running.
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other(format!("{} is there and is no socket", path.display()))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connections of the guest's root; any other peer is dropped.
pub(crate) fn roots(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> + Send + 'static {
    futures_util::stream::unfold(listener, |listener| async move {
        let stream = next_root(&listener).await;
        Some((Ok(stream), listener))
    })
}

async fn next_root(listener: &UnixListener) -> UnixStream {
    let own = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if peer.uid() == 0 || peer.uid() == own => return stream,
                Ok(peer) => tracing::warn!(uid = peer.uid(), "a caller who is not root was turned away"),
                Err(error) => tracing::warn!(%error, "a caller without credentials was turned away"),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Connections of the host on a vsock port; any other peer is dropped.
pub(crate) fn host(port: u32) -> io::Result<impl Stream<Item = io::Result<VsockStream>> + Send + 'static> {
    let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port))?;
    Ok(futures_util::stream::unfold(listener, |listener| async move {
        let stream = next_host(&listener).await;
        Some((Ok(stream), listener))
    }))
}

async fn next_host(listener: &VsockListener) -> VsockStream {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if is_host(&peer) => return stream,
            Ok((_, peer)) => tracing::warn!(cid = peer.cid(), "a caller on vsock who is not the host was turned away"),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a peer is the host: a process in this guest reaches the port too where the kernel has a vsock loopback.
fn is_host(peer: &VsockAddr) -> bool {
    peer.cid() == VMADDR_CID_HOST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_context_id_2_is_the_host() {
        assert!(is_host(&VsockAddr::new(2, 1030)));
        // The hypervisor, the loopback, a guest, anyone.
        for other in [0, 1, 3, 42, u32::MAX] {
            assert!(!is_host(&VsockAddr::new(other, 1030)), "{other}");
        }
    }

    #[tokio::test]
    #[ignore = "needs a kernel with vsock_loopback: run it in a guest"]
    async fn a_caller_by_the_loopback_is_dropped() {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, 51_030)).unwrap();
        let accept = tokio::spawn(async move { next_host(&listener).await });
        let mut caller = VsockStream::connect(VsockAddr::new(1, 51_030)).await.unwrap();
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut caller, &mut byte).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        assert!(!accept.is_finished());
        accept.abort();
    }

    #[tokio::test]
    async fn the_socket_is_roots_alone_and_replaces_a_stale_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/agent.sock");
        drop(root_socket(&path).unwrap());
        let again = root_socket(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir.path().join("new"))), (0o600, 0o700));
        drop(again);
        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(root_socket(&file).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    }

    #[test]
    fn the_gate_knows_every_method_of_the_service() {
        // The names in the generated dispatch table, read from the description it is generated from.
        let proto = include_str!("../../protocols/protos/launch.proto");
        let mut described: Vec<&str> =
            proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()).collect();
        let mut known = crate::gate::METHODS.to_vec();
        described.sort_unstable();
        known.sort_unstable();
        assert_eq!(described, known);
    }
}
