//! `bench pull`: our pull beside other people's, in turns, each in a fresh state on the same fresh tmpfs.
//! `bench equal`: layers and images, mounted, against what `tar` unpacks of them.
//! `bench agent`: what the agent costs.
//! `bench boot`: what the guest image costs beside a bare kernel.
//! `bench kbs`: what the attestor serves in a second, and what that costs it.
//! `bench evidence`: verifications per second, beside `openssl speed`.

mod contender;
mod equal;
mod kbs;
mod measure;
mod outside;
mod report;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use self::contender::Contender;
use self::measure::Run;
use crate::prerequisites;
use crate::shell::{cargo, run};

pub(crate) const HELP: &str = "\
Usage: cargo xtask bench pull [--corpus HOST:PORT] [--images many,medium,large] [--compression gzip,zstd]
                              [--rounds 3] [--layouts erofs,tree] [--peers containerd,skopeo-umoci,podman|none]
                              [--dir DIR] [--json FILE]
       cargo xtask bench equal --layers DIR
       cargo xtask bench equal --images many,medium,large [--corpus HOST:PORT] [--compression gzip,zstd]
       cargo xtask bench evidence
       cargo xtask bench kbs [--seconds 10] [--connections 8] [--get-connections 64] [--handshakes 100000] [--json FILE]
       cargo xtask bench agent [--tee snp|tpm] [--rounds 15] [--execs 1000] [--store disk|memory] [--json FILE]
       cargo xtask bench boot [--rounds 5] [--json FILE]

  pull   builds `tclctl` with the release profile, pulls HOST:PORT/IMAGE:COMPRESSION (plain HTTP) by `tclctl pull`
         and by the peers that are installed, in turns, and prints the medians. An image written as NAME:TAG is taken as it is, whatever --compression says
  equal  writes every DIR/*.tar as an EROFS image, mounts it and compares it with what `tar -xp` unpacks; or pulls and
         mounts images by `tclctl`, in both layouts, and compares each with what `tar -xp` makes of its layers in order
  agent  builds the release binaries and measures an agent with registry, attestor and runtime: its size, memory, times and what
         its standard output gives; evidence is simulated (snp) or of a TPM simulator, and the attestor's store on disk or in memory
  boot   builds images of the release binaries in both flavours, and boots them without KVM until the agent listens, in turns with
         the same kernel up to a first program: started by QEMU, and by firmware
  kbs    builds the release key-broker and loads it over connections from this machine: whole handshakes with sample evidence and
         with simulated SNP evidence, and resources by one session for each of --get-connections; prints rates, times, the server's processor
         time for each and its memory, also after --handshakes more
  evidence  verifies simulated evidence of every platform by criterion, and prints the rates as ratios to what `openssl speed`
         allows in the same run, for TDX to dcap-qvl alone
";

/// What `bench pull` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    corpus: String,
    images: Vec<String>,
    compression: Vec<String>,
    rounds: usize,
    layouts: Vec<String>,
    peers: Vec<String>,
    dir: PathBuf,
    json: Option<PathBuf>,
}

/// Reads the arguments after `bench` and does what they say.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("pull", rest)) => pull(&Options::parse(rest)?),
        Some(("agent", rest)) => outside::agent(rest),
        Some(("boot", rest)) => outside::boot(rest),
        Some(("kbs", rest)) => kbs::kbs(rest),
        Some(("evidence", [])) => run(cargo(&["bench", "--package", "verifier", "--bench", "evidence"])),
        Some(("equal", [option, layers])) if option == "--layers" => equal::layers(&PathBuf::from(layers)),
        Some(("equal", rest)) if rest.iter().any(|option| option == "--images") => {
            let options = Options::parse(rest)?;
            let reference = |tag: String| format!("{}/{tag}", options.corpus);
            equal::images(&options.tags().into_iter().map(reference).collect::<Vec<_>>())
        }
        Some(("help" | "--help" | "-h", _)) => {
            print!("{HELP}");
            Ok(())
        }
        _ => bail!("{HELP}"),
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let list = |text: &str| text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let mut options = Self {
            corpus: "127.0.0.1:5555".to_owned(),
            images: list("many,medium,large"),
            compression: list("gzip"),
            rounds: 3,
            layouts: list("erofs,tree"),
            peers: list("containerd,skopeo-umoci"),
            dir: std::env::temp_dir().join(format!("tcl-bench-{}", std::process::id())),
            json: None,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value\n{HELP}"))?;
            match name.as_str() {
                "--corpus" => options.corpus.clone_from(value),
                "--images" => options.images = list(value),
                "--compression" => options.compression = list(value),
                "--rounds" => options.rounds = value.parse().context("--rounds")?,
                "--layouts" => options.layouts = list(value),
                "--peers" if value == "none" => options.peers.clear(),
                "--peers" => options.peers = list(value),
                "--dir" => options.dir = value.into(),
                "--json" => options.json = Some(value.into()),
                _ => bail!("{name} is no option\n{HELP}"),
            }
        }
        if options.rounds == 0 || options.images.is_empty() {
            bail!("nothing to do\n{HELP}");
        }
        Ok(options)
    }

    /// `IMAGE:TAG` of every image that is pulled.
    fn tags(&self) -> Vec<String> {
        let tagged = |image: &String| match image.contains(':') {
            true => vec![image.clone()],
            false => self.compression.iter().map(|compression| format!("{image}:{compression}")).collect(),
        };
        self.images.iter().flat_map(tagged).collect()
    }
}

fn pull(options: &Options) -> Result<()> {
    prerequisites::require_root()?;
    run(cargo(&["build", "--quiet", "--release", "--package", "tclctl"]))?;
    let mut contenders = Vec::new();
    for layout in &options.layouts {
        contenders.push(Contender::ours(layout)?);
    }
    for peer in &options.peers {
        match Contender::peer(peer)? {
            Some(peer) => contenders.push(peer),
            None => println!("{peer} is not installed: left out."),
        }
    }
    std::fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
    let mut runs: Vec<Run> = Vec::new();
    for image in options.tags() {
        let reference = format!("{}/{image}", options.corpus);
        for round in 1..=options.rounds {
            for contender in &contenders {
                if let Some(reason) = contender.cannot(&image) {
                    if round == 1 {
                        println!("{image}: {} left out: {reason}", contender.name());
                    }
                    continue;
                }
                let usage = contender.pull(&reference, &options.dir).with_context(|| contender.name().to_owned())?;
                println!("{image} round {round} {}", report::line(contender.name(), &usage));
                runs.push(Run { image: image.clone(), contender: contender.name().to_owned(), usage });
            }
        }
    }
    std::fs::remove_dir(&options.dir).with_context(|| options.dir.display().to_string())?;
    print!("\n{}", report::table(&runs));
    if let Some(path) = &options.json {
        let value = report::json(&runs, options.rounds);
        std::fs::write(path, format!("{value:#}\n")).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    fn parse(text: &str) -> Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_image_is_pulled_in_every_compression_unless_it_names_its_tag() {
        let options = parse("--images a,b:1 --compression gzip,zstd --peers none").unwrap();
        assert_eq!(options.tags(), ["a:gzip", "a:zstd", "b:1"]);
        assert!(options.peers.is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in ["--rounds", "--rounds 0", "--rounds x", "--images ,", "--fast yes"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
