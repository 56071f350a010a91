//! Writes what the fuzz targets' entry functions start from, so that long runs begin with well-formed inputs, also those
//! that need keys: `fuzz_seeds DIR` fills `DIR/<target>/`.

use std::path::PathBuf;

use anyhow::Context as _;
use integration_tests::entry::ALL;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: fuzz_seeds DIR")?);
    for entry in ALL {
        let target = folder.join(entry.name);
        std::fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
        for (number, seed) in (entry.seeds)().iter().enumerate() {
            std::fs::write(target.join(format!("seed-{number}")), seed)
                .with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}
