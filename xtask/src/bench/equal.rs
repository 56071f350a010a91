//! `bench equal`: the tests of `image-rs-fork` that compare with `tar`, over a folder of archives or over images.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::prerequisites;
use crate::shell::{cargo, release_binaries, run};

/// Every archive of a folder, as a mounted layer.
pub(crate) fn layers(layers: &Path) -> Result<()> {
    prerequisites::require_root()?;
    prerequisites::install()?;
    let layers = layers.canonicalize().with_context(|| layers.display().to_string())?;
    let mut test = cargo(&["test", "--workspace", "--test", "erofs", "--", "--ignored", "--nocapture"]);
    test.arg("a_corpus_of_layers_equals_tar").env("TCL_CORPUS_LAYERS", layers);
    run(test)
}

/// Every image of a list, pulled and mounted by `tclctl`.
pub(crate) fn images(references: &[String]) -> Result<()> {
    prerequisites::require_root()?;
    prerequisites::install()?;
    run(cargo(&["build", "--quiet", "--release", "--package", "tclctl"]))?;
    let mut test = cargo(&["test", "--workspace", "--test", "erofs", "--", "--ignored", "--nocapture"]);
    test.arg("a_corpus_of_images_equals_tar").env("TCL_CORPUS_IMAGES", references.join(","));
    test.env("TCL_TCLCTL", release_binaries()?.join("tclctl"));
    run(test)
}
