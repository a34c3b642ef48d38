//! How much a counter grew in the last minute.
//!
//! Must not know: what is counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);
/// How often counters are sampled.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Samples of one counter that began at zero.
#[derive(Debug)]
pub struct Rate(Mutex<VecDeque<(Instant, u64)>>);

impl Rate {
    /// Records the value of the counter.
    pub fn sample(&self, total: u64) {
        self.sample_at(Instant::now(), total);
    }

    /// Growth in the last minute, given the value of the counter now.
    pub fn per_minute(&self, total: u64) -> f64 {
        self.per_minute_at(Instant::now(), total)
    }

    fn sample_at(&self, now: Instant, total: u64) {
        let mut samples = self.0.lock();
        // One sample older than the window stays: the value at its beginning.
        while samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            samples.pop_front();
        }
        samples.push_back((now, total));
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn per_minute_at(&self, now: Instant, total: u64) -> f64 {
        let samples = self.0.lock();
        let before = samples.iter().take_while(|(at, _)| now.duration_since(*at) >= WINDOW).last();
        total.saturating_sub(before.map_or(0, |(_, total)| *total)) as f64
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_covers_the_last_minute() {
        let (rate, begin) = (Rate::default(), Instant::now());
        let at = |secs| begin + Duration::from_secs(secs);
        let is_zero = |secs, total| rate.per_minute_at(at(secs), total).to_bits() == f64::to_bits(0.0);
        assert!((rate.per_minute_at(at(0), 6) - 6.0).abs() < 1e-9, "everything since the start");
        // Two a second for two minutes, then nothing.
        (1..=120).for_each(|secs| rate.sample_at(at(secs), secs * 2));
        assert!((rate.per_minute_at(at(120), 240) - 120.0).abs() < 1e-9);
        (121..=150).for_each(|secs| rate.sample_at(at(secs), 240));
        assert!((rate.per_minute_at(at(150), 240) - 60.0).abs() < 1e-9);
        (151..=200).for_each(|secs| rate.sample_at(at(secs), 240));
        assert!(is_zero(200, 240));
        assert!(rate.0.lock().len() <= 62, "the number of samples is bounded");
    }

    #[test]
    fn growth_is_counted_from_the_last_sample_before_the_window() {
        let (rate, begin) = (Rate::default(), Instant::now());
        rate.sample_at(begin, 1000);
        rate.sample_at(begin + Duration::from_secs(300), 1000);
        assert!((rate.per_minute_at(begin + Duration::from_secs(301), 1007) - 7.0).abs() < 1e-9);
    }
}
