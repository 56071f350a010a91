//! The attestor's image: the same bytes each time, nothing in it but the attestor, and the chart's pods run it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use packaging::attestor::{self, USER};
use serde_json::{Value, json};
use support::chart::{EXAMPLES, objects, of};
use support::{EPOCH, files, ok, programs, run, seen};

/// How long the attestor may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The image, unpacked: a bundle with `rootfs` and a `config.json` of its settings.
fn unpacked() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    attestor::image(&programs(), &layout, EPOCH).unwrap();
    let bundle = folder.path().join("bundle");
    let image = format!("{}:{}", layout.display(), env!("CARGO_PKG_VERSION"));
    run("umoci", ["unpack", "--image", &image, bundle.to_str().unwrap()]);
    (folder, bundle)
}

/// One for all pods, in whose files runc makes the places of their mounts.
fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    &BUNDLE.get_or_init(unpacked).1
}

#[test]
fn two_builds_are_the_same_and_tools_read_them() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("elsewhere/two"));
    let digest = attestor::image(&programs(), &one, EPOCH).unwrap();
    assert_eq!(digest, attestor::image(&programs(), &two, EPOCH).unwrap());
    let relative = |root: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        files(root).into_iter().map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_path_buf(), bytes)).collect()
    };
    assert_eq!(relative(&one), relative(&two));
    attestor::image(&programs(), &one, EPOCH).expect_err("a folder that is there is not written over");
    let image = format!("oci:{}:{}", one.display(), env!("CARGO_PKG_VERSION"));
    assert_eq!(run("skopeo", ["inspect", "--format", "{{.Digest}}", &image]).trim(), digest);
    let config: Value = serde_json::from_str(&run("skopeo", ["inspect", "--config", &image])).unwrap();
    assert_eq!(config["config"]["User"], format!("{USER}:{USER}"));
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.licenses"], "Apache-2.0");
    assert_eq!(config["created"], "2025-06-15T15:06:40Z");
}

#[test]
fn nothing_else_is_in_it() {
    let (_folder, bundle) = unpacked();
    let root = bundle.join("rootfs");
    let mut programs = Vec::new();
    for path in files(&root).into_keys() {
        let relative = path.strip_prefix(&root).unwrap();
        let library = relative.to_string_lossy().contains(".so");
        if path.metadata().unwrap().permissions().mode() & 0o111 != 0 && !library {
            programs.push(relative.to_path_buf());
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o6022, 0, "{}", relative.display());
    }
    assert_eq!(programs, [Path::new("usr/bin/key-broker")], "no shell and no tool");
}

/// A container of the chart's pod, run by runc as a kubelet would have it run.
struct Pod {
    folder: tempfile::TempDir,
    name: String,
}

impl Pod {
    /// Lays out the volumes of the one pod among `objects`, with keys made for it.
    fn new(objects: &[Value], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let owner = objects.iter().find(|one| ["StatefulSet", "Deployment"].contains(&one["kind"].as_str().unwrap()));
        let spec = &owner.unwrap()["spec"];
        let pod = &spec["template"]["spec"];
        let mut volumes: Vec<Value> = pod["volumes"].as_array().unwrap().clone();
        volumes
            .extend(spec["volumeClaimTemplates"].as_array().into_iter().flatten().map(|one| one["metadata"].clone()));
        for volume in &volumes {
            let place = folder.path().join("volumes").join(volume["name"].as_str().unwrap());
            fs::create_dir_all(&place).unwrap();
            for (name, content) in content(objects, volume) {
                fs::write(place.join(&name), content).unwrap();
                chown(place.join(&name), Some(0), Some(USER)).unwrap();
                fs::set_permissions(place.join(name), fs::Permissions::from_mode(0o440)).unwrap();
            }
            chown(&place, Some(0), Some(USER)).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(0o2770)).unwrap();
        }
        let container = &pod["containers"][0];
        let mut config: Value = serde_json::from_slice(&fs::read(bundle().join("config.json")).unwrap()).unwrap();
        let process = &mut config["process"];
        assert_eq!(process["user"]["uid"], pod["securityContext"]["runAsUser"], "the image's user is the pod's");
        let given = container["args"].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
        let program = process["args"][0].as_str().unwrap().to_owned();
        process["args"] = [program.as_str()].into_iter().chain(given).chain(arguments.iter().copied()).collect();
        process["terminal"] = json!(false);
        process["noNewPrivileges"] = json!(true);
        process["capabilities"] = json!({});
        // Every pod of a test has the image's files for itself by not being able to write to them.
        config["root"] = json!({"path": bundle().join("rootfs"), "readonly": true});
        let mounts = config["mounts"].as_array_mut().unwrap();
        for mount in container["volumeMounts"].as_array().unwrap() {
            let source = folder.path().join("volumes").join(mount["name"].as_str().unwrap());
            let source = source.join(mount["subPath"].as_str().unwrap_or_default());
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            mounts.push(json!({
                "destination": mount["mountPath"], "type": "bind", "source": source, "options": ["rbind", access]
            }));
        }
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let name = format!("attestor-{}", folder.path().file_name().unwrap().to_string_lossy().trim_start_matches('.'));
        Self { folder, name }
    }

    fn runc(&self) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.folder.path().join("runc"));
        command
    }

    fn run(&self) -> Command {
        let mut command = self.runc();
        command.args(["run", "--bundle"]).arg(self.folder.path()).arg(&self.name);
        command
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        _ = self.runc().args(["delete", "--force", &self.name]).output();
    }
}

