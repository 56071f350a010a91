//! Whole images out of a registry: the mounted stack of layers, in both layouts, against what `tar -xp` makes of the
//! layers one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::corpus::{directories, shown, timeless};
use crate::equal::assert_lists_equal;
use crate::layer::run;
use crate::listing;

/// `cargo xtask bench equal --images REFERENCES` runs it.
#[test]
#[ignore = "needs images in a registry, skopeo and a built tclctl"]
fn a_corpus_of_images_equals_tar() {
    let given = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let (references, tclctl) = (given("TCL_CORPUS_IMAGES"), given("TCL_TCLCTL"));
    for reference in references.split(',') {
        let work = tempfile::tempdir().unwrap();
        let (tree, own) = unpacked(reference, work.path());
        let want = seen(&tree, &own);
        for layout in ["erofs", "tree"] {
            let mounted = Mounted::new(&tclctl, reference, layout, &work.path().join(layout));
            assert_lists_equal(&seen(&mounted.target, &own), &want);
            println!("{reference}: {} names of {layout} equal", want.len());
        }
    }
}

/// What `tar` makes of an image's layers, and the directories that have entries of their own.
fn unpacked(reference: &str, work: &Path) -> (PathBuf, BTreeSet<String>) {
    let (blobs, tree) = (work.join("blobs"), work.join("unpacked"));
    fs::create_dir(&tree).unwrap();
    let copy = ["copy", "--insecure-policy", "--src-tls-verify=false"];
    let to = format!("dir:{}", blobs.display());
    run(Command::new("skopeo").args(copy).args([&format!("docker://{reference}"), &to]));
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(blobs.join("manifest.json")).unwrap()).unwrap();
    let mut own = BTreeSet::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let archive = blobs.join(digest);
        let described = directories(&archive);
        apply(&archive, &described, &tree);
        own.extend(described);
    }
    (tree, own)
}

/// Applies one layer's archive: first its marks of removal, then all else.
fn apply(archive: &Path, described: &BTreeSet<String>, tree: &Path) {
    let mut before = BTreeMap::new();
    times(tree, tree, &mut before);
    let listed = run(Command::new("tar").args(["--quoting-style=literal", "-tf"]).arg(archive));
    for member in listed.lines() {
        let path = tree.join(member.trim_start_matches("./"));
        let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap_or_default().to_str().unwrap());
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => {
                for entry in fs::read_dir(dir).into_iter().flatten() {
                    remove(&entry.unwrap().path());
                }
            }
            Some(hidden) if !hidden.starts_with(".wh.") => remove(&dir.join(hidden)),
            // A directory stays under a directory and gives way to anything else.
            None if !described.contains(&shown(member)) => remove_directory(&path),
            _ => {}
        }
    }
    run(Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "--delay-directory-restore"])
        .args(["--exclude=.wh.*", "-xpf"])
        .arg(archive)
        .arg("-C")
        .arg(tree));
    // A directory that the layer does not describe keeps what it had, whatever was put into it.
    for (name, time) in before {
        let path = tree.join(name.trim_start_matches('/'));
        if !described.contains(&name) && fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

fn remove_directory(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        fs::remove_dir_all(path).unwrap();
    }
}

/// The times of all directories, by what a listing shows of their paths.
fn times(root: &Path, dir: &Path, found: &mut BTreeMap<String, SystemTime>) {
    let shown = format!("/{}", dir.strip_prefix(root).unwrap().to_str().unwrap());
    found.insert(shown, fs::metadata(dir).unwrap().modified().unwrap());
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            times(root, &entry.path(), found);
        }
    }
}

/// All there is to see but counts of links, which overlayfs does not make anew.
fn seen(root: &Path, own: &BTreeSet<String>) -> Vec<String> {
    let countless = |line: String| {
        let (before, links) = line.rsplit_once(" links ").unwrap();
        match (line.starts_with('d'), links.split_once(" of ")) {
            (false, Some((first, rest))) => {
                // `COUNTED COUNT [DIGEST]`
                let mut words: Vec<&str> = rest.split(' ').collect();
                words.remove(1);
                format!("{before} links {first} of {}", words.join(" "))
            }
            _ => before.to_owned(),
        }
    };
    listing::full(root).into_iter().map(|line| timeless(countless(line), own)).collect()
}

/// A pulled image, mounted; both are gone with this value.
struct Mounted<'a> {
    tclctl: &'a str,
    store: PathBuf,
    target: PathBuf,
}

impl<'a> Mounted<'a> {
    fn new(tclctl: &'a str, reference: &str, layout: &str, dir: &Path) -> Self {
        let mounted = Self { tclctl, store: dir.join("store"), target: dir.join("target") };
        fs::create_dir_all(&mounted.target).unwrap();
        let store = ["--store", mounted.store.to_str().unwrap(), "--json", "--layout", layout];
        run(Command::new(tclctl).args(["pull", reference, "--plain-http"]).args(store));
        run(Command::new(tclctl).args(["mount", reference]).arg(&mounted.target).args(store));
        mounted
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new(self.tclctl).arg("umount").arg(&self.target).status();
        let _ = fs::remove_dir_all(&self.store);
    }
}
