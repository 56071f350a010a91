//! A container's standard streams: bounded, and nothing is read before somebody asks for it.
//!
//! What a container writes stays in the kernel's pipe (or terminal) until a caller reads it; a full pipe makes
//! the container wait. What is left when the container ends stays readable until its record is removed.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The most one read gives, in bytes.
pub const MAX_READ: usize = 1024 * 1024;
/// The size asked for output pipes, in bytes; the kernel's default stays where it is refused.
const PIPE_SIZE: usize = 1024 * 1024;
/// What a terminal takes as the end of input: Ctrl-D.
const END_OF_INPUT: &[u8] = &[4];

/// One direction of output.
#[derive(Debug)]
pub struct Output {
    /// `None` from the end of the stream on: a descriptor nobody needs is closed.
    source: StdMutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    /// Held by the reader whose turn it is: readers get parts of the stream in the order they came.
    turn: Mutex<()>,
}

impl Output {
    /// An output that has ended.
    #[must_use]
    pub fn ended() -> Self {
        Self { source: StdMutex::new(None), turn: Mutex::new(()) }
    }

    fn of(fd: Arc<AsyncFd<OwnedFd>>) -> Self {
        Self { source: StdMutex::new(Some(fd)), turn: Mutex::new(()) }
    }

    fn source(&self) -> Option<Arc<AsyncFd<OwnedFd>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads as soon as there is anything, at most `len` bytes; empty means the end of the stream. Nothing is lost
    /// when the caller stops waiting.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub async fn read(&self, len: usize) -> std::io::Result<Vec<u8>> {
        let _turn = self.turn.lock().await;
        let Some(fd) = self.source() else { return Ok(Vec::new()) };
        loop {
            let mut ready = fd.readable().await?;
            match self.take(&fd, len)? {
                Some(data) => return Ok(data),
                None => ready.clear_ready(),
            }
        }
    }

    /// Reads what is there and waits for nothing; empty when there is nothing.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub fn read_now(&self, len: usize) -> std::io::Result<Vec<u8>> {
        let Some(fd) = self.source() else { return Ok(Vec::new()) };
        Ok(self.take(&fd, len)?.unwrap_or_default())
    }

    /// Bytes that wait for a reader.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.source().and_then(|fd| rustix::io::ioctl_fionread(fd.get_ref()).ok()).unwrap_or(0)
    }

    /// One read; `None` when there is nothing now.
    fn take(&self, fd: &AsyncFd<OwnedFd>, len: usize) -> std::io::Result<Option<Vec<u8>>> {
        let waiting = rustix::io::ioctl_fionread(fd.get_ref()).ok().and_then(|n| usize::try_from(n).ok());
        // A byte more than nothing, so that the read tells an end from a pause.
        let size = waiting.unwrap_or(4096).clamp(1, len.clamp(1, MAX_READ));
        let mut buffer = Vec::with_capacity(size);
        loop {
            match rustix::io::read(fd.get_ref(), rustix::buffer::spare_capacity(&mut buffer)) {
                // A terminal says EIO when nothing in the container holds it any more.
                Ok(0) | Err(Errno::IO) => {
                    *self.source.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return Ok(Some(Vec::new()));
                }
                Ok(_) => return Ok(Some(buffer)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The container's input.
#[derive(Debug)]
pub struct Input {
    sink: Mutex<Option<Sink>>,
}

#[derive(Debug)]
struct Sink {
    fd: Arc<AsyncFd<OwnedFd>>,
    terminal: bool,
}

impl Input {
    /// An input nobody can write to.
    #[must_use]
    pub fn closed() -> Self {
        Self { sink: Mutex::new(None) }
    }

    /// Writes some of `data` and says how much; 0 when nobody reads it any more. Empty data closes the input.
    ///
    /// # Errors
    /// The descriptor cannot be written.
    pub async fn write(&self, data: &[u8]) -> std::io::Result<usize> {
        let mut guard = self.sink.lock().await;
        let Some(sink) = guard.as_ref() else { return Ok(0) };
        let bytes = match (data.is_empty(), sink.terminal) {
            (false, _) => data,
            (true, true) => END_OF_INPUT,
            (true, false) => {
                *guard = None;
                return Ok(0);
            }
        };
        loop {
            let mut ready = sink.fd.writable().await?;
            match rustix::io::write(sink.fd.get_ref(), bytes) {
                Ok(count) => return Ok(count.min(data.len())),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::IO) => {
                    *guard = None;
                    return Ok(0);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The agent's ends of a container's streams.
#[derive(Debug)]
pub struct Streams {
    /// Standard output; a terminal's both outputs.
    pub stdout: Output,
    /// Standard error; ended from the start on a terminal.
    pub stderr: Output,
    /// Standard input.
    pub stdin: Input,
    /// The terminal's master, while a stream still has it; `None`: pipes.
    terminal: Option<Weak<AsyncFd<OwnedFd>>>,
}

/// The container's ends, handed to the runtime; closed here as soon as it has started.
#[derive(Debug)]
pub struct ContainerEnds {
    /// `None`: `/dev/null`.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

impl Streams {
    /// Pipes for output and, where asked for, input.
    ///
    /// # Errors
    /// No pipes can be made.
    pub fn pipes(stdin: bool) -> std::io::Result<(Self, ContainerEnds)> {
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let (input, stdin_end) = if stdin {
            let (end, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            let fd = Arc::new(watch(nonblocking(write)?, Interest::WRITABLE)?);
            (Input { sink: Mutex::new(Some(Sink { fd, terminal: false })) }, Some(end))
        } else {
            (Input::closed(), None)
        };
        let ends = ContainerEnds { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end };
        Ok((Self { stdout, stderr, stdin: input, terminal: None }, ends))
    }

    /// The streams of a process that has ended, with `text` on its standard error or its terminal.
    ///
    /// # Errors
    /// No pipes can be made, or the text is longer than what they hold.
    pub(crate) fn ended_with(text: &[u8], terminal: bool) -> std::io::Result<Self> {
        let (mut streams, ends) = Self::pipes(false)?;
        rustix::io::write(if terminal { &ends.stdout } else { &ends.stderr }, text)?;
        streams.terminal = terminal.then(Weak::new);
        Ok(streams)
    }

    /// The master of a terminal: one stream both ways.
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    pub fn terminal(master: OwnedFd, stdin: bool) -> std::io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let fd = Arc::new(watch(nonblocking(master)?, interest)?);
        let stdin = if stdin {
            Input { sink: Mutex::new(Some(Sink { fd: Arc::clone(&fd), terminal: true })) }
        } else {
            Input::closed()
        };
        let terminal = Some(Arc::downgrade(&fd));
        Ok(Self { stdout: Output::of(fd), stderr: Output::ended(), stdin, terminal })
    }

    /// Waits until nothing is unread any more, at most until `deadline`.
    pub(crate) async fn drained(&self, deadline: Instant, step: Duration) {
        while self.stdout.unread() + self.stderr.unread() > 0 && Instant::now() < deadline {
            tokio::time::sleep(step).await;
        }
    }

    /// Sets a terminal's size and says whether there is one; a terminal that is gone has every size.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn resize(&self, rows: u16, columns: u16) -> std::io::Result<bool> {
        let Some(terminal) = &self.terminal else { return Ok(false) };
        if let Some(fd) = terminal.upgrade() {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(fd.get_ref(), size)?;
        }
        Ok(true)
    }
}

fn output_pipe() -> std::io::Result<(Output, OwnedFd)> {
    let (read, end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let _ = rustix::pipe::fcntl_setpipe_size(&read, PIPE_SIZE); // only speed depends on it
    let fd = watch(nonblocking(read)?, Interest::READABLE)?;
    Ok((Output::of(Arc::new(fd)), end))
}

/// Watches a descriptor that the kernel can poll.
///
/// # Errors
/// The kernel cannot poll it.
#[expect(deprecated, reason = "an OwnedFd stands for one open file all its life; the successor is `unsafe`")]
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

fn nonblocking(fd: OwnedFd) -> std::io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_read_returns_what_is_there_and_ends_after_the_last_byte() {
        let (streams, ends) = Streams::pipes(false).unwrap();
        rustix::io::write(&ends.stdout, b"hello").unwrap();
        assert_eq!(streams.stdout.read(3).await.unwrap(), b"hel");
        assert_eq!(streams.stdout.read(100).await.unwrap(), b"lo");
        let pause = tokio::time::timeout(Duration::from_millis(50), streams.stdout.read(100)).await;
        assert!(pause.is_err(), "an open, empty pipe is not an end");
        rustix::io::write(&ends.stdout, b"rest").unwrap();
        drop(ends);
        assert_eq!(streams.stdout.read(100).await.unwrap(), b"rest");
        assert_eq!(streams.stdout.read(100).await.unwrap(), b"");
        assert_eq!(streams.stdout.read(100).await.unwrap(), b"");
        assert_eq!(streams.stderr.read(100).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn empty_data_closes_the_input_and_a_gone_reader_is_no_error() {
        let (streams, mut ends) = Streams::pipes(true).unwrap();
        let read_end = ends.stdin.take().unwrap();
        assert_eq!(streams.stdin.write(b"line\n").await.unwrap(), 5);
        assert_eq!(streams.stdin.write(b"").await.unwrap(), 0);
        let mut buffer = [0u8; 16];
        assert_eq!(rustix::io::read(&read_end, &mut buffer).unwrap(), 5);
        assert_eq!(rustix::io::read(&read_end, &mut buffer).unwrap(), 0, "closed");
        assert_eq!(streams.stdin.write(b"late").await.unwrap(), 0);

        let (streams, ends) = Streams::pipes(true).unwrap();
        drop(ends);
        assert_eq!(streams.stdin.write(b"nobody").await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_ended_process_has_said_its_text_where_its_reader_looks() {
        let streams = Streams::ended_with(b"why", false).unwrap();
        assert_eq!(streams.stdout.read(100).await.unwrap(), b"");
        assert_eq!(streams.stderr.read(100).await.unwrap(), b"why");
        assert_eq!(streams.stderr.read(100).await.unwrap(), b"");
        assert!(!streams.resize(1, 1).unwrap());
        let streams = Streams::ended_with(b"why", true).unwrap();
        assert_eq!(streams.stdout.read(100).await.unwrap(), b"why");
        assert!(streams.resize(1, 1).unwrap(), "a terminal that is gone has every size");
    }

    #[tokio::test]
    async fn a_writer_waits_for_its_reader() {
        let (streams, ends) = Streams::pipes(false).unwrap();
        let end = nonblocking(ends.stdout).unwrap();
        let mut held = 0;
        let block = vec![7u8; 4096];
        while let Ok(count) = rustix::io::write(&end, &block) {
            held += count;
        }
        assert!(held <= PIPE_SIZE, "{held}");
        assert_eq!(streams.stdout.read(MAX_READ).await.unwrap().len(), held);
    }
}
