//! How fast layers are uncompressed and parsed, on one core: `cargo bench -p image-rs-fork --bench stream`.
//!
//! The data are this program's own file, so figures compare only with each other on one machine. The best of
//! several rounds counts: other load makes rounds slower, nothing makes them faster.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // a benchmark may stop at any surprise

use std::io::Write;
use std::time::Instant;

use image_rs_fork::framing::{Buffer, Compression, Decompressor, FramingError, FramingLimits};
use image_rs_fork::tar::{EntryMeta, EntrySink, Parser, TarError, TarLimits};

const ROUNDS: u32 = 15;
const PIECE: usize = 256 * 1024;
const ENTRIES: u32 = 50_000;

/// Looks at what it is told as little as a sink can.
#[derive(Default)]
struct Count {
    bytes: usize,
}

impl EntrySink for Count {
    type Error = TarError;

    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), TarError> {
        self.bytes += meta.path.as_bytes().len() + meta.xattrs.len();
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        self.bytes += bytes.len();
        Ok(())
    }

    fn end(&mut self) -> Result<(), TarError> {
        Ok(())
    }
}

fn best(mut work: impl FnMut()) -> f64 {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::MAX, f64::min)
}

fn parse(archive: &[u8]) -> f64 {
    best(|| {
        let mut parser = Parser::new(TarLimits::default());
        let mut sink = Count::default();
        archive.chunks(PIECE).for_each(|piece| parser.push(piece, &mut sink).unwrap());
        parser.finish().unwrap();
        std::hint::black_box(sink.bytes);
    })
}

fn uncompress(blob: &[u8]) -> f64 {
    let mut spare = Some(Buffer::new(512 * 1024));
    best(|| {
        let mut decompressor = Decompressor::new(Compression::Gzip, FramingLimits::default(), spare.take().unwrap());
        let mut full = |buffer: Buffer| Ok::<_, FramingError>(buffer);
        blob.chunks(PIECE).for_each(|piece| decompressor.push(piece, &mut full).unwrap());
        decompressor.finish(&mut full).unwrap();
        spare = Some(Buffer::new(512 * 1024));
    })
}

fn entries(pax: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for i in 0..ENTRIES {
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("usr/lib/python3/dist-packages/package_{}/module_{i}.py", i / 50)).unwrap();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        if pax {
            builder.append_pax_extensions([("mtime", &b"1700000000.123456789"[..])]).unwrap();
        }
        builder.append(&header, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn main() {
    for (what, archive) in [("headers", entries(false)), ("headers with PAX times", entries(true))] {
        let seconds = parse(&archive);
        let each = seconds * 1e9 / f64::from(ENTRIES);
        println!("tar, {what}: {each:.0} ns an entry, {:.2} GB/s", archive.len() as f64 / seconds / 1e9);
    }
    let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let rate = |seconds: f64| data.len() as f64 / seconds / 1e9;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(&data).unwrap();
    println!("gzip: {:.2} GB/s", rate(uncompress(&gzip.finish().unwrap())));
    println!("zstd: {:.2} GB/s", rate(uncompress(&zstd::bulk::compress(&data, 3).unwrap())));
}
