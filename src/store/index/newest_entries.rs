//! The newest entries of the log with their whole killmails, so that readers near the head and lookups of new
//! killmails do not read the disk.
//!
//! Must not know: how entries are selected.

use std::collections::VecDeque;

use crate::domain::entry::SharedEntry;
use crate::domain::id::Seq;

/// A parsed killmail takes about this many times the memory of its JSON.
const MEMORY_PER_JSON: usize = 3;
/// What an entry takes in addition, bytes.
const ENTRY_BYTES: usize = 1024;

/// The newest entries in ascending order, without gaps between their numbers.
#[derive(Debug)]
pub struct NewestEntries {
    entries: VecDeque<Kept>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    entry: SharedEntry,
    bytes: usize,
}

impl NewestEntries {
    pub const fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max_entries, max_bytes }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of the oldest entry kept.
    pub fn first_seq(&self) -> Option<Seq> {
        self.entries.front().map(|kept| kept.entry.seq)
    }

    /// The entry with this number, if it is kept.
    pub fn get(&self, seq: Seq) -> Option<&SharedEntry> {
        self.entries.get(self.position(seq)?).map(|kept| &kept.entry)
    }

    /// Adds the next entry; `weight` is the length of its JSON. Evicted entries go to `evicted`, so that the
    /// caller can drop them after it has released the lock.
    pub fn push(&mut self, entry: SharedEntry, weight: u32, evicted: &mut Vec<SharedEntry>) {
        if self.entries.back().is_some_and(|last| last.entry.seq.next() != entry.seq) {
            evicted.extend(self.entries.drain(..).map(|kept| kept.entry));
            self.bytes = 0;
        }
        let bytes = ENTRY_BYTES + weight as usize * MEMORY_PER_JSON;
        self.bytes += bytes;
        self.entries.push_back(Kept { entry, bytes });
        while self.entries.len() > self.max_entries.max(1)
            || (self.bytes > self.max_bytes && self.entries.len() > 1)
        {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes;
            evicted.push(oldest.entry);
        }
    }

    /// Replaces the entry that has the same number and returns it; does nothing if that one is not kept.
    pub fn replace(&mut self, entry: SharedEntry) -> Option<SharedEntry> {
        let at = self.position(entry.seq)?;
        self.entries.get_mut(at).map(|kept| std::mem::replace(&mut kept.entry, entry))
    }

    fn position(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.0.checked_sub(self.first_seq()?.0)?).ok()
    }
}
