//! The service's listeners: one per kind of caller.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use protocols::rpc::launch_ttrpc::create_launcher;
use tokio::net::{UnixListener, UnixStream};
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
    /// Starts to serve.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub async fn start(listen: &Listen, agent: &Arc<Agent>) -> anyhow::Result<Self> {
        let allow = listen.vsock.as_ref().map(|vsock| vsock.allow.clone()).unwrap_or_default();
        let gate: Arc<dyn Gate> = Arc::new(ConfiguredGate::new(allow));
        let mut servers = vec![server(Listener::new(unix(&listen.unix)?), agent, &gate, Caller::Root)];
        if let Some(vsock) = &listen.vsock {
            let listener = Listener::bind(format!("vsock://-1:{}", vsock.port))?;
            servers.push(server(listener, agent, &gate, Caller::Host));
        }
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

/// Connections of the guest's root on a socket of mode 0600; any other peer is dropped.
fn unix(path: &Path) -> io::Result<impl Stream<Item = io::Result<UnixStream>> + Send + 'static> {
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
    Ok(futures_util::stream::unfold(listener, |listener| async move {
        let stream = next_root(&listener).await;
        Some((Ok(stream), listener))
    }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_roots_alone_and_replaces_a_stale_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/agent.sock");
        drop(unix(&path).unwrap());
        let again = unix(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&dir.path().join("new"))), (0o600, 0o700));
        drop(again);
        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(unix(&file).is_err());
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
