//! Which file of the mirror announces which revision: a client that follows the numbers learns from the next
//! new file that an older one has changed.
//!
//! One file announces one revision, as in zKillboard's feed, so several revisions are announced by several
//! files to come. Notices are assigned in the transaction of the revision itself: a client that follows the
//! numbers misses none, also across restarts.
//!
//! Must not know: who reads, over which transport.

use std::collections::VecDeque;

use hashbrown::HashSet;

use crate::store::engine::{Engine, Write};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, prefix};

/// Notices of files that are not out yet, at most; at one a killmail this is about a week's worth. Revisions
/// beyond that are not announced.
const WAITING_MAX: usize = 100_000;

/// A file announces that an older one was revised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Notice {
    file: u64,
    revised: u64,
}

/// Notices that a transaction assigns to files.
#[derive(Debug, Default)]
pub struct AssignedNotices {
    notices: Vec<Notice>,
}

/// Notices of files that are not out yet.
#[derive(Debug, Default)]
pub struct RevisionNotices {
    /// Ascending by file.
    waiting: VecDeque<Notice>,
    /// The revised files in `waiting`.
    revised: HashSet<u64>,
    full: bool,
}

impl RevisionNotices {
    /// Loads the notices of files after `newest_file`.
    ///
    /// # Errors
    /// The disk.
    pub fn load(engine: &Engine, newest_file: u64) -> Result<Self, StoreError> {
        let mut notices = Self::default();
        for pair in engine.scan(Tree::Meta, &Key::RevisionNotice(newest_file + 1).bytes()) {
            let (key, value) = pair?;
            let Some(file) = key.strip_prefix(prefix::REVISION_NOTICE) else { break };
            if let (Some(file), Some(revised)) =
                (file.as_array().copied().map(u64::from_be_bytes), revised_file(&value))
            {
                notices.add(Notice { file, revised });
            }
        }
        Ok(notices)
    }

    /// Assigns the revised files to files after `newest_file`. Nothing changes before [`Self::apply`].
    pub fn assign(&self, newest_file: u64, revised: impl Iterator<Item = u64>) -> AssignedNotices {
        // A file to come that announces it already shows the revision too.
        let new = revised.filter(|revised| !self.revised.contains(revised));
        let next = self.waiting.back().map_or(newest_file, |last| last.file) + 1;
        let room = WAITING_MAX - self.waiting.len().min(WAITING_MAX);
        let notices = (next..).zip(new.take(room)).map(|(file, revised)| Notice { file, revised });
        AssignedNotices { notices: notices.collect() }
    }

    /// Adds what was written, and forgets the notices of files up to `newest_file`.
    pub fn apply(&mut self, assigned: AssignedNotices, newest_file: u64) {
        for notice in assigned.notices {
            self.add(notice);
        }
        while let Some(out) = self.waiting.pop_front_if(|notice| notice.file <= newest_file) {
            self.revised.remove(&out.revised);
        }
        let full = self.waiting.len() >= WAITING_MAX;
        if full && !self.full {
            tracing::warn!(
                "{WAITING_MAX} revisions wait for a new file that announces them; further revisions are not \
                 announced"
            );
        }
        self.full = full;
    }

    fn add(&mut self, notice: Notice) {
        self.waiting.push_back(notice);
        self.revised.insert(notice.revised);
    }
}

impl AssignedNotices {
    /// The writes that store them.
    pub fn writes(&self) -> impl Iterator<Item = Write> {
        let write = |notice: &Notice| {
            Write::new(Key::RevisionNotice(notice.file), notice.revised.to_le_bytes().to_vec())
        };
        self.notices.iter().map(write)
    }
}

/// The revised file in a stored notice.
pub fn revised_file(value: &[u8]) -> Option<u64> {
    value.as_array().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files up to `newest_file` are out; these are revised. Gives the announcing and the revised files.
    fn revise(notices: &mut RevisionNotices, newest_file: u64, revised: &[u64]) -> Vec<(u64, u64)> {
        notices.apply(AssignedNotices::default(), newest_file);
        let assigned = notices.assign(newest_file, revised.iter().copied());
        let pairs: Vec<_> = assigned.notices.iter().map(|notice| (notice.file, notice.revised)).collect();
        assert_eq!(assigned.writes().count(), pairs.len());
        notices.apply(assigned, newest_file);
        pairs
    }

    #[test]
    fn each_revision_is_announced_by_its_own_file() {
        let mut notices = RevisionNotices::default();
        assert_eq!(revise(&mut notices, 10, &[3, 4]), [(11, 3), (12, 4)]);
        assert_eq!(revise(&mut notices, 10, &[5]), [(13, 5)]);
        assert_eq!(revise(&mut notices, 11, &[6]), [(14, 6)], "earlier ones come first");
        assert_eq!(revise(&mut notices, 40, &[7]), [(41, 7)]);
    }

    #[test]
    fn a_revision_waiting_to_be_announced_is_not_announced_twice() {
        let mut notices = RevisionNotices::default();
        assert_eq!(revise(&mut notices, 10, &[3]), [(11, 3)]);
        assert_eq!(revise(&mut notices, 10, &[3]), []);
        assert_eq!(revise(&mut notices, 11, &[3]), [(12, 3)], "11 is out, with the state of then");
    }
}
