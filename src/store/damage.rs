//! What reading records while the server runs has shown of damage.
//!
//! Must not know: when records are read.

use std::collections::BTreeSet;

/// What looking at the records has shown so far.
#[derive(Debug, Default)]
pub struct ScrubProgress {
    /// Records looked at since the store was opened.
    pub records: u64,
    /// Killmails whose record was not whole when it was looked at last.
    pub damaged: BTreeSet<u32>,
}
