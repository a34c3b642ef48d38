//! Which killmails a client has on this connection: nothing comes twice, whatever grows, shrinks or is joined
//! anew.
//!
//! Live parts never repeat themselves; what can meet are preloads among one another and with what was live
//! before. Killmails of preloads are at most a week old, so that is how long it is remembered: a bit for each
//! where they are many, four bytes where few.
//!
//! Must not know: why a killmail is sent.

use crate::store::index::postings::Postings;

/// A preload reaches back this far at most.
const WEEK_MS: i64 = 168 * 3_600_000;

/// The killmails sent.
#[derive(Debug, Clone, Default)]
pub struct DeliveredIds {
    /// Since `begun_ms`.
    new: Postings,
    /// In the week before that.
    old: Postings,
    begun_ms: i64,
}

impl DeliveredIds {
    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.old.is_empty()
    }

    /// Notes a killmail; false if it was sent before.
    pub fn first(&mut self, killmail_id: u32, now_ms: i64) -> bool {
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
        assert!(sent.first(5, WEEK_MS + 1));
        assert!(!sent.first(5, WEEK_MS + 2));
        assert!(!sent.first(5, 2 * WEEK_MS + 2), "the week of its own is remembered whole");
        assert!(sent.first(5, 4 * WEEK_MS), "and forgotten later");
    }
}
