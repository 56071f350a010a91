//! A disk of the host beneath the image store: what keeps it from being one, and what the host gets by altering it while
//! the guest runs.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use integration_tests::process::program;
use integration_tests::vm::{Ended, Guest, Running};

use super::layers::{self, Layer};

/// What a disk that is encrypted, authenticated and formatted takes beside a layer's mount.
const DISK_MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "dm-integrity", "dm-crypt", "authenc", "xts", "ecb", "ext4"];
const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;

/// The disks of one guest, which this machine can read and write while the guest runs.
struct Disks {
    folder: tempfile::TempDir,
    guest: Guest,
    count: u32,
}

impl Disks {
    fn new() -> Self {
        let guest = super::guest().modules(DISK_MODULES).program(&program("mke2fs"));
        Self { folder: tempfile::tempdir().unwrap(), guest, count: 0 }.with("signal", 512)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One more, with this serial.
    fn with(mut self, serial: &str, bytes: u64) -> Self {
        self.count += 1;
        let number = self.count;
        let path = self.path(&format!("{serial}-{number}"));
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        let drive = format!("file={},if=none,id=disk{number},format=raw", path.display());
        let device = format!("virtio-blk-pci,drive=disk{number},serial={serial}");
        self.guest = self.guest.qemu(&["-drive", &drive, "-device", &device]);
        self
    }
}

/// The guest's script can ask this machine to do something, and goes on when it is done.
const ASK: &str = "
disk() { for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" = $1 ] && echo /dev/${d##*/}; done; }
step=0
ask() { step=$((step+1)); echo \"ask $step\"; until [ \"$(head -c 1 $(disk signal))\" = $step ]; do sleep 1; done; }
held() { mkdir -p $1; rm -f $1.told; vm_guest disk images /usr/bin/mke2fs $1 >$1.told & until grep -qs . $1.told; do sleep 1; done; cat $1.told; }
released() { touch $1.release; wait; rm $1.release; vm_guest leftovers; }
";

/// Does what the script asks for, in order.
fn answer(running: &Running, signal: &Path, work: &mut [&mut dyn FnMut()]) {
    for (step, work) in work.iter_mut().enumerate() {
        let step = step + 1;
        while !running.output().contains(&format!("ask {step}\n")) {
            assert!(!running.output().contains("guest script ended"), "never asked for {step}:\n{}", running.output());
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        work();
        fs::write(signal, format!("{step:<512}")).unwrap();
    }
}

fn names(ended: &Ended, section: &str, code: &str, words: &str) {
    let lines = ended.section(section);
    let told = lines.iter().any(|line| line.starts_with(&format!("! {code}: ")) && line.contains(words));
    assert!(told, "{section}: {lines:?}");
}

#[test]
fn a_disk_that_cannot_be_the_image_store_is_named_and_nothing_is_left() {
    let disks = Disks::new().with("images", 64 * MIB).with("twice", MIB).with("twice", MIB).with("small", 63 * MIB);
    let ended = disks.guest.run(&format!(
        "{ASK}
         mkdir /store
         refused() {{ echo == $1; vm_guest disk $2 $3 /store; grep /store /proc/mounts; vm_guest leftovers; ls /sys/block | grep dm-; }}
         refused absent other /usr/bin/mke2fs
         refused twice twice /usr/bin/mke2fs
         refused small small /usr/bin/mke2fs
         refused no-program images /usr/bin/no-mke2fs
         refused failed images /bin/false
         rmmod dm_crypt; refused no-module images /usr/bin/mke2fs; insmod /modules/*dm-crypt.ko*
         echo == mounted; held /other
         echo == again; vm_guest disk images /usr/bin/mke2fs /store
         released /other
         echo == killed; held /store; echo kept >/store/file; kill -9 $!; wait; grep -c /store /proc/mounts
         held /store; ls -A /store; stat -c %a /store; released /store; grep -c /store /proc/mounts; true"
    ));
    let _ = ended.ok();
    names(&ended, "absent", "store.device", "no disk has the serial other");
    names(&ended, "twice", "store.device", "2 disks have the serial twice");
    names(&ended, "small", "store.device", "fewer than");
    names(&ended, "no-program", "store.device", "/usr/bin/no-mke2fs");
    names(&ended, "failed", "store.device", "exit status: 1");
    names(&ended, "no-module", "store.device", "dm-crypt");
    for section in ["absent", "twice", "small", "no-program", "failed", "no-module"] {
        assert_eq!(ended.section(section).len(), 1, "nothing mounted, nothing mapped:\n{}", ended.output);
    }
    assert_eq!(ended.section("mounted"), ["mounted"]);
    names(&ended, "again", "store.device", "still in use");
    let killed = ended.section("killed");
    assert_eq!(killed, ["mounted", "1", "mounted", "lost+found", "700", "0"], "a new start finds a new disk");
}

#[test]
fn what_the_host_does_to_the_disk_is_a_read_error_and_never_other_data() {
    let large: String = layers::large().iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let layer = Layer::write(&layers::small(&[("large", &large)]));
    let place = layer.find(&large.as_bytes()[50 * BLOCK..51 * BLOCK]);
    let mut altered = layer.bytes.clone();
    altered[place + 7] ^= 1;
    let table = layer.table();

    let mut disks = Disks::new().with("images", 64 * MIB);
    let (disk, signal) = (disks.path("images-2"), disks.path("signal-1"));
    disks.guest = disks.guest.file("/layer", layer.bytes.clone()).file("/altered", altered);
    // The altered layer lies where the right one will: an earlier state of the same blocks, under the same key. A tag that
    // the kernel still has in memory tells it, else dm-verity does.
    let running = disks.guest.start(&format!(
        "{ASK}
         fresh() {{ echo 3 >/proc/sys/vm/drop_caches; }}
         shown() {{ if vm_guest verity /store/layer {table} /mnt; then cat /mnt/large >/shown; wc -c </shown; umount /mnt; cmp -n $(wc -c </shown) /shown /large && echo same; fi; }}
         mkdir /plain; vm_guest plain /layer /plain && cp /plain/large /large && umount /plain
         held /store >/dev/null; cp /layer /store/layer; sync; ask another-key; released /store
         held /store >/dev/null; sync; ask empty; cp /altered /store/layer; sync; ask earlier
         dd if=/layer of=/store/layer conv=notrunc 2>/dev/null; sync; fresh
         echo == intact; cmp /layer /store/layer && shown
         ask flip; fresh; echo == flipped; cmp /layer /store/layer; shown
         ask restore; fresh; echo == restored; cmp /layer /store/layer && shown
         ask roll-back; fresh; echo == rolled-back; shown
         ask swap; fresh; echo == swapped; cmp /layer /store/layer; shown
         ask end"
    ));
    let read = |from: &Path| fs::read(from).unwrap();
    let (another, empty, earlier, now) = ("another", "empty", "earlier", "now");
    let at = |name: &str| disks.folder.path().join(name);
    let keep = |name: &str| fs::copy(&disk, at(name)).map(drop).unwrap();
    let put = |name: &str| {
        let file = fs::File::options().write(true).open(&disk).unwrap();
        file.write_all_at(&read(&at(name)), 0).unwrap();
    };
    answer(
        &running,
        &signal,
        &mut [
            &mut || keep(another),
            &mut || keep(empty),
            &mut || keep(earlier),
            &mut || {
                keep(now);
                let (before, after) = (read(&at(empty)), read(&at(now)));
                assert!(!contains(&after, &large.as_bytes()[50 * BLOCK..50 * BLOCK + 64]), "the host reads the layer");
                let flipped = middle_of_longest_change(&before, &after) * BLOCK + 100;
                let file = fs::File::options().write(true).open(&disk).unwrap();
                file.write_all_at(&[!after[flipped]], flipped as u64).unwrap();
            },
            &mut || put(now),
            &mut || put(earlier),
            &mut || put(another),
            &mut || put(now),
        ],
    );
    let ended = running.ended();
    let _ = ended.ok();
    let whole = large.len().to_string();
    assert_eq!(ended.section("intact")[..2], [whole.as_str(), "same"], "{}", ended.output);
    assert_eq!(ended.section("restored")[..2], [whole.as_str(), "same"], "{}", ended.output);
    for section in ["flipped", "rolled-back", "swapped"] {
        let lines = ended.section(section);
        let failed = |line: &&str| line.contains("I/O error") || line.contains("Input/output error");
        assert!(lines.iter().any(failed), "{section}: {lines:?}");
        assert!(!lines.iter().any(|line| line.contains("differ") || *line == whole), "{lines:?}");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The block in the middle of the longest run of blocks that differ: file data, and no table of the file system.
fn middle_of_longest_change(before: &[u8], after: &[u8]) -> usize {
    let (mut best, mut start) = (0..0, 0);
    for (block, (old, new)) in before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate() {
        if old == new {
            start = block + 1;
        } else if block + 1 - start > best.len() {
            best = start..block + 1;
        }
    }
    assert!(best.len() > 20, "the layer was written in one piece: {best:?}");
    best.start + best.len() / 2
}
