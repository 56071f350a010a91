//! `package`, `deb`, `attestor-image` and `node-image`: what platform engineers install.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use packaging::{Epoch, Programs, attestor, chart, deb, guest as kata, node, sums};

use crate::shell::{cargo, output, release_binaries, root, run};

/// `--out DIR [--binaries DIR]` and what `package` takes beside.
struct Arguments {
    out: PathBuf,
    programs: Programs,
    /// Folder of the measured configuration, for the guest extension image.
    configuration: Option<PathBuf>,
    /// The pause bundle in it, where it is not the one of guest images.
    pause: Option<PathBuf>,
    /// Folder of a guest image, for the image that nodes run.
    guest: Option<PathBuf>,
}

fn arguments(given: &[String]) -> Result<Arguments> {
    let (mut out, mut binaries, mut configuration, mut pause, mut guest) = (None, None, None, None, None);
    let mut words = given.iter();
    while let Some(word) = words.next() {
        let place = match word.as_str() {
            "--out" => &mut out,
            "--binaries" => &mut binaries,
            "--configuration" => &mut configuration,
            "--pause-bundle" => &mut pause,
            "--guest" => &mut guest,
            _ => bail!("{word} is not known here"),
        };
        *place = Some(PathBuf::from(words.next().with_context(|| format!("{word} needs a folder"))?));
    }
    let out = out.context("--out DIR is needed")?;
    let binaries = match binaries {
        Some(binaries) => binaries,
        None => {
            run(cargo(&["build", "--workspace", "--bins", "--release"]))?;
            release_binaries()?
        }
    };
    Ok(Arguments { out, programs: Programs::of(&binaries), configuration, pause, guest })
}

/// `SOURCE_DATE_EPOCH`, or else the time of the last commit.
fn epoch() -> Result<Epoch> {
    let told = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(told) => told,
        Err(_) => {
            let mut git = std::process::Command::new("git");
            git.args(["log", "-1", "--format=%ct"]).current_dir(root());
            output(git).context("set SOURCE_DATE_EPOCH where there is no git")?
        }
    };
    told.trim().parse().map(Epoch).context("SOURCE_DATE_EPOCH")
}

/// `cargo xtask attestor-image --out DIR [--binaries DIR]`.
pub(crate) fn attestor_image(given: &[String]) -> Result<()> {
    let arguments = arguments(given)?;
    attestor_layout(&arguments, &arguments.out)
}

fn attestor_layout(arguments: &Arguments, layout: &Path) -> Result<()> {
    let digest = attestor::image(&arguments.programs, layout, epoch()?)?;
    println!("{}: {digest}", layout.display());
    Ok(())
}

/// `cargo xtask node-image --out DIR --guest DIR [--binaries DIR]`.
pub(crate) fn node_image(given: &[String]) -> Result<()> {
    let arguments = arguments(given)?;
    let guest = arguments.guest.as_deref().context("--guest DIR is needed: a guest image")?;
    let digest = node::image(&arguments.programs, guest, &arguments.out, epoch()?)?;
    println!("{}: {digest}", arguments.out.display());
    Ok(())
}

/// `cargo xtask deb --out DIR [--binaries DIR]`.
pub(crate) fn debs(given: &[String]) -> Result<()> {
    let arguments = arguments(given)?;
    fs::create_dir_all(&arguments.out)?;
    for folder in deb::CRATES {
        let built = deb::package(&root(), folder, &arguments.programs, &arguments.out, epoch()?)?;
        println!("{}", built.display());
    }
    Ok(())
}

/// `cargo xtask package --out DIR [--binaries DIR] [--configuration DIR [--pause-bundle DIR]] [--guest DIR]`.
pub(crate) fn package(given: &[String]) -> Result<()> {
    let arguments = arguments(given)?;
    let Arguments { out, programs, configuration, pause, guest } = &arguments;
    let epoch = epoch()?;
    fs::create_dir_all(out)?;
    for folder in deb::CRATES {
        println!("{}", deb::package(&root(), folder, programs, out, epoch)?.display());
    }
    attestor_layout(&arguments, &out.join("attestor"))?;
    match guest {
        Some(guest) => {
            let layout = out.join("node");
            println!("{}: {}", layout.display(), node::image(programs, guest, &layout, epoch)?);
        }
        None => println!("No image for nodes: it needs --guest DIR, a guest image."),
    }
    println!("{}", chart::archive(&root(), out, epoch)?.display());
    println!("{}", kata::overlay(&root(), programs, out, epoch)?.display());
    println!("{}", kata::beside(&root(), programs, out, epoch)?.display());
    for name in ["runtimeclass.yaml", "guest.toml"] {
        let from = root().join("deploy/kata").join(name);
        fs::copy(&from, out.join(name)).with_context(|| from.display().to_string())?;
    }
    match configuration {
        Some(configuration) => {
            let own = tempfile::tempdir()?;
            guest_image::pause_bundle(own.path())?;
            let pause = pause.as_deref().unwrap_or(own.path());
            let extension = kata::extension(&root(), programs, configuration, pause, out, epoch)?;
            println!("{}: {}", extension.image.display(), extension.verity);
        }
        None => println!("No guest extension image: it needs --configuration DIR, which it measures."),
    }
    println!("{}", sums::write(out)?.display());
    Ok(())
}
