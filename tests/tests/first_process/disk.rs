//! The image store on a disk of the host.

use std::time::Duration;

use integration_tests::Tee;
use integration_tests::image::{Image, Recipe};
use integration_tests::process::{binary, program};
use integration_tests::vm::{HostDisk, Signal};

use super::scene::Scene;

const MODULES: &[&str] = &["dm-integrity", "dm-crypt", "authenc", "xts", "ecb", "ext4", "aesni_intel"];
const MIB: usize = 1 << 20;

/// Bytes that shrink, but not as far as a decompression bomb's.
fn content(mib: usize) -> Vec<u8> {
    let piece = |number: usize| (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes().repeat(32);
    (0..mib * MIB / 256).flat_map(piece).collect()
}

fn image(scene: &Scene, name: &str, mib: usize) -> Image {
    let recipe = Recipe::new("/bin/busybox md5sum </data").file("/data", content(mib));
    let image = scene.world.push(&recipe, name, "1");
    let _ = scene.world.sign(&image, 1);
    image
}

#[test]
fn an_image_larger_than_memory_runs_from_a_disk_and_what_the_host_alters_there_does_not() {
    runs_from_a_disk(384, 400);
}

#[test]
#[ignore = "takes long: cargo xtask soak disk"]
fn soak_an_image_of_one_and_a_half_gib_in_half_a_gib() {
    let mib = std::env::var("TCL_SOAK_IMAGE_MIB").ok().and_then(|mib| mib.parse().ok());
    runs_from_a_disk(512, mib.unwrap_or(1536));
}

/// The guest's memory, and the larger of two images: it does not fit.
fn runs_from_a_disk(memory_mib: u32, large_mib: usize) {
    let mut scene = Scene::new(Tee::SimulatedSnp);
    scene.image_disk = true;
    let [small, large] = [("small", 2), ("large", large_mib)].map(|(name, mib)| image(&scene, name, mib));
    let [small, large] = [small, large].map(|image| scene.world.reference(&image));
    let text = scene.initdata();
    let guest = scene.guest(&text, &text).modules(MODULES).program(&program("mke2fs")).memory_mib(memory_mib);
    let guest = guest.small_program(&binary("guest-agent")).small_program(&binary("tclctl"));
    let guest = guest.small_program(std::path::Path::new(env!("CARGO_BIN_EXE_vm_guest")));
    let folder = scene.world.path("host");
    std::fs::create_dir(&folder).unwrap();
    let (signal, guest) = Signal::attach(&folder, guest);
    let (disk, guest) = HostDisk::attach(&folder, "images", (large_mib as u64 + 360) << 20, guest);
    let script = scene.prologue()
        + Signal::functions()
        + &format!(
            "export TCL_AGENT=unix:///run/tcl/agent.sock
             launch() {{ echo 3 >/proc/sys/vm/drop_caches; tclctl run --mode remote $1 2>/told || grep -o -m 1 'store\\.[a-z]*' /told || cat /told; }}
             until_ready '[ -S /run/tcl/agent.sock ]'
             echo == guest; grep MemTotal /proc/meminfo; grep -c ' /run/tcl/images ext4 ' /proc/1/mounts
             ask empty
             echo == small; launch {small}; launch {small}
             sync; ask flip; echo == flipped; launch {small}
             echo == large; launch {large}; cat /told
             ask roll-back; echo == rolled-back; launch {small}; cat /told
             sleep 5; kill 1"
        );
    let mut running = guest.processor_time(Duration::from_secs(600 + 2 * large_mib as u64)).start(&script);
    let empty = folder.join("empty.kept");
    let mut taken = 0;
    signal.answer(
        &mut running,
        &mut [&mut || disk.keep(&empty), &mut || disk.flip(&empty), &mut || {
            taken = disk.taken();
            disk.put(&empty);
        }],
    );
    let ended = running.ended();
    let sum = |mib| {
        let file = folder.join("content");
        std::fs::write(&file, content(mib)).unwrap();
        let told = integration_tests::command::tool("md5sum", &[file.to_str().unwrap()]).ok().stdout;
        format!("{}  -", told.split(' ').next().unwrap())
    };
    let (small, large) = (sum(2), sum(large_mib));
    let guest = ended.section("guest");
    let kib: usize = guest[0].split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < large_mib << 10, "{guest:?}");
    assert_eq!(guest[1], "1", "{}", ended.console);
    assert_eq!(ended.section("small")[..2], [small.as_str(), small.as_str()], "{}\n{}", ended.output, ended.console);
    assert_eq!(ended.section("flipped")[0], small, "{}\n{}", ended.output, ended.console);
    assert!(ended.console.contains("code=store.corrupt"), "found, and fetched anew: {}", ended.console);
    assert_eq!(ended.section("large")[0], large, "{}\n{}", ended.output, ended.console);
    assert!(taken > (large_mib << 20) as u64, "the layer is on the disk: {taken}");
    let rolled_back = ended.section("rolled-back");
    assert!(rolled_back.first().is_some_and(|line| line.starts_with("store.")), "{}\n{}", ended.output, ended.console);
}
