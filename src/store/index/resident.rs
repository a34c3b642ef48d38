//! What the store keeps in memory behind one lock: the index, and the tail (the newest entries). Both always
//! end at the same entry.
//!
//! Must not know: the disk.

use hashbrown::HashMap;

use crate::domain::entry::SharedEntry;
use crate::store::index::Index;
use crate::store::index::newest_entries::NewestEntries;

/// The index and the newest entries.
#[derive(Debug)]
pub struct Resident {
    pub index: Index,
    pub tail: NewestEntries,
    /// The newest revision of each killmail that was ever revised. A record on disk with an older one is
    /// damaged.
    pub revs: HashMap<u32, u64>,
}

impl Resident {
    /// The killmail's entry, if it is among the newest.
    pub fn recent(&self, killmail_id: u32) -> Option<SharedEntry> {
        self.tail.get(self.index.ids.get(killmail_id)?).cloned()
    }
}
