//! The numbers of the mirror's files: a count without gaps of the killmails that have a hash, beside the
//! log's own numbers.
//!
//! Both counts are the same until something enters the log that has no file: a span, a killmail without a
//! hash. From there on the file's number is smaller by one more. So it is enough to keep where a run of files
//! begins: a file's number and the entry's. They are written in the transaction of the entry that ends the
//! run before. A killmail that gets its hash only later is the next file then, a run of one.
//!
//! What was numbered before files had a count of their own keeps its numbers: it is the first run, spans
//! included.
//!
//! Must not know: what a file looks like, or who reads it.

use std::collections::BTreeMap;

use crate::store::engine::{Engine, Write};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, prefix};

/// Files numbered one after the other, of entries numbered one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    file: u64,
    entry: u64,
}

/// Which file is which entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNumbers {
    /// Ascending by both numbers; the first one is of file 1.
    runs: Vec<Run>,
    /// Entries that got their hash later than others their files, by file and the other way round.
    late: BTreeMap<u64, u64>,
    late_files: BTreeMap<u64, u64>,
    /// The file to come.
    next: u64,
}

/// What a transaction adds.
#[derive(Debug, Default)]
pub struct Added {
    runs: Vec<Run>,
    late: Vec<(u64, u64)>,
    next: u64,
}

impl FileNumbers {
    /// The numbers of a store with this head.
    ///
    /// # Errors
    /// The disk; they contradict each other.
    pub fn read(engine: &Engine, head: u64) -> Result<Self, StoreError> {
        let mut numbers = Self {
            runs: vec![Run { file: 1, entry: 1 }],
            late: BTreeMap::new(),
            late_files: BTreeMap::new(),
            next: 1,
        };
        // Where the file goes on whose number is next.
        let mut on = Run { file: 1, entry: 1 };
        for pair in engine.scan(Tree::Meta, prefix::FILE_RUN) {
            let (key, value) = pair?;
            let Some(file) = key.strip_prefix(prefix::FILE_RUN) else { break };
            let damaged = || engine.damaged("a number of the mirror's files");
            let number = |bytes: &[u8]| bytes.as_array().copied();
            let file = number(file).map(u64::from_be_bytes).ok_or_else(damaged)?;
            let entry = number(&value).map(u64::from_le_bytes).ok_or_else(damaged)?;
            let expected = file.checked_sub(on.file).map(|files| on.entry + files).ok_or_else(damaged)?;
            if entry == 0 || entry > head + 1 || expected > head + 1 {
                return Err(damaged());
            }
            if entry < expected {
                numbers.add_late(file, entry);
                on = Run { file: file + 1, entry: expected };
            } else {
                on = Run { file, entry };
                numbers.add_run(on);
            }
        }
        numbers.next = on.file + (head + 1 - on.entry);
        Ok(numbers)
    }

    /// The newest file; 0 if there is none.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.next - 1
    }

    /// The entry of a file that is out.
    #[must_use]
    pub fn entry(&self, file: u64) -> Option<u64> {
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
    pub fn file(&self, entry: u64) -> Option<u64> {
        if let Some(file) = self.late_files.get(&entry) {
            return Some(*file);
        }
        let at = self.runs.partition_point(|run| run.entry <= entry).checked_sub(1)?;
        let file = self.runs[at].file + (entry - self.runs[at].entry);
        let end = self.runs.get(at + 1).map_or(self.next, |run| run.file);
        (file < end && !self.late.contains_key(&file)).then_some(file)
    }

    /// Numbers files for new entries behind `head` up to `new_head` but for those without one, and before
    /// them for older entries that have a file only now. Both lists are ascending.
    #[must_use]
    pub fn add(&self, head: u64, new_head: u64, without: &[u64], late: &[u64]) -> Added {
        let mut added = Added { next: self.next, ..Added::default() };
        for entry in late {
            added.late.push((added.next, *entry));
            added.next += 1;
        }
        // The entry the next file is of.
        let mut entry = head + 1;
        if !late.is_empty() {
            added.run(Run { file: added.next, entry });
        }
        for without in without {
            added.next += without - entry;
            entry = without + 1;
            added.run(Run { file: added.next, entry });
        }
        added.next += new_head + 1 - entry;
        added
    }

    /// Takes up what was written.
    pub fn settle(&mut self, added: Added) {
        added.late.into_iter().for_each(|(file, entry)| self.add_late(file, entry));
        added.runs.into_iter().for_each(|run| self.add_run(run));
        self.next = added.next;
    }

    /// What is kept of them.
    #[cfg(test)]
    pub fn pairs(&self) -> (u64, BTreeMap<u64, u64>) {
        let runs = self.runs.iter().map(|run| (run.file, run.entry));
        (self.next, runs.chain(self.late.iter().map(|(file, entry)| (*file, *entry))).collect())
    }

    fn add_late(&mut self, file: u64, entry: u64) {
        self.runs.pop_if(|run| run.file == file);
        self.late.insert(file, entry);
        self.late_files.insert(entry, file);
    }

    fn add_run(&mut self, run: Run) {
        self.runs.pop_if(|last| last.file == run.file);
        self.runs.push(run);
    }
}

