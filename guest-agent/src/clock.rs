//! The time that local launches are judged by: no earlier than anything that was signed.

use std::sync::atomic::{AtomicU64, Ordering};

use protocols::time::Timestamp;

/// When this release was made; no guest of it lives earlier. `SOURCE_DATE_EPOCH` at build time moves it.
const RELEASED: &str = "2026-01-01T00:00:00Z";

/// Remembers the newest issue time seen.
#[derive(Debug)]
pub struct Clock {
    newest: AtomicU64,
}

impl Default for Clock {
    fn default() -> Self {
        let released = option_env!("SOURCE_DATE_EPOCH")
            .and_then(|seconds| seconds.parse().ok())
            .or_else(|| Timestamp::parse(RELEASED).map(|time| time.0));
        Self { newest: AtomicU64::new(released.unwrap_or(0)) }
    }
}

impl Clock {
    /// Takes note of a time that somebody trusted has signed.
    pub fn saw(&self, signed: Timestamp) {
        self.newest.fetch_max(signed.0, Ordering::Relaxed);
    }

    /// The latest of `host` (the host's clock), every time seen, and the time this program was made.
    #[must_use]
    pub fn now(&self, host: Timestamp) -> Timestamp {
        host.max(Timestamp(self.newest.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_does_not_undo_what_was_signed() {
        let clock = Clock::default();
        let built = clock.now(Timestamp(0));
        assert!(built >= Timestamp::parse(RELEASED).unwrap_or(Timestamp(1)), "a host at 1970 is not believed");
        let signed = built.plus(1000);
        clock.saw(signed);
        clock.saw(built.plus(10));
        assert_eq!(clock.now(Timestamp(0)), signed);
        assert_eq!(clock.now(signed.plus(5)), signed.plus(5));
    }
}
