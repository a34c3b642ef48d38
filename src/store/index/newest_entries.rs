//! The newest entries of the log, whole, so that readers near the head and hot look-ups never touch the disk.
//!
//! Must not know: how entries are selected.

use std::collections::VecDeque;

use crate::domain::entry::SharedEntry;
use crate::domain::id::Seq;

/// A parsed killmail takes about so many times the memory of its JSON.
const MEMORY_PER_JSON: usize = 3;
/// And an entry at least so much, bytes.
const ENTRY_BYTES: usize = 1024;

/// The newest entries, numbers without gaps, ascending.
#[derive(Debug)]
pub struct NewestEntries {
    entries: VecDeque<(SharedEntry, usize)>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

impl NewestEntries {
    pub const fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max_entries, max_bytes }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of the oldest entry kept.
    pub fn first(&self) -> Option<Seq> {
        self.entries.front().map(|(entry, _)| entry.seq)
    }

    /// The entry with this number, if it is kept.
    pub fn get(&self, seq: Seq) -> Option<&SharedEntry> {
        let at = seq.0.checked_sub(self.first()?.0)?;
        self.entries.get(usize::try_from(at).ok()?).map(|(entry, _)| entry)
    }

    /// Adds the next entry. What has to go for it is handed out, to be dropped where nobody waits for it.
    pub fn push(&mut self, entry: SharedEntry, weight: u32, gone: &mut Vec<SharedEntry>) {
        if self.entries.back().is_some_and(|(last, _)| last.seq.next() != entry.seq) {
            gone.extend(self.entries.drain(..).map(|(entry, _)| entry));
            self.bytes = 0;
        }
        let bytes = ENTRY_BYTES + weight as usize * MEMORY_PER_JSON;
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
        while self.entries.len() > self.max_entries.max(1)
            || (self.bytes > self.max_bytes && self.entries.len() > 1)
        {
            let Some((entry, bytes)) = self.entries.pop_front() else { break };
            self.bytes -= bytes;
            gone.push(entry);
        }
    }

    /// Puts a revised entry in the place of the old one.
    pub fn replace(&mut self, entry: SharedEntry) -> Option<SharedEntry> {
        let at = usize::try_from(entry.seq.0.checked_sub(self.first()?.0)?).ok()?;
        let slot = &mut self.entries.get_mut(at)?.0;
        Some(std::mem::replace(slot, entry))
    }
}
