//! The number of killmails per day, counted from the rows, one block at a time so that no lock is held for
//! long.
//!
//! Must not know: what the counts are for.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::clock::DAY_SECS;
use crate::domain::id::Seq;
use crate::store::Store;
use crate::store::index::rows::BLOCK;

impl Store {
    /// Adds the killmails numbered after `after` up to `head` to the counts of their days (days since 1970, by
    /// killmail time). Undated killmails are not counted.
    pub fn count_days(&self, days: &mut BTreeMap<i64, u64>, after: Seq, head: Seq) {
        let mut next = after.0 + 1;
        while next <= head.0 {
            let last = head.0.min(next + BLOCK - 1);
            let memory = self.resident.read();
            for row in
                (next..=last).filter_map(|seq| memory.index.rows.get(Seq(seq))).filter(|row| row.is_dated())
            {
                *days.entry(row.time.div_euclid(DAY_SECS)).or_default() += 1;
            }
            next = last + 1;
        }
    }

    /// Number of revisions made. While it stays the same, no existing entry has changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revised.load(Ordering::Relaxed)
    }
}
