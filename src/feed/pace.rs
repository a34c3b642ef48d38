//! How fast a preload goes out: so many killmails in each interval, and all of it in time. A value; the clock
//! is handed in.
//!
//! Must not know: what goes out, to whom.

use std::time::Duration;

use tokio::time::Instant;

/// The pace of one preload.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Killmails of one interval.
    batch: usize,
    interval: Duration,
    /// When everything should be out.
    end: Instant,
    /// Killmails that went out in the interval under way.
    out: usize,
    due: Instant,
}

impl Pace {
    /// So many killmails in each interval, but all within this time.
    #[must_use]
    pub fn new(batch: usize, interval: Duration, now: Instant, within: Duration) -> Self {
        Self { batch: batch.max(1), interval, end: now + within, out: 0, due: now }
    }

    /// When the next killmails may go out.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// So many went out now, and so many are left: once an interval has its killmails, the rest waits for the
    /// next one.
    pub fn delivered(&mut self, killmails: usize, left: usize, now: Instant) {
        self.out += killmails;
        if self.out >= self.batch {
            self.out = 0;
            self.due = now + pause(self.interval, left.div_ceil(self.batch) as u64, self.end, now);
        }
    }
}

/// The pause before the next of so many batches, shortened so that all of them are through at the end.
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
