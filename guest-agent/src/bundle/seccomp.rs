//! The system calls no container may make. The profile is part of the measured spec; no request changes it.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
/// `AF_VSOCK` of `linux/socket.h`: the host's sockets, which no namespace keeps apart.
const AF_VSOCK: u64 = 40;
/// The kernel reads an `int`; comparing all 64 bits of the argument would let `1 << 32 | 40` pass.
const INT: u64 = 0xffff_ffff;

/// Denied with EPERM. What a kernel or libseccomp does not know by name is not there to be called.
const DENIED: &[&str] = &[
    // Kernel, keys, clocks, devices and accounting.
    "_sysctl",
    "acct",
    "add_key",
    "bpf",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_settime",
    "clock_settime64",
    "create_module",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "get_kernel_syms",
    "init_module",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "nfsservctl",
    "perf_event_open",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "sysfs",
    "syslog",
    "uselib",
    "ustat",
    "vhangup",
    "vm86",
    "vm86old",
    // Mounts, namespaces, and files by handle.
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "pivot_root",
    "setns",
    "umount",
    "umount2",
    "unshare",
    // Other processes, and memory as attacks on the kernel use it.
    "kcmp",
    "mbind",
    "migrate_pages",
    "move_pages",
    "pidfd_getfd",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "userfaultfd",
    // It makes sockets and opens files past this filter.
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
];

/// `CLONE_NEW*` of `linux/sched.h`: NS, CGROUP, UTS, IPC, USER, PID, NET.
const NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Everything but the calls above, vsock sockets and new namespaces. Programs of another than the kernel's own
/// architecture (32-bit ones) are killed: their `socketcall` hides its arguments from a filter.
pub(super) fn profile() -> Result<LinuxSeccomp, OciSpecError> {
    let mut calls = vec![
        denied(DENIED, EPERM, None)?,
        // Its flags lie in memory where no filter sees them: without it, libraries fall back to clone.
        denied(&["clone3"], ENOSYS, None)?,
        denied(&["socket", "socketpair"], EPERM, Some(masked(INT, AF_VSOCK)?))?,
    ];
    for flag in NAMESPACES {
        calls.push(denied(&["clone"], EPERM, Some(masked(flag, flag)?))?);
    }
    LinuxSeccompBuilder::default().default_action(LinuxSeccompAction::ScmpActAllow).syscalls(calls).build()
}

fn denied(names: &[&str], errno: u32, arg: Option<LinuxSeccompArg>) -> Result<LinuxSyscall, OciSpecError> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let call = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActErrno).errno_ret(errno);
    match arg {
        Some(arg) => call.args(vec![arg]).build(),
        None => call.build(),
    }
}

/// The first argument, of which `mask` leaves `value`.
fn masked(mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    let op = LinuxSeccompOperator::ScmpCmpMaskedEq;
    LinuxSeccompArgBuilder::default().index(0usize).value(mask).value_two(value).op(op).build()
}
