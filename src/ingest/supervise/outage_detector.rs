//! When a source stands in for another: after the other was away for a while, until it has been back for a
//! while. A pure state machine.
//!
//! Must not know: clocks; what sources are.

/// How long is a while, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// Away for so long: someone stands in.
    pub after_ms: u64,
    /// Back for so long: nobody does any more.
    pub back_ms: u64,
}

/// A watch over one source.
#[derive(Debug, Clone)]
pub struct OutageDetector {
    waits: Waits,
    /// Since when it is not what it counts as.
    changed_ms: Option<u64>,
    away: bool,
}

impl OutageDetector {
    /// It counts as being there.
    #[must_use]
    pub const fn new(waits: Waits) -> Self {
        Self { waits, changed_ms: None, away: false }
    }

    /// Takes a look at `now_ms`: is the source in trouble? Answers whether it counts as away.
    pub fn look(&mut self, troubled: bool, now_ms: u64) -> bool {
        if troubled == self.away {
            self.changed_ms = None;
            return self.away;
        }
        let since_ms = *self.changed_ms.get_or_insert(now_ms);
        let wait_ms = if self.away { self.waits.back_ms } else { self.waits.after_ms };
        if now_ms.saturating_sub(since_ms) >= wait_ms {
            self.away = troubled;
            self.changed_ms = None;
        }
        self.away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_of_trouble_and_no_less() {
        let mut watch = OutageDetector::new(Waits { after_ms: 60_000, back_ms: 10_000 });
        assert!(!watch.look(true, 0));
        assert!(!watch.look(true, 59_999));
        assert!(!watch.look(false, 60_000), "it came back in time");
        assert!(!watch.look(true, 70_000));
        assert!(!watch.look(true, 129_999));
        assert!(watch.look(true, 130_000));
    }

    #[test]
    fn it_is_back_when_it_stays() {
        let mut watch = OutageDetector::new(Waits { after_ms: 0, back_ms: 10_000 });
        assert!(watch.look(true, 0));
        assert!(watch.look(false, 5_000));
        assert!(watch.look(true, 9_000), "gone again");
        assert!(watch.look(false, 20_000));
        assert!(watch.look(false, 29_999));
        assert!(!watch.look(false, 30_000));
    }
}
