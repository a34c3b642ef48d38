//! What is held in memory behind one lock: the index and the tail, always of the same head.
//!
//! Must not know: disks.

use hashbrown::HashMap;

use crate::domain::entry::SharedEntry;
use crate::store::index::Index;
use crate::store::index::newest_entries::NewestEntries;

/// The index and the tail.
#[derive(Debug)]
pub struct Resident {
    /// Finds killmails.
    pub index: Index,
    /// Holds the newest.
    pub tail: NewestEntries,
    /// The newest revision of each killmail that was ever revised: an older record is damage, not an answer.
    pub revs: HashMap<u32, u64>,
}

impl Resident {
    /// The killmail's entry, if it is in the tail.
    pub fn recent(&self, killmail_id: u32) -> Option<SharedEntry> {
        self.tail.get(self.index.ids.get(killmail_id)?).cloned()
    }
}
