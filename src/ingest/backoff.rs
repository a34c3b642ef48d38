//! How long a source waits after it was refused or failed, and when the other side counts as unreachable.
//! Pure: failures in, waits out.
//!
//! Must not know: clocks, sockets; which source.

use std::time::Duration;

/// Failures in a row after which the other side counts as unreachable.
const BREAKER_FAILURES: u32 = 10;

/// The longest wait a server may ask for with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// Waits after 403 double up to this many times the first.
pub const FORBIDDEN_MAX_TIMES: u32 = 15;
/// Waits after other failures double up to this many times the first.
pub const FAILED_MAX_TIMES: u32 = 60;

/// First waits, milliseconds; those after 403 and after failures double.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// After a 429 without `Retry-After`.
    pub limited_ms: u64,
    pub forbidden_ms: u64,
    /// After any other failure.
    pub failed_ms: u64,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// 429, with the wait it asks for.
    Limited(Option<Duration>),
    Forbidden,
    /// No connection, a timeout, 5xx, a response that makes no sense.
    Failed,
}

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    waits: Waits,
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub const fn new(waits: Waits) -> Self {
        Self { waits, failures: 0 }
    }

    /// A success: the next failure starts with the first wait again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and returns how long to wait.
    pub fn after(&mut self, trouble: Trouble) -> Duration {
        let wait = match trouble {
            Trouble::Limited(asked) => {
                asked.unwrap_or(Duration::from_millis(self.waits.limited_ms)).min(RETRY_AFTER_MAX)
            }
            Trouble::Forbidden => {
                Duration::from_millis(doubled_ms(self.waits.forbidden_ms, self.failures, FORBIDDEN_MAX_TIMES))
            }
            Trouble::Failed => {
                Duration::from_millis(doubled_ms(self.waits.failed_ms, self.failures, FAILED_MAX_TIMES))
            }
        };
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

/// `first_ms`, doubled for each failure before, up to `max_times` times `first_ms`.
#[must_use]
pub fn doubled_ms(first_ms: u64, failures: u32, max_times: u32) -> u64 {
    first_ms.saturating_mul(1 << failures.min(20)).min(first_ms.saturating_mul(max_times.into()))
}

/// Whether the breaker opens: at once when the other side refuses us, otherwise after ten failures in a row.
#[must_use]
pub const fn opens_breaker(is_forbidden: bool, failures: u64) -> bool {
    is_forbidden || failures >= BREAKER_FAILURES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits { limited_ms: 30_000, forbidden_ms: 60_000, failed_ms: 1_000 };

    #[test]
    fn waits_double_up_to_their_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(WAITS);
        let waits: Vec<u64> = (0..8).map(|_| backoff.after(Trouble::Failed).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.after(Trouble::Forbidden).as_secs(), 900);
        backoff.reset();
        assert_eq!(backoff.after(Trouble::Forbidden).as_secs(), 60);
    }

    #[test]
    fn retry_after_is_honoured_up_to_an_hour() {
        let mut backoff = Backoff::new(WAITS);
        assert_eq!(backoff.after(Trouble::Limited(Some(Duration::from_secs(7)))).as_secs(), 7);
        assert_eq!(backoff.after(Trouble::Limited(None)).as_secs(), 30);
        assert_eq!(backoff.after(Trouble::Limited(Some(Duration::MAX))).as_secs(), 3_600);
    }
}
