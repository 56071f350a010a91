//! What the kernel enforces: layers mounted through dm-verity in a guest, where device-mapper exists.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a test fails by panicking

mod disk;
mod image;
mod layers;

use std::collections::BTreeMap;
use std::path::Path;

use integration_tests::vm::{Ended, Guest};
use layers::Layer;

/// What mounting a layer takes. The checksum of EROFS is asked for by name only, so its module comes first.
const MODULES: &[&str] = &["crc32c_generic", "loop", "dm-verity", "erofs", "overlay"];

fn guest() -> Guest {
    Guest::new().modules(MODULES).program(Path::new(env!("CARGO_BIN_EXE_vm_guest")))
}

/// The listing as it must be, except that some lines may be read errors; gives how many.
#[track_caller]
fn equal_or_error(ended: &Ended, section: &str, expected: &[String]) -> usize {
    let path = |line: &str| line.split(' ').next().unwrap().to_owned();
    let by_path: BTreeMap<String, &String> = expected.iter().map(|line| (path(line), line)).collect();
    let mut errors = 0;
    let lines = ended.section(section);
    assert!(!lines.is_empty(), "{section} says nothing:\n{}", ended.output);
    for line in lines {
        if line.contains("! ") && line.ends_with("(os error 5)") {
            errors += 1;
        } else {
            assert_eq!(by_path.get(&path(line)).map(|line| line.as_str()), Some(line), "{section}: wrong data");
        }
    }
    errors
}

#[test]
fn a_flipped_byte_is_a_read_error_and_never_wrong_data() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    layers::tree(&tree);
    let archive = layers::archive(&tree);
    let expected = layers::unpacked(&archive);
    let layer = Layer::write(&archive);
    assert!(layer.finished.tree.tree_blocks > 2, "a tree of two levels");

    let data = layer.find(&layers::large()[40 * 4096..41 * 4096]);
    let cases = [
        ("data", data + 1234),
        // The link's inode of 64 bytes stands before its target; its mode is at byte 4.
        ("inode", layer.find(layers::TARGET.as_bytes()) - 64 + 4),
        ("name", layer.find(b"file-59")),
        ("superblock", 1024 + 12),
        ("hash-of-a-block", layer.tree_block(1) + 5),
        ("hash-of-hashes", layer.tree_block(0) + 33),
        ("last-hash-block", layer.tree_block(layer.finished.tree.tree_blocks - 1) + 1),
    ];
    let table = layer.table();
    let mut script = format!(
        "check() {{ if $1; then vm_guest list /mnt; umount /mnt; fi; vm_guest leftovers || exit 1; }}
         echo == intact; check 'vm_guest verity /layer {table} /mnt'\n"
    );
    for (name, offset) in cases {
        script.push_str(&format!(
            "cp /layer /flipped; vm_guest flip /flipped {offset}
             echo == verity-{name}; check 'vm_guest verity /flipped {table} /mnt'
             echo == plain-{name}; check 'vm_guest plain /flipped /mnt'\n"
        ));
    }
    // After the mount and after the first reading, below the kernel's caches.
    script.push_str(&format!(
        "cp /layer /flipped; vm_guest verity /flipped {table} /mnt || exit 1
         cat /mnt/large >/dev/null || exit 1
         vm_guest flip /flipped {data}; echo 3 >/proc/sys/vm/drop_caches
         echo == live; vm_guest list /mnt; umount /mnt; vm_guest leftovers"
    ));
    let ended = guest().file("/layer", layer.bytes).run(&script);
    let _ = ended.ok();

    assert_eq!(ended.section("intact"), expected, "the mounted layer is what tar unpacks");
    for (name, _) in cases {
        let errors = equal_or_error(&ended, &format!("verity-{name}"), &expected);
        assert!(errors > 0, "{name}: a read must fail\n{}", ended.output);
    }
    // The same flips without dm-verity: had they no effect, the above would show nothing.
    for name in ["data", "inode", "name"] {
        let lines = ended.section(&format!("plain-{name}"));
        assert_eq!(lines.len(), expected.len(), "{name}: everything can be read");
        assert_ne!(lines, expected, "{name}: what was flipped is seen");
    }
    assert_eq!(equal_or_error(&ended, "live", &expected), 1, "one file of the live mount has one bad block");
    assert!(ended.console.contains("is corrupted"), "the kernel says which block:\n{}", ended.console);
}

