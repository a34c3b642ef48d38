//! Scrubbing: reading all records, a few at a time, while the server runs, so that damage is found before
//! someone asks for the killmail.
//!
//! Must not know: when records are read, or how often.

use crate::domain::id::Seq;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::query::Hit;

/// Damaged records remembered, at most; more of them would not change what has to be done.
const DAMAGED_MAX: usize = 10_000;

impl Store {
    /// Checks the frames of up to `count` records after a number, without decoding them. Gives the last number
    /// it checked, or `None` at the end of the log. Damage is logged once for each killmail and counted in
    /// [`Store::stats`] until the record is found intact again.
    pub fn scrub(&self, after: Seq, count: u64) -> Option<Seq> {
        let last = Seq(after.0.saturating_add(count).min(self.head().0));
        for seq in (after.0 + 1..=last.0).map(Seq) {
            let row = self.resident.read().index.rows.get(seq).copied();
            // Holes and spans have no record.
            if let Some(row) = row {
                self.scrub_record(Hit { seq, killmail_id: row.killmail_id });
            }
        }
        (last < self.head()).then_some(last)
    }

    /// How many killmails have a record that was found damaged.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.scrubbed.lock().damaged.len()
    }

    fn scrub_record(&self, hit: Hit) {
        let killmail_id = hit.killmail_id;
        let checked = self.check_frames(hit);
        if checked.as_ref().is_err_and(|error| !matches!(error, StoreError::Damaged { .. })) {
            // A failed read says nothing about the record.
            return;
        }
        let mut scrubbed = self.scrubbed.lock();
        scrubbed.records += 1;
        match checked {
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
