//! Token buckets by source, in a table that no stranger makes grow.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Sets of the table; with [`WAYS`] buckets each it holds 16,384 sources in 400 KiB.
const SETS: u64 = 4096;
/// Buckets of one set.
const WAYS: usize = 4;

/// What one source has left.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// The source's hash; 0: nobody's.
    tag: u64,
    left: f32,
    /// Seconds since the table was made.
    at: f32,
}

/// What every source has left. A source that finds its set full takes the place of the one that asked longest ago: then
/// that one starts anew with a full bucket, which bounds memory and shuts nobody out.
pub(crate) struct Limiter {
    sets: Box<[Mutex<[Bucket; WAYS]>]>,
    /// Its key is random, so that nobody chooses whose place he takes.
    hasher: RandomState,
    start: Instant,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl Limiter {
    pub(crate) fn new() -> Self {
        Self { sets: (0..SETS).map(|_| Mutex::default()).collect(), hasher: RandomState::new(), start: Instant::now() }
    }

    /// Whether `source` may ask once more; 0 a second is no limit.
    pub(crate) fn take(&self, source: IpAddr, per_second: u32, burst: u32) -> bool {
        per_second == 0 || self.take_at(source, per_second, burst, self.start.elapsed().as_secs_f32())
    }

    #[allow(clippy::cast_precision_loss)] // bounded by configuration far below what a f32 holds exactly
    fn take_at(&self, source: IpAddr, per_second: u32, burst: u32, now: f32) -> bool {
        let tag = self.hasher.hash_one(counted(source)) | 1;
        let Some(set) = usize::try_from(tag / 2 % SETS).ok().and_then(|set| self.sets.get(set)) else { return true };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = burst as f32;
        let known = set.iter().position(|bucket| bucket.tag == tag);
        let mut buckets = set.iter_mut();
        let bucket = match known {
            Some(place) => buckets.nth(place),
            None => buckets.min_by(|a, b| a.at.total_cmp(&b.at)),
        };
        let Some(bucket) = bucket else { return true };
        if bucket.tag != tag {
            *bucket = Bucket { tag, left: burst, at: now };
        }
        let more = (now - bucket.at).max(0.0) * per_second as f32;
        bucket.left = (bucket.left + more).min(burst);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

/// Who counts as one source: an IPv6 network of 64 bits is one customer's.
fn counted(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_its_burst_and_then_its_rate_and_others_theirs() {
        let limiter = Limiter::new();
        let take = |source: &str, now| limiter.take_at(at(source), 10, 20, now);
        assert_eq!((0..40).filter(|_| take("192.0.2.1", 1.0)).count(), 20);
        assert!(take("192.0.2.2", 1.0), "another source");
        assert!(!take("192.0.2.1", 1.05) && take("192.0.2.1", 1.11));
        assert_eq!((0..40).filter(|_| take("192.0.2.1", 3.0)).count(), 19);
        assert_eq!((0..40).filter(|_| take("192.0.2.1", 1000.0)).count(), 20, "no more than the burst");
        assert!((0..1000).all(|_| limiter.take(at("192.0.2.1"), 0, 0)), "no limit");
    }

    #[test]
    fn one_network_of_ipv6_is_one_source() {
        let limiter = Limiter::new();
        let take = |source: &str| limiter.take_at(at(source), 1, 2, 1.0);
        assert!(take("2001:db8::1") && take("2001:db8::2") && !take("2001:db8::ffff:3"));
        assert!(take("2001:db8:0:1::1"));
        assert!(take("::ffff:192.0.2.1") && take("192.0.2.1") && !take("192.0.2.1"));
    }

    #[test]
    fn a_million_sources_take_no_room_and_shut_nobody_out() {
        let limiter = Limiter::new();
        for source in 0..1_000_000u32 {
            assert!(limiter.take_at(IpAddr::V4(source.into()), 1, 1, 1.0));
        }
        assert!(limiter.take_at(at("2001:db8::1"), 1, 1, 1.0));
        assert_eq!(limiter.sets.len() * WAYS, 16_384);
    }
}
