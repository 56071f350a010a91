//! When a request is made again: after trouble on the way, never after a refusal.

use std::time::Duration;

/// How often, and how long apart. The pauses grow twofold and are drawn at random, so that many clients of one server
/// that was away do not come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Requests at most, the first included.
    pub attempts: u32,
    /// The longest first pause.
    pub base: Duration,
    /// The longest pause.
    pub cap: Duration,
}

impl Retry {
    /// One request; whoever asked decides what follows.
    pub const NEVER: Self = Self { attempts: 1, base: Duration::ZERO, cap: Duration::ZERO };

    /// A person waits: five requests within half a minute at most.
    pub const PATIENT: Self = Self { attempts: 5, base: Duration::from_millis(500), cap: Duration::from_secs(8) };

    /// Whether an answer of this status may be another one the next time.
    #[must_use]
    pub const fn worth(status: u16) -> bool {
        matches!(status, 408 | 429 | 500..)
    }

    /// The pause after `made` requests; `None`: it is enough. `dice` is random, `asked` what the server asked for.
    #[must_use]
    pub fn pause(&self, made: u32, dice: u64, asked: Option<Duration>) -> Option<Duration> {
        if made >= self.attempts {
            return None;
        }
        let doubled = 1u32.checked_shl(made.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.base.saturating_mul(doubled).min(self.cap);
        let nanoseconds = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        let drawn = Duration::from_nanos(dice % nanoseconds.saturating_add(1));
        Some(asked.map_or(drawn, |asked| asked.min(self.cap).max(drawn)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_cap_and_end() {
        let retry = Retry { attempts: 6, base: Duration::from_millis(100), cap: Duration::from_millis(500) };
        let longest =
            |made| (0..2000).filter_map(|dice| retry.pause(made, dice * 333_333, None)).max().unwrap().as_millis();
        assert_eq!([1, 2, 3, 4, 5].map(longest), [99, 199, 399, 499, 499]);
        assert_eq!(retry.pause(1, 0, None), Some(Duration::ZERO));
        assert_eq!((retry.pause(6, 0, None), retry.pause(u32::MAX, 0, None)), (None, None));
        assert_eq!(Retry::NEVER.pause(1, 7, Some(Duration::ZERO)), None);
        let endless = Retry { attempts: u32::MAX, base: Duration::MAX, cap: Duration::MAX };
        assert!(endless.pause(100, u64::MAX, None).is_some());
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_up_to_the_cap() {
        let second = Duration::from_secs(1);
        let retry = Retry { attempts: 3, base: second, cap: 4 * second };
        assert_eq!(retry.pause(1, 0, Some(2 * second)), Some(2 * second));
        assert_eq!(retry.pause(1, 0, Some(60 * second)), Some(4 * second));
        assert_eq!(retry.pause(1, 1_000_000_000, Some(Duration::ZERO)), Some(second));
    }

    #[test]
    fn refusals_are_final() {
        assert!([408, 429, 500, 502, 503].into_iter().all(Retry::worth));
        assert!(![200, 204, 301, 400, 401, 403, 404, 409, 413].into_iter().any(Retry::worth));
    }
}
