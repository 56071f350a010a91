//! The image for nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::fs;
use std::process::Command;

use packaging::node;
use serde_json::Value;
use support::chart::{objects, of};
use support::{EPOCH, ok, programs, run};

#[test]
fn the_image_holds_installer_and_guest_where_the_daemon_set_expects_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir(at("guest")).unwrap();
    for name in ["vmlinuz", "initrd.img"] {
        fs::write(at("guest").join(name), name).unwrap();
    }
    let digest = node::image(&programs(), &at("guest"), &at("one"), EPOCH).unwrap();
    assert_eq!(digest, node::image(&programs(), &at("guest"), &at("two"), EPOCH).unwrap(), "two builds are the same");
    let image = format!("{}:{}", at("one").display(), env!("CARGO_PKG_VERSION"));
    let inspected: Value = serde_json::from_str(&run("skopeo", ["inspect", &format!("oci:{image}")])).unwrap();
    assert_eq!(inspected["Digest"], digest);
    run("umoci", ["unpack", "--image", &image, at("bundle").to_str().unwrap()]);

    // The objects that the chart makes name the files and options that are there.
    let objects = objects(folder.path(), "production-postgres");
    let root = at("bundle/rootfs");
    let settings = of(&objects, "ConfigMap").into_iter().find_map(|map| map["data"]["settings.json"].as_str()).unwrap();
    let settings: Value = serde_json::from_str(settings).unwrap();
    let drop_in: toml::Table = settings["kata"]["drop_in"].as_str().unwrap().parse().unwrap();
    for key in ["kernel", "initrd"] {
        let path = drop_in["hypervisor"]["qemu"][key].as_str().unwrap().replace("@GUEST@", "guest");
        assert!(root.join(&path).is_file(), "{path}");
    }
    let by_hand = fs::read_to_string(support::workspace().join("deploy/kata/guest.toml")).unwrap();
    let parameters = drop_in["hypervisor"]["qemu"]["kernel_params"].as_str().unwrap();
    let by_hand: toml::Table = by_hand.replace("@KERNEL_PARAMETERS@", parameters).parse().unwrap();
    assert_eq!(by_hand, drop_in, "what is laid by hand is what the chart lays");
    let _: toml::Table = settings["containerd"]["drop_in"].as_str().unwrap().parse().unwrap();
    let container = &of(&objects, "DaemonSet")[0]["spec"]["template"]["spec"]["containers"][0];
    let probe = container["readinessProbe"]["exec"]["command"].as_array().unwrap();
    let installer = probe[0].as_str().unwrap();
    let help = |command: &str| ok(Command::new("chroot").arg(&root).args([installer, command, "--help"]));
    for (option, path) in [("--settings", "/configuration"), ("--host", "/host"), ("--done", "/run/node-installer")] {
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(help("install").contains(option) && mounts.iter().any(|mount| mount["mountPath"] == path), "{option}");
        assert!(root.join(path.trim_start_matches('/')).is_dir(), "{path}");
    }
    assert!(help("ready").contains("/run/node-installer/done"));
    let removal = &of(&objects, "Job")[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(removal[0], "retire");
    assert_eq!(removal[1], of(&objects, "DaemonSet")[0]["metadata"]["name"]);
}
