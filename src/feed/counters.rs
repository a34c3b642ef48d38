//! The counters of the feed.
//!
//! Must not know: how they are exported.

use std::sync::atomic::AtomicU64;

/// Counters of the feed.
#[derive(Debug, Default)]
pub struct Counters {
    /// Killmails announced to readers.
    pub announced: AtomicU64,
    /// Readers woken for a killmail.
    pub woken: AtomicU64,
    /// Killmails handed to transports live.
    pub delivered: AtomicU64,
    /// Killmails handed to transports by preloads.
    pub preloaded: AtomicU64,
    /// Pages read from the log.
    pub pages: AtomicU64,
    /// Plugin faults that readers met.
    pub faults: AtomicU64,
}
