//! Counters of a transport with long-lived connections. The transport counts, the HTTP API reports.
//!
//! Must not know: the protocol of the connections.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct ChannelCounters {
    pub opened: AtomicU64,
    pub closed: AtomicU64,
    /// Connections refused: too many, or from an origin that is not allowed.
    pub refused: AtomicU64,
    pub joined: AtomicU64,
    pub left: AtomicU64,
    pub join_refused: AtomicU64,
    /// Live killmails pushed.
    pub pushed: AtomicU64,
    /// Killmails pushed by preloads.
    pub preloaded: AtomicU64,
    /// Killmail counts of systems pushed.
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
    fn open_connections_are_those_not_closed() {
        let counters = ChannelCounters::default();
        counters.opened.fetch_add(3, Ordering::Relaxed);
        counters.closed.fetch_add(1, Ordering::Relaxed);
        counters.joined.fetch_add(1, Ordering::Relaxed);
        assert_eq!((counters.open(), counters.subscribed()), (2, 1));
    }
}
