//! How long a source keeps away after it was refused or failed. Pure: troubles in, waits out.
//!
//! Must not know: clocks, sockets; which source.

use std::time::Duration;

/// Failures in a row after which the other side counts as unreachable.
pub const BREAKER_FAILURES: u32 = 10;

/// The longest wait a server may ask for.
const ASKED_MAX: Duration = Duration::from_secs(3_600);

/// First waits; they double, 403's up to fifteen and failures' up to sixty times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// After a 429 that names none.
    pub limited: Duration,
    /// After a 403.
    pub forbidden: Duration,
    /// After a failure.
    pub failed: Duration,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// 429, perhaps with the wait it asks for.
    Limited(Option<Duration>),
    /// 401 or 403.
    Forbidden,
    /// No connection, a timeout, 5xx, nonsense.
    Failed,
}

/// Troubles in a row.
#[derive(Debug)]
pub struct Backoff {
    waits: Waits,
    failures: u32,
}

impl Backoff {
    /// All is well.
    #[must_use]
    pub const fn new(waits: Waits) -> Self {
        Self { waits, failures: 0 }
    }

    /// All is well again.
    pub const fn well(&mut self) {
        self.failures = 0;
    }

    /// How long to keep away.
    pub fn after(&mut self, trouble: Trouble) -> Duration {
        let doubled = |first: Duration, most: u32| {
            first.saturating_mul(1 << self.failures.min(20)).min(first.saturating_mul(most))
        };
        let wait = match trouble {
            Trouble::Limited(asked) => asked.unwrap_or(self.waits.limited).min(ASKED_MAX),
            Trouble::Forbidden => doubled(self.waits.forbidden, 15),
            Trouble::Failed => doubled(self.waits.failed, 60),
        };
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// How many troubles in a row there were.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits = Waits {
        limited: Duration::from_secs(30),
        forbidden: Duration::from_secs(60),
        failed: Duration::from_secs(1),
    };

    #[test]
    fn waits_double_up_to_their_ends_and_begin_anew() {
        let mut backoff = Backoff::new(WAITS);
        let waits: Vec<u64> = (0..8).map(|_| backoff.after(Trouble::Failed).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.after(Trouble::Forbidden).as_secs(), 900);
        backoff.well();
        assert_eq!(backoff.after(Trouble::Forbidden).as_secs(), 60);
    }

    #[test]
    fn who_names_a_wait_gets_it() {
        let mut backoff = Backoff::new(WAITS);
        assert_eq!(backoff.after(Trouble::Limited(Some(Duration::from_secs(7)))).as_secs(), 7);
        assert_eq!(backoff.after(Trouble::Limited(None)).as_secs(), 30);
        assert_eq!(backoff.after(Trouble::Limited(Some(Duration::MAX))).as_secs(), 3_600);
    }
}
