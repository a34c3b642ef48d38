//! Which killmails a client has received on this connection, so that none is sent twice, however its lists change and
//! whatever it joins again.
//!
//! Live delivery never repeats itself. Preloads can overlap with each other and with earlier live killmails. They
//! reach back a week at most, so ids are remembered for a week: a bit each where they are dense, else four bytes.
//!
//! Must not know: why a killmail is sent.

use crate::store::index::postings::Postings;

/// How far a preload can reach back.
const WEEK_MS: i64 = 168 * 3_600_000;

/// The killmails that were sent.
#[derive(Debug, Clone, Default)]
pub struct DeliveredIds {
    /// Sent since `begun_ms`.
    new: Postings,
    /// Sent in the week before.
    old: Postings,
    begun_ms: i64,
}

impl DeliveredIds {
    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.old.is_empty()
    }

    /// Adds a killmail; false if it was sent before.
    pub fn insert(&mut self, killmail_id: u32, now_ms: i64) -> bool {
        if now_ms - self.begun_ms > WEEK_MS {
            self.old = std::mem::take(&mut self.new);
            self.begun_ms = now_ms;
        }
        let first = !self.new.contains(killmail_id) && !self.old.contains(killmail_id);
        if first {
            self.new.insert(killmail_id);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killmail_is_sent_once_within_a_week() {
        let mut sent = DeliveredIds::default();
        assert!(sent.insert(5, WEEK_MS + 1));
        assert!(!sent.insert(5, WEEK_MS + 2));
        assert!(!sent.insert(5, 2 * WEEK_MS + 2), "the week of its own is remembered whole");
        assert!(sent.insert(5, 4 * WEEK_MS), "and forgotten later");
    }
}
