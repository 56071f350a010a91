//! What goes into Kata guests: overlays, templates, and the guest extension image with its drop-in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use packaging::guest::{self, Extension};
use packaging::sums;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use support::{EPOCH, binaries, ok, programs, run, seen, workspace};

const SECTOR: u64 = 512;

fn unpacked(overlay: &Path) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    ok(Command::new("tar").arg("--directory").arg(root.path()).args(["--zstd", "--extract", "--file"]).arg(overlay));
    root
}

fn public_key() -> String {
    let folder = tempfile::tempdir().unwrap();
    ok(Command::new(binaries().join("key-broker")).arg("keygen").arg(folder.path().join("key")))
}

/// The template with every word filled in, for files beneath `root`.
fn filled(root: &Path) -> String {
    let folder = root.join("etc/trusted-container-launcher");
    let policy = hex::encode(Sha256::digest(fs::read(folder.join("policy.rego")).unwrap()));
    let text = fs::read_to_string(folder.join("guest-agent.toml.template")).unwrap();
    let text = [
        ("@ATTESTER@", "snp"),
        ("@ATTESTOR_URL@", "https://attestor.example"),
        ("@ATTESTOR_KEY@", public_key().trim()),
        ("@SIGNER@", "release@example.com"),
        ("@SIGNER_KEY@", public_key().trim()),
        ("@SIGNATURE_POLICY@", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#),
        ("@POLICY_DIGEST@", &format!("sha256:{policy}")),
        ("@PAUSE_DIGEST@", &format!("sha256:{policy}")),
        ("/etc/trusted-container-launcher", folder.to_str().unwrap()),
    ]
    .into_iter()
    .fold(text, |text, (word, value)| text.replace(word, value));
    assert!(!text.contains("= \"@"), "{text}");
    text
}

fn check_config(root: &Path, text: &str) -> support::Seen {
    let path = root.join("checked.toml");
    fs::write(&path, text).unwrap();
    seen(Command::new(binaries().join("guest-agent")).arg("--check-config").arg("--config").arg(path))
}

#[test]
fn an_overlay_puts_our_agent_in_the_place_of_the_other() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let overlay = guest::overlay(&workspace(), &programs(), one.path(), EPOCH).unwrap();
    let again = guest::overlay(&workspace(), &programs(), two.path(), EPOCH).unwrap();
    assert!(fs::read(&overlay).unwrap() == fs::read(again).unwrap(), "two builds are the same");
    let root = unpacked(&overlay);
    let at = |path: &str| root.path().join(path);
    assert_eq!(fs::read_link(at("etc/systemd/system/kata-agent.service")).unwrap(), Path::new("/dev/null"));
    let target = fs::read_to_string(at("usr/lib/systemd/system/kata-containers.target")).unwrap();
    assert!(target.contains("Requires=basic.target guest-agent.service"), "{target}");
    assert!(run(at("usr/bin/guest-agent").to_str().unwrap(), ["--version"]).starts_with("guest-agent "));
    assert!(!at("etc/trusted-container-launcher/guest-agent.toml").exists(), "nobody chose yet whom to trust");

    let good = filled(root.path());
    let said = check_config(root.path(), &good);
    assert!(said.ok, "{}", said.err);
    let template = fs::read_to_string(at("etc/trusted-container-launcher/guest-agent.toml.template")).unwrap();
    for word in ["@ATTESTER@", "@ATTESTOR_URL@", "@ATTESTOR_KEY@", "@SIGNER_KEY@", "@POLICY_DIGEST@", "@PAUSE_DIGEST@"]
    {
        assert!(template.contains(word), "{word}");
    }
    assert!(!check_config(root.path(), &template).ok, "an agent does not start with a word left in");
}

#[test]
fn beside_a_stock_agent_ours_comes_first_and_serves_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = unpacked(&guest::beside(&workspace(), &programs(), folder.path(), EPOCH).unwrap());
    let at = |path: &str| root.path().join(path);
    assert!(
        !at("etc/systemd/system/kata-agent.service").exists()
            && !at("usr/lib/systemd/system/kata-containers.target").exists()
    );
    let service = fs::read_to_string(at("etc/trusted-container-launcher/image_service.toml.template")).unwrap();
    let kata = filled(root.path());
    let (shared, _) = kata.split_once("[kata]").unwrap();
    let said = check_config(root.path(), &format!("{shared}{service}"));
    assert!(said.ok, "{}", said.err);
    // The other agent waits for the very socket that ours opens.
    let socket = service.parse::<toml::Table>().unwrap()["image_service"]["socket"].as_str().unwrap().to_owned();
    let drop_in = at("usr/lib/systemd/system/kata-agent.service.d/10-trusted-container-launcher.conf");
    let drop_in = fs::read_to_string(drop_in).unwrap();
    assert!(drop_in.contains("After=guest-agent.service") && drop_in.contains(&format!("-S {socket} ")), "{drop_in}");
}

/// A configuration and a pause bundle to be measured.
fn measured(folder: &Path) -> (PathBuf, PathBuf) {
    let (configuration, pause) = (folder.join("configuration"), folder.join("pause"));
    fs::create_dir_all(&configuration).unwrap();
    fs::create_dir_all(pause.join("rootfs")).unwrap();
    fs::write(configuration.join("guest-agent.toml"), "environment = \"production\"\n").unwrap();
    fs::write(pause.join("config.json"), "{}").unwrap();
    fs::write(pause.join("rootfs/pause"), "pause").unwrap();
    (configuration, pause)
}

