//! How long the follower of R2Z2 waits for what, and how far it looks.
//!
//! Must not know: what it asks.

use crate::ingest::r2z2::missing_numbers::Healing;

/// What the follower goes by; waits in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// After a 404.
    pub idle_ms: u64,
    /// After a document.
    pub pace_ms: u64,
    /// How many numbers behind a missing one are looked at, in turn; 0: none.
    pub ahead_numbers: u64,
    /// After 404s on one number for longer than this, `sequence.json` is asked whether the feed has gone on.
    pub ghost_ms: u64,
    /// 404s on one number for longer than this while `sequence.json` is behind it: the feed was set back, or
    /// `sequence.json` is stale.
    pub rollback_ms: u64,
    /// A missing number so far behind `sequence.json` is one of many whose files are gone.
    pub far_numbers: u64,
    /// After a 429 that does not say how long.
    pub limited_ms: u64,
    /// After the first 403; doubles with each further one.
    pub forbidden_ms: u64,
    /// The longest wait after 403s.
    pub forbidden_max_ms: u64,
    /// After the first failure of the server or the network; doubles with each further one.
    pub failed_ms: u64,
    /// The longest wait after failures.
    pub failed_max_ms: u64,
    /// For numbers given up.
    pub healing: Healing,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            idle_ms: 6_000,
            pace_ms: 100,
            ahead_numbers: 8,
            ghost_ms: 60_000,
            rollback_ms: 180_000,
            far_numbers: 500,
            limited_ms: 30_000,
            forbidden_ms: 60_000,
            forbidden_max_ms: 900_000,
            failed_ms: 1_000,
            failed_max_ms: 60_000,
            healing: Healing { first_ms: 60_000, least_ms: 6_000, archive_after_ms: 23_400_000 },
        }
    }
}
