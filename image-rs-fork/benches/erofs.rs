//! Writes a layer of many small files as an EROFS image and prints what it cost.
//!
//! `cargo bench --profile dev -p image-rs-fork --bench erofs [-- FILES [ARCHIVE]]`: 100,000 files of log-normal
//! sizes (median 1 KiB, mean 2 KiB) unless another number or a tar archive is given. Reads the archive from a file
//! and writes to the temporary directory; the times with and without the writer tell what the writer costs.

mod many;

use std::fs::File;

use image_rs_fork::erofs::{ErofsError, ErofsLimits, LayerWriter};
use image_rs_fork::tar::{EntryMeta, EntrySink};
use many::{feed, generate};
use protocols::digest::Sha256Digest;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let files: u32 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let archive = match arguments.next() {
        Some(path) => path.into(),
        None => {
            let path = dir.path().join("layer.tar");
            generate(&path, files)?;
            path
        }
    };
    let before = cpu()?;
    feed(&archive, &mut Nothing)?;
    let parsing = cpu()? - before;

    let create = |name| File::options().read(true).write(true).create_new(true).open(dir.path().join(name));
    let (image, spill) = (create("image")?, create("spill")?);
    let resident = peak_rss()?;
    let before = cpu()?;
    let mut writer = LayerWriter::spilling(image, Box::new(spill), ErofsLimits::default());
    feed(&archive, &mut writer)?;
    let streamed = cpu()? - before;
    let (finished, _) = writer.into_streamed()?.finish(&Sha256Digest::of(b"bench"))?;
    let total = cpu()? - before;
    println!("entries {}, inodes {}, root hash {}", finished.entries, finished.inodes, finished.tree.root_hash);
    println!(
        "archive {} MB, image {} MB",
        std::fs::metadata(&archive)?.len() / 1_000_000,
        finished.file_bytes() / 1_000_000
    );
    println!(
        "CPU s: reading and parsing alone {:.3}; with the image {:.3} (end {:.3})",
        parsing,
        total,
        total - streamed,
    );
    println!("peak RSS MB: before {:.1}, after {:.1}", resident, peak_rss()?);
    Ok(())
}

struct Nothing;

impl EntrySink for Nothing {
    type Error = ErofsError;

    fn entry(&mut self, _: &EntryMeta<'_>) -> Result<(), ErofsError> {
        Ok(())
    }

    fn data(&mut self, _: &[u8]) -> Result<(), ErofsError> {
        Ok(())
    }

    fn end(&mut self) -> Result<(), ErofsError> {
        Ok(())
    }
}

/// Seconds this thread, the only one, has been on a processor.
fn cpu() -> Result<f64, Box<dyn std::error::Error>> {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(schedstat.split(' ').next().ok_or("no schedstat")?.parse::<f64>()? / 1e9)
}

/// The most memory this process ever had resident, in MB.
fn peak_rss() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6)
}
