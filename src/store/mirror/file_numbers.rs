//! The numbers of the mirror's files: killmails that have a hash are numbered without gaps, separately from
//! the log.
//!
//! Both numbers are the same until something enters the log that has no file: a span, or a killmail without a
//! hash. From then on the file's number is smaller, by one more each time. So it is enough to store where a
//! run of files begins: the file's number and the entry's. They are written in the transaction of the entry
//! that ended the previous run. A killmail that gets its hash later becomes the next file then, as a run of
//! one.
//!
//! Entries that were numbered before files had their own numbers keep them: they are the first run, spans
//! included.
//!
//! Must not know: what a file looks like, or who reads it.

use std::collections::BTreeMap;

use crate::store::engine::{Engine, Write};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, prefix};

/// A file and its entry. As a run, the following files belong to the following entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    file: u64,
    entry: u64,
}

/// Which file belongs to which entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNumbers {
    /// Ascending by both numbers; the first one starts at file 1.
    runs: Vec<Run>,
    /// Files of entries that got their hash late, after files of newer entries; and the reverse.
    late: BTreeMap<u64, u64>,
    late_files: BTreeMap<u64, u64>,
    /// The number of the next file.
    next: u64,
}

/// What a transaction adds to the log, as far as files depend on it. Both lists ascend.
#[derive(Debug)]
pub struct Entries {
    /// The newest entry before the transaction.
    pub head: u64,
    /// The newest entry after it.
    pub new_head: u64,
    /// New entries that get no file.
    pub without_hash: Vec<u64>,
    /// Older entries that get their file only now.
    pub late: Vec<u64>,
}

/// The files a transaction adds.
#[derive(Debug, Default)]
pub struct AssignedFiles {
    runs: Vec<Run>,
    late: Vec<Run>,
    next: u64,
}

impl FileNumbers {
    /// Loads the numbers of a store whose newest entry is `head`.
    ///
    /// # Errors
    /// The disk; `Damaged` if they contradict each other.
    pub fn load(engine: &Engine, head: u64) -> Result<Self, StoreError> {
        let mut numbers = Self {
            runs: vec![Run { file: 1, entry: 1 }],
            late: BTreeMap::new(),
            late_files: BTreeMap::new(),
            next: 1,
        };
        // Where the current run begins; after a late file it goes on with the next file.
        let mut current = Run { file: 1, entry: 1 };
        for pair in engine.scan(Tree::Meta, prefix::FILE_RUN) {
            let (key, value) = pair?;
            let Some(file) = key.strip_prefix(prefix::FILE_RUN) else { break };
            let damaged = || engine.damaged("a number of the mirror's files");
            let number = |bytes: &[u8]| bytes.as_array().copied();
            let file = number(file).map(u64::from_be_bytes).ok_or_else(damaged)?;
            let entry = number(&value).map(u64::from_le_bytes).ok_or_else(damaged)?;
            let expected =
                file.checked_sub(current.file).map(|files| current.entry + files).ok_or_else(damaged)?;
            if entry == 0 || entry > head + 1 || expected > head + 1 {
                return Err(damaged());
            }
            if entry < expected {
                numbers.add_late(Run { file, entry });
                current = Run { file: file + 1, entry: expected };
            } else {
                current = Run { file, entry };
                numbers.add_run(current);
            }
        }
        numbers.next = current.file + (head + 1 - current.entry);
        Ok(numbers)
    }

    /// The newest file; 0 if there is none.
    #[must_use]
    pub const fn newest(&self) -> u64 {
        self.next - 1
    }

    /// The entry of a file; `None` if there is no such file yet.
    #[must_use]
    pub fn entry_of(&self, file: u64) -> Option<u64> {
        if file == 0 || file >= self.next {
            return None;
        }
        if let Some(entry) = self.late.get(&file) {
            return Some(*entry);
        }
        let at = self.runs.partition_point(|run| run.file <= file).checked_sub(1)?;
        let run = self.runs[at];
        Some(run.entry + (file - run.file))
    }

    /// The file of an entry, if it has one.
    #[must_use]
    pub fn file_of(&self, entry: u64) -> Option<u64> {
        if let Some(file) = self.late_files.get(&entry) {
            return Some(*file);
        }
        let at = self.runs.partition_point(|run| run.entry <= entry).checked_sub(1)?;
        let file = self.runs[at].file + (entry - self.runs[at].entry);
        let end = self.runs.get(at + 1).map_or(self.next, |run| run.file);
        (file < end && !self.late.contains_key(&file)).then_some(file)
    }

    /// Assigns files to what a transaction adds: late entries come first. Nothing changes before
    /// [`Self::apply`].
    #[must_use]
    pub fn assign(&self, entries: &Entries) -> AssignedFiles {
        let mut assigned = AssignedFiles { next: self.next, ..AssignedFiles::default() };
        for entry in &entries.late {
            assigned.late.push(Run { file: assigned.next, entry: *entry });
            assigned.next += 1;
        }
        // The entry that gets the next file.
        let mut entry = entries.head + 1;
        if !entries.late.is_empty() {
            assigned.add_run(entry);
        }
        for without_hash in &entries.without_hash {
            assigned.next += without_hash - entry;
            entry = without_hash + 1;
            assigned.add_run(entry);
        }
        assigned.next += entries.new_head + 1 - entry;
        assigned
    }

