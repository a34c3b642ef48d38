//! The counters of the feed.
//!
//! Must not know: who reads them.

use std::sync::atomic::AtomicU64;

/// The counters of motion.
#[derive(Debug, Default)]
pub struct Counters {
    /// Killmails announced to readers.
    pub announced: AtomicU64,
    /// Readers woken by the bell.
    pub rung: AtomicU64,
    /// Killmail events handed to doors by live parts.
    pub delivered: AtomicU64,
    /// Killmails handed to doors by preloads.
    pub preloaded: AtomicU64,
    /// Pages taken from the log.
    pub pages: AtomicU64,
    /// Faults of plugins that readers saw.
    pub faults: AtomicU64,
}
