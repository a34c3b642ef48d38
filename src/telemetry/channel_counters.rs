//! What a door with standing connections did, in numbers: the door counts, others tell.
//!
//! Must not know: what a connection speaks.

use std::sync::atomic::{AtomicU64, Ordering};

/// Connections and what went over them, since the start.
#[derive(Debug, Default)]
pub struct ChannelCounters {
    /// Connections opened.
    pub opened: AtomicU64,
    /// Connections closed.
    pub closed: AtomicU64,
    /// Connections refused: too many, or from an origin that may not.
    pub refused: AtomicU64,
    /// Subscriptions begun on them.
    pub joined: AtomicU64,
    /// Subscriptions ended.
    pub left: AtomicU64,
    /// Subscriptions refused.
    pub join_refused: AtomicU64,
    /// Killmails pushed live.
    pub pushed: AtomicU64,
    /// Killmails pushed by preloads.
    pub preloaded: AtomicU64,
    /// Counts pushed.
    pub counts: AtomicU64,
}

impl ChannelCounters {
    /// Connections open now.
    pub fn open(&self) -> u64 {
        let closed = self.closed.load(Ordering::Relaxed);
        self.opened.load(Ordering::Relaxed).saturating_sub(closed)
    }

    /// Subscriptions open now.
    pub fn subscribed(&self) -> u64 {
        let left = self.left.load(Ordering::Relaxed);
        self.joined.load(Ordering::Relaxed).saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_what_was_not_closed() {
        let traffic = ChannelCounters::default();
        traffic.opened.fetch_add(3, Ordering::Relaxed);
        traffic.closed.fetch_add(1, Ordering::Relaxed);
        traffic.joined.fetch_add(1, Ordering::Relaxed);
        assert_eq!((traffic.open(), traffic.subscribed()), (2, 1));
    }
}
