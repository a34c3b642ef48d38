//! The settings of the store (`[store]`).
//!
//! Must not know: how the store uses them.

use std::path::PathBuf;

use serde::Deserialize;

/// Settings of the store.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data folder; created if missing.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The engine's page cache, bytes (128 MiB; its own default of 1 GiB would be most of a small machine).
    pub cache_bytes: u64,
    /// Nothing is written while less than this is free on the disk, bytes (256 MiB).
    pub min_free_bytes: u64,
    /// Entries of the log kept in memory, ready to send (10,000).
    pub tail_entries: usize,
    /// About how much memory they may use, bytes (64 MiB).
    pub tail_bytes: usize,
    /// Entries between two snapshots of the index (250,000: replaying them takes about a second at start).
    pub snapshot_every: u64,
    /// Records read a second to find damage before someone asks for them (200: about 1 % of a core); 0: none.
    pub scrub_per_sec: u64,
    /// Pause between two such passes over all records, seconds (a day).
    pub scrub_pause_secs: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("./data"),
            cache_bytes: 128 << 20,
            min_free_bytes: 256 << 20,
            tail_entries: 10_000,
            tail_bytes: 64 << 20,
            snapshot_every: 250_000,
            scrub_per_sec: 200,
            scrub_pause_secs: 86_400,
        }
    }
}
