//! Standard input, output and error of a workload, carried at the same time.

use std::io::Write;

use protocols::rpc::launch as rpc;
use tokio::io::AsyncReadExt as _;

use crate::agent::{Agent, patiently};
use crate::outcome::Failure;

/// One read asks for this much.
const CHUNK: u32 = 1 << 20;
/// One write sends this much.
const INPUT: usize = 64 * 1024;

/// Which of the workload's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// Copies a stream of the workload to ours until it ends.
pub(crate) async fn carry(agent: Agent, container: String, stream: Stream) -> Result<(), Failure> {
    let request = rpc::ReadRequest { container_id: container, len: CHUNK, ..Default::default() };
    let mut open = true;
    loop {
        let read = match stream {
            Stream::Stdout => agent.client().read_stdout(patiently(), &request).await,
            Stream::Stderr => agent.client().read_stderr(patiently(), &request).await,
        };
        let data = read.map_err(|error| agent.failure(&error))?.data;
        if data.is_empty() {
            return Ok(());
        }
        // Whoever read our output may be gone; the workload is still emptied so that it can end.
        open = open && write(stream, &data)?;
    }
}

fn write(stream: Stream, data: &[u8]) -> Result<bool, Failure> {
    fn all(mut to: impl Write, data: &[u8]) -> std::io::Result<()> {
        to.write_all(data)?;
        to.flush()
    }
    let written = match stream {
        Stream::Stdout => all(std::io::stdout().lock(), data),
        Stream::Stderr => all(std::io::stderr().lock(), data),
    };
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Io(format!("{stream:?}: {error}"))),
    }
}

/// Copies our standard input to the workload until either ends.
pub(crate) async fn feed(agent: Agent, container: String) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; INPUT];
    loop {
        let count = stdin.read(&mut buffer).await.unwrap_or(0);
        let mut rest = buffer.get(..count).unwrap_or_default();
        loop {
            let request =
                rpc::WriteRequest { container_id: container.clone(), data: rest.to_vec(), ..Default::default() };
            // The workload may end before its input does: nobody is left to be told.
            let Ok(written) = agent.client().write_stdin(patiently(), &request).await else { return };
            rest = usize::try_from(written.len).ok().and_then(|len| rest.get(len..)).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
        if count == 0 {
            return;
        }
    }
}
