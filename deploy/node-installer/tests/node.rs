//! The installer on a node: a folder that it takes for the node's root, with a busybox for its programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

struct Node {
    folder: tempfile::TempDir,
    _api: Ended,
    port: String,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["host/bin", "host/mnt/opt/kata", "host/etc/containerd/conf.d", "guest", "account", "run"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        // A link that leads elsewhere when it is followed from outside.
        symlink("/mnt/opt", at("host/opt")).unwrap();
        fs::copy("/bin/busybox", at("host/bin/busybox")).unwrap();
        fs::write(at("host/mnt/opt/kata/shim"), "shim").unwrap();
        fs::write(at("host/mnt/opt/kata/configuration.toml"), "[hypervisor.qemu]\npath = \"/usr/bin/qemu\"\n").unwrap();
        let imports = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
        fs::write(at("host/etc/containerd/config.toml"), imports).unwrap();
        fs::write(at("guest/vmlinuz"), "kernel").unwrap();
        fs::write(at("guest/initrd.img"), "initrd").unwrap();
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let name = [
            "-subj",
            "/CN=api",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        let mut openssl = Command::new("openssl");
        openssl.args(new).args(name).arg("-keyout").arg(at("server.key")).arg("-out").arg(at("server.pem"));
        assert!(openssl.output().unwrap().status.success());
        fs::copy(at("server.pem"), at("account/ca.crt")).unwrap();
        fs::write(at("account/token"), "the-token\n").unwrap();
        fs::write(at("account/namespace"), "attestation").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api.py");
        let api = Ended(Command::new("python3").arg(script).arg(folder.path()).spawn().unwrap());
        until(|| at("port").exists());
        let port = fs::read_to_string(at("port")).unwrap();
        let node = Self { folder, _api: api, port };
        node.settings(|_| {});
        node
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn settings(&self, edit: impl FnOnce(&mut Value)) {
        let mut settings = json!({
            "folder": "/opt/trusted-container-launcher",
            "label": {"name": "trusted-container-launcher", "value": "ready"},
            "kata": {
                "shim": "/opt/kata/shim", "base": "/opt/kata/configuration.toml", "drop_in": "kernel = \"@GUEST@/vmlinuz\"\n"
            },
            "containerd": {
                "configuration": "/etc/containerd/config.toml",
                "folder": "/etc/containerd/conf.d",
                "drop_in": "ConfigPath = \"@KATA@\"\n",
                "restart": ["/bin/busybox", "sh", "-c", "echo restarted >> /restarts"],
            },
        });
        edit(&mut settings);
        fs::write(self.at("settings.json"), settings.to_string()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node-installer"));
        command.args(arguments).env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", &self.port);
        command.env("SERVICE_ACCOUNT", self.at("account"));
        command
    }

    fn work(&self, what: &str) -> Command {
        let mut command = self.command(&[what, "--node", "node-1"]);
        for (name, path) in [("settings", "settings.json"), ("host", "host"), ("guest", "guest"), ("done", "run/done")]
        {
            command.arg(format!("--{name}")).arg(self.at(path));
        }
        command
    }

    fn ready(&self) -> bool {
        let mut command = self.command(&["ready", "--done"]);
        command.arg(self.at("run/done")).output().unwrap().status.success()
    }

    /// Runs it until it is ready, then ends it as a kubelet does.
    fn done(&self, what: &str) {
        _ = fs::remove_file(self.at("run/done"));
        let mut running = Ended(self.work(what).stdout(Stdio::null()).spawn().unwrap());
        until(|| {
            assert!(running.0.try_wait().unwrap().is_none(), "{what} ended");
            self.ready()
        });
        let kill = Command::new("kill").arg(running.0.id().to_string()).status().unwrap();
        assert!(kill.success() && running.0.wait().unwrap().success());
    }

    /// Runs it where it must fail; what it said.
    fn fails(&self, what: &str) -> String {
        let log = self.at("log");
        let mut running = Ended(self.work(what).stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
        let mut status = None;
        until(|| {
            status = running.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(!status.unwrap().success());
        self.read("log")
    }

    fn labels(&self) -> Vec<Value> {
        let requests = fs::read_to_string(self.at("requests")).unwrap_or_default();
        let requests = requests.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let nodes = requests.filter(|request| request["patch"] == "/api/v1/nodes/node-1");
        nodes.map(|request| request["body"]["metadata"]["labels"]["trusted-container-launcher"].clone()).collect()
    }

    /// Every file of the node.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.at("host")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match () {
                    () if path.is_symlink() => {}
                    () if path.is_dir() => folders.push(path),
                    () => _ = found.insert(path.clone(), fs::read(&path).unwrap()),
                }
            }
        }
        found
    }
}

fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it takes too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const OURS: &str = "host/mnt/opt/trusted-container-launcher";

#[test]
fn what_is_installed_again_changes_nothing_and_all_of_it_is_removed() {
    let node = Node::new();
    let before = node.files();
    node.done("install");
    let drop_in = node.read(&format!("{OURS}/kata/config.d/50-trusted-container-launcher.toml"));
    let kernel = drop_in.strip_prefix("kernel = \"").unwrap().trim_end().trim_end_matches('"');
    // The path is the node's, and begins at the node's root.
    assert_eq!(node.read(&format!("host/mnt{kernel}")), "kernel");
    assert_eq!(
        node.read(&format!("{OURS}/kata/configuration.toml")),
        node.read("host/mnt/opt/kata/configuration.toml")
    );
    let runtime = node.read("host/etc/containerd/conf.d/trusted-container-launcher.toml");
    assert_eq!(runtime, "ConfigPath = \"/opt/trusted-container-launcher/kata/configuration.toml\"\n");
    assert_eq!(node.read("host/restarts"), "restarted\n");
    assert_eq!(node.labels(), [json!("ready")]);

    let installed = node.files();
    node.done("install");
    assert_eq!(node.files(), installed, "nothing is written and containerd goes on");

    // Another image: the old one goes, and containerd need not know.
    fs::write(node.at("guest/initrd.img"), "another").unwrap();
    node.done("install");
    let images: Vec<_> = fs::read_dir(node.at(&format!("{OURS}/guest"))).unwrap().collect();
    assert_eq!(images.len(), 1);
    assert_eq!(fs::read_to_string(images[0].as_ref().unwrap().path().join("initrd.img")).unwrap(), "another");
    assert_eq!(node.read("host/restarts"), "restarted\n");

    node.done("remove");
    assert_eq!(node.read("host/restarts"), "restarted\nrestarted\n");
    fs::remove_file(node.at("host/restarts")).unwrap();
    assert_eq!(node.files(), before);
    assert_eq!(node.labels().last(), Some(&Value::Null));
    node.done("remove");
}

#[test]
fn an_image_that_was_altered_on_the_node_is_laid_anew() {
    let node = Node::new();
    node.done("install");
    let image = fs::read_dir(node.at(&format!("{OURS}/guest"))).unwrap().next().unwrap().unwrap().path();
    fs::write(image.join("vmlinuz"), "altered").unwrap();
    node.done("install");
    assert_eq!(fs::read_to_string(image.join("vmlinuz")).unwrap(), "kernel");
}

#[test]
fn nothing_is_installed_where_something_is_missing() {
    let node = Node::new();
    let before = node.files();
    for (pointer, value, said) in [
        ("/kata/shim", json!("/opt/kata/none"), "kata.shim"),
        ("/kata/base", json!("/opt/kata/none"), "kata.base"),
        ("/containerd/folder", json!("/etc/containerd/other"), "imports"),
        ("/containerd/configuration", json!("/etc/containerd/none"), "/etc/containerd/none"),
        ("/folder", json!("/opt"), "folder"),
        ("/folder", json!("opt/ours"), "absolute"),
    ] {
        node.settings(|settings| *settings.pointer_mut(pointer).unwrap() = value);
        let error = node.fails("install");
        assert!(error.contains(said), "{pointer}: {error}");
        assert_eq!(node.files(), before, "{pointer}");
    }
    node.settings(|settings| _ = settings["kata"].as_object_mut().unwrap().insert("typo".into(), json!(1)));
    assert!(node.fails("install").contains("typo"));
    assert!(node.labels().is_empty() && !node.ready());
}

#[test]
fn a_node_without_its_label_is_not_ready() {
    let node = Node::new();
    fs::write(node.at("account/token"), "another").unwrap();
    assert!(node.fails("install").contains("401"));
    assert!(!node.ready());
    // Nor is anybody believed whom the cluster's roots do not vouch for.
    let other = Node::new();
    fs::write(node.at("account/token"), "the-token").unwrap();
    fs::copy(other.at("account/ca.crt"), node.at("account/ca.crt")).unwrap();
    node.fails("install");
    assert_eq!(node.labels().len(), 1, "what came in by the first attempt alone");
}

#[test]
fn a_containerd_that_does_not_come_back_is_told() {
    let node = Node::new();
    node.settings(|settings| settings["containerd"]["restart"] = json!(["/bin/busybox", "false"]));
    for _ in 0..2 {
        assert!(node.fails("install").contains("busybox false"), "also where every file is there already");
        assert!(node.labels().is_empty() && !node.ready());
    }
    node.settings(|_| {});
    node.done("install");
    assert_eq!(node.read("host/restarts"), "restarted\n");
}

#[test]
fn retiring_waits_for_every_node() {
    let node = Node::new();
    let said = node.command(&["retire", "installer"]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let requests = node.read("requests");
    let requests: Vec<Value> = requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let patch = requests.iter().find(|request| request["patch"].is_string()).unwrap();
    let container = &patch["body"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["args"], json!(["remove", "--node=$(NODE_NAME)"]));
    assert_eq!(container["image"], "i", "a merge patch replaces the list, so all of it must be in it");
    assert_eq!(requests.last().unwrap()["ready"], 2);
    let said = node.command(&["retire", "another"]).output().unwrap();
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("404"));
}