impl Added {
    /// The newest file then.
    pub const fn head(&self) -> u64 {
        self.next - 1
    }

    /// What writes it.
    pub fn writes(&self) -> impl Iterator<Item = Write> {
        let late = self.late.iter().map(|(file, entry)| (*file, *entry));
        late.chain(self.runs.iter().map(|run| (run.file, run.entry)))
            .map(|(file, entry)| Write::new(Key::FileRun(file), entry.to_le_bytes().to_vec()))
    }

    fn run(&mut self, run: Run) {
        self.runs.pop_if(|last| last.file == run.file);
        self.runs.push(run);
    }
}

/// The entry a kept number names, if the key is of one.
#[must_use]
pub fn entry_of(key: &[u8], value: &[u8]) -> Option<u64> {
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

    /// What a transaction brings: new entries, each with or without a hash, and which of the older ones get
    /// theirs.
    fn turn() -> impl Strategy<Value = (Vec<bool>, Vec<usize>)> {
        (vec(prop::bool::weighted(0.6), 0..6), vec(any::<usize>(), 0..2))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn files_are_numbered_without_gaps_and_for_ever(turns in vec(turn(), 1..12), old in 0..5_u64) {
            let dir = TempDir::new()?;
            let engine = Engine::open(dir.path(), 1 << 20)?;
            // Entries that were numbered before: their files have the same numbers, whatever they are.
            let (mut head, mut files): (u64, Vec<u64>) = (old, (1..=old).collect());
            let mut without = BTreeSet::new();
            let mut numbers = FileNumbers::read(&engine, head)?;
            for (entries, late) in turns {
                let mut late: Vec<u64> = late.into_iter().filter_map(|n| without.iter().copied().nth(n % without.len().max(1))).collect();
                late.sort_unstable();
                late.dedup();
                without.retain(|entry| !late.contains(entry));
                files.extend(&late);
                let new: BTreeMap<u64, bool> = (head + 1..).zip(entries).collect();
                let new_head = head + new.len() as u64;
                files.extend(new.iter().filter(|(_, hash)| **hash).map(|(entry, _)| *entry));
                let fileless: Vec<u64> = new.iter().filter(|(_, hash)| !**hash).map(|(entry, _)| *entry).collect();
                without.extend(&fileless);
                let added = numbers.add(head, new_head, &fileless, &late);
                prop_assert_eq!(added.head(), files.len() as u64);
                engine.commit(added.writes().collect())?;
                numbers.settle(added);
                head = new_head;
                prop_assert_eq!(numbers.head(), files.len() as u64);
                let mut read = FileNumbers::read(&engine, head)?;
                prop_assert_eq!(read.pairs(), numbers.pairs());
                for numbers in [&numbers, &read] {
                    for (file, entry) in (1..).zip(&files) {
                        prop_assert_eq!(numbers.entry(file), Some(*entry));
                        prop_assert_eq!(numbers.file(*entry), Some(file));
                    }
                    prop_assert_eq!((numbers.entry(0), numbers.entry(files.len() as u64 + 1)), (None, None));
                    for entry in without.iter().copied().chain([head + 1]) {
                        prop_assert_eq!(numbers.file(entry), None, "entry {}", entry);
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
                matches!(FileNumbers::read(&engine, 7), Err(StoreError::Damaged { .. })),
                "{file} {entry}"
            );
            engine.commit(vec![Write::removal(Key::FileRun(file))]).unwrap();
        }
        assert_eq!(FileNumbers::read(&engine, 7).unwrap().head(), 7);
    }
}
