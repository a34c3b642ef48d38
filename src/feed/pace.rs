//! How fast a preload is sent: a number of killmails per interval, and all of them before a deadline. A plain
//! value; the time is an argument.
//!
//! Must not know: what is sent, or to whom.

use std::time::Duration;

use tokio::time::Instant;

/// The pace of one preload.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Killmails per interval.
    batch: usize,
    interval: Duration,
    /// When everything should be sent.
    end: Instant,
    /// Killmails sent in the current interval.
    sent: usize,
    due: Instant,
}

impl Pace {
    /// Sends `batch` killmails per `interval`, and shortens the interval so that all are sent `within` this time.
    #[must_use]
    pub fn new(batch: usize, interval: Duration, now: Instant, within: Duration) -> Self {
        Self { batch: batch.max(1), interval, end: now + within, sent: 0, due: now }
    }

    /// When the next killmails may be sent.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Notes that `killmails` were sent now and `left` remain. When the interval has its number, the rest wait for
    /// the next one.
    pub fn delivered(&mut self, killmails: usize, left: usize, now: Instant) {
        self.sent += killmails;
        if self.sent >= self.batch {
            self.sent = 0;
            self.due = now + pause(self.interval, left.div_ceil(self.batch) as u64, self.end, now);
        }
    }
}

/// The pause before the next of `batches` batches: the usual one, shortened so that all are sent by `end`.
#[must_use]
pub fn pause(usual: Duration, batches: u64, end: Instant, now: Instant) -> Duration {
    let batches = u32::try_from(batches).unwrap_or(u32::MAX).max(1);
    usual.min(end.saturating_duration_since(now) / batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long portions of these sizes take at a pace, milliseconds.
    fn takes_ms(batch: usize, interval_ms: u64, portions: &[usize]) -> u128 {
        let began = Instant::now();
        let mut now = began;
        let mut pace = Pace::new(batch, Duration::from_millis(interval_ms), began, Duration::from_secs(24));
        let mut left: usize = portions.iter().sum();
        for killmails in portions {
            now = now.max(pace.due());
            left -= killmails;
            pace.delivered(*killmails, left, now);
        }
        (now - began).as_millis()
    }

    #[test]
    fn time_depends_on_killmails_not_on_portions() {
        assert_eq!(
            takes_ms(10, 1_000, &[1; 40]),
            3_000,
            "forty systems with one killmail each are four batches"
        );
        assert_eq!(takes_ms(10, 1_000, &[5; 40]), 19_000);
        assert_eq!(takes_ms(10, 1_000, &[0; 40]), 0, "what the client had already costs nothing");
        assert_eq!(takes_ms(10, 1_000, &[10, 10, 4]), 2_000);
        assert_eq!(takes_ms(50, 100, &[5; 1_000]), 9_900);
    }

    #[test]
    fn intervals_shrink_so_that_all_ends_in_time() {
        for (batch, interval_ms, portions) in
            [(10, 1_000, vec![20; 200]), (1, 10_000, vec![1; 10_000]), (100, 10_000, vec![100; 100])]
        {
            let took = takes_ms(batch, interval_ms, &portions);
            assert!((20_000..=24_000).contains(&took), "{took}");
        }
    }
}
