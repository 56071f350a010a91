//! One conversation with a TPM: a kernel device, or swtpm's data channel by socket.
//!
//! A connection is made for each transaction and closed after it: swtpm serves one client at a time, and
//! the kernel's resource manager then drops whatever was left loaded.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use protocols::tpm::{self, Command, TpmError};

use crate::TpmAddress;

/// How long one command may take; the slowest, making a primary key on a discrete TPM, takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a TPM that answers "retry" or "testing" is asked again.
const RETRY_FOR: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const MAX_ANSWER: usize = 4096;

/// A conversation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tpm(#[from] TpmError),
}

#[derive(Debug)]
enum Channel {
    Device(File),
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    channel: Channel,
}

impl Connection {
    pub(crate) fn open(address: &TpmAddress) -> io::Result<Self> {
        let channel = match address {
            TpmAddress::Device(path) => {
                let open = || OpenOptions::new().read(true).write(true).open(path);
                // `/dev/tpm0` has one user at a time.
                Channel::Device(until_free(open, io::ErrorKind::ResourceBusy)?)
            }
            TpmAddress::Unix(path) => {
                let stream = until_free(|| UnixStream::connect(path), io::ErrorKind::WouldBlock)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Channel::Unix(stream)
            }
            TpmAddress::Tcp(address) => {
                let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
                let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Channel::Tcp(stream)
            }
        };
        Ok(Self { channel })
    }

    /// Sends `command` until the TPM takes it, and reads its answer.
    pub(crate) fn run<T>(&mut self, command: &Command<T>) -> Result<T, TransportError> {
        let deadline = Instant::now() + RETRY_FOR;
        loop {
            let answer = self.exchange(command.bytes())?;
            match command.answer(&answer) {
                Err(error) if error.is_transient() && Instant::now() < deadline => sleep(RETRY_PAUSE),
                other => return Ok(other?),
            }
        }
    }

    fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        match &mut self.channel {
            Channel::Device(file) => {
                // The driver takes a command as one write and gives its answer as one read.
                if file.write(command)? != command.len() {
                    return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                }
                let mut answer = vec![0; MAX_ANSWER];
                let size = file.read(&mut answer)?;
                answer.truncate(size);
                Ok(answer)
            }
            Channel::Unix(stream) => exchange_stream(stream, command),
            Channel::Tcp(stream) => exchange_stream(stream, command),
        }
    }
}

fn exchange_stream(stream: &mut (impl Read + Write), command: &[u8]) -> Result<Vec<u8>, TransportError> {
    stream.write_all(command)?;
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let rest = tpm::answer_size(&header)? - header.len();
    let mut answer = header.to_vec();
    let limit = u64::try_from(rest).unwrap_or_default();
    if stream.take(limit).read_to_end(&mut answer)? != rest {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(answer)
}

fn until_free<T>(open: impl Fn() -> io::Result<T>, busy: io::ErrorKind) -> io::Result<T> {
    let deadline = Instant::now() + RETRY_FOR;
    loop {
        match open() {
            Err(error) if error.kind() == busy && Instant::now() < deadline => sleep(RETRY_PAUSE),
            other => return other,
        }
    }
}
