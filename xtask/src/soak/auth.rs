//! A flood of requests for challenges.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};

const BODY: &str = r#"{"version":"0.4.0","tee":"sample","extra-params":""}"#;
/// Connections at a time.
const CONNECTIONS: usize = 4;
/// Requests on one connection; then another is made.
const EACH: usize = 10_000;
/// How much memory may grow after the first tenth, in bytes: what allocators keep.
const GROWTH: u64 = 4 * 1024 * 1024;

pub(super) fn run(requests: usize) -> Result<()> {
    let mut broker = super::attestor("auth")?;
    let mut warm = None;
    println!("{:>10} {:>10} {:>10}", "requests", "RSS kB", "store kB");
    for tenth in 1..=10 {
        let share = requests.div_ceil(10 * CONNECTIONS);
        let address = broker.address.as_str();
        std::thread::scope(|scope| {
            let flooding: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(move || flood(address, share))).collect();
            flooding.into_iter().try_for_each(|flood| match flood.join() {
                Ok(flooded) => flooded,
                Err(_) => bail!("a thread ended"),
            })
        })?;
        broker.lives()?;
        let now = (broker.memory()?, broker.store()?);
        println!("{:>10} {:>10} {:>10}", share * CONNECTIONS * tenth, now.0 / 1024, now.1 / 1024);
        let (memory, store) = *warm.get_or_insert(now);
        ensure!(now.0 <= memory + GROWTH, "memory grows");
        ensure!(now.1 == store, "the store grows");
    }
    println!("flat");
    Ok(())
}

fn flood(address: &str, mut left: usize) -> Result<()> {
    let request = format!(
        "POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    while left > 0 {
        let mut stream = TcpStream::connect(address)?;
        let now = left.min(EACH);
        for _ in 0..now {
            stream.write_all(request.as_bytes())?;
            let mut answer = [0; 4096];
            let read = stream.read(&mut answer)?;
            let answer = answer.get(..read).context("more than was asked for")?;
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
        }
        left -= now;
    }
    Ok(())
}
