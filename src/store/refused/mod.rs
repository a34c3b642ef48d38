//! Documents that could not be read: stored, counted by reason, and removed once a later version has read
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
use crate::store::refused::list::{KeptDocument, Refused, could_be_killmail, decode, encode};

impl Store {
    /// Stores a refused document. On disk after the next append.
    ///
    /// # Errors
    /// `NoSpace` before anything is written; the disk.
    pub fn add_refused(&self, refused: &Refused) -> Result<(), StoreError> {
        self.check_space()?;
        let value = encode(refused)?;
        let mut list = self.refused.lock();
        let document = KeptDocument { number: list.next, bytes: value.len() };
        for write in chunked_values::writes(Key::RefusedDocument(document.number), &value) {
            self.engine.put(Tree::Refused, &write.key, &write.value.unwrap_or_default())?;
        }
        list.add(document, could_be_killmail(&refused.raw, refused.killmail_id));
        let count = list.counts.entry(refused.reason.clone()).or_default();
        *count += 1;
        self.engine.put(Tree::Refused, &Key::RefusedCount(&refused.reason).bytes(), &count.to_le_bytes())?;
        while let Some(evicted) = list.evict() {
            self.remove_chunks(evicted)?;
        }
        Ok(())
    }

    /// Removes documents from the list, by their numbers: a later version has read them. They stay counted.
    /// On disk when this returns.
    ///
    /// # Errors
    /// The disk.
    pub fn remove_refused(&self, numbers: &[u64]) -> Result<(), StoreError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let mut list = self.refused.lock();
        for is_killmail in [true, false] {
            let removed: Vec<KeptDocument> = list
                .documents(is_killmail)
                .iter()
                .filter(|document| numbers.contains(&document.number))
                .copied()
                .collect();
            for document in removed {
                self.remove_chunks(document)?;
                list.documents(is_killmail).retain(|kept| kept.number != document.number);
                list.bytes -= document.bytes;
            }
        }
        drop(list);
        self.engine.sync()
    }

    fn remove_chunks(&self, document: KeptDocument) -> Result<(), StoreError> {
        for chunk in 0..=(document.bytes / PART_BYTES) as u16 {
            self.engine.remove(
                Tree::Refused,
                &chunked_values::chunk_key(&Key::RefusedDocument(document.number).bytes(), chunk),
            )?;
        }
        Ok(())
    }

    /// How many documents were refused since the store was created, by reason.
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

    /// As [`Store::refused`], each with its number, which [`Store::remove_refused`] takes.
    ///
    /// # Errors
    /// The disk.
    pub fn refused_numbered(&self, limit: usize) -> Result<Vec<(u64, Refused)>, StoreError> {
        let mut numbers: Vec<u64> = {
            let list = self.refused.lock();
            list.killmails.iter().chain(&list.others).map(|document| document.number).collect()
        };
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.truncate(limit);
        let read = |number: u64| {
            let value = chunked_values::read(&self.engine, Key::RefusedDocument(number));
            // A document may be evicted between the list and this read.
            Some((number, value.transpose()?))
        };
        numbers.into_iter().filter_map(read).map(|(number, value)| Ok((number, decode(&value?)?))).collect()
    }
}
