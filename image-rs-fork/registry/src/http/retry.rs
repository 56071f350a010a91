//! When a failed request is sent again, and after how long.

use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::config::RegistryConfig;
use crate::error::RegistryError;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Whether a failure may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    No,
    /// After the usual wait.
    Soon,
    /// Not before this time, the server says.
    After(Duration),
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: RegistryError,
    pub(super) again: Again,
}

impl Failed {
    /// For a reason that may pass.
    pub(super) fn passing(error: RegistryError) -> Self {
        Self { error, again: Again::Soon }
    }
}

impl From<RegistryError> for Failed {
    /// For good.
    fn from(error: RegistryError) -> Self {
        Self { error, again: Again::No }
    }
}

/// Waits that double, with jitter so that many guests do not come back at once, until tries or time run out.
#[derive(Debug)]
pub(super) struct Backoff {
    tries: u32,
    until: Option<Instant>,
    wait: Duration,
}

impl Backoff {
    /// For one request: so many tries, within a time.
    pub(super) fn request(config: &RegistryConfig) -> Self {
        Self { tries: config.retries, ..Self::resume(config) }
    }

    /// For a mirror, which is not tried again: the next place is.
    pub(super) fn none(config: &RegistryConfig) -> Self {
        Self { tries: 0, ..Self::resume(config) }
    }

    /// For a blob that broke off: any number of tries within the time.
    pub(super) fn resume(config: &RegistryConfig) -> Self {
        Self { tries: u32::MAX, until: Instant::now().checked_add(config.retry()), wait: FIRST_WAIT }
    }

    /// How long to wait before the next try; `None` when it was the last.
    pub(super) fn next(&mut self, again: Again) -> Option<Duration> {
        let usual = self.wait.mul_f64(jitter());
        let wait = match again {
            Again::No => return None,
            Again::Soon => usual,
            Again::After(wait) => wait.max(usual),
        };
        self.tries = self.tries.checked_sub(1)?;
        self.wait = self.wait.saturating_mul(2).min(LONGEST_WAIT);
        let at = Instant::now().checked_add(wait)?;
        (at <= self.until?).then_some(wait)
    }
}

/// From one half to one.
fn jitter() -> f64 {
    // Without randomness all wait equally long, which is only less polite.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    0.5 + f64::from(random) / f64::from(u32::MAX) / 2.0
}

/// `Retry-After` in seconds; a date, which would need a clock to be trusted, counts as none.
pub(super) fn retry_after(headers: &HeaderMap) -> Again {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(Again::Soon, |seconds| Again::After(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let mut backoff =
            Backoff::request(&RegistryConfig { retries: 8, retry_seconds: 60, ..RegistryConfig::default() });
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(Again::Soon)).collect();
        assert_eq!(waits.len(), 8);
        for (wait, ms) in waits.iter().zip([250u64, 500, 1000, 2000, 4000, 5000, 5000, 5000]) {
            let (low, high) = (Duration::from_millis(ms / 2), Duration::from_millis(ms));
            assert!((low..=high).contains(wait), "{wait:?} for {ms}");
        }
    }

    #[test]
    fn a_server_may_ask_for_time_but_not_for_more_than_there_is() {
        let config = RegistryConfig { retry_seconds: 30, ..RegistryConfig::default() };
        assert_eq!(Backoff::request(&config).next(Again::After(Duration::from_secs(9))), Some(Duration::from_secs(9)));
        assert_eq!(Backoff::request(&config).next(Again::After(Duration::from_secs(31))), None);
        assert_eq!(Backoff::request(&config).next(Again::After(Duration::MAX)), None);
        assert_eq!(Backoff::request(&config).next(Again::No), None);
        assert_eq!(Backoff::none(&config).next(Again::Soon), None);
    }
}
