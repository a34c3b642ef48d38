//! Decides when a source counts as unavailable: after a period of trouble, and until it has been well for a
//! while. A pure state machine.
//!
//! Must not know: clocks; what sources are.

/// How long a state must last before it counts, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// Trouble for this long: the source is unavailable.
    pub after_ms: u64,
    /// No trouble for this long: it is back.
    pub back_ms: u64,
}

/// Watches one source.
#[derive(Debug, Clone)]
pub struct OutageDetector {
    waits: Waits,
    /// Since when the observed state has differed from `is_out`.
    differs_since_ms: Option<u64>,
    is_out: bool,
}

impl OutageDetector {
    /// The source counts as available at first.
    #[must_use]
    pub const fn new(waits: Waits) -> Self {
        Self { waits, differs_since_ms: None, is_out: false }
    }

    /// Takes an observation at `now_ms` and returns whether the source counts as unavailable.
    pub fn observe(&mut self, is_in_trouble: bool, now_ms: u64) -> bool {
        if is_in_trouble == self.is_out {
            self.differs_since_ms = None;
            return self.is_out;
        }
        let since_ms = *self.differs_since_ms.get_or_insert(now_ms);
        let wait_ms = if self.is_out { self.waits.back_ms } else { self.waits.after_ms };
        if now_ms.saturating_sub(since_ms) >= wait_ms {
            self.is_out = is_in_trouble;
            self.differs_since_ms = None;
        }
        self.is_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_unavailable_after_a_minute_of_trouble() {
        let mut detector = OutageDetector::new(Waits { after_ms: 60_000, back_ms: 10_000 });
        assert!(!detector.observe(true, 0));
        assert!(!detector.observe(true, 59_999));
        assert!(!detector.observe(false, 60_000), "it recovered in time");
        assert!(!detector.observe(true, 70_000));
        assert!(!detector.observe(true, 129_999));
        assert!(detector.observe(true, 130_000));
    }

    #[test]
    fn a_source_is_back_once_it_stays_well() {
        let mut detector = OutageDetector::new(Waits { after_ms: 0, back_ms: 10_000 });
        assert!(detector.observe(true, 0));
        assert!(detector.observe(false, 5_000));
        assert!(detector.observe(true, 9_000), "in trouble again");
        assert!(detector.observe(false, 20_000));
        assert!(detector.observe(false, 29_999));
        assert!(!detector.observe(false, 30_000));
    }
}
