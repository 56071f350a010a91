//! Whole archives from disk, as large as they come: the folder that `TCL_CORPUS_LAYERS` names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::equal::{assert_lists_equal, unpack};
use crate::layer::Layer;
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
    let layer = Layer::new(&fs::read(archive).unwrap()).unwrap();
    layer.check();
    let mounted = layer.mount();
    let (have, want) = (listing::full(mounted.path()), listing::full(&unpacked));
    assert_lists_equal(&have, &want);
    have.len()
}
