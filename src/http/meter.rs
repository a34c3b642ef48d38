//! Rates: how much a counter grew in about the last minute.
//!
//! Must not know: what is counted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const WINDOW: Duration = Duration::from_secs(60);

/// Watches one counter. It looks only when it is asked, so the window is one to two minutes where it is asked often.
#[derive(Debug, Default)]
pub struct Meter(Mutex<Option<[(Instant, u64); 2]>>);

impl Meter {
    /// Growth per minute, given what the counter says now; from the first asking on.
    pub fn per_minute(&self, total: u64) -> f64 {
        self.per_minute_at(Instant::now(), total)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn per_minute_at(&self, now: Instant, total: u64) -> f64 {
        let mut seen = self.0.lock();
        let [before, last] = seen.get_or_insert([(now, total); 2]);
        if now.duration_since(last.0) >= WINDOW {
            *before = *last;
            *last = (now, total);
        }
        let seconds = now.duration_since(before.0).as_secs_f64().max(1.0);
        let rate = total.saturating_sub(before.1) as f64 * 60.0 / seconds;
        (rate * 100.0).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_last_minutes() {
        let (meter, begin) = (Meter::default(), Instant::now());
        let at = |secs| begin + Duration::from_secs(secs);
        assert!((meter.per_minute_at(at(0), 1000) - 0.0).abs() < 1e-9);
        assert!((meter.per_minute_at(at(30), 1010) - 20.0).abs() < 1e-9);
        assert!((meter.per_minute_at(at(60), 1060) - 60.0).abs() < 1e-9);
        meter.per_minute_at(at(120), 1060);
        assert!((meter.per_minute_at(at(180), 1060) - 0.0).abs() < 1e-9);
    }
}
