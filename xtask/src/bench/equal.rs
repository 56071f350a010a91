//! `bench equal`: the test of `image-rs-fork` that compares mounted layers with `tar`, over a folder of archives.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::prerequisites;
use crate::shell::{cargo, run};

pub(crate) fn run_over(layers: &Path) -> Result<()> {
    prerequisites::require_root()?;
    prerequisites::install()?;
    let layers = layers.canonicalize().with_context(|| layers.display().to_string())?;
    let mut test = cargo(&["test", "--package", "image-rs-fork", "--test", "erofs", "--", "--ignored", "--nocapture"]);
    test.arg("a_corpus_of_layers_equals_tar").env("TCL_CORPUS_LAYERS", layers);
    run(test)
}