    /// Adds what was written.
    pub fn apply(&mut self, assigned: AssignedFiles) {
        assigned.late.into_iter().for_each(|late| self.add_late(late));
        assigned.runs.into_iter().for_each(|run| self.add_run(run));
        self.next = assigned.next;
    }

    /// What is stored of them.
    #[cfg(test)]
    pub fn stored(&self) -> (u64, BTreeMap<u64, u64>) {
        let runs = self.runs.iter().map(|run| (run.file, run.entry));
        (self.next, runs.chain(self.late.iter().map(|(file, entry)| (*file, *entry))).collect())
    }

    fn add_late(&mut self, late: Run) {
        self.runs.pop_if(|run| run.file == late.file);
        self.late.insert(late.file, late.entry);
        self.late_files.insert(late.entry, late.file);
    }

    fn add_run(&mut self, run: Run) {
        self.runs.pop_if(|last| last.file == run.file);
        self.runs.push(run);
    }
}

impl AssignedFiles {
    /// The newest file once they are added.
    pub const fn newest(&self) -> u64 {
        self.next - 1
    }

    /// The writes that store them.
    pub fn writes(&self) -> impl Iterator<Item = Write> {
        self.late
            .iter()
            .chain(&self.runs)
            .map(|run| Write::new(Key::FileRun(run.file), run.entry.to_le_bytes().to_vec()))
    }

    /// Begins a run with the next file.
    fn add_run(&mut self, entry: u64) {
        let file = self.next;
        self.runs.pop_if(|last| last.file == file);
        self.runs.push(Run { file, entry });
    }
}

/// The entry in a stored key and value, if the key is one of a file's number.
#[must_use]
pub fn stored_entry(key: &[u8], value: &[u8]) -> Option<u64> {
    key.strip_prefix(prefix::FILE_RUN)?;
    value.as_array().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// One transaction: new entries, each with or without a hash, and which older ones get theirs.
    fn transaction() -> impl Strategy<Value = (Vec<bool>, Vec<usize>)> {
        (vec(prop::bool::weighted(0.6), 0..6), vec(any::<usize>(), 0..2))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn files_are_numbered_without_gaps_and_for_ever(transactions in vec(transaction(), 1..12), old in 0..5_u64) {
            let dir = TempDir::new()?;
            let engine = Engine::open(dir.path(), 1 << 20)?;
            // Entries from before files had their own numbers: the files have the same ones.
            let (mut head, mut files): (u64, Vec<u64>) = (old, (1..=old).collect());
            let mut without = BTreeSet::new();
            let mut numbers = FileNumbers::load(&engine, head)?;
            for (entries, late) in transactions {
                let mut late: Vec<u64> = late.into_iter().filter_map(|n| without.iter().copied().nth(n % without.len().max(1))).collect();
                late.sort_unstable();
                late.dedup();
                without.retain(|entry| !late.contains(entry));
                files.extend(&late);
                let new: BTreeMap<u64, bool> = (head + 1..).zip(entries).collect();
                let new_head = head + new.len() as u64;
                files.extend(new.iter().filter(|(_, hash)| **hash).map(|(entry, _)| *entry));
                let without_hash: Vec<u64> = new.iter().filter(|(_, hash)| !**hash).map(|(entry, _)| *entry).collect();
                without.extend(&without_hash);
                let added = numbers.assign(&Entries { head, new_head, without_hash, late });
                prop_assert_eq!(added.newest(), files.len() as u64);
                engine.commit(added.writes().collect())?;
                numbers.apply(added);
                head = new_head;
                prop_assert_eq!(numbers.newest(), files.len() as u64);
                let mut read = FileNumbers::load(&engine, head)?;
                prop_assert_eq!(read.stored(), numbers.stored());
                for numbers in [&numbers, &read] {
                    for (file, entry) in (1..).zip(&files) {
                        prop_assert_eq!(numbers.entry_of(file), Some(*entry));
                        prop_assert_eq!(numbers.file_of(*entry), Some(file));
                    }
                    prop_assert_eq!((numbers.entry_of(0), numbers.entry_of(files.len() as u64 + 1)), (None, None));
                    for entry in without.iter().copied().chain([head + 1]) {
                        prop_assert_eq!(numbers.file_of(entry), None, "entry {}", entry);
                    }
                }
                std::mem::swap(&mut numbers, &mut read);
            }
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_are_damage() {
        let dir = TempDir::new().unwrap();
        let engine = Engine::open(dir.path(), 1 << 20).unwrap();
        for (file, entry) in [(3_u64, 9_u64), (20, 5), (2, 0)] {
            let write = Write::new(Key::FileRun(file), entry.to_le_bytes().to_vec());
            engine.commit(vec![write]).unwrap();
            assert!(
                matches!(FileNumbers::load(&engine, 7), Err(StoreError::Damaged { .. })),
                "{file} {entry}"
            );
            engine.commit(vec![Write::removal(Key::FileRun(file))]).unwrap();
        }
        assert_eq!(FileNumbers::load(&engine, 7).unwrap().newest(), 7);
    }
}
