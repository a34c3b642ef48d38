//! Reading what is kept, a little at a time, while the server runs: damage is found before someone asks for
//! the killmail.
//!
//! Must not know: when it is done, or how often.

use crate::domain::id::Seq;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::query::Hit;

/// Damaged records remembered at most; more of them change nothing about what has to be done.
const DAMAGED_MAX: usize = 10_000;

impl Store {
    /// Looks at the records of `count` numbers behind a place, without decoding them: says how far it came,
    /// `None` at the end. Damage is logged once for each killmail and counted in [`Store::stats`]; a record
    /// found whole again is taken off the list.
    pub fn scrub(&self, after: Seq, count: u64) -> Option<Seq> {
        let upto = Seq(after.0.saturating_add(count).min(self.head().0));
        for seq in (after.0 + 1..=upto.0).map(Seq) {
            let row = self.resident.read().index.rows.get(seq).copied();
            // Holes and spans have no record.
            if let Some(row) = row {
                self.look_at(seq, row.killmail_id);
            }
        }
        (upto < self.head()).then_some(upto)
    }

    /// Killmails whose record was found damaged.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.scrubbed.lock().damaged.len()
    }

    fn look_at(&self, seq: Seq, killmail_id: u32) {
        let found = self.check_frames(Hit { seq, killmail_id });
        if found.as_ref().is_err_and(|error| !matches!(error, StoreError::Damaged { .. })) {
            // The system refuses for a moment: that says nothing about the record.
            return;
        }
        let mut scrubbed = self.scrubbed.lock();
        scrubbed.records += 1;
        match found {
            Ok(()) => {
                scrubbed.damaged.remove(&killmail_id);
            }
            Err(error) if scrubbed.damaged.len() < DAMAGED_MAX && scrubbed.damaged.insert(killmail_id) => {
                tracing::error!(killmail.id = killmail_id, "{error}");
            }
            Err(_) => {}
        }
    }
}
