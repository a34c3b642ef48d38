//! The settings of the feed (`[feed]`).
//!
//! Must not know: what they are used for.

use serde::{Deserialize, Serialize};

/// How readers move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A reader looks for news after this long even if the bell was not heard, milliseconds.
    pub tick_ms: u64,
    /// Killmails a reader takes from the log at once.
    pub page_max: usize,
    /// Bytes of JSON a reader takes from the log at once: what a client that does not read can hold up.
    pub page_bytes: usize,
    /// Killmails of a page that goes through a plugin: smaller, so that live pages get their turn.
    pub judged_page_max: usize,
    /// Log entries looked at for one page.
    pub scan_max: usize,
    /// A preload of more killmails than this is refused.
    pub preload_max_killmails: u64,
    /// Killmails in one batch of a preload; on channels, in one interval where the client names no
    /// `delivery_batch_size`.
    pub batch_max: usize,
    /// Bytes of one batch of a preload, a line as it is sent; a larger killmail makes a batch of its own.
    pub batch_bytes: u64,
    /// Pause between batches of a preload, milliseconds; on channels, the interval where the client names
    /// none.
    pub batch_pause_ms: u64,
    /// Pauses are shortened so that a preload ends within this, milliseconds.
    pub preload_within_ms: u64,
    /// Killmails one history request may have judged by a plugin.
    pub judged_max: usize,
    /// CPU time one history request may spend in a plugin, milliseconds; where judges are busy it ends after
    /// five times as long.
    pub judged_ms: u64,
    /// Requests for history judged by a plugin under way at a time (32); more are refused with 503, since
    /// each may spend as much as that.
    pub judged_requests_max: usize,
    /// Such requests of one client address (8).
    pub judged_requests_per_address_max: usize,
    /// Pages of history read from the disk at once (32); more wait, and what else is read does not wait for
    /// them.
    pub history_reads_max: usize,
    /// Batches waiting for the writer; whoever brings more waits.
    pub writer_queue: usize,
    /// Bytes the filters of all open streams and channels may take together; equal lists of ids count once.
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
