//! Layers above layers: implied directories, and what overlayfs makes of the stack.

use image_rs_fork::erofs::{DirAttributes, ErofsLimits, Found, Inheritance, LayerReader, LayerWriter};
use image_rs_fork::tar::TarPath;
use image_rs_fork::verity::{BLOCK, Blocks};
use proptest::prelude::*;
use protocols::digest::Sha256Digest;

use crate::archive::{Archive, Entry, entry};
use crate::layer::{Layer, Mounted, in_memory, stream};
use crate::listing;

fn new() -> Archive {
    Archive::new()
}

fn private(name: &str) -> Entry<'_> {
    let pax: Vec<(&str, &[u8])> = vec![("SCHILY.xattr.user.a", b"1"), ("mtime", b"1600000000.5")];
    Entry { mode: 0o2700, owner: (5, 6), pax, ..entry(name, b'5') }
}

/// Layers, the lowest first, each above those before it.
fn stack(archives: Vec<Archive>) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for archive in archives {
        let lowers: Vec<&Layer> = layers.iter().rev().collect();
        let layer = Layer::above(&archive.end(), &lowers).unwrap();
        layer.check();
        layers.push(layer);
    }
    layers
}

/// What overlayfs shows of a stack.
fn merged(layers: &[Layer]) -> Vec<String> {
    let mounts: Vec<Mounted> = layers.iter().rev().map(Layer::mount).collect();
    let overlay = Mounted::overlay(&mounts.iter().collect::<Vec<_>>());
    let mut lines = listing::brief(overlay.path());
    lines.remove(0);
    lines
}

#[test]
fn an_implied_directory_keeps_what_the_layer_below_gave_it() {
    let layers = stack(vec![new().add(private("d")).file("d/low", ""), new().file("d/high", "")]);
    let lines = listing::full(layers[1].mount().path());
    assert_eq!(lines[1], "d2700 5:6 /d 1600000000.500000000 user.a=1 links 2");
    assert_eq!(merged(&layers), ["d2700 5:6 /d user.a=1", "f0644 1:2 /d/high ", "f0644 1:2 /d/low "]);
}

#[test]
fn the_nearest_layer_that_has_the_directory_counts() {
    let second = Entry { mode: 0o711, ..entry("d", b'5') };
    let layers =
        stack(vec![new().add(private("d")), new().add(second), new().file("other", ""), new().file("d/e/f", "")]);
    assert_eq!(merged(&layers)[..2], ["d0711 1:2 /d", "d0755 0:0 /d/e"]);
}

#[test]
fn an_implied_directory_passes_on_what_it_inherited() {
    let layers = stack(vec![new().add(private("d")), new().file("d/a", ""), new().file("d/b", "")]);
    assert_eq!(listing::brief(layers[2].mount().path())[1], "d2700 5:6 /d user.a=1");
}

#[test]
fn the_root_is_inherited_too() {
    let layers = stack(vec![new().add(Entry { mode: 0o711, ..entry("./", b'5') }), new().file("a", "")]);
    assert_eq!(listing::brief(layers[1].mount().path())[0], "d0711 1:2 /");
}

#[test]
fn what_a_layer_between_has_hidden_is_not_inherited() {
    for between in [
        new().file(".wh.d", ""),
        new().file("d", "a file now"),
        new().symlink("d", "elsewhere"),
        new().dir("d").file("d/.wh.e", ""),
        new().dir("d").file("d/.wh..wh..opq", ""),
        new().file(".wh..wh..opq", ""),
    ] {
        let low = new().add(private("d")).add(private("d/e"));
        let layers = stack(vec![low, between, new().file("d/e/f", "")]);
        let lines = listing::brief(layers[2].mount().path());
        assert_eq!(lines[2], "d0755 0:0 /d/e");
    }
}

#[test]
fn overlayfs_hides_what_whiteouts_name() {
    let low = new().dir("d").file("d/a", "1").file("d/b", "1").file("f", "1").dir("o").file("o/x", "1");
    let high = new().file("d/.wh.a", "").file(".wh.f", "").file("o/.wh..wh..opq", "").file("o/y", "2");
    let shown = ["d0755 1:2 /d", "f0644 1:2 /d/b 1", "d0755 1:2 /o", "f0644 1:2 /o/y 2"];
    assert_eq!(merged(&stack(vec![low, high])), shown);
}

