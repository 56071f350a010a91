//! `tclctl pull`, `mount` and `umount`: a store without an agent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::Seen;
use integration_tests::command::{run, tclctl, tool};
use integration_tests::image::{Image, Recipe};
use integration_tests::registry::Registry;
use serde_json::Value;
use tempfile::TempDir;

/// Every layout does all of this.
const LAYOUTS: &[&str] = &["erofs", "tree"];
const CONTENT: &str = "content that is easy to find again";

/// A registry, a store and a directory to mount at.
struct House {
    folder: TempDir,
    registry: Option<Registry>,
    host: String,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::start(folder.path(), false);
        fs::create_dir(folder.path().join("target")).unwrap();
        let host = registry.address.clone();
        Self { folder, registry: Some(registry), host }
    }

    /// An image of three layers: one more than what is pushed alone.
    fn image(&self) -> Image {
        let recipe = Recipe::new("true").layer("/etc/content", CONTENT).layer("/etc/other", "more");
        recipe.push(self.folder.path(), &self.host, "app", "1")
    }

    fn reference(&self) -> String {
        format!("{}/app:1", self.host)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("target")
    }

    fn pull_command(&self, layout: &str) -> Command {
        let (reference, store) = (self.reference(), self.path("store"));
        tclctl(&["pull", &reference, "--store", &store.display().to_string(), "--layout", layout, "--plain-http"])
    }

    fn pull(&self, layout: &str) -> Seen {
        run(self.pull_command(layout))
    }

    /// The pull's answer for programs.
    fn pulled(&self, layout: &str) -> Value {
        let mut command = self.pull_command(layout);
        command.arg("--json");
        run(command).ok().json()
    }

    fn mount(&self, more: &[&str]) -> Seen {
        let (store, target) = (self.path("store").display().to_string(), self.target().display().to_string());
        let mut arguments = vec!["mount".to_owned(), self.reference(), "--store".to_owned(), store, target];
        arguments.extend(more.iter().map(|more| (*more).to_owned()));
        run(tclctl(&arguments))
    }

    fn umount(&self) -> Seen {
        run(tclctl(&["umount", &self.target().display().to_string()]))
    }

    /// Mounts below this house.
    fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let folder = self.folder.path().display().to_string();
        table.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(&folder))).count()
    }

    #[track_caller]
    fn nothing_mounted(&self) {
        assert_eq!(self.mounts(), 0);
        let left = fs::read_dir(self.path("store/mounts")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "nothing stays in mounts/");
    }
}

impl Drop for House {
    fn drop(&mut self) {
        while Command::new("umount").arg("-l").arg(self.target()).stderr(Stdio::null()).status().unwrap().success() {}
        let mounts = fs::read_dir(self.path("store/mounts")).into_iter().flatten().flatten();
        for mount in mounts.map(|entry| entry.path().join("rootfs")).filter(|path| path.exists()) {
            let _ = Command::new("umount").arg("-l").arg(mount).stderr(Stdio::null()).status();
        }
    }
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Flips one bit of `text` in whatever stored file holds it.
fn tamper(store: &Path, text: &str) {
    let mut done = 0;
    for path in files(store) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at.try_into().unwrap()).unwrap();
            done += 1;
        }
    }
    assert_eq!(done, 1, "one file holds it");
}

#[test]
fn a_pull_tells_what_it_did_and_the_next_one_downloads_no_layer() {
    for layout in LAYOUTS {
        let house = House::new();
        let image = house.image();
        let first = house.pulled(layout);
        assert_eq!(first["manifest"], image.manifest);
        assert_eq!(first["config"], image.config);
        assert_eq!(first["layout"], format!("{layout}-v1"));
        let blobs: Vec<&str> =
            first["layers"].as_array().unwrap().iter().map(|l| l["blob"].as_str().unwrap()).collect();
        assert_eq!(blobs, image.layers);
        let size =
            |value: &Value| value["layers"].as_array().unwrap().iter().map(|l| l["size"].as_u64().unwrap()).sum();
        let size: u64 = size(&first);
        let downloaded = first["bytes_downloaded"].as_u64().unwrap();
        assert!(downloaded > size && downloaded < size + 4096, "layers, manifest and config: {first}");
        assert!(first["bytes_written"].as_u64().unwrap() > size, "{first}");

        let second = house.pulled(layout);
        assert!(second["bytes_downloaded"].as_u64().unwrap() < 4096, "manifest and config alone: {second}");
        for (before, after) in first["layers"].as_array().unwrap().iter().zip(second["layers"].as_array().unwrap()) {
            assert_eq!((&before["reused"], &after["reused"]), (&Value::Bool(false), &Value::Bool(true)));
            assert_eq!((&before["diff_id"], &before["measurement"]), (&after["diff_id"], &after["measurement"]));
            assert!(before["measurement"].as_str().unwrap().starts_with("sha256:"), "{before}");
        }
        assert_eq!(first["rootfs"], second["rootfs"]);
        let text = house.pull(layout).ok().stdout;
        assert!(text.contains(&image.manifest) && text.contains("3 stored before"), "{text}");
    }
}

