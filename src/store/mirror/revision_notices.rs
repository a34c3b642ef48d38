//! Which file of the mirror tells of which revision: whoever reads by number learns from the next new file
//! that an older one has changed.
//!
//! One file tells of one revision, as zKillboard's feed does, so several revisions are told by several files
//! to come. What will tell is settled with the revision itself, in its transaction: a reader that follows the
//! numbers misses none, whatever restarts in between.
//!
//! Must not know: who reads, over which door.

use std::collections::VecDeque;

use hashbrown::HashSet;

use crate::store::engine::{Engine, Write};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, prefix};

/// Revisions waiting to be told; at one a killmail this is about a week's worth, and more are not told.
const WAITING_MAX: usize = 100_000;

/// Notices given to files, and what writes them.
#[derive(Debug, Default)]
pub struct AssignedNotices {
    pairs: Vec<(u64, u64)>,
}

/// Revisions that no file has told of yet.
#[derive(Debug, Default)]
pub struct RevisionNotices {
    /// The file that will tell, and of which one.
    waiting: VecDeque<(u64, u64)>,
    /// Those told of.
    of: HashSet<u64>,
    full: bool,
}

impl RevisionNotices {
    /// Those that files behind this one will tell of.
    ///
    /// # Errors
    /// The disk.
    pub fn load(engine: &Engine, head: u64) -> Result<Self, StoreError> {
        let mut notices = Self::default();
        for pair in engine.scan(Tree::Meta, &Key::RevisionNotice(head + 1).bytes()) {
            let (key, value) = pair?;
            let Some(number) = key.strip_prefix(prefix::REVISION_NOTICE) else { break };
            if let (Some(number), Some(of)) =
                (number.as_array().copied().map(u64::from_be_bytes), told_by(&value))
            {
                notices.add(number, of);
            }
        }
        Ok(notices)
    }

    /// Which files after `head` will tell of these revised ones.
    pub fn give(&self, head: u64, revised: impl Iterator<Item = u64>) -> AssignedNotices {
        // A file to come that tells of it already tells of what it is then.
        let new = revised.filter(|of| !self.of.contains(of));
        let next = self.waiting.back().map_or(head, |(number, _)| *number) + 1;
        AssignedNotices {
            pairs: (next..).zip(new.take(WAITING_MAX - self.waiting.len().min(WAITING_MAX))).collect(),
        }
    }

    /// Remembers what was written, and forgets what files up to `head` have told.
    pub fn settle(&mut self, given: AssignedNotices, head: u64) {
        for (number, of) in given.pairs {
            self.add(number, of);
        }
        while let Some((_, of)) = self.waiting.pop_front_if(|(number, _)| *number <= head) {
            self.of.remove(&of);
        }
        let full = self.waiting.len() >= WAITING_MAX;
        if full && !self.full {
            tracing::warn!(
                "{WAITING_MAX} revisions wait to be told to those who follow by number; further ones are not told"
            );
        }
        self.full = full;
    }

    fn add(&mut self, number: u64, of: u64) {
        self.waiting.push_back((number, of));
        self.of.insert(of);
    }
}

impl AssignedNotices {
    /// What writes them.
    pub fn writes(&self) -> impl Iterator<Item = Write> {
        let told =
            |(number, of): &(u64, u64)| Write::new(Key::RevisionNotice(*number), of.to_le_bytes().to_vec());
        self.pairs.iter().map(told)
    }
}

/// The older file that a kept notice names.
pub fn told_by(value: &[u8]) -> Option<u64> {
    value.as_array().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files up to `head` are out; these are revised.
    fn revise(notices: &mut RevisionNotices, head: u64, revised: &[u64]) -> Vec<(u64, u64)> {
        notices.settle(AssignedNotices::default(), head);
        let given = notices.give(head, revised.iter().copied());
        let pairs = given.pairs.clone();
        assert_eq!(given.writes().count(), pairs.len());
        notices.settle(given, head);
        pairs
    }

    #[test]
    fn each_revision_is_told_by_a_file_of_its_own() {
        let mut notices = RevisionNotices::default();
        assert_eq!(revise(&mut notices, 10, &[3, 4]), [(11, 3), (12, 4)]);
        assert_eq!(revise(&mut notices, 10, &[5]), [(13, 5)]);
        assert_eq!(revise(&mut notices, 11, &[6]), [(14, 6)], "those before come first");
        assert_eq!(revise(&mut notices, 40, &[7]), [(41, 7)]);
    }

    #[test]
    fn a_revision_waiting_to_be_told_is_not_told_twice() {
        let mut notices = RevisionNotices::default();
        assert_eq!(revise(&mut notices, 10, &[3]), [(11, 3)]);
        assert_eq!(revise(&mut notices, 10, &[3]), []);
        assert_eq!(revise(&mut notices, 11, &[3]), [(12, 3)], "11 is out, and told of what was then");
    }
}