/// Copies a partition out of a disk.
fn partition(disk: &Path, number: usize, to: &Path) {
    let table: Value = serde_json::from_str(&run("sfdisk", ["--json".as_ref(), disk.as_os_str()])).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap().clone();
    assert_eq!(partitions.len(), 2, "{table}");
    let (start, size) = (&partitions[number]["start"], &partitions[number]["size"]);
    let at = |value: &Value| usize::try_from(value.as_u64().unwrap() * SECTOR).unwrap();
    let bytes = fs::read(disk).unwrap();
    fs::write(to, &bytes[at(start)..][..at(size)]).unwrap();
}

/// What the guest of a stock agent does with the two partitions and the words of its kernel's command line.
fn verified(folder: &Path, extension: &Extension) -> bool {
    let (data, hashes) = (folder.join("data"), folder.join("hashes"));
    partition(&extension.image, 0, &data);
    partition(&extension.image, 1, &hashes);
    let words: std::collections::BTreeMap<&str, &str> =
        extension.verity.split(',').map(|word| word.split_once('=').unwrap()).collect();
    assert_eq!((words["data_block_size"], words["hash_block_size"]), ("4096", "4096"));
    let mut command = Command::new("veritysetup");
    command.args(["verify", "--no-superblock", "--data-block-size=4096", "--hash-block-size=4096"]);
    command.arg(format!("--data-blocks={}", words["data_blocks"])).arg(format!("--salt={}", words["salt"]));
    seen(command.args([&data, &hashes]).arg(words["root_hash"])).ok
}

#[test]
fn the_extension_is_what_a_stock_guest_mounts_and_starts() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (configuration, pause) = measured(one.path());
    let made = |out: &Path| guest::extension(&workspace(), &programs(), &configuration, &pause, out, EPOCH).unwrap();
    let extension = made(one.path());
    let again = made(two.path());
    assert_eq!(extension.verity, again.verity);
    assert!(fs::read(&extension.image).unwrap() == fs::read(&again.image).unwrap(), "two builds are the same");
    assert!(verified(one.path(), &extension));

    let files = one.path().join("files");
    ok(Command::new("fsck.erofs").arg(format!("--extract={}", files.display())).arg(one.path().join("data")));
    let manifest = fs::read_to_string(files.join("etc/kata-extensions/components.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    assert_eq!(manifest["schema_version"].as_integer(), Some(1));
    for path in manifest["paths"].as_table().unwrap().values() {
        assert!(files.join(path.as_str().unwrap()).exists(), "{path}");
    }
    let process = &manifest["process"][0];
    assert!(files.join(process["path"].as_str().unwrap()).is_file());
    let argument = process["args"][1].as_str().unwrap().strip_prefix("${extension_root}/").unwrap();
    assert_eq!(fs::read(files.join(argument)).unwrap(), fs::read(configuration.join("guest-agent.toml")).unwrap());

    let drop_in: toml::Table = fs::read_to_string(one.path().join("extension.toml")).unwrap().parse().unwrap();
    let named = &drop_in["hypervisor"]["qemu"]["guest_extension_images"][0];
    assert_eq!(named["verity_params"].as_str(), Some(extension.verity.as_str()));
    // The one name under which a stock agent looks for processes to start.
    assert_eq!(named["name"].as_str(), Some("coco"));

    // Another configuration is another root hash, which is what guests are measured by.
    fs::write(configuration.join("guest-agent.toml"), "environment = \"development\"\n").unwrap();
    assert_ne!(made(two.path()).verity, extension.verity);
}

#[test]
fn one_byte_of_the_extension_altered_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (configuration, pause) = measured(folder.path());
    let extension = guest::extension(&workspace(), &programs(), &configuration, &pause, folder.path(), EPOCH).unwrap();
    let mut bytes = fs::read(&extension.image).unwrap();
    // In the middle of the first partition, which begins at 1 MiB and holds some MiB of the agent.
    bytes[3 * 1024 * 1024] ^= 1;
    fs::write(&extension.image, bytes).unwrap();
    assert!(!verified(folder.path(), &extension));
}

#[test]
fn sums_are_of_every_file_and_find_one_that_was_altered() {
    let folder = tempfile::tempdir().unwrap();
    measured(folder.path());
    let check = || seen(Command::new("sha256sum").args(["--check", "--strict", sums::NAME]).current_dir(folder.path()));
    sums::write(folder.path()).unwrap();
    let text = fs::read_to_string(sums::write(folder.path()).unwrap()).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(check().ok, "{}", check().err);
    fs::write(folder.path().join("pause/rootfs/pause"), "other").unwrap();
    assert!(!check().ok);
}

#[test]
fn what_must_be_measured_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let (configuration, pause) = measured(folder.path());
    let made = || guest::extension(&workspace(), &programs(), &configuration, &pause, folder.path(), EPOCH);
    fs::remove_file(configuration.join("guest-agent.toml")).unwrap();
    assert!(made().unwrap_err().to_string().contains("guest-agent.toml"));
    fs::write(configuration.join("guest-agent.toml"), "").unwrap();
    fs::remove_file(pause.join("config.json")).unwrap();
    assert!(made().unwrap_err().to_string().contains("config.json"));
}
