//! What a sandbox reads of the kernel's and the host's texts.

use sandbox::parse_interface_stats;
use sandbox::storage::MountOptions;
use sandbox::uevent::Uevent;

/// The options the target allows.
const KNOWN: &[&str] = &["size=", "mode=", "discard"];

/// A kernel event: what parses names a device by an absolute path, and writes back as something that parses alike.
///
/// # Panics
/// When it does not.
pub fn uevent(bytes: &[u8]) {
    let Some(event) = Uevent::parse(bytes) else { return };
    assert!(event.devpath.starts_with('/'));
    let Uevent { action, devpath, subsystem, devname } = &event;
    let again =
        format!("{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0SUBSYSTEM={subsystem}\0DEVNAME={devname}\0");
    if again.len() <= 8192 {
        assert_eq!(Uevent::parse(again.as_bytes()).as_ref(), Some(&event));
    }
}

/// Mount options, a line each: what is accepted brings neither devices nor setuid programs, and no option twice.
///
/// # Panics
/// When it does.
pub fn mount_options(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines: Vec<&str> = text.lines().collect();
    if MountOptions::parse(&lines, KNOWN).is_err() {
        return;
    }
    let mut seen = Vec::new();
    for option in lines.iter().flat_map(|line| line.split(',')) {
        assert!(!matches!(option, "dev" | "suid" | "exec"), "{option}");
        if let Some((name, value)) = option.split_once('=') {
            assert!(!seen.contains(&name), "{name} twice");
            assert!(!value.contains(['/', ' ', ':', '\0']), "{value}");
            seen.push(name);
        }
    }
}

/// The kernel's table of interfaces.
///
/// # Panics
/// When there are more than lines, or the loopback interface is among them.
pub fn interface_table(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let stats = parse_interface_stats(&text);
    assert!(stats.len() <= text.lines().count() && stats.iter().all(|stats| stats.name != "lo"));
}

pub(super) fn uevents() -> Vec<Vec<u8>> {
    vec![
        b"add@/devices/virtio1/block/vdb\0ACTION=add\0DEVPATH=/devices/virtio1/block/vdb\0SUBSYSTEM=block\0DEVNAME=vdb\0SEQNUM=7\0"
            .to_vec(),
        b"remove@/devices/virtio0/net/eth0\0ACTION=remove\0DEVPATH=/devices/virtio0/net/eth0\0SUBSYSTEM=net\0INTERFACE=eth0\0"
            .to_vec(),
    ]
}

pub(super) fn options() -> Vec<Vec<u8>> {
    vec![b"noexec,nosuid\nnodev\nmode=1777\nsize=67108864".to_vec(), b"ro,noatime\ndiscard\nsize=50%".to_vec()]
}

pub(super) fn tables() -> Vec<Vec<u8>> {
    let heading = "Inter-| Receive | Transmit\n face |bytes packets |bytes packets\n";
    let lines = "    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0: 16 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1\n";
    vec![format!("{heading}{lines}").into_bytes()]
}
