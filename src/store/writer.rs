//! What only the one writer has: the numbers given out so far, and the notes it keeps beside the engine.
//!
//! Must not know: how killmails are written.

use crate::store::engine::journal::Journal;
use crate::store::engine::ledger::Ledger;
use crate::store::engine::meta::Numbers;
use crate::store::mirror::revision_notices::RevisionNotices;

/// The one who writes.
#[derive(Debug)]
pub struct Writer {
    pub numbers: Numbers,
    pub ledger: Ledger,
    pub journal: Journal,
    pub notices: RevisionNotices,
    /// Why no more can be written, once a commit failed.
    pub failed: Option<String>,
}

impl Writer {
    pub const fn new(numbers: Numbers, ledger: Ledger, journal: Journal, notices: RevisionNotices) -> Self {
        Self { numbers, ledger, journal, notices, failed: None }
    }
}
