//! `bench boot`: from QEMU's start to an agent that listens, beside the same firmware and kernel up to a first program;
//! started by QEMU itself, and by firmware that measures all of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest_image::machine::Start;
use guest_image::{Flavour, Options};
use guest_vm::Machine;
use serde_json::{Value, json};

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
    let mut told = serde_json::Map::new();
    for (start, way) in [(Start::Kernel, "kernel"), (Start::Firmware, "firmware")] {
        let mut taken = [const { Vec::new() }; 3];
        for round in 0..rounds {
            for ((name, image, until), taken) in images.iter().zip(&mut taken) {
                let folder = scene.path(&format!("{way}{name}{round}"));
                taken.push(boot(image, start, &folder, &initdata, until).as_secs_f64());
            }
        }
        let [bare, initrd, verity] = taken.map(|mut taken| {
            taken.sort_by(f64::total_cmp);
            taken[taken.len() / 2]
        });
        let over = |seconds: f64| format!("{seconds:.2} s, {:.2} s over it", seconds - bare);
        println!("{way}: bare {bare:.2} s, initrd {}, verity {}", over(initrd), over(verity));
        told.insert(way.to_owned(), json!({ "bare_s": bare, "initrd_s": initrd, "verity_s": verity }));
    }
    if let Some(file) = std::env::var_os("TCL_BENCH_JSON") {
        std::fs::write(file, Value::Object(told).to_string()).unwrap();
    }
}

/// How long a machine with a TPM of its own takes, as every pod's has one.
fn boot(image: &Path, start: Start, folder: &Path, initdata: &str, until: &Until) -> Duration {
    let machine = machine(image, start, folder, Some(initdata));
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
