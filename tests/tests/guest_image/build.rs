//! Builds, without booting them.

use std::fs;
use std::path::Path;

use guest_image::{Flavour, Options, names};
use serde_json::Value;

use super::scene::options;

/// Names in an archive of the "newc" form, a line each.
fn listed(mut archive: &[u8]) -> String {
    let number = |bytes: &[u8]| usize::from_str_radix(std::str::from_utf8(bytes).unwrap(), 16).unwrap();
    let mut names = String::new();
    loop {
        let (size, name) = (number(&archive[54..62]), number(&archive[94..102]));
        let text = std::str::from_utf8(&archive[110..110 + name - 1]).unwrap();
        if text == "TRAILER!!!" {
            return names;
        }
        names.push_str(text);
        names.push('\n');
        archive = &archive[(110 + name).next_multiple_of(4) + size.next_multiple_of(4)..];
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut files: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn two_builds_in_two_folders_are_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [one.path().join("a"), other.path().join("another/name")] {
        guest_image::build(&options(&folder)).unwrap();
    }
    let (one, other) = (files(&one.path().join("a")), files(&other.path().join("another/name")));
    assert_eq!(one.len(), 8, "{:?}", one.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for ((name, bytes), (other_name, other_bytes)) in one.iter().zip(&other) {
        assert_eq!(name, other_name);
        assert!(bytes == other_bytes, "{name} differs");
    }
    let components: Value =
        serde_json::from_slice(&one.iter().find(|(name, _)| name == names::COMPONENTS).unwrap().1).unwrap();
    let named = |purl: &str| {
        components["components"]
            .as_array()
            .unwrap()
            .iter()
            .any(|component| component["purl"].as_str().unwrap().starts_with(purl))
    };
    assert!(named("pkg:deb/debian/runc@") && named("pkg:cargo/tokio@") && named("pkg:cargo/guest-agent@"));
    assert!(!named("pkg:cargo/key-broker@"), "the attestor is no part of a guest");
}

#[test]
fn a_shell_is_in_no_image_that_does_not_say_so_in_what_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let built = |name: &str, debug: bool| {
        let out = folder.path().join(name);
        guest_image::build(&Options { debug, flavour: Flavour::Initrd, ..options(&out) }).unwrap();
        let listed = listed(&zstd::decode_all(&*fs::read(out.join(names::INITRD)).unwrap()).unwrap());
        let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
        (listed, read(names::COMMAND_LINE), read(names::REFERENCES))
    };
    let (files, line, values) = built("production", false);
    assert!(files.lines().any(|file| file == "usr/bin/guest-agent"), "{files}");
    for word in ["busybox", "bin/sh", "bash", "guest-debug"] {
        assert!(!files.contains(word), "{word} in\n{files}");
    }
    assert!(!line.contains("debug"), "{line}");
    let (files, line, debug_values) = built("debug", true);
    assert!(files.contains("usr/bin/sh") && files.contains("etc/guest-debug"), "{files}");
    assert!(line.contains("tcl.debug"), "{line}");
    assert_ne!(values, debug_values);
}