#[test]
fn a_pulled_image_is_mounted_without_a_network() {
    for layout in LAYOUTS {
        let mut house = House::new();
        let image = house.image();
        let pulled = house.pulled(layout);
        house.registry = None;

        let wrong = format!("sha256:{}", "0".repeat(64));
        house.mount(&["--rootfs", &wrong]).refused(77, "image.rootfs");
        house.nothing_mounted();
        let digest = pulled["rootfs"][format!("{layout}-v1")].as_str().unwrap();
        let mounted = house.mount(&["--json", "--rootfs", digest]).ok().json();
        assert_eq!(mounted["manifest"], image.manifest);
        assert_eq!(mounted["rootfs"], pulled["rootfs"]);
        let kind = tool("stat", &["-f", "-c", "%T", &house.path("store").display().to_string()]).ok().stdout;
        let memory = ["tmpfs", "ramfs"].contains(&kind.trim());
        let without_verity = if memory { "re-measured in guest memory" } else { "nothing" };
        let enforcement = mounted["enforcement"].as_str().unwrap();
        assert!(enforcement == without_verity || (enforcement == "dm-verity" && *layout == "erofs"), "{mounted}");
        let content = house.target().join("etc/content");
        assert_eq!(fs::read_to_string(&content).unwrap(), CONTENT);
        let refused = fs::write(&content, "changed").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let _ = house.umount().ok();
        house.nothing_mounted();

        let _ = house.mount(&["--writable"]).ok();
        fs::write(&content, "changed").unwrap();
        let _ = house.umount().ok();
        house.nothing_mounted();
        let _ = house.mount(&[]).ok();
        assert_eq!(fs::read_to_string(&content).unwrap(), CONTENT, "changes end with their mount");
        let _ = house.umount().ok();

        let again = house.umount();
        assert_eq!(again.status, 64, "nothing is mounted there: {again:#?}");
    }
}

#[test]
fn a_layer_altered_in_the_store_is_never_mounted_and_the_next_pull_repairs_it() {
    for layout in LAYOUTS {
        let house = House::new();
        let _ = house.image();
        let pulled = house.pulled(layout);
        tamper(&house.path("store"), CONTENT);
        house.mount(&[]).refused(77, "store.corrupt");
        house.nothing_mounted();
        let again = house.pulled(layout);
        assert_eq!(again["rootfs"], pulled["rootfs"]);
        let reused: Vec<bool> =
            again["layers"].as_array().unwrap().iter().map(|l| l["reused"].as_bool().unwrap()).collect();
        assert_eq!(reused, [true, false, true], "one layer is fetched again");
        let _ = house.mount(&[]).ok();
        assert_eq!(fs::read_to_string(house.target().join("etc/content")).unwrap(), CONTENT);
        let _ = house.umount().ok();
    }
}

#[test]
fn an_altered_manifest_or_config_in_the_store_is_refused() {
    let house = House::new();
    let image = house.image();
    let _ = house.pull("tree").ok();
    for (document, code) in [(&image.manifest, "image.manifest_digest"), (&image.config, "image.blob_digest")] {
        let path = house.path("store/images").join(document.trim_start_matches("sha256:"));
        let bytes = fs::read(&path).unwrap();
        let mut altered = bytes.clone();
        *altered.last_mut().unwrap() = b' ';
        fs::write(&path, &altered).unwrap();
        house.mount(&[]).refused(77, code);
        fs::write(&path, &bytes).unwrap();
    }
    house.nothing_mounted();
}

