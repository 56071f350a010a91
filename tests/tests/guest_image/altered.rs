//! An image whose files the host has altered.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use guest_image::machine::{Boot, Machine};
use guest_image::names;
use integration_tests::command::{run, tclctl};
use serde_json::Value;

use super::scene::{Running, options};

/// Inverts one byte.
fn flip(path: &Path, place: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[!byte[0]], place).unwrap();
}

fn booted(image: &Path, state: &Path) -> Running {
    fs::create_dir(state).unwrap();
    Running::start(Machine {
        image: image.to_path_buf(),
        state: state.to_path_buf(),
        // What the command line says is taken at its word here: the hash on it is what the disk is held to.
        boot: Boot::Kernel,
        memory_mib: 256,
        disks: Vec::new(),
        tpm: None,
        vsock: None,
    })
}

#[test]
fn a_byte_of_the_root_image_keeps_the_guest_closed_and_a_byte_of_the_uki_is_in_its_measurement() {
    let folder = tempfile::Builder::new().prefix("vm").tempdir_in("/tmp").unwrap();
    let at = |name: &str| folder.path().join(name);
    let image = at("image");
    guest_image::build(&options(&image)).unwrap();
    let root = image.join(names::ROOT);

    // The first block: no disk is the one that the root hash names.
    flip(&root, 1024);
    let mut running = booted(&image, &at("first"));
    let told = running.says("guest-init: boot.root: ");
    assert!(told.contains("vda: not what its root hash says"), "{told}");
    running.says("Power down");
    drop(running);
    flip(&root, 1024);

    // A block of the largest file, which is the agent: it is not started.
    let size = fs::metadata(&root).unwrap().len();
    flip(&root, size / 2);
    let mut running = booted(&image, &at("second"));
    let told = running.says("guest-init: boot.root: ");
    assert!(told.contains("was altered on the disk"), "{told}");
    running.says("Power down");
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
