//! Documents that could not be read: kept, counted by reason, taken off the list when something became of
//! them.
//!
//! Must not know: why a document is refused; reasons are words here.

pub mod list;

use std::collections::BTreeMap;

use crate::store::Store;
use crate::store::engine::chunked_values;
use crate::store::error::StoreError;
use crate::store::format::frame::PART_BYTES;
use crate::store::keys::{Key, Tree};
use crate::store::refused::list::{Refused, could_be_killmail, decode, encode};

impl Store {
    /// Keeps a refused document. It is on disk after the next append.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn refuse(&self, refused: &Refused) -> Result<(), StoreError> {
        self.check_space()?;
        let value = encode(refused)?;
        let mut ring = self.refused.lock();
        let number = ring.next;
        for write in chunked_values::writes(Key::RefusedDocument(number), &value) {
            self.engine.put(Tree::Refused, &write.key, &write.value.unwrap_or_default())?;
        }
        ring.add(number, value.len(), could_be_killmail(&refused.raw, refused.killmail_id));
        let count = ring.counts.entry(refused.reason.clone()).or_default();
        *count += 1;
        self.engine.put(Tree::Refused, &Key::RefusedCount(&refused.reason).bytes(), &count.to_le_bytes())?;
        while let Some((number, bytes)) = ring.evict() {
            self.remove_refused(number, bytes)?;
        }
        Ok(())
    }

    /// Takes documents off the list, by their numbers: what became of them is known by now. They stay
    /// counted. On disk when it returns.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_refused(&self, numbers: &[u64]) -> Result<(), StoreError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let mut ring = self.refused.lock();
        for is_killmail in [true, false] {
            let gone: Vec<(u64, usize)> = ring
                .list(is_killmail)
                .iter()
                .filter(|(number, _)| numbers.contains(number))
                .copied()
                .collect();
            for (number, bytes) in gone {
                self.remove_refused(number, bytes)?;
                ring.list(is_killmail).retain(|(kept, _)| *kept != number);
                ring.bytes -= bytes;
            }
        }
        drop(ring);
        self.engine.sync()
    }

    fn remove_refused(&self, number: u64, bytes: usize) -> Result<(), StoreError> {
        for piece in 0..=(bytes / PART_BYTES) as u16 {
            self.engine.remove(
                Tree::Refused,
                &chunked_values::chunk_key(&Key::RefusedDocument(number).bytes(), piece),
            )?;
        }
        Ok(())
    }

    /// How many documents were ever refused, by reason.
    #[must_use]
    pub fn refused_counts(&self) -> BTreeMap<String, u64> {
        self.refused.lock().counts.clone()
    }

    /// The newest refused documents, newest first.
    ///
    /// # Errors
    /// The disk.
    pub fn refused(&self, limit: usize) -> Result<Vec<Refused>, StoreError> {
        Ok(self.refused_numbered(limit)?.into_iter().map(|(_, refused)| refused).collect())
    }

    /// The same, each with its number on the list.
    ///
    /// # Errors
    /// The disk.
    pub fn refused_numbered(&self, limit: usize) -> Result<Vec<(u64, Refused)>, StoreError> {
        let mut numbers: Vec<u64> = {
            let ring = self.refused.lock();
            ring.killmails.iter().chain(&ring.others).map(|(number, _)| *number).collect()
        };
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        numbers.truncate(limit);
        let read = |number: u64| {
            Some((number, chunked_values::read(&self.engine, Key::RefusedDocument(number)).transpose()?))
        };
        numbers.into_iter().filter_map(read).map(|(number, value)| Ok((number, decode(&value?)?))).collect()
    }
}