#[test]
fn a_blob_altered_in_the_registry_leaves_nothing_to_mount() {
    for layout in LAYOUTS {
        let house = House::new();
        let image = house.image();
        house.registry.as_ref().unwrap().edit_blob(&image.layers[0], |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        house.pull(layout).refused(77, "image.blob_digest");
        house.mount(&[]).refused(77, "image.not_found");
        house.nothing_mounted();
    }
}

#[test]
fn what_cannot_be_done_has_its_exit_status() {
    let mut house = House::new();
    let _ = house.image();
    let reference = house.reference();
    let store = house.path("store").display().to_string();
    let status = |arguments: &[&str]| run(tclctl(arguments)).status;
    assert_eq!(status(&["pull", &reference]), 64, "no store is named");
    assert_eq!(status(&["pull", "no reference", "--store", &store]), 64);
    // Not listed for plain HTTP.
    run(tclctl(&["pull", &reference, "--store", &store])).refused(77, "image.plain_http");
    run(tclctl(&["pull", &format!("{}/other:1", house.host), "--store", &store, "--plain-http"]))
        .refused(77, "image.not_found");
    fs::write(house.path("file"), "no directory").unwrap();
    let file = house.path("file").display().to_string();
    run(tclctl(&["pull", &reference, "--store", &file, "--plain-http"])).refused(74, "store.io");
    assert_eq!(house.mount(&[]).status, 77, "nothing was pulled");
    house.registry = None;
    house.pull("tree").refused(69, "image.registry");
}

#[test]
fn a_killed_pull_leaves_a_store_that_the_next_one_completes() {
    for layout in LAYOUTS {
        let house = House::new();
        let mut big = vec![0u8; 48 << 20];
        // Neither compressible nor alike in any two blocks.
        let mut state = 1u64;
        for word in big.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(state >> 7).to_le_bytes());
        }
        let recipe = Recipe::new("true").layer("/big", big).layer("/etc/content", CONTENT);
        let _ = recipe.push(house.folder.path(), &house.host, "app", "1");
        for milliseconds in [5, 20, 60, 120, 200] {
            let mut child = house.pull_command(layout).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(milliseconds));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let pulled = house.pulled(layout);
        let _ = house.mount(&[]).ok();
        assert_eq!(fs::metadata(house.target().join("big")).unwrap().len(), 48 << 20);
        let _ = house.umount().ok();
        fs::remove_dir_all(house.path("store")).unwrap();
        assert_eq!(house.pulled(layout)["rootfs"], pulled["rootfs"], "as if nothing had been killed");
    }
}

#[test]
fn layers_that_are_mounted_do_not_give_way_to_a_quota() {
    for layout in LAYOUTS {
        let house = House::new();
        let noise = |seed: u8| {
            (0..400_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2] ^ seed).collect::<Vec<_>>()
        };
        for (tag, seed) in [("1", 0), ("2", 90)] {
            let recipe = Recipe::new("true").layer("/big", noise(seed)).layer("/etc/content", tag);
            let _ = recipe.push(house.folder.path(), &house.host, "app", tag);
        }
        let _ = house.pull(layout).ok();
        let _ = house.mount(&[]).ok();
        let store = house.path("store").display().to_string();
        let second = format!("{}/app:2", house.host);
        // The base layer is common to both; one more big layer fits only in place of the first image's.
        let taken = du(&house.path("store"));
        let quota = (taken + 200_000).to_string();
        let pull = ["pull", &second, "--store", &store, "--layout", layout, "--plain-http", "--quota", &quota];
        run(tclctl(&pull)).refused(74, "store.quota");
        assert_eq!(fs::read(house.target().join("big")).unwrap(), noise(0), "the mounted image is whole");
        let _ = house.umount().ok();
        let _ = run(tclctl(&pull)).ok();
        house.mount(&[]).refused(77, "image.not_found");
        house.nothing_mounted();
    }
}

/// Bytes a folder takes.
fn du(folder: &Path) -> u64 {
    let folder = folder.display().to_string();
    let said = tool("du", &["-s", "-x", "--block-size=1", &folder]).ok();
    said.stdout.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn what_is_pruned_is_what_no_reference_and_no_mount_needs() {
    for layout in LAYOUTS {
        let house = House::new();
        let image = house.image();
        let _ = house.pull(layout).ok();
        let store = house.path("store").display().to_string();
        let images = || run(tclctl(&["images", "--store", &store, "--json"])).ok().json();
        let prune = |more: &[&str]| run(tclctl(&[&["prune", "--json", "--store", &store], more].concat()));
        assert_eq!(images()[0]["manifest"], image.manifest);
        assert_eq!(prune(&[]).ok().json()["layers_removed"], 0);

        let _ = house.mount(&[]).ok();
        assert_eq!(images()[0]["mounts"][0], house.target().display().to_string());
        assert_eq!(prune(&[&house.reference()]).status, 64, "it is mounted");
        assert_eq!(prune(&["--all"]).ok().json()["layers_removed"], 0);
        // Moved to another image, the tag no longer speaks for the first one's layers; its mount does.
        let _ = Recipe::new("false").layer("/etc/second", "2").push(house.folder.path(), &house.host, "app", "1");
        let _ = house.pull(layout).ok();
        assert_eq!(prune(&[]).ok().json()["layers_removed"], 0);
        assert_eq!(fs::read_to_string(house.target().join("etc/content")).unwrap(), CONTENT);
        let _ = house.umount().ok();
        assert_eq!(prune(&[]).ok().json()["layers_removed"], 2, "the base layer is the second image's too");
        let _ = house.mount(&[]).ok();
        let _ = house.umount().ok();

        assert_eq!(prune(&["--all"]).ok().json()["layers_removed"], 2);
        assert_eq!(images().as_array().unwrap().len(), 0);
        house.mount(&[]).refused(77, "image.not_found");
    }
}
