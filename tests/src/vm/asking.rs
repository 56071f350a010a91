//! A guest's script that asks this machine to do something, and goes on when it is done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{END, Guest, Running};

/// Shell functions: `disk SERIAL` says its node, `ask` waits until this machine has done the next thing.
const FUNCTIONS: &str = "
disk() { for d in /sys/block/vd*; do if [ \"$(cat $d/serial)\" = $1 ]; then echo /dev/${d##*/}; fi; done; }
step=0
ask() { step=$((step+1)); echo \"ask $step\"; until [ \"$(head -c 1 $(disk signal))\" = $step ]; do sleep 1; done; }
";

/// The disk by which the script is told; at most nine times.
#[derive(Debug)]
pub struct Signal(PathBuf);

impl Signal {
    /// Makes the disk in `folder` and attaches it. Its guest's script begins with [`Signal::functions`].
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn attach(folder: &Path, guest: Guest) -> (Self, Guest) {
        let signal = Self(folder.join("signal"));
        signal.set(0);
        let drive = format!("file={},if=none,id=signal,format=raw", signal.0.display());
        (signal, guest.qemu(&["-drive", &drive, "-device", "virtio-blk-pci,drive=signal,serial=signal"]))
    }

    /// What a script that asks begins with.
    #[must_use]
    pub const fn functions() -> &'static str {
        FUNCTIONS
    }

    /// Does what the script asks for, in order.
    ///
    /// # Panics
    /// When the guest ends before it asked for everything.
    pub fn answer(&self, running: &mut Running, work: &mut [&mut dyn FnMut()]) {
        for (step, work) in work.iter_mut().enumerate() {
            let step = step + 1;
            while !running.output().contains(&format!("ask {step}\n")) {
                let ended = running.output().contains(END) || running.service.ended_within(Duration::ZERO).is_some();
                assert!(!ended, "never asked for {step}:\n{}\n{}", running.output(), running.read("console"));
                std::thread::sleep(Duration::from_millis(200));
            }
            work();
            self.set(step);
        }
    }

    fn set(&self, step: usize) {
        std::fs::write(&self.0, format!("{step:<512}")).unwrap();
    }
}
