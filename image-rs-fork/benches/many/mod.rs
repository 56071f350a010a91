//! A layer of many small files, the same every time, and its way through the parser.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use image_rs_fork::tar::{EntrySink, Parser, TarLimits};

/// Gives an archive to a sink.
pub(crate) fn feed<S: EntrySink>(archive: &Path, sink: &mut S) -> Result<(), Box<dyn std::error::Error>>
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

/// Directories of 100 files each; sizes are log-normal, contents repeat a changing pattern.
pub(crate) fn generate(path: &Path, files: u32) -> io::Result<()> {
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
