//! Whether the agent serves: `grpc.Health/Check` over ttrpc, through hybrid vsock.
//!
//! A frame is a header of ten bytes (length, stream, both big-endian; type 1: request, 2: response; flags) and a protobuf
//! message: `ttrpc.Request { service = 1, method = 2, payload = 3, timeout_nano = 4 }`.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PORT: u32 = 1024;
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER: usize = 4096;

/// Connects to a port of the guest, as the Kata runtimes do.
///
/// # Errors
/// Nobody listens there yet; before a guest is up its connections are reset.
pub fn connect(hybrid_vsock: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(hybrid_vsock)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut line = Vec::new();
    let mut byte = [0];
    // Byte by byte: what follows the line is the peer's.
    while byte != *b"\n" && line.len() < 64 {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if line.starts_with(b"OK ") { Ok(stream) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
}

/// Whether the agent answers that it serves.
///
/// # Errors
/// It does not answer, or not so.
pub fn check(hybrid_vsock: &Path) -> io::Result<()> {
    let mut stream = connect(hybrid_vsock, PORT)?;
    let mut request = Vec::new();
    for (tag, text) in [(0x0a, "grpc.Health"), (0x12, "Check")] {
        request.extend([tag, u8::try_from(text.len()).unwrap_or_default()]);
        request.extend(text.as_bytes());
    }
    let length = u32::try_from(request.len()).unwrap_or_default();
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 1, 1, 0]);
    frame.extend(request);
    stream.write_all(&frame)?;
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let length = header.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
    let mut answer = vec![0; length.min(MAX_ANSWER)];
    stream.read_exact(&mut answer)?;
    // `Response { payload = 2 }` with `HealthCheckResponse { status = 1 }`: SERVING is 1.
    if answer.windows(4).any(|bytes| bytes == [0x12, 0x02, 0x08, 0x01]) {
        Ok(())
    } else {
        Err(io::Error::other("it does not serve"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn answered(with: &'static [u8]) -> io::Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"CONNECT 1024\n");
            stream.write_all(with).unwrap();
            let mut frame = [0; 30];
            if with.starts_with(b"OK") {
                stream.read_exact(&mut frame).unwrap();
            }
            frame
        });
        let done = check(&path);
        let frame = peer.join().unwrap();
        if done.is_ok() {
            assert_eq!(&frame, b"\0\0\0\x14\0\0\0\x01\x01\0\x0a\x0bgrpc.Health\x12\x05Check");
        }
        done
    }

    #[test]
    fn only_an_agent_that_serves_is_healthy() {
        answered(b"OK 1024\n\0\0\0\x04\0\0\0\x01\x02\0\x12\x02\x08\x01").unwrap();
        assert!(answered(b"OK 1024\n\0\0\0\x04\0\0\0\x01\x02\0\x12\x02\x08\x02").is_err());
        assert!(answered(b"NO 1024\n").is_err());
        assert!(answered(b"").is_err());
    }
}
