//! Whether the agent serves: `grpc.Health/Check` over ttrpc.
//!
//! A frame is a header of ten bytes (length, stream, both big-endian; type 1: request, 2: response; flags) and a protobuf
//! message: `ttrpc.Request { service = 1, method = 2, payload = 3, timeout_nano = 4 }`.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is read.
const MAX_ANSWER: usize = 4096;

/// Whether the agent at the other end answers that it serves.
///
/// # Errors
/// It does not answer, or not so.
pub fn check(mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
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
    use super::*;

    fn answered(with: &[u8]) -> io::Result<()> {
        let (client, mut agent) = UnixStream::pair().unwrap();
        agent.write_all(with).unwrap();
        if with.is_empty() {
            agent.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let done = check(client);
        let mut frame = [0; 30];
        agent.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"\0\0\0\x14\0\0\0\x01\x01\0\x0a\x0bgrpc.Health\x12\x05Check");
        done
    }

    #[test]
    fn only_an_agent_that_serves_is_healthy() {
        answered(b"\0\0\0\x04\0\0\0\x01\x02\0\x12\x02\x08\x01").unwrap();
        assert!(answered(b"\0\0\0\x04\0\0\0\x01\x02\0\x12\x02\x08\x02").is_err());
        assert!(answered(b"").is_err());
    }
}
