//! Registry and attestor on this machine, the agent and everything it runs in the emulated one.

use std::path::Path;
use std::time::SystemTime;

use integration_tests::process::{binary, program};
use integration_tests::vm::Guest;
use integration_tests::{Options, Tee, World, initdata, kata};
use toml::{Table, Value};

/// What a disk, a network, a TPM and images take.
const MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_net", "tpm_tis", "crc32c_generic", "loop", "dm-verity", "erofs", "overlay"];
/// Where QEMU shows this machine's loopback to the guest.
const HOST: &str = "10.0.2.2";
/// What the measured configuration lets the host do: nothing.
const CLOSED: &str = "package agent_policy\n";

/// Everything outside the guest.
pub(crate) struct Scene {
    pub(crate) world: World,
    /// Whether the image store lies on the disk with the serial `images`.
    pub(crate) image_disk: bool,
}

impl Scene {
    pub(crate) fn new(tee: Tee) -> Self {
        let world = World::without_agent(Options { tee, ..Options::default() });
        let bundle = world.path("pause");
        kata::pause_bundle(&bundle);
        // The archive the guest is unpacked from has no times.
        for place in ["rootfs/busybox", "rootfs", ""] {
            let file = std::fs::File::open(bundle.join(place)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        Self { world, image_disk: false }
    }

    /// The agent's configuration in the guest: no policy and no signer of its own, both come with the initdata.
    pub(crate) fn configuration(&self) -> Table {
        let mut table: Table = std::fs::read_to_string(self.world.path("agent.toml")).unwrap().parse().unwrap();
        let mut set = |place: &str, key: &str, value: Value| {
            let table = if place.is_empty() { &mut table } else { table[place].as_table_mut().unwrap() };
            table.insert(key.to_owned(), value);
        };
        set("", "state_dir", "/run/tcl".into());
        set("", "image_dir", "/run/tcl/images".into());
        set("listen", "unix", "/run/tcl/agent.sock".into());
        set("runtime", "path", "/usr/bin/runc".into());
        if self.world.tpm.is_some() {
            set("attester", "device", "/dev/tpmrm0".into());
        } else {
            set("attester", "pki", "/etc/pki".into());
            set("attester", "initdata", "/etc/launched-with.toml".into());
        }
        // An emulated machine is slow.
        set("attestor", "timeout_seconds", 60.into());
        set("registry", "stall_seconds", 60.into());
        set("registry", "request_seconds", 60.into());
        let digest = kata::pause_digest(&self.world.path("pause"));
        let sandbox = format!(
            "listen = \"unix:///run/kata.sock\"\npolicy = \"/etc/policy.rego\"\npause_bundle = \"/pause\"\n\
             pause_digest = \"{digest}\"\n"
        );
        set("", "kata", Value::Table(sandbox.parse().unwrap()));
        let rules = "allow = [\"policy\", \"signers\"]\nrequired = true\n";
        set("", "initdata", Value::Table(rules.parse().unwrap()));
        table.remove("signers");
        if self.image_disk {
            let disk = "serial = \"images\"\nmke2fs = \"/usr/bin/mke2fs\"\n";
            table.insert("image_disk".to_owned(), Value::Table(disk.parse().unwrap()));
        }
        table
    }

    /// The initdata: an open policy, and the signer of this world's images.
    pub(crate) fn initdata(&self) -> String {
        let agent: Table = std::fs::read_to_string(self.world.path("agent.toml")).unwrap().parse().unwrap();
        let mut signers = Table::new();
        signers.insert("signers".to_owned(), agent["signers"].clone());
        let files = [("policy.rego", kata::open_policy()), ("guest-agent.toml", signers.to_string())];
        initdata::text("sha256", &files.each_ref().map(|(name, content)| (*name, content.as_str())))
    }

    /// The guest: the agent, what it runs, and what the script speaks to it with. It was launched with one initdata
    /// and has a disk with another, or the same.
    pub(crate) fn guest(&self, launched_with: &str, attached: &str) -> Guest {
        let disk = initdata::attach(&self.world.path("disks"), attached);
        let drive = format!("file={},if=none,id=d0,format=raw,readonly=on", disk.display());
        let mut guest = Guest::new()
            .modules(MODULES)
            .qemu(&["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile="])
            .qemu(&["-drive", &drive, "-device", "virtio-blk-pci,drive=d0"])
            .program(&binary("guest-agent"))
            .program(Path::new(env!("CARGO_BIN_EXE_vm_guest")))
            .program(&program("runc"))
            .file("/etc/trusted-container-launcher/guest-agent.toml", self.configuration().to_string())
            .file("/etc/launched-with.toml", launched_with)
            .file("/etc/policy.rego", CLOSED)
            .file("/etc/hostname", "first\n")
            .file("/etc/resolv.conf", "")
            .copy("/pause/rootfs/busybox", &program("busybox"))
            .file("/pause/config.json", std::fs::read(self.world.path("pause/config.json")).unwrap());
        for entry in std::fs::read_dir(self.world.path("pki")).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            guest = guest.file(&format!("/etc/pki/{name}"), std::fs::read(&path).unwrap());
        }
        guest.first_process("/usr/bin/guest-agent")
    }

    /// The guest with this world's TPM on its bus, whose key the attestor takes for a hardware TPM's: to the guest it is
    /// a device, and that it is emulated outside is nothing the guest could know.
    pub(crate) fn guest_with_tpm(&mut self, launched_with: &str, attached: &str) -> Guest {
        self.world.kill_broker();
        self.world.edit_broker(|broker| {
            broker["tpm"]["ak"][0].as_table_mut().unwrap().insert("simulated".into(), false.into());
        });
        self.world.start_broker();
        let control = self.world.tpm.as_mut().unwrap().into_machine();
        let channel = format!("socket,id=tpm,path={}", control.display());
        self.guest(launched_with, attached).qemu(&[
            "-chardev",
            &channel,
            "-tpmdev",
            "emulator,id=t0,chardev=tpm",
            "-device",
            "tpm-tis,tpmdev=t0",
        ])
    }

    /// What every script begins with: the network up, the way to registry and attestor, and an agent that listens.
    pub(crate) fn prologue(&self) -> String {
        self.network()
            + "kata() { vm_guest kata \"$@\"; }
             until_ready '[ -S /run/kata.sock ]'\n"
    }

    /// The network up, and the way to registry and attestor.
    pub(crate) fn network(&self) -> String {
        let attestor = self.world.attestor_url();
        let forwards = [self.world.registry_address(), attestor.trim_start_matches("http://")].map(|address| {
            let port = address.rsplit(':').next().unwrap();
            format!("vm_guest forward 127.0.0.1:{port} {HOST}:{port} &\n")
        });
        format!(
            "until_ready() {{ n=0; until eval \"$1\"; do n=$((n+1)); [ $n -lt 120 ] || {{ echo \"never: $1\"; exit 9; }}; sleep 1; done; }}
             until_ready 'ip addr show lo | grep -q 127.0.0.1'
             ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via {HOST}
             {}",
            forwards.concat()
        )
    }
}
