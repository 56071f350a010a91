//! Leaving namespaces: safe for every kind but the table of descriptors, which cannot be named here.
#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A namespace that a thread can leave for a new one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Network devices, addresses, routes.
    Net,
    /// Mounts; the thread also gets a working directory and umask of its own.
    Mount,
}

/// Moves the calling thread, and no other, into new namespaces.
///
/// # Errors
/// What the kernel said: without `CAP_SYS_ADMIN` nothing can be left.
pub fn unshare(namespaces: &[Namespace]) -> io::Result<()> {
    let flags = namespaces.iter().fold(UnshareFlags::empty(), |flags, namespace| {
        flags
            | match namespace {
                Namespace::Ipc => UnshareFlags::NEWIPC,
                Namespace::Uts => UnshareFlags::NEWUTS,
                Namespace::Net => UnshareFlags::NEWNET,
                Namespace::Mount => UnshareFlags::NEWNS,
            }
    });
    // SAFETY: the one hazard is `UnshareFlags::FILES`, by which a descriptor would mean different files in two
    // threads; no variant above gives it, and none of them implies it.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_moves() {
        let name = || std::fs::read_link("/proc/thread-self/ns/uts").unwrap();
        let before = name();
        let inside = std::thread::spawn(move || {
            unshare(&[Namespace::Uts, Namespace::Ipc]).unwrap();
            name()
        });
        assert_ne!(inside.join().unwrap(), before);
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/uts").unwrap(), before);
    }
}
