//! A TPM that refuses to extend: a relay before swtpm's data channel that answers one command itself.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// TPM2_PCR_Extend.
const PCR_EXTEND: [u8; 4] = 0x0000_0182u32.to_be_bytes();
/// TPM_ST_NO_SESSIONS, ten bytes, TPM_RC_FAILURE.
const REFUSED: [u8; 10] = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01];

/// A running relay; gone when dropped.
#[derive(Debug)]
pub struct TpmRelay {
    socket: PathBuf,
    refuse: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl TpmRelay {
    /// Listens at `socket` and passes everything on to `tpm`.
    ///
    /// # Panics
    /// When the socket cannot be made.
    #[must_use]
    pub fn start(socket: &Path, tpm: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (refuse, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let relay = Self { socket: socket.to_path_buf(), refuse: Arc::clone(&refuse), ended: Arc::clone(&ended) };
        let tpm = tpm.to_path_buf();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // swtpm serves one client at a time, and so does this.
                let _ = carry(client, &tpm, &refuse);
            }
        });
        relay
    }

    /// Whether extends are refused from now on.
    pub fn refuse_extends(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::SeqCst);
    }
}

impl Drop for TpmRelay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

fn carry(mut client: UnixStream, tpm: &Path, refuse: &AtomicBool) -> std::io::Result<()> {
    let mut upstream = UnixStream::connect(tpm)?;
    loop {
        let command = packet(&mut client)?;
        if refuse.load(Ordering::SeqCst) && command.get(6..10) == Some(PCR_EXTEND.as_slice()) {
            client.write_all(&REFUSED)?;
            continue;
        }
        upstream.write_all(&command)?;
        let answer = packet(&mut upstream)?;
        client.write_all(&answer)?;
    }
}

/// One command or response: its size is in bytes 2 to 5.
fn packet(from: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 10];
    from.read_exact(&mut bytes)?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(usize::try_from(size).unwrap().max(10), 0);
    from.read_exact(&mut bytes[10..])?;
    Ok(bytes)
}
