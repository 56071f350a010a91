//! A disk of the host beneath the image store: what keeps it from being one, and what the host gets by altering it while
//! the guest runs.

use integration_tests::process::program;
use integration_tests::vm::{Ended, Guest, HostDisk, Signal};

use super::layers::{self, Layer};

/// What a disk that is encrypted, authenticated and formatted takes beside a layer's mount.
const DISK_MODULES: &[&str] =
    &["virtio_pci", "virtio_blk", "dm-integrity", "dm-crypt", "authenc", "xts", "ecb", "ext4"];
const MIB: u64 = 1 << 20;
const BLOCK: usize = 4096;

/// `held AT` mounts the disk there until `released AT`.
const HELD: &str = "
held() { mkdir -p $1; rm -f $1.told; vm_guest disk images /usr/bin/mke2fs $1 >$1.told & until grep -qs . $1.told; do sleep 1; done; cat $1.told; }
released() { touch $1.release; wait; rm $1.release; vm_guest leftovers; }
";

fn guest() -> Guest {
    super::guest().modules(DISK_MODULES).program(&program("mke2fs"))
}

fn names(ended: &Ended, section: &str, code: &str, words: &str) {
    let lines = ended.section(section);
    let told = lines.iter().any(|line| line.starts_with(&format!("! {code}: ")) && line.contains(words));
    assert!(told, "{section}: {lines:?}");
}

#[test]
fn a_disk_that_cannot_be_the_image_store_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = guest();
    for (number, serial, bytes) in
        [("0", "images", 64 * MIB), ("1", "small", 63 * MIB), ("2", "twice", MIB), ("3", "twice", MIB)]
    {
        let file = folder.path().join(number);
        std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
        let drive = format!("file={},if=none,id=disk{number},format=raw", file.display());
        guest =
            guest.qemu(&["-drive", &drive, "-device", &format!("virtio-blk-pci,drive=disk{number},serial={serial}")]);
    }
    let ended = guest.run(&format!(
        "{HELD}
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

    let folder = tempfile::tempdir().unwrap();
    let (signal, guest) = Signal::attach(folder.path(), guest());
    let (disk, guest) = HostDisk::attach(folder.path(), "images", 64 * MIB, guest);
    let guest = guest.file("/layer", layer.bytes).file("/altered", altered);
    // The altered layer lies where the right one will: an earlier state of the same blocks, under the same key. A tag that
    // the kernel still has in memory tells it, else dm-verity does.
    let mut running = guest.start(&format!(
        "{}{HELD}
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
        ,Signal::functions()
    ));
    let kept = |name: &str| folder.path().join(format!("{name}.kept"));
    let keep = |name: &str| disk.keep(&kept(name));
    let put = |name: &str| disk.put(&kept(name));
    signal.answer(
        &mut running,
        &mut [
            &mut || keep("another-key"),
            &mut || keep("empty"),
            &mut || keep("earlier"),
            &mut || {
                keep("now");
                assert!(!disk.holds(&large.as_bytes()[50 * BLOCK..50 * BLOCK + 64]), "the host reads the layer");
                disk.flip(&kept("empty"));
            },
            &mut || put("now"),
            &mut || put("earlier"),
            &mut || put("another-key"),
            &mut || put("now"),
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
