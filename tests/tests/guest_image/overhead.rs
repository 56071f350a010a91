//! `bench boot`: from QEMU's start to an agent that listens, beside the same firmware and kernel up to a first program.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_image::machine::Start;
use guest_image::{Flavour, Options};
use guest_vm::Machine;
use serde_json::json;

use super::scene::{PATIENCE, Scene, machine, options};

const SAYS: &str = "a bare first program";
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// What is started, and when it is there.
enum Until {
    Says,
    Listens,
}

#[test]
#[ignore = "measures: cargo xtask bench boot"]
fn an_agent_listens_not_long_after_a_bare_kernel_would_have_started_something() {
    let rounds = std::env::var("TCL_BENCH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let scene = Scene::new();
    let initdata = scene.initdata();
    let bare = scene.path("bare");
    guest_image::bare(&options(&bare), SAYS).unwrap();
    let flavour = |name: &str, flavour| {
        let out = scene.path(name);
        let configuration = vec![scene.path("configuration")];
        guest_image::build(&Options { flavour, configuration, ..options(&out) }).unwrap();
        out
    };
    let images: [(&str, PathBuf, Until); 3] = [
        ("bare", bare, Until::Says),
        ("initrd", flavour("initrd", Flavour::Initrd), Until::Listens),
        ("verity", flavour("verity", Flavour::Verity), Until::Listens),
    ];
    let mut taken = [const { Vec::new() }; 3];
    for round in 0..rounds {
        for ((name, image, until), taken) in images.iter().zip(&mut taken) {
            let folder = scene.path(&format!("{name}{round}"));
            let seconds = boot(image, &folder, &initdata, until).as_secs_f64();
            println!("{name} {seconds:.2} s");
            taken.push(seconds);
        }
    }
    let medians = taken.map(|mut taken| {
        taken.sort_by(f64::total_cmp);
        taken[taken.len() / 2]
    });
    let [bare, initrd, verity] = medians;
    let told = json!({
        "rounds": rounds, "bare_s": bare, "initrd_s": initrd, "verity_s": verity,
        "initrd_overhead_s": initrd - bare, "verity_overhead_s": verity - bare,
    });
    println!("{told}");
    if let Some(file) = std::env::var_os("TCL_BENCH_JSON") {
        std::fs::write(file, told.to_string()).unwrap();
    }
}

/// How long a machine with a TPM of its own takes, as every pod's has one.
fn boot(image: &Path, folder: &Path, initdata: &str, until: &Until) -> Duration {
    let machine = machine(image, Start::Firmware, folder, Some(initdata));
    let mut running = Machine { memory_mib: 256, ..machine }.start(folder).unwrap();
    let begun = Instant::now();
    loop {
        let there = match until {
            Until::Says => running.console().contains(SAYS),
            Until::Listens => running.connect(1024).is_ok(),
        };
        let taken = begun.elapsed();
        if there {
            return taken;
        }
        assert!(running.ended().is_none() && taken < PATIENCE, "{}", running.console());
        std::thread::sleep(LOOK);
    }
}