/// What a volume holds: of the ConfigMap that the chart made, or of the Secret that somebody made for it.
fn content(objects: &[Value], volume: &Value) -> BTreeMap<String, Vec<u8>> {
    if let Some(name) = volume["configMap"]["name"].as_str() {
        let maps = of(objects, "ConfigMap");
        let map = maps.iter().find(|map| map["metadata"]["name"] == name).unwrap_or_else(|| panic!("no map {name}"));
        let data = map["data"].as_object().unwrap();
        return data.iter().map(|(name, text)| (name.clone(), text.as_str().unwrap().into())).collect();
    }
    let Some(name) = volume["secret"]["secretName"].as_str() else { return BTreeMap::new() };
    let secret = secret(name);
    match volume["secret"]["items"].as_array() {
        None => secret,
        Some(items) => items
            .iter()
            .map(|item| (item["path"].as_str().unwrap().to_owned(), secret[item["key"].as_str().unwrap()].clone()))
            .collect(),
    }
}

/// The Secrets that docs/deploy.md has made.
fn secret(name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let broker = support::binaries().join("key-broker");
    let read = |name: &str| fs::read(at(name)).unwrap();
    let token = || b"0123456789abcdef0123456789abcdef\n".to_vec();
    let made: Vec<(&str, Vec<u8>)> = match name {
        "attestor-signing" => {
            ok(Command::new(broker).arg("keygen").arg(at("key")));
            vec![("signing.pem", read("key"))]
        }
        "attestor-store-key" => {
            ok(Command::new(broker).args(["keygen", "--store-key"]).arg(at("key")));
            vec![("store.key", read("key"))]
        }
        "attestor-tls" | "attestor-database-root" => {
            let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
            ok(Command::new("openssl")
                .args(new)
                .args(["-subj", "/CN=attestor", "-keyout"])
                .arg(at("key"))
                .arg("-out")
                .arg(at("certificate")));
            vec![("tls.crt", read("certificate")), ("tls.key", read("key")), ("ca.crt", read("certificate"))]
        }
        "attestor-administrator" => vec![("token", token())],
        "attestor-administrators" => {
            vec![("operations", token()), ("audit", b"another-token-of-32-characters-or-more\n".to_vec())]
        }
        "attestor-database" => vec![("password", b"secret\n".to_vec())],
        other => panic!("the chart names a Secret that nobody made: {other}"),
    };
    made.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[test]
fn the_attestor_takes_every_configuration_that_the_chart_writes() {
    let folder = tempfile::tempdir().unwrap();
    for example in EXAMPLES {
        let pod = Pod::new(&objects(folder.path(), example), &["--print-key"]);
        let said = seen(&mut pod.run());
        assert!(said.ok && said.out.starts_with("-----BEGIN PUBLIC KEY-----"), "{example}: {}{}", said.out, said.err);
    }
}

#[test]
fn what_the_attestor_does_not_take_is_seen_before_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let mut objects = objects(folder.path(), "production-embedded");
    let map = objects.iter_mut().find(|one| one["data"]["key-broker.toml"].is_string()).unwrap();
    let text = map["data"]["key-broker.toml"].as_str().unwrap();
    assert!(text.contains("token_seconds = 300"), "{text}");
    map["data"]["key-broker.toml"] = json!(text.replace("token_seconds = 300", "token_seconds = 0"));
    let said = seen(&mut Pod::new(&objects, &["--print-key"]).run());
    assert!(!said.ok && said.err.contains("token_seconds"), "{}{}", said.out, said.err);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// With every right taken away, and its probes answered where the chart has them asked.
#[test]
fn a_pod_serves_is_ready_and_ends_when_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let pod = Pod::new(&objects(folder.path(), "production-embedded"), &[]);
    let log = folder.path().join("log");
    let mut command = pod.run();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut running = Running(command.spawn().unwrap());
    let said = || fs::read_to_string(&log).unwrap();
    let mut until = |done: &mut dyn FnMut() -> bool| {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline && running.0.try_wait().unwrap().is_none(), "{}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until(&mut || said().contains("health and metrics"));
    let state: Value = serde_json::from_str(&ok(pod.runc().args(["state", &pod.name]))).unwrap();
    let inside = format!("--target={}", state["pid"]);
    let ask = |url: &str, more: &[&str]| {
        let curl = [
            "--net",
            "--",
            "curl",
            "--silent",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ];
        seen(Command::new("nsenter").arg(&inside).args(curl).args(more).arg(url)).out
    };
    until(&mut || ask("http://127.0.0.1:9090/readyz", &[]) == "200");
    assert_eq!(ask("http://127.0.0.1:9090/healthz", &[]), "200");
    assert_eq!(ask("https://127.0.0.1:8080/kbs/v0/resource/a/b/c", &["--insecure"]), "401", "{}", said());
    ok(pod.runc().args(["kill", &pod.name, "TERM"]));
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match running.0.try_wait().unwrap() {
            Some(ended) => break ended,
            None => assert!(Instant::now() < deadline, "it does not end: {}", said()),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(ended.success(), "{}", said());
}
