//! Writes a layer of many small files as an EROFS image and prints what it cost.
//!
//! `cargo bench --profile dev -p image-rs-fork --bench erofs [-- FILES [ARCHIVE]]`: 100,000 files of log-normal
//! sizes (median 1 KiB, mean 2 KiB) unless another number or a tar archive is given. Reads the archive from a file
//! and writes to the temporary directory; the times with and without the writer tell what the writer costs.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use image_rs_fork::erofs::{ErofsError, ErofsLimits, LayerWriter};
use image_rs_fork::tar::{EntryMeta, EntrySink, Parser, TarLimits};
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

fn feed<S: EntrySink>(archive: &Path, sink: &mut S) -> Result<(), Box<dyn std::error::Error>>
where
    S::Error: std::error::Error + 'static,
{
    let mut parser = Parser::new(TarLimits::default());
    let mut input = File::open(archive)?;
    let mut buffer = vec![0; 512 * 1024];
    loop {
        let count = input.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        parser.push(bytes, sink)?;
    }
    parser.finish()?;
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

/// Directories of 100 files each; sizes are log-normal, contents repeat a changing pattern.
fn generate(path: &Path, files: u32) -> io::Result<()> {
    let mut out = io::BufWriter::new(File::create(path)?);
    let mut random = Random(1);
    let mut data = Vec::new();
    for file in 0..files {
        if file % 100 == 0 {
            header(&mut out, &format!("srv/node_modules/pkg{:04}", file / 100), b'5', 0)?;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 200,000")]
        let size = random.log_normal(6.9, 1.2).min(200_000.0) as usize;
        header(&mut out, &format!("srv/node_modules/pkg{:04}/mod_{:03}.js", file / 100, file % 100), b'0', size)?;
        data.clear();
        data.extend((0u32..).map(|n| n.wrapping_mul(file | 1).to_le_bytes()[1]).take(size));
        data.resize(size.next_multiple_of(512), 0);
        out.write_all(&data)?;
    }
    out.write_all(&[0; 1024])?;
    out.flush()
}

fn header(out: &mut impl Write, name: &str, typeflag: u8, size: usize) -> io::Result<()> {
    let mut header = Vec::with_capacity(512);
    let mut field = |width: usize, text: &[u8]| {
        header.extend_from_slice(text);
        header.resize(header.len() + width.saturating_sub(text.len()), 0);
    };
    field(100, name.as_bytes());
    field(8, if typeflag == b'5' { b"0000755" } else { b"0000644" });
    field(8, b"0000000");
    field(8, b"0000000");
    field(12, format!("{size:011o}").as_bytes());
    field(12, b"14524770400");
    field(8, b"        ");
    field(1, &[typeflag]);
    field(100, b"");
    field(255, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header.splice(148..156, format!("{sum:06o}\0 ").bytes());
    out.write_all(&header)
}

/// A linear congruential generator: the same archive every time.
struct Random(u64);

impl Random {
    /// Above 0, at most 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (f64::from(u32::try_from(self.0 >> 32).unwrap_or(0)) + 1.0) / 4_294_967_296.0
    }

    fn log_normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let normal = (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
        (mean + deviation * normal).exp()
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
