//! The pause bundle: what holds a pod's namespaces, and does nothing.

use std::io;
use std::path::Path;

use crate::tree::Tree;

/// Where the bundle is in a guest.
pub(crate) const PLACE: &str = "/usr/share/guest/pause";

/// Where a container's own file systems are mounted.
pub(crate) const FOLDERS: [&str; 3] = ["proc", "sys", "dev"];

/// The program, for x86-64. Children of others that end are nobody's to wait for once SIGCHLD is ignored (`wait(2)`);
/// signals that could end it do not reach the first process of a namespace, SIGKILL apart.
const CODE: [u8; 40] = [
    0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, 13: rt_sigaction
    0xbf, 0x11, 0x00, 0x00, 0x00, // mov edi, 17: SIGCHLD
    0x48, 0x8d, 0x35, 0x17, 0x00, 0x00, 0x00, // lea rsi, [rip + 23]: the end of the code
    0x31, 0xd2, // xor edx, edx: the old action is not asked for
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8: bytes of a signal set
    0x0f, 0x05, // syscall
    0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34: pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the last mov
    0x0f, 0x0b, // ud2: never reached
    0x90, 0x90, // nop
];
/// `struct sigaction` of the kernel: handler SIG_IGN, no flags, no restorer, no signals.
const ACTION: [u64; 4] = [1, 0, 0, 0];
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// An executable of one segment.
fn program() -> Vec<u8> {
    let size = HEADERS + CODE.len() as u64 + 32;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // ET_EXEC, EM_X86_64.
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + HEADERS, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    // Flags; sizes of this header and of a program header, one of them; no sections.
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(CODE);
    ACTION.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    elf
}

/// Writes the bundle, `config.json` and `rootfs`, into an empty folder of this machine.
///
/// # Errors
/// A file cannot be written.
pub fn pause_bundle(folder: &Path) -> io::Result<()> {
    let mut tree = Tree::default();
    add(&mut tree, "");
    tree.lay_out(folder)
}

/// Adds the bundle.
pub(crate) fn add(tree: &mut Tree, place: &str) {
    tree.file(&format!("{place}/rootfs/pause"), 0o755, program());
    // The root is read-only: what is mounted there needs its place.
    FOLDERS.iter().for_each(|folder| tree.folder(&format!("{place}/rootfs/{folder}")));
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": { "user": { "uid": 65535, "gid": 65535 }, "args": ["/pause"], "env": ["PATH=/"], "cwd": "/" },
        "root": { "path": "rootfs", "readonly": true },
    });
    tree.file(&format!("{place}/config.json"), 0o644, config.to_string());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_runs_until_it_is_killed_and_has_no_zombies() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        add(&mut tree, "/pause");
        tree.lay_out(dir.path()).unwrap();
        let path = dir.path().join("pause/rootfs/pause");
        // A shell leaves a child to what it becomes.
        let mut child = Command::new("sh").args(["-c", "sleep 0.3 & exec \"$0\""]).arg(&path).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1000));
        assert!(child.try_wait().unwrap().is_none(), "it still waits");
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        assert_eq!(children, "", "ended children are gone");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
