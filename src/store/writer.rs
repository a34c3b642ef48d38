//! The state that only the writer has, behind one lock: the numbers assigned so far, and what it keeps beside
//! the engine.
//!
//! Must not know: how killmails are written.

use std::collections::BTreeSet;

use crate::store::engine::journal::Journal;
use crate::store::engine::ledger::Ledger;
use crate::store::engine::meta::Numbers;
use crate::store::mirror::revision_notices::RevisionNotices;

/// Conflicting killmails remembered; beyond that, an old one may be logged again.
const CONFLICTS_MAX: usize = 10_000;

#[derive(Debug)]
pub struct Writer {
    pub numbers: Numbers,
    pub ledger: Ledger,
    pub journal: Journal,
    pub notices: RevisionNotices,
    pub conflicts: ConflictLog,
    /// Why nothing more is written, once a commit failed.
    pub failed: Option<String>,
}

impl Writer {
    pub const fn new(numbers: Numbers, ledger: Ledger, journal: Journal, notices: RevisionNotices) -> Self {
        Self { numbers, ledger, journal, notices, conflicts: ConflictLog::new(), failed: None }
    }
}

/// Logs each conflicting killmail once: sources send the same killmail again and again.
#[derive(Debug)]
pub struct ConflictLog {
    logged: BTreeSet<u32>,
}

impl ConflictLog {
    const fn new() -> Self {
        Self { logged: BTreeSet::new() }
    }

    /// Logs that a killmail came with another body than the stored one, unless that was logged before.
    pub fn log(&mut self, killmail_id: u32) {
        if self.logged.len() >= CONFLICTS_MAX {
            self.logged.clear();
        }
        if self.logged.insert(killmail_id) {
            tracing::warn!(
                killmail.id = killmail_id,
                "killmail {killmail_id} arrived with a body that differs from the stored one; the stored one \
                 stays (logged once for each killmail)"
            );
        }
    }
}