#[test]
fn layers_with_whiteouts_stack_through_verity() {
    let base = Layer::write(&layers::small(&[
        ("kept", "from the base"),
        ("gone", "deleted above"),
        ("changed", "old"),
        ("opaque/", ""),
        ("opaque/hidden", "below an opaque directory"),
        ("merged/", ""),
        ("merged/base", "one"),
    ]));
    let middle = Layer::write(&layers::small(&[
        (".wh.gone", ""),
        ("changed", "new"),
        ("opaque/", ""),
        ("opaque/.wh..wh..opq", ""),
        ("opaque/shown", "of the middle"),
        ("merged/", ""),
        ("merged/middle", "two"),
    ]));
    let top = Layer::write(&layers::small(&[("merged/", ""), ("merged/.wh.base", ""), ("merged/top", "three")]));
    let mut guest = guest();
    let mut script = "mkdir -p /layers/0 /layers/1 /layers/2\n".to_owned();
    for (place, layer) in [base, middle, top].into_iter().enumerate() {
        script.push_str(&format!("vm_guest verity /{place}.erofs {} /layers/{place} || exit 1\n", layer.table()));
        guest = guest.file(&format!("/{place}.erofs"), layer.bytes);
    }
    script.push_str(
        "mount -t overlay -o ro,lowerdir=/layers/2:/layers/1:/layers/0 overlay /mnt || exit 1
         cd /mnt; echo == stack; find . -type f | sort | while read f; do echo $f: $(cat $f); done; cd /
         umount /mnt; umount /layers/0 /layers/1 /layers/2; echo == end; vm_guest leftovers",
    );
    let ended = guest.run(&script);
    let _ = ended.ok();
    let expected = [
        "./changed: new",
        "./kept: from the base",
        "./merged/middle: two",
        "./merged/top: three",
        "./opaque/shown: of the middle",
    ];
    assert_eq!(ended.section("stack"), expected);
}

