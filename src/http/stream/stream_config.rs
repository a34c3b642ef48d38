//! The settings of streams (`[sse]`).
//!
//! Must not know: how they are applied.

use serde::{Deserialize, Serialize};

/// Limits and intervals of both streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Streams open at a time, of both kinds: each is a socket and a few KiB.
    pub max_connections: usize,
    /// Enhanced streams open at a time: they may preload.
    pub enhanced_max_connections: usize,
    /// Streams open at a time from one client address; unset: no limit.
    pub max_connections_per_address: Option<usize>,
    /// The `retry:` field, how long clients wait before they reconnect, milliseconds.
    pub retry_ms: u64,
    /// Time without a killmail after which a basic stream sends a ping, milliseconds.
    pub ping_ms: u64,
    /// Interval of the enhanced stream's heartbeat, milliseconds.
    pub heartbeat_ms: u64,
    /// Each kind of plugin fault is reported to a client at most once in this time, milliseconds.
    pub fault_pause_ms: u64,
    /// Memory for the texts of batches that are being sent, for all streams together, bytes. A client too
    /// slow to keep its batch there costs another read from the store.
    pub batch_cache_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            enhanced_max_connections: 10_000,
            max_connections_per_address: None,
            retry_ms: 2_000,
            ping_ms: 9_500,
            heartbeat_ms: 30_000,
            fault_pause_ms: 60_000,
            batch_cache_bytes: 32 << 20,
        }
    }
}
