//! The settings of the feed: section `[feed]` of the configuration.
//!
//! Must not know: how they are used.

use serde::{Deserialize, Serialize};

/// How readers read, and how preloads are paced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A reader checks the log this often even when nothing woke it, milliseconds.
    pub tick_ms: u64,
    /// Killmails in one page a reader takes from the log.
    pub page_max: usize,
    /// Bytes of JSON in one page: what a client that does not read can keep in memory.
    pub page_bytes: usize,
    /// Killmails in a page that goes through a plugin. Small, so that live pages are not held up.
    pub judged_page_max: usize,
    /// Log entries examined for one page.
    pub scan_max: usize,
    /// A preload of more killmails than this is refused.
    pub preload_max_killmails: u64,
    /// Killmails in one batch of a preload. On channels: in one interval, unless the client sets
    /// `delivery_batch_size`.
    pub batch_max: usize,
    /// Bytes of one batch of a preload as it is sent. A larger killmail is a batch of its own.
    pub batch_bytes: u64,
    /// Pause between batches of a preload, milliseconds. On channels: the interval, unless the client sets one.
    pub batch_pause_ms: u64,
    /// Pauses are shortened so that a preload ends within this time, milliseconds.
    pub preload_within_ms: u64,
    /// Killmails a plugin may judge for one history request.
    pub judged_max: usize,
    /// CPU time a plugin may use for one history request, milliseconds. A request that waits for busy evaluators
    /// ends after five times as long.
    pub judged_ms: u64,
    /// History requests with a plugin that may run at a time (32). More are refused with 503.
    pub judged_requests_max: usize,
    /// History requests with a plugin from one client address (8).
    pub judged_requests_per_address_max: usize,
    /// Pages of history read from disk at a time (32). More wait; other reads do not wait for them.
    pub history_reads_max: usize,
    /// Batches that may wait for the writer. Producers of more wait.
    pub writer_queue: usize,
    /// Bytes the filters of all open streams and channels may take together. Equal lists of ids count once.
    pub filters_max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tick_ms: 10_000,
            page_max: 64,
            page_bytes: 32 * 1024,
            judged_page_max: 64,
            scan_max: 65_536,
            preload_max_killmails: 100_000,
            batch_max: 50,
            batch_bytes: 512 * 1024,
            batch_pause_ms: 100,
            preload_within_ms: 30_000,
            judged_max: 20_000,
            judged_ms: 2_000,
            judged_requests_max: 32,
            judged_requests_per_address_max: 8,
            history_reads_max: 32,
            writer_queue: 64,
            filters_max_bytes: 256 << 20,
        }
    }
}