/// The launch's own way: pull, store and mount, with more layers than fit into one option of a mount before
/// Linux 6.5.
#[test]
fn a_pulled_image_of_127_layers_is_mounted_through_verity_and_leaves_nothing() {
    let large = layers::large();
    // Not valid text, but no test looks at that; headers of archives want strings.
    let large: String = large.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let mut archives: Vec<Vec<u8>> = (0..126)
        .map(|n| {
            layers::small(&[
                ("numbers/", ""),
                (&format!("numbers/{n}"), &format!("{n}\n")),
                ("last", &format!("{n}\n")),
            ])
        })
        .collect();
    archives.push(layers::small(&[("large", &large), ("numbers/", ""), ("numbers/.wh.7", "")]));
    let block = Layer::write(archives.last().unwrap()).find(&large.as_bytes()[50 * 4096..51 * 4096]);

    let mut guest = guest();
    for (path, bytes) in image::layout(&archives) {
        guest = guest.file(&format!("/image/{path}"), bytes);
    }
    let ended = guest.run(&format!(
        "mkdir -m 700 /store
         echo == enforcement; vm_guest image /image /store /container || exit 1
         echo == numbers; cat /container/rootfs/numbers/* | sort -n
         echo == last; cat /container/rootfs/last; cmp /container/rootfs/large /container/rootfs/large && echo whole
         echo more >/container/rootfs/numbers/written && echo written
         stored=$(find /store -type f -size +600k); vm_guest flip $stored {block}; echo 3 >/proc/sys/vm/drop_caches
         echo == flipped; cat /container/rootfs/large | wc -c; cat /container/rootfs/last
         echo == removed; vm_guest remove /container && ls -d /container; grep -c -e erofs -e overlay /proc/mounts
         vm_guest leftovers"
    ));
    let _ = ended.ok();
    assert_eq!(ended.section("enforcement"), ["dm-verity"]);
    let numbers: Vec<String> = (0..126).filter(|n| *n != 7).map(|n| n.to_string()).collect();
    assert_eq!(ended.section("numbers"), numbers);
    assert_eq!(ended.section("last"), ["125", "whole", "written"]);
    let flipped = ended.section("flipped");
    let read: usize = flipped.iter().find_map(|line| line.trim().parse().ok()).unwrap();
    assert!(
        flipped.iter().any(|line| line.contains("Input/output error") || line.contains("I/O error")),
        "{flipped:?}"
    );
    assert!(read <= 50 * 4096, "nothing from the flipped block on is given: {read}");
    assert_eq!(flipped.last(), Some(&"125"), "other layers are whole");
    assert_eq!(ended.section("removed"), ["ls: /container: No such file or directory", "0"]);
}

/// What mounting itself reads is checked by mounting: the superblock, and a root directory in blocks of its own.
#[test]
fn an_altered_superblock_or_root_directory_is_not_mounted() {
    let names: Vec<String> = (0..300).map(|number| format!("a-file-in-the-root-directory-{number:03}")).collect();
    let entries: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "content\n")).collect();
    let archive = layers::small(&entries);
    let layer = Layer::write(&archive);
    let cases = [
        ("magic", 1024),
        ("block-size", 1024 + 12),
        ("inodes", 1024 + 16),
        ("name-in-the-root", layer.find(names[299].as_bytes())),
        ("hash-of-hashes", layer.tree_block(0) + 33),
    ];
    let mut guest = guest();
    for (path, bytes) in image::layout(&[archive]) {
        guest = guest.file(&format!("/image/{path}"), bytes);
    }
    let mut script = String::new();
    for (name, offset) in cases {
        script.push_str(&format!(
            "mkdir -m 700 /{name}; echo == {name}; vm_guest altered /image /{name} /container {offset} || exit 1
             ls -d /container; vm_guest leftovers || exit 1\n"
        ));
    }
    let ended = guest.run(&script);
    let _ = ended.ok();
    for (name, _) in cases {
        let told = ["store.corrupt", "ls: /container: No such file or directory"];
        assert_eq!(ended.section(name), told, "{name}\n{}", ended.output);
    }
}

/// The people's command in a machine with device-mapper.
#[test]
fn tclctl_pulls_and_mounts_through_verity_and_an_altered_layer_is_never_shown() {
    let large: String = layers::large().iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let archive = layers::small(&[("large", &large), ("small", "kept\n")]);
    let block = Layer::write(&archive).find(&large.as_bytes()[50 * 4096..51 * 4096]);
    let files = image::layout(&[archive]);
    let index = &files.iter().find(|(path, _)| path == "index.json").unwrap().1;
    let index: serde_json::Value = serde_json::from_slice(index).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap();
    let mut guest = guest().program(&integration_tests::process::binary("tclctl"));
    for (path, bytes) in &files {
        guest = guest.file(&format!("/image/{path}"), bytes.clone());
    }
    let ended = guest.run(&format!(
        "mkdir -m 700 /store; mkdir /target
         pull() {{ tclctl pull oci:/image --as r.example/app:1 --store /store --layout erofs --json; }}
         mounted() {{ tclctl mount r.example/app@{manifest} --store /store /target --json; }}
         pull >/dev/null || exit 1
         stored=$(find /store -name image -size +600k)
         echo == mounted; mounted || exit 1
         cat /target/small; wc -c </target/large
         vm_guest flip $stored {block}; echo 3 >/proc/sys/vm/drop_caches
         echo == beneath-a-mount; cat /target/large | wc -c; cat /target/small
         tclctl umount /target || exit 1
         echo == mounted-again; mounted; echo status $?; ls /target
         echo == pulled-again; pull >/dev/null || exit 1; mounted >/dev/null || exit 1
         wc -c </target/large; tclctl umount /target || exit 1
         vm_guest leftovers"
    ));
    let _ = ended.ok();
    let mounted = ended.section("mounted");
    assert!(mounted[0].contains("dm-verity"), "{mounted:?}");
    assert_eq!(mounted[1..], ["kept".to_owned(), large.len().to_string()]);
    let beneath = ended.section("beneath-a-mount");
    let read: usize = beneath.iter().find_map(|line| line.trim().parse().ok()).unwrap();
    assert!(
        beneath.iter().any(|line| line.contains("I/O error") || line.contains("Input/output error")),
        "{beneath:?}"
    );
    assert!(read <= 50 * 4096 && beneath.contains(&"kept"), "{beneath:?}");
    let again = ended.section("mounted-again");
    assert!(again[0].contains("store.corrupt") && again[1..] == ["status 77"], "{again:?}");
    assert_eq!(ended.section("pulled-again"), [large.len().to_string()]);
}