#[test]
fn a_directory_made_anew_does_not_show_the_old_one_below() {
    let low = || new().dir("d").file("d/old", "1");
    for high in
        [new().file(".wh.d", "").dir("d").file("d/new", "2"), new().dir("d").file("d/new", "2").file(".wh.d", "")]
    {
        assert_eq!(merged(&stack(vec![low(), high])), ["d0755 1:2 /d", "f0644 1:2 /d/new 2"]);
    }
}

#[test]
fn the_same_archive_above_other_directories_is_another_image() {
    let high = || new().file("d/a", "");
    let one = stack(vec![new().add(private("d")), high()]).pop().unwrap();
    let other = stack(vec![new().dir("d"), high()]).pop().unwrap();
    assert_ne!(one.finished.inherited, other.finished.inherited);
    assert_ne!(one.finished.tree.root_hash, other.finished.tree.root_hash);
    assert_eq!(one.finished.implied, other.finished.implied);
}

#[test]
fn the_digest_of_what_is_inherited_is_that_of_the_paths_and_attributes() {
    let layers = stack(vec![new().add(private("d")), new().file("d/a", "")]);
    let Found::Directory { attributes, opaque: false } =
        layers[0].reader().find(TarPath::from_clean(b"d").unwrap()).unwrap()
    else {
        panic!("no directory")
    };
    assert_eq!((attributes.mode, attributes.mtime, attributes.mtime_nsec), (0o2700, 1_600_000_000, 500_000_000));
    let mut inheritance = Inheritance::new();
    inheritance.directory(b"", &DirAttributes::default());
    inheritance.directory(b"d", &attributes);
    assert_eq!(layers[1].finished.inherited, inheritance.digest());
}

#[test]
fn only_implied_directories_take_attributes() {
    let mut writer = LayerWriter::new(Blocks::new(), ErofsLimits::default());
    stream(&mut writer, &new().dir("given").file("given/f", "").file("implied/f", "").end(), 512).unwrap();
    let mut streamed = writer.into_streamed().unwrap();
    assert_eq!(streamed.implied_directories(), [&b""[..], b"implied"]);
    let private = DirAttributes { mode: 0o700, ..DirAttributes::default() };
    for path in [&b"given"[..], b"given/f", b"missing", b"implied", b"../x", b"/"] {
        streamed.set_attributes(path, &private).unwrap();
    }
    let (_, out) = streamed.finish(&Sha256Digest::of(b"")).unwrap();
    let reader = LayerReader::open(out).unwrap();
    let mode = |path: &'static [u8]| match reader.find(TarPath::from_clean(path).unwrap()).unwrap() {
        Found::Directory { attributes, .. } => attributes.mode,
        found => panic!("{found:?}"),
    };
    assert_eq!([mode(b""), mode(b"given"), mode(b"implied")], [0o755, 0o755, 0o700]);
}

#[test]
fn a_reader_finds_every_directory_of_a_large_one() {
    let mut archive = new();
    for n in 0..3000 {
        archive = archive.add(Entry { owner: (n, 0), ..entry(&format!("d{}/{n}", n % 3), b'5') });
    }
    let (_, bytes) = in_memory(&archive.end(), 4096).unwrap();
    let reader = LayerReader::open(Blocks::from(bytes.as_chunks::<BLOCK>().0.to_vec())).unwrap();
    for n in 0..3000 {
        let path = format!("d{}/{n}", n % 3);
        let found = reader.find(TarPath::from_clean(path.as_bytes()).unwrap()).unwrap();
        assert!(matches!(found, Found::Directory { attributes, .. } if attributes.uid == n), "{path}");
        let absent = format!("d{}/{n}", (n + 1) % 3);
        assert_eq!(reader.find(TarPath::from_clean(absent.as_bytes()).unwrap()).unwrap(), Found::Absent);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// A reader of altered bytes errs or answers; it neither panics nor hangs.
    #[test]
    fn a_damaged_image_is_read_without_harm(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..20)) {
        let mut archive = new().add(private("d"));
        for n in 0..200 {
            archive = archive.dir(&format!("d/{n}")).file(&format!("d/{n}/f"), "x");
        }
        let (finished, mut bytes) = in_memory(&archive.end(), 4096).unwrap();
        let data = usize::try_from(finished.hash_offset()).unwrap();
        for (at, value) in changes {
            // Block 0 has a checksum; the damage is to what it does not cover.
            bytes[BLOCK + at % (data - BLOCK)] = value;
        }
        let reader = LayerReader::open(Blocks::from(bytes.as_chunks::<BLOCK>().0.to_vec())).unwrap();
        for path in ["", "d", "d/7", "d/199/f", "d/nothing"] {
            let _ = reader.find(TarPath::from_clean(path.as_bytes()).unwrap());
        }
    }
}
