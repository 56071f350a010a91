//! An image whose files the host has altered.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use guest_image::machine::Start;
use guest_image::{Options, names};
use guest_vm::Running;
use integration_tests::command::{run, tclctl};
use integration_tests::initdata;
use protocols::digest::Sha256Digest;
use serde_json::Value;
use tempfile::TempDir;

use super::scene::{machine, options, says};

/// Inverts one byte.
fn flip(path: &Path, place: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[!byte[0]], place).unwrap();
}

/// Boots it as the quickest way is: what the command line says is taken at its word here.
fn booted(image: &Path, folder: &Path, initdata: Option<&str>) -> Running {
    fs::create_dir(folder).unwrap();
    machine(image, Start::Kernel, folder, initdata).start(folder).unwrap()
}

/// A folder whose path is short enough for sockets.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("vm").tempdir_in("/tmp").unwrap()
}

#[test]
fn a_byte_of_the_root_image_keeps_the_guest_closed_and_a_byte_of_the_uki_is_in_its_measurement() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let image = at("image");
    guest_image::build(&options(&image)).unwrap();
    let root = image.join(names::ROOT);

    // The first block: no disk is the one that the root hash names.
    flip(&root, 1024);
    let mut running = booted(&image, &at("first"), None);
    let told = says(&mut running, "guest-init: boot.root: ");
    assert!(told.contains(": not what its root hash says"), "{told}");
    says(&mut running, "Power down");
    drop(running);
    flip(&root, 1024);

    // A block of the largest file, which is the agent: it is not started.
    let size = fs::metadata(&root).unwrap().len();
    flip(&root, size / 2);
    let mut running = booted(&image, &at("second"), None);
    let told = says(&mut running, "guest-init: boot.root: ");
    assert!(told.contains("was altered on the disk"), "{told}");
    says(&mut running, "Power down");
    drop(running);
    flip(&root, size / 2);

    let values = |uki: &Path| -> Value {
        run(tclctl(&["reference", "compute", "tpm", "--uki", &uki.display().to_string()])).ok().json()
    };
    let uki = image.join(names::UKI);
    let before = values(&uki);
    let initrd = fs::read(image.join(names::INITRD)).unwrap();
    let bytes = fs::read(&uki).unwrap();
    let place = bytes.windows(64).position(|part| part == &initrd[..64]).unwrap();
    flip(&uki, u64::try_from(place + initrd.len() / 2).unwrap());
    let after = values(&uki);
    for name in ["tpm.pcr4", "tpm.pcr9", "tpm.pcr11"] {
        assert_ne!(before[name], after[name], "{name}");
    }
}

#[test]
fn initdata_that_is_not_the_pinned_one_or_was_altered_on_its_disk_keeps_the_guest_closed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let pinned = initdata::text("sha256", &[("policy.rego", "package agent_policy\n")]);
    let (image, configuration) = (at("image"), at("configuration"));
    fs::create_dir(&configuration).unwrap();
    let own = include_str!("../../../guest-image/configuration/guest-agent.toml");
    let pin = format!("[initdata]\ndigest = \"{}\"\n", Sha256Digest::of(pinned.as_bytes()));
    fs::write(configuration.join("guest-agent.toml"), own.replace("[initdata]\n", &pin)).unwrap();
    guest_image::build(&Options { configuration: vec![configuration], ..options(&image) }).unwrap();

    // A policy that allows everything, in a text that is whole.
    let open = integration_tests::kata::open_policy();
    let replaced = initdata::text("sha256", &[("policy.rego", &open)]);
    let mut running = booted(&image, &at("first"), Some(&replaced));
    says(&mut running, "guest-agent: evidence.initdata: ");
    says(&mut running, "Power down");
    drop(running);

    let state = at("second");
    fs::create_dir(&state).unwrap();
    let machine = machine(&image, Start::Kernel, &state, Some(&pinned));
    // Behind magic, length and gzip's header.
    flip(&state.join("vda"), 60);
    let mut running = machine.start(&state).unwrap();
    says(&mut running, "guest-agent: boot.initdata: ");
    says(&mut running, "Power down");
}
