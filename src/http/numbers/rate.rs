//! Rates: how much a counter grew in the last minute.
//!
//! Must not know: what is counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);
/// A counter is looked at this often.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches one counter that began at zero. It is told what the counter says, whether somebody asks or not.
#[derive(Debug)]
pub struct Rate(Mutex<VecDeque<(Instant, u64)>>);

impl Rate {
    /// Takes a look: the counter says `total` now.
    pub fn look(&self, total: u64) {
        self.look_at(Instant::now(), total);
    }

    /// Growth in the last minute, given what the counter says now.
    pub fn per_minute(&self, total: u64) -> f64 {
        self.per_minute_at(Instant::now(), total)
    }

    fn look_at(&self, now: Instant, total: u64) {
        let mut seen = self.0.lock();
        // One look stays from before the minute: what the counter said when it began.
        while seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            seen.pop_front();
        }
        seen.push_back((now, total));
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn per_minute_at(&self, now: Instant, total: u64) -> f64 {
        let seen = self.0.lock();
        let before = seen.iter().take_while(|(at, _)| now.duration_since(*at) >= WINDOW).last();
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
    fn the_rate_is_of_the_last_minute_whoever_asked_before() {
        let (meter, begin) = (Rate::default(), Instant::now());
        let at = |secs| begin + Duration::from_secs(secs);
        let says = |secs, total| meter.per_minute_at(at(secs), total).to_bits() == f64::to_bits(0.0);
        assert!((meter.per_minute_at(at(0), 6) - 6.0).abs() < 1e-9, "everything since the start");
        // Two a second for two minutes, then nothing.
        (1..=120).for_each(|secs| meter.look_at(at(secs), secs * 2));
        assert!((meter.per_minute_at(at(120), 240) - 120.0).abs() < 1e-9);
        (121..=150).for_each(|secs| meter.look_at(at(secs), 240));
        assert!((meter.per_minute_at(at(150), 240) - 60.0).abs() < 1e-9);
        (151..=200).for_each(|secs| meter.look_at(at(secs), 240));
        assert!(says(200, 240));
        assert!(meter.0.lock().len() <= 62, "what is remembered is bounded");
    }

    #[test]
    fn a_stretch_without_looks_is_no_rate_of_the_time_before() {
        let (meter, begin) = (Rate::default(), Instant::now());
        meter.look_at(begin, 1000);
        meter.look_at(begin + Duration::from_secs(300), 1000);
        assert!((meter.per_minute_at(begin + Duration::from_secs(301), 1007) - 7.0).abs() < 1e-9);
    }
}
