//! Prints how fast 4 KiB blocks are hashed: one stream of `sha2` beside four interleaved lanes.

use std::hint::black_box;
use std::time::Instant;

use sys::sha256_lanes::{BLOCK, SaltedSha256};

fn main() {
    let blocks = vec![[0x5au8; BLOCK]; 1024];
    for (name, hasher) in [("one stream", SaltedSha256::portable(&[7; 32])), ("lanes", SaltedSha256::new(&[7; 32]))] {
        let mut best = f64::INFINITY;
        for _ in 0..40 {
            let start = Instant::now();
            hasher.hash_each(black_box(&blocks), |digest| {
                black_box(digest);
            });
            best = best.min(start.elapsed().as_secs_f64());
        }
        let bytes = f64::from(u32::try_from(blocks.len() * BLOCK).unwrap_or(u32::MAX));
        println!("{name}: {:.2} GB/s, interleaved: {}", bytes / best / 1e9, hasher.is_interleaved());
    }
}
