//! The listener of the Kata service, with the preamble that stands in for vsock on unix sockets.
//!
//! A hypervisor with hybrid vsock gives the guest's ports out on one unix socket, where a client first says
//! `CONNECT 1024` in a line of its own and is answered `OK 1024`. Without such a hypervisor between them, the agent
//! answers this itself, where the measured configuration says so; otherwise those bytes are no ttrpc and end the
//! connection. The bytes are looked at, not taken: what is no preamble stays for ttrpc.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use ttrpc::r#async::transport::Listener;

use super::address::Address;
use crate::server;

/// The port of the agent, which a preamble must name.
const PORT: &str = "1024";
/// The longest preamble, in bytes.
const MAX_PREAMBLE: usize = 32;
/// How long the rest of a preamble that has begun may take to come.
const PREAMBLE_TIME: Duration = Duration::from_secs(10);
/// Connections whose first bytes have come and that ttrpc has not taken yet.
const WAITING: usize = 16;

/// Listens at `address`.
///
/// # Errors
/// The socket cannot be made.
pub(super) fn listen(address: &Address, hybrid_vsock: bool) -> io::Result<Listener> {
    let unix = match address {
        Address::Vsock(port) => return Ok(Listener::new(server::host(*port)?)),
        Address::Unix(path) => server::root_socket(path)?,
        Address::Abstract(name) => {
            let name = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let listener = std::os::unix::net::UnixListener::bind_addr(&name)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)?
        }
    };
    Ok(Listener::new(if hybrid_vsock { hybrid(unix) } else { server::roots(unix).boxed() }))
}

/// Connections past their preamble. Each is waited for on its own: a silent one holds up nobody.
fn hybrid(listener: UnixListener) -> BoxStream<'static, io::Result<UnixStream>> {
    let (ready, mut receiver) = mpsc::channel(WAITING);
    let accept = async move {
        let mut connections = std::pin::pin!(server::roots(listener));
        while let Some(Ok(connection)) = connections.next().await {
            let ready = ready.clone();
            tokio::spawn(async move {
                match preamble(connection).await {
                    Ok(connection) => drop(ready.send(Ok(connection)).await),
                    Err(error) => tracing::warn!(%error, "a connection without a usable preamble was closed"),
                }
            });
        }
    };
    let accept = AbortOnDrop(tokio::spawn(accept));
    futures_util::stream::poll_fn(move |context| {
        let _held = &accept;
        receiver.poll_recv(context)
    })
    .boxed()
}

/// Ends the task when the listener is dropped.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers a preamble; a connection that begins with anything else is left as it is.
async fn preamble(mut stream: UnixStream) -> io::Result<UnixStream> {
    // A ttrpc frame begins with a length of at most 4 MiB: its first byte is 0.
    let first = peek(&stream, 1).await?;
    if !matches!(first.first(), Some(b'c' | b'C')) {
        return Ok(stream);
    }
    let line = tokio::time::timeout(PREAMBLE_TIME, line(&mut stream)).await??;
    let port = line.strip_prefix("CONNECT ").or_else(|| line.strip_prefix("connect "));
    if port.map(str::trim_end) != Some(PORT) {
        return Err(io::Error::other("it asks for something else than the agent's port"));
    }
    stream.write_all(format!("OK {PORT}\n").as_bytes()).await?;
    Ok(stream)
}

async fn peek(stream: &UnixStream, count: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; count];
    let look = || Ok(recv(stream, buffer.as_mut_slice(), RecvFlags::PEEK)?.0);
    let seen = stream.async_io(Interest::READABLE, look).await?;
    buffer.truncate(seen);
    Ok(buffer)
}

async fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
        if line.len() > MAX_PREAMBLE {
            return Err(io::Error::other("its first line is too long"));
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::other("its first line is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(first: &[u8]) -> (io::Result<UnixStream>, UnixStream) {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(first).await.unwrap();
        (preamble(server).await, client)
    }

    #[tokio::test]
    async fn both_spellings_are_answered_and_what_follows_stays() {
        for first in ["CONNECT 1024\nrest", "connect 1024\nrest", "connect 1024\r\nrest"] {
            let (server, mut client) = said(first.as_bytes()).await;
            let mut answer = [0; 8];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"OK 1024\n");
            let mut rest = [0; 4];
            server.unwrap().read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"rest");
        }
    }

    #[tokio::test]
    async fn a_ttrpc_frame_is_left_whole() {
        let frame = [0, 0, 0, 4, 0, 0, 0, 1, 1, 0];
        let (server, _client) = said(&frame).await;
        let mut read = [0; 10];
        server.unwrap().read_exact(&mut read).await.unwrap();
        assert_eq!(read, frame);
    }

    #[tokio::test]
    async fn another_port_a_long_line_and_no_text_are_closed() {
        let long = [b'C'; 64];
        for first in [&b"CONNECT 1025\n"[..], b"CONNECT 22\n", b"Connect 1024\n", b"CONNECT\n", b"C\xff\n", &long] {
            assert!(said(first).await.0.is_err(), "{first:?}");
        }
    }

    #[tokio::test]
    async fn a_silent_connection_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kata.sock");
        let mut connections = hybrid(server::root_socket(&path).unwrap());
        let _silent = UnixStream::connect(&path).await.unwrap();
        let mut begun = UnixStream::connect(&path).await.unwrap();
        begun.write_all(b"CONN").await.unwrap();
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"CONNECT 1024\n").await.unwrap();
        let mut served = connections.next().await.unwrap().unwrap();
        served.write_all(b"!").await.unwrap();
        let mut answer = [0; 9];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"OK 1024\n!");
    }
}
