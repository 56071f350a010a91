use super::*;
use crate::launch::CapabilitySets;
use protobuf::MessageField;

/// A sandbox on disk, and what it shows of itself.
struct Sandbox {
    dir: tempfile::TempDir,
    sources: MountSources,
    capabilities: BTreeSet<String>,
    devices: BTreeSet<PathBuf>,
}

impl Sandbox {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for made in ["shared", "shm", "ephemeral"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }
        for file in ["shared/hosts", "shared/hostname", "shared/resolv.conf", "secret"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        let mut sources = MountSources::default();
        sources.share(&dir.path().join("shared")).unwrap();
        for storage in ["shm", "ephemeral"] {
            sources.storage(&dir.path().join(storage)).unwrap();
        }
        Self { dir, sources, capabilities: BTreeSet::new(), devices: BTreeSet::new() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn read(&self, request: &CreateContainerRequest) -> Result<LaunchRequest, AgentError> {
        let (ipc, uts) = (Path::new("/run/sandbox-ns/ipc"), Path::new("/run/sandbox-ns/uts"));
        let view = SandboxView {
            hostname: "hkpod",
            ipc,
            uts,
            pause: Some("pause"),
            sources: &self.sources,
            capabilities: &self.capabilities,
            devices: &self.devices,
        };
        launch_request(request, &view)
    }

    fn pod(&self, request: &CreateContainerRequest) -> (LaunchRequest, PodSpec) {
        let launch = self.read(request).unwrap();
        let Place::Pod(pod) = launch.place.clone() else { panic!("{launch:?}") };
        (launch, *pod)
    }

    /// Fails unless the request as changed by `edit` is refused with `code`.
    fn refuses(&self, code: Code, what: &str, edit: impl FnOnce(&mut CreateContainerRequest)) {
        let mut request = self.container();
        edit(&mut request);
        match self.read(&request) {
            Err(error) => assert_eq!(error.code(), code, "{what}: {error}"),
            Ok(launch) => panic!("{what}: {launch:?}"),
        }
    }

    /// The second container of a pod as containerd 1.6 and runtime-rs of kata-containers 4.1.0 ask for it.
    fn container(&self) -> CreateContainerRequest {
        let capabilities = ["CHOWN", "DAC_OVERRIDE", "KILL", "NET_RAW", "SETGID", "SETUID"].map(str::to_owned).to_vec();
        let process = oci::Process {
            User: MessageField::some(oci::User { AdditionalGids: vec![0], ..Default::default() }),
            Args: strings(&["/bin/sh", "-c", "echo"]),
            Env: strings(&["PATH=/bin", "HOSTNAME=hkpod"]),
            Cwd: "/".to_owned(),
            Capabilities: MessageField::some(oci::LinuxCapabilities {
                Bounding: capabilities.clone(),
                Effective: capabilities.clone(),
                Permitted: capabilities,
                ..Default::default()
            }),
            ..Default::default()
        };
        let bind = |destination: &str, source: &str| mount(destination, "bind", &self.path(source), &["rbind"]);
        let mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755"]),
            mount("/dev/pts", "devpts", "devpts", &["newinstance"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid"]),
            mount("/sys", "sysfs", "sysfs", &["ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]),
            bind("/etc/hostname", "shared/hostname"),
            bind("/etc/hosts", "shared/hosts"),
            bind("/dev/shm", "shm"),
            bind("/dev/shm", "shm"),
        ];
        let namespaces = ["ipc", "uts", "mnt"]
            .map(|kind| oci::LinuxNamespace { Type: kind.to_owned(), ..Default::default() })
            .to_vec();
        let resources = oci::LinuxResources {
            Memory: MessageField::some(oci::LinuxMemory { Limit: 67_108_864, Swap: 67_108_864, ..Default::default() }),
            CPU: MessageField::some(oci::LinuxCPU { Quota: 50_000, Period: 100_000, ..Default::default() }),
            ..Default::default()
        };
        let linux = oci::Linux {
            Resources: MessageField::some(resources),
            CgroupsPath: "/hkpod/app".to_owned(),
            Namespaces: namespaces,
            ..Default::default()
        };
        let spec = oci::Spec {
            Version: "1.0.2-dev".to_owned(),
            Process: MessageField::some(process),
            Root: MessageField::some(oci::Root {
                Path: "/run/kata-containers/app/rootfs".to_owned(),
                ..Default::default()
            }),
            Mounts: mounts,
            Linux: MessageField::some(linux),
            ..Default::default()
        };
        CreateContainerRequest {
            container_id: "app".to_owned(),
            storages: vec![pull("localhost/h/bb:1", "container")],
            OCI: MessageField::some(spec),
            sandbox_pidns: true,
            ..Default::default()
        }
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: destination.to_owned(),
        source: source.to_owned(),
        type_: kind.to_owned(),
        options: strings(options),
        ..Default::default()
    }
}

fn pull(source: &str, kind: &str) -> Storage {
    let metadata = serde_json::json!({ "metadata": { "io.kubernetes.cri.container-type": kind } });
    Storage {
        driver: GUEST_PULL.to_owned(),
        driver_options: vec![format!("image_guest_pull={metadata}")],
        source: source.to_owned(),
        fstype: "overlay".to_owned(),
        mount_point: "/run/kata-containers/app/rootfs".to_owned(),
        ..Default::default()
    }
}

fn spec(request: &mut CreateContainerRequest) -> &mut oci::Spec {
    request.OCI.as_mut().unwrap()
}

fn process(request: &mut CreateContainerRequest) -> &mut oci::Process {
    spec(request).Process.as_mut().unwrap()
}

fn linux(request: &mut CreateContainerRequest) -> &mut oci::Linux {
    spec(request).Linux.as_mut().unwrap()
}

#[test]
fn a_container_of_a_real_pod_is_read() {
    let sandbox = Sandbox::new();
    let (launch, pod) = sandbox.pod(&sandbox.container());
    assert_eq!((launch.reference.as_str(), launch.id.as_str()), ("localhost/h/bb:1", "app"));
    assert_eq!((launch.source, launch.terminal, launch.stdin, launch.keep), (Source::Image, false, true, true));
    assert_eq!(launch.process.args, ["/bin/sh", "-c", "echo"]);
    assert_eq!(launch.process.env, ["PATH=/bin", "HOSTNAME=hkpod"]);
    assert_eq!(launch.process.mounts, [], "a pod's own files are not judged");
    let destinations: Vec<&str> = pod.mounts.iter().map(|mount| mount.asked.destination.as_str()).collect();
    assert_eq!(destinations, ["/etc/hostname", "/etc/hosts", "/dev/shm"]);
    assert_eq!(pod.pid, PidNamespace::Of("pause".to_owned()));
    assert_eq!(pod.user, Some(NumericUser { uid: 0, gid: 0, additional: vec![0] }));
    assert_eq!((pod.resources.memory_limit, pod.resources.memory_swap), (Some(67_108_864), None));
    assert_eq!((pod.resources.cpu_quota, pod.resources.cpu_shares), (Some(50_000), None));
    let sets = pod.capabilities.unwrap();
    assert_eq!((sets.bounding.len(), sets.effective.contains("CAP_NET_RAW")), (6, true));
    // The same request again is the same launch.
    assert_eq!(sandbox.read(&sandbox.container()).unwrap(), launch);
}

#[test]
fn the_sandbox_container_is_the_pause_bundle_with_its_own_process() {
    let sandbox = Sandbox::new();
    let mut request = sandbox.container();
    request.storages = vec![pull("pause", "sandbox")];
    request.sandbox_pidns = false;
    process(&mut request).Args = strings(&["/bin/evil"]);
    let (launch, pod) = sandbox.pod(&request);
    assert_eq!((launch.source, launch.reference.as_str()), (Source::Pause, ""));
    assert_eq!(launch.process, Asked::default(), "nothing of the host's process");
    assert_eq!((pod.mounts.len(), pod.user, pod.pid), (0, None, PidNamespace::New));
}

#[test]
fn a_root_file_system_of_the_host_is_refused() {
    let sandbox = Sandbox::new();
    let code = reason::POLICY_ROOTFS;
    sandbox.refuses(code, "no guest pull", |request| request.storages.clear());
    sandbox.refuses(code, "another driver", |request| request.storages[0].driver = "virtio-fs".to_owned());
    sandbox.refuses(code, "two images", |request| request.storages.push(pull("localhost/h/other:1", "container")));
    sandbox.refuses(code, "another root", |request| {
        spec(request).Root.as_mut().unwrap().Path = "/run/kata-containers/shared/containers/app/rootfs".to_owned();
    });
    sandbox
        .refuses(code, "an image as sandbox", |request| request.storages = vec![pull("localhost/h/bb:1", "sandbox")]);
    sandbox.refuses(code, "pause as container", |request| request.storages = vec![pull("pause", "container")]);
    sandbox.refuses(code, "no reference", |request| request.storages = vec![pull("", "container")]);
    sandbox.refuses(code, "no JSON", |request| {
        request.storages[0].driver_options = vec!["image_guest_pull={".to_owned()];
    });
}

#[test]
fn mounts_come_from_the_shared_directory_and_storages_only() {
    let sandbox = Sandbox::new();
    let inside = |name: &str| PathBuf::from(sandbox.path(name));
    std::os::unix::fs::symlink("../secret", inside("shared/link")).unwrap();
    std::os::unix::fs::symlink("/etc", inside("ephemeral/etc")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        inside("shared/fifo"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let one = |mount: oci::Mount| move |request: &mut CreateContainerRequest| spec(request).Mounts = vec![mount];
    for (what, mount) in [
        ("outside", mount("/data", "bind", &sandbox.path("secret"), &[])),
        ("the root", mount("/data", "bind", "/", &[])),
        ("dots", mount("/data", "bind", &sandbox.path("shared/../secret"), &[])),
        ("a link out of the shared directory", mount("/data", "bind", &sandbox.path("shared/link"), &[])),
        ("a link in a storage", mount("/data", "bind", &sandbox.path("ephemeral/etc/passwd"), &[])),
        ("a name that only begins alike", mount("/data", "bind", &sandbox.path("shared-other"), &[])),
        ("not there", mount("/data", "bind", &sandbox.path("shared/none"), &[])),
        ("a pipe", mount("/data", "bind", &sandbox.path("shared/fifo"), &[])),
        ("hosts from a storage", mount("/etc/hosts", "bind", &sandbox.path("ephemeral"), &[])),
        ("hosts as a directory", mount("/etc/hosts", "bind", &sandbox.path("shared"), &[])),
        ("over proc", mount("/proc", "bind", &sandbox.path("shared"), &[])),
        ("another kind of proc", mount("/proc", "tmpfs", "tmpfs", &[])),
        ("over the root", mount("/", "bind", &sandbox.path("shared"), &[])),
        ("relative", mount("data", "bind", &sandbox.path("shared"), &[])),
        ("a file system", mount("/data", "ext4", "/dev/vda", &[])),
    ] {
        sandbox.refuses(reason::POLICY_MOUNT, what, one(mount));
    }
    sandbox.refuses(reason::POLICY_MOUNT, "two that differ", |request| {
        let hosts = |source: &str| mount("/etc/hosts", "bind", &sandbox.path(source), &[]);
        spec(request).Mounts = vec![hosts("shared/hosts"), hosts("shared/hostname")];
    });
    let mut request = sandbox.container();
    let data = mount("/data", "bind", &sandbox.path("ephemeral"), &["rbind", "ro"]);
    spec(&mut request).Mounts = vec![data, mount("/tmp", "tmpfs", "tmpfs", &[])];
    let (launch, pod) = sandbox.pod(&request);
    assert_eq!(launch.process.mounts.len(), 2, "both are judged");
    assert_eq!(pod.mounts.len(), 1);
}

#[test]
fn more_than_a_container_usually_has_needs_the_configuration() {
    let mut sandbox = Sandbox::new();
    let admin = |request: &mut CreateContainerRequest| {
        process(request).Capabilities.as_mut().unwrap().Bounding.push("CAP_NET_ADMIN".to_owned());
    };
    sandbox.refuses(reason::POLICY_CAPABILITIES, "beyond", admin);
    type Set = fn(&mut oci::LinuxCapabilities) -> &mut Vec<String>;
    let others: [Set; 4] = [
        |sets| &mut sets.Effective,
        |sets| &mut sets.Permitted,
        |sets| &mut sets.Inheritable,
        |sets| &mut sets.Ambient,
    ];
    for set in others {
        sandbox.refuses(reason::POLICY_CAPABILITIES, "in another set", |request| {
            set(process(request).Capabilities.as_mut().unwrap()).push("SYS_ADMIN".to_owned());
        });
    }
    let null = |request: &mut CreateContainerRequest| {
        linux(request).Devices = vec![oci::LinuxDevice { Path: "/dev/null".to_owned(), ..Default::default() }];
    };
    sandbox.refuses(reason::POLICY_DEVICES, "a device", null);
    sandbox.capabilities.insert("CAP_NET_ADMIN".to_owned());
    sandbox.devices.insert("/dev/null".into());
    let mut request = sandbox.container();
    admin(&mut request);
    null(&mut request);
    let (_, pod) = sandbox.pod(&request);
    let sets = pod.capabilities.unwrap();
    assert!(sets.bounding.contains("CAP_NET_ADMIN") && !sets.effective.contains("CAP_NET_ADMIN"));
    assert_eq!(pod.devices, ["/dev/null"]);
    // Fewer is the host's to say.
    process(&mut request).Capabilities = MessageField::some(oci::LinuxCapabilities::default());
    assert_eq!(sandbox.pod(&request).1.capabilities, Some(CapabilitySets::default()));
    process(&mut request).Capabilities = MessageField::none();
    assert_eq!(sandbox.pod(&request).1.capabilities, None, "the usual ones");
}

#[test]
fn fields_that_would_change_what_runs_are_refused() {
    let sandbox = Sandbox::new();
    let code = reason::POLICY_SPEC;
    sandbox.refuses(code, "no specification", |request| request.OCI = MessageField::none());
    sandbox.refuses(code, "no process", |request| spec(request).Process = MessageField::none());
    sandbox.refuses(code, "another exec_id", |request| request.exec_id = "other".to_owned());
    sandbox.refuses(code, "string_user", |request| request.string_user = MessageField::some(Default::default()));
    sandbox.refuses(code, "a stream's port", |request| request.stdout_port = 5);
    sandbox.refuses(code, "a hook", |request| {
        let hook = oci::Hook { Path: "/bin/sh".to_owned(), ..Default::default() };
        spec(request).Hooks = MessageField::some(oci::Hooks { Prestart: vec![hook], ..Default::default() });
    });
    sandbox.refuses(code, "id mappings", |request| linux(request).UIDMappings.push(Default::default()));
    for (kind, path) in [("pid", "/proc/1/ns/pid"), ("mnt", "/proc/1/ns/mnt"), ("user", ""), ("time", "")] {
        sandbox.refuses(code, kind, |request| {
            let (kind, path) = (kind.to_owned(), path.to_owned());
            linux(request).Namespaces.push(oci::LinuxNamespace { Type: kind, Path: path, ..Default::default() });
        });
    }
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("kernel.core_pattern", "1"),
        ("kernel.hostname", "1"),
        ("kernel.shmmax", "|/bin/sh"),
        ("fs.mqueue.../x", "1"),
    ] {
        sandbox.refuses(code, name, |request| {
            linux(request).Sysctl.insert(name.to_owned(), value.to_owned());
        });
    }
    for (kind, hard, soft) in [("RLIMIT_NOFILE", 5, 6), ("NOFILE", 5, 5), ("", 0, 0)] {
        sandbox.refuses(code, kind, |request| {
            let limit = oci::POSIXRlimit { Type: kind.to_owned(), Hard: hard, Soft: soft, ..Default::default() };
            process(request).Rlimits = vec![limit];
        });
    }
    sandbox.refuses(code, "masked paths", |request| linux(request).MaskedPaths = strings(&["../etc"]));
    sandbox.refuses(code, "cpus", |request| {
        linux(request).Resources.as_mut().unwrap().CPU.as_mut().unwrap().Cpus = "all".to_owned();
    });
    let mut request = sandbox.container();
    linux(&mut request).Sysctl.insert("kernel.shm_rmid_forced".to_owned(), "1".to_owned());
    process(&mut request).OOMScoreAdj = -998;
    let (_, pod) = sandbox.pod(&request);
    assert_eq!((pod.sysctl.len(), pod.oom_score_adj), (1, Some(-998)), "bounded where the agent's own is known");
}
