//! The waits and limits of the R2Z2 follower.
//!
//! Must not know: what it requests.

use crate::ingest::backoff::{FAILED_MAX_TIMES, FORBIDDEN_MAX_TIMES, doubled_ms};
use crate::ingest::r2z2::missing_numbers::RecoveryWaits;

/// The waits are milliseconds. The defaults are zKillboard's rules (`docs/sources.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    pub idle_ms: u64,
    /// Between two requests.
    pub pace_ms: u64,
    /// How many numbers behind a missing one are tried, in turn; 0: none.
    pub ahead_numbers: u64,
    /// After 404s on one number for longer than this, `sequence.json` shows whether the feed has moved on.
    pub missing_ms: u64,
    /// After 404s on one number for longer than this while `sequence.json` is behind it, either the feed was
    /// set back or `sequence.json` is stale.
    pub rollback_ms: u64,
    /// If `sequence.json` is this far past a missing number, many files are gone.
    pub far_numbers: u64,
    /// After a 429 without `Retry-After`.
    pub limited_ms: u64,
    /// After the first 403; doubles with each further one.
    pub forbidden_ms: u64,
    /// After the first failure of the server or the network; doubles with each further one.
    pub failed_ms: u64,
    /// For numbers that were passed over.
    pub recovery: RecoveryWaits,
}

impl Waits {
    /// The wait after this many 403s before this one.
    #[must_use]
    pub fn after_forbidden_ms(&self, failures: u32) -> u64 {
        doubled_ms(self.forbidden_ms, failures, FORBIDDEN_MAX_TIMES)
    }

    /// The wait after this many failures before this one.
    #[must_use]
    pub fn after_failure_ms(&self, failures: u32) -> u64 {
        doubled_ms(self.failed_ms, failures, FAILED_MAX_TIMES)
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            idle_ms: 6_000,
            pace_ms: 100,
            ahead_numbers: 8,
            missing_ms: 60_000,
            rollback_ms: 180_000,
            far_numbers: 500,
            limited_ms: 30_000,
            forbidden_ms: 60_000,
            failed_ms: 1_000,
            recovery: RecoveryWaits { first_ms: 60_000, least_ms: 6_000, archive_after_ms: 23_400_000 },
        }
    }
}
