//! A token bucket of CPU time: it refills at a steady rate. Spending may overdraw it, and the debt delays
//! what comes next.
//!
//! Must not know: what it is spent on.

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Holds at most one second's worth.
#[derive(Debug)]
pub struct TokenBucket {
    per_sec: Duration,
    available: Duration,
    debt: Duration,
    updated_at: Instant,
}

impl TokenBucket {
    /// A full bucket with this many milliseconds of CPU time per second; `None` for 0, which means no limit.
    #[must_use]
    pub fn new(ms_per_sec: u64, now: Instant) -> Option<Self> {
        let per_sec = Duration::from_millis(ms_per_sec);
        (ms_per_sec > 0).then_some(Self {
            per_sec,
            available: per_sec,
            debt: Duration::ZERO,
            updated_at: now,
        })
    }

    /// How long to wait until something may be spent.
    pub fn time_until_available(&mut self, now: Instant) -> Duration {
        let refill = self.tokens_for(now.saturating_duration_since(self.updated_at));
        self.updated_at = now;
        let repaid = refill.min(self.debt);
        self.debt -= repaid;
        self.available = self.available.saturating_add(refill - repaid).min(self.per_sec);
        if self.debt.is_zero() && !self.available.is_zero() {
            return Duration::ZERO;
        }
        // At least a millisecond has to be available.
        (self.debt + Duration::from_millis(1)).mul_f64(SECOND.as_secs_f64() / self.per_sec.as_secs_f64())
    }

    /// Takes this much, into debt if necessary.
    pub fn spend(&mut self, spent: Duration) {
        let taken = spent.min(self.available);
        self.available -= taken;
        self.debt += spent - taken;
    }

    fn tokens_for(&self, time: Duration) -> Duration {
        // A longer time fills it whatever the debt.
        let worth = self.per_sec.as_secs_f64() * time.min(SECOND * 3_600).as_secs_f64();
        Duration::try_from_secs_f64(worth).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refills_at_its_rate() {
        let start = Instant::now();
        let mut budget = TokenBucket::new(250, start).unwrap();
        assert!(budget.time_until_available(start).is_zero());
        budget.spend(Duration::from_millis(500));
        let wait = budget.time_until_available(start);
        assert!(wait > SECOND && wait < SECOND * 11 / 10, "{wait:?}");
        assert!(budget.time_until_available(start + wait).is_zero());
        assert!(budget.time_until_available(start + SECOND * 100).is_zero());
        budget.spend(Duration::from_millis(250));
        assert!(
            !budget.time_until_available(start + SECOND * 100).is_zero(),
            "it holds at most a second's worth"
        );
    }

    #[test]
    fn the_rate_may_exceed_one_thread() {
        let start = Instant::now();
        let mut budget = TokenBucket::new(4_000, start).unwrap();
        budget.spend(SECOND * 3);
        assert!(budget.time_until_available(start).is_zero(), "four seconds may be spent in one");
        budget.spend(SECOND * 5);
        assert!(!budget.time_until_available(start + SECOND / 2).is_zero());
        assert!(budget.time_until_available(start + SECOND * 2).is_zero());
        let mut most = TokenBucket::new(u64::MAX, start).unwrap();
        assert!(most.time_until_available(start + SECOND * 4_000).is_zero());
        assert!(TokenBucket::new(0, start).is_none(), "0 means no limit");
    }
}
