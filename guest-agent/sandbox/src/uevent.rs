//! Kernel events about devices, over netlink: they end a wait early, and nothing is believed on their word alone.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// The kernel's group of events; group 2 is udev's retelling.
const KERNEL_GROUP: u32 = 1;
/// The largest event the kernel makes is 2 KiB of variables and a path.
const MAX_EVENT: usize = 8192;
/// How long a wait trusts in hearing of everything.
const RECHECK: Duration = Duration::from_millis(100);

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `online`, ...
    pub action: String,
    /// The device's directory beneath `/sys`, such as `/devices/pci0000:00/...`.
    pub devpath: String,
    /// `block`, `net`, `memory`, ...
    pub subsystem: String,
    /// The node beneath `/dev`, if it has one.
    pub devname: String,
}

impl Uevent {
    /// Reads `ACTION@DEVPATH` and the variables after it, each ended by a zero byte. Strict about what is needed:
    /// the head must say what the variables say.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_EVENT {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.strip_suffix('\0')?.split('\0');
        let (head_action, head_path) = parts.next()?.split_once('@')?;
        let (mut action, mut devpath, mut subsystem, mut devname) = (None, None, None, None);
        for part in parts {
            let (key, value) = part.split_once('=')?;
            let place = match key {
                "ACTION" => &mut action,
                "DEVPATH" => &mut devpath,
                "SUBSYSTEM" => &mut subsystem,
                "DEVNAME" => &mut devname,
                _ => continue,
            };
            if place.replace(value.to_owned()).is_some() {
                return None;
            }
        }
        let (action, devpath) = (action?, devpath?);
        let sound = action == head_action && devpath == head_path && devpath.starts_with('/');
        sound.then(|| Self {
            action,
            devpath,
            subsystem: subsystem.unwrap_or_default(),
            devname: devname.unwrap_or_default(),
        })
    }
}

/// Listens to the kernel from now on. The socket's buffer is the queue, and bounds it.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Waits for something to read, for at most `timeout`, and reads all there is. An overrun is no loss: who
    /// waits looks for itself.
    fn wait(&self, timeout: Duration) -> Result<Vec<Uevent>, Errno> {
        let limit = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut heard = Vec::new();
        let mut buffer = [0; MAX_EVENT];
        loop {
            match recv(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((length, _)) => heard.extend(buffer.get(..length).and_then(Uevent::parse)),
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(heard),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Calls `look` until it finds something: at once, after every event of `subsystem`, and every 100 ms, since a kernel
/// may tell nobody. Gives nothing when `timeout` is over.
pub(crate) fn wait_for<T>(subsystem: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    // Before the first look: what comes between the two is heard.
    let listener = Listener::open().ok();
    let end = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let recheck = Instant::now() + RECHECK;
        loop {
            let now = Instant::now();
            let left = recheck.min(end).saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            match listener.as_ref().map(|listener| listener.wait(left)) {
                Some(Ok(heard)) if heard.iter().any(|event| event.subsystem == subsystem) => break,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => std::thread::sleep(left),
            }
        }
        if Instant::now() >= end {
            return look();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: &[u8] = b"add@/devices/pci0000:00/0000:00:02.0/virtio1/block/vdb\0ACTION=add\0DEVPATH=/devices/pci0000:00/0000:00:02.0/virtio1/block/vdb\0SUBSYSTEM=block\0MAJOR=254\0DEVNAME=vdb\0SEQNUM=1207\0";

    #[test]
    fn a_kernel_event_is_read() {
        let event = Uevent::parse(ADD).unwrap();
        assert_eq!((event.action.as_str(), event.subsystem.as_str(), event.devname.as_str()), ("add", "block", "vdb"));
        assert!(event.devpath.ends_with("/block/vdb"));
    }

    #[test]
    fn what_is_not_quite_an_event_is_none() {
        let cut = &ADD[..ADD.len() - 1];
        let huge = [ADD, &vec![b'x'; MAX_EVENT]].concat();
        let bad: [&[u8]; 9] = [
            b"",
            b"\0",
            cut,
            &huge,
            b"libudev\0\xFE\xED\xCA\xFE",
            b"add@/a\0ACTION=remove\0DEVPATH=/a\0",
            b"add@/a\0ACTION=add\0DEVPATH=/b\0",
            b"add@/a\0ACTION=add\0DEVPATH=/a\0DEVPATH=/a\0",
            b"add@a\0ACTION=add\0DEVPATH=a\0",
        ];
        for bytes in bad {
            assert_eq!(Uevent::parse(bytes), None, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_real_event_is_heard() {
        let listener = Listener::open().unwrap();
        // The kernel repeats a device's event for whoever writes here.
        std::fs::write("/sys/devices/virtual/mem/null/uevent", "change").unwrap();
        let mut heard = Vec::new();
        while !heard.iter().any(|event: &Uevent| event.devname == "null") {
            heard.extend(listener.wait(Duration::from_secs(10)).unwrap());
        }
        let event = heard.iter().find(|event| event.devname == "null").unwrap();
        assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("change", "mem"));
    }

    #[test]
    fn a_wait_ends_with_what_it_finds_or_with_nothing() {
        let mut looks = 0;
        let found = wait_for("block", Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some("found")
        });
        assert_eq!(found, Some("found"));
        assert_eq!(wait_for("block", Duration::from_millis(1), || None::<()>), None);
    }
}
