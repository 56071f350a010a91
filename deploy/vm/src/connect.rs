//! Hybrid vsock: a guest's ports behind one unix socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long the guest may take to say that a port is open.
const ANSWER: Duration = Duration::from_secs(20);
/// The longest first line, in bytes.
const LINE: usize = 64;

/// Connects to a port of the guest. Neither side may be shut down alone afterwards: the reply would be lost.
///
/// # Errors
/// Nobody listens there; before a guest is up, its connections are reset.
pub fn connect(socket: &Path, port: u32) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let mut line = Vec::new();
    let mut byte = [0];
    // One byte at a time: what follows the line is the guest's.
    while line.len() < LINE && stream.read(&mut byte)? == 1 {
        if byte == *b"\n" {
            break;
        }
        line.extend(byte);
    }
    if !line.starts_with(b"OK") {
        return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_line_of_the_device_is_read_and_what_follows_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let answers: [&[u8]; 3] = [b"OK 1024\nrest", b"", b"NO\n"];
        let device = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 13];
                stream.read_exact(&mut asked).unwrap();
                assert_eq!(&asked, b"CONNECT 1024\n");
                stream.write_all(answer).unwrap();
            }
        });
        let mut rest = String::new();
        connect(&path, 1024).unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "rest");
        assert!(connect(&path, 1024).is_err(), "a closed port");
        assert!(connect(&path, 1024).is_err(), "another answer");
        device.join().unwrap();
    }
}
