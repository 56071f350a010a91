//! Whole archives from disk, as large as they come: the folder that `TCL_CORPUS_LAYERS` names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::equal::{assert_lists_equal, unpack};
use crate::layer::{Layer, run};
use crate::listing;

/// `cargo xtask bench equal --layers DIR` runs it.
#[test]
#[ignore = "needs a folder of archives"]
fn a_corpus_of_layers_equals_tar() {
    let folder = PathBuf::from(std::env::var_os("TCL_CORPUS_LAYERS").expect("TCL_CORPUS_LAYERS names a folder"));
    let mut archives: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    archives.sort();
    assert!(!archives.is_empty(), "no *.tar in {}", folder.display());
    for archive in &archives {
        let names = equals_tar(archive);
        println!("{}: {names} names equal", archive.file_name().unwrap().display());
    }
    println!("{} archives equal tar, pass fsck.erofs and hash as veritysetup does", archives.len());
}

/// How many names there were to compare.
fn equals_tar(archive: &Path) -> usize {
    let work = tempfile::tempdir().unwrap();
    let unpacked = unpack(archive, work.path());
    let layer = Layer::with_whiteouts(&fs::read(archive).unwrap()).unwrap();
    layer.check();
    let mounted = layer.mount();
    let own = directories(archive);
    let listed = |root: &Path| meaning(listing::full(root).into_iter().map(|line| timeless(line, &own)));
    let (have, want) = (listed(mounted.path()), listed(&unpacked));
    assert_lists_equal(&have, &want);
    have.len()
}

/// The directories an archive has entries for, as a listing shows them.
pub(crate) fn directories(archive: &Path) -> BTreeSet<String> {
    let listed = run(Command::new("tar").arg("-tf").arg(archive));
    let members = listed.lines().filter_map(|member| member.strip_suffix('/'));
    members.map(shown).collect()
}

/// A member's name as a listing shows its path.
pub(crate) fn shown(member: &str) -> String {
    let name = member.trim_end_matches('/');
    format!("/{}", if name == "." { "" } else { name.trim_start_matches("./") })
}

/// Marks of removal in one form, `w PATH` and `opaque PATH`: archives have files for them, images what overlayfs wants.
fn meaning(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut meant = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let (kind, path) = (words[0], words[if words[0] == "w" { 1 } else { 2 }]);
        let (parent, name) = path.rsplit_once('/').unwrap();
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => meant.push(format!("opaque {parent}")),
            Some(hidden) => meant.push(format!("w {parent}/{hidden}")),
            None if kind == "w" => meant.push(format!("w {path}")),
            None => {
                let cut = line.replace(" trusted.overlay.opaque=y", "");
                if cut != line {
                    meant.push(format!("opaque {path}"));
                }
                meant.push(cut);
            }
        }
    }
    meant.sort();
    meant
}

/// A directory without an entry of its own has no time in the archive: `tar` leaves the one at which it unpacked.
pub(crate) fn timeless(line: String, own: &BTreeSet<String>) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    if line.starts_with('d') && words.len() > 3 && !own.contains(words[2]) {
        words.remove(3);
        return words.join(" ");
    }
    line
}
