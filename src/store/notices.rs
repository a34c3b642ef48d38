//! Which entry tells of which revision: whoever reads by number learns from the next new entry that an older one has changed.
//!
//! One entry tells of one revision, as zKillboard's feed does, so several revisions are told by several entries to come. What will tell
//! is settled with the revision itself, in its transaction: a reader that follows the numbers misses none, whatever restarts in between.
//! Entries that such readers never see (they have no hash, or are no killmails) pass on what they should tell.
//!
//! Must not know: who reads, over which door.

use std::collections::VecDeque;

use hashbrown::HashSet;

use crate::domain::id::Seq;
use crate::store::disk::{Disk, Tree, Write};
use crate::store::{Error, Store};

/// What the keys in `meta` begin with; the number of the telling entry follows.
pub const TOLD_PREFIX: &[u8] = b"told/";
/// Revisions waiting to be told; at one a killmail this is about a week's worth, and more are not told.
const WAITING_MAX: usize = 100_000;

/// Notices given to numbers, and what writes them.
#[derive(Debug, Default)]
pub struct Given {
    pairs: Vec<(u64, u64)>,
    passed_on: Vec<u64>,
}

/// Revisions that no entry has told of yet.
#[derive(Debug, Default)]
pub struct Notices {
    /// The number that will tell, and of which one.
    waiting: VecDeque<(u64, u64)>,
    /// Those told of.
    of: HashSet<u64>,
    full: bool,
}

impl Notices {
    /// Those that entries behind this head will tell of.
    ///
    /// # Errors
    /// The disk.
    pub fn load(disk: &Disk, head: u64) -> Result<Self, Error> {
        let mut notices = Self::default();
        for pair in disk.scan(Tree::Meta, &key_of(head + 1)) {
            let (key, value) = pair?;
            let Some(number) = key.strip_prefix(TOLD_PREFIX) else { break };
            if let (Some(number), Some(of)) = (number.as_array().copied().map(u64::from_be_bytes), of(&value)) {
                notices.add(number, of);
            }
        }
        Ok(notices)
    }

    /// Which entries after `head` will tell of these revised ones. `mute` are numbers about to be given to what tells nothing, ascending.
    pub fn give(&self, head: u64, revised: impl Iterator<Item = Seq>, mute: &[u64]) -> Given {
        let mut given = Given::default();
        // What waits is ascending, too: no more than the muted numbers reach is looked at.
        let reach = mute.last().copied().unwrap_or(0);
        let near = self.waiting.iter().take_while(|(number, _)| *number <= reach);
        let passed = near.filter(|(number, _)| mute.binary_search(number).is_ok());
        given.passed_on = passed.clone().map(|(number, _)| *number).collect();
        // An entry to come that tells of it already tells of what it is then.
        let new = revised.map(|seq| seq.0).filter(|of| !self.of.contains(of));
        let mut next = self.waiting.back().map_or(head, |(number, _)| *number) + 1;
        for of in passed.map(|(_, of)| *of).chain(new).take(WAITING_MAX - self.waiting.len().min(WAITING_MAX)) {
            while mute.binary_search(&next).is_ok() {
                next += 1;
            }
            given.pairs.push((next, of));
            next += 1;
        }
        given
    }

    /// Remembers what was written, and forgets what entries up to `head` have told.
    pub fn settle(&mut self, given: Given, head: u64) {
        if !given.passed_on.is_empty() {
            self.waiting.retain(|(number, _)| given.passed_on.binary_search(number).is_err());
        }
        for (number, of) in given.pairs {
            self.add(number, of);
        }
        while let Some((_, of)) = self.waiting.pop_front_if(|(number, _)| *number <= head) {
            self.of.remove(&of);
        }
        let full = self.waiting.len() >= WAITING_MAX;
        if full && !self.full {
            tracing::warn!("{WAITING_MAX} revisions wait to be told to those who follow by number; further ones are not told");
        }
        self.full = full;
    }

    fn add(&mut self, number: u64, of: u64) {
        self.waiting.push_back((number, of));
        self.of.insert(of);
    }
}

impl Given {
    /// What writes them.
    pub fn writes(&self) -> impl Iterator<Item = Write> {
        let gone = self.passed_on.iter().map(|number| Write { tree: Tree::Meta, key: key_of(*number), value: None });
        let told = |(number, of): &(u64, u64)| Write { tree: Tree::Meta, key: key_of(*number), value: Some(of.to_le_bytes().to_vec()) };
        gone.chain(self.pairs.iter().map(told))
    }
}

impl Store {
    /// The older entry whose revision this one tells of, if it tells of any.
    ///
    /// # Errors
    /// The disk.
    pub fn told_by(&self, seq: Seq) -> Result<Option<Seq>, Error> {
        Ok(self.disk.get(Tree::Meta, &key_of(seq.0))?.and_then(|value| of(&value)).map(Seq))
    }
}

fn key_of(number: u64) -> Vec<u8> {
    [TOLD_PREFIX, &number.to_be_bytes()].concat()
}

fn of(value: &[u8]) -> Option<u64> {
    value.as_array().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries up to `head` are out; these are revised, and what was numbered behind it before tells nothing.
    fn revise(notices: &mut Notices, head: u64, revised: &[u64], mute: &[u64]) -> Vec<(u64, u64)> {
        notices.settle(Given::default(), head);
        let given = notices.give(head, revised.iter().copied().map(Seq), mute);
        let pairs = given.pairs.clone();
        assert_eq!(given.writes().count(), pairs.len() + given.passed_on.len());
        notices.settle(given, mute.last().copied().unwrap_or(head));
        pairs
    }

    #[test]
    fn each_revision_is_told_by_an_entry_of_its_own() {
        let mut notices = Notices::default();
        assert_eq!(revise(&mut notices, 10, &[3, 4], &[]), [(11, 3), (12, 4)]);
        assert_eq!(revise(&mut notices, 10, &[5], &[]), [(13, 5)]);
        assert_eq!(revise(&mut notices, 11, &[6], &[]), [(14, 6)], "those before come first");
        assert_eq!(revise(&mut notices, 40, &[7], &[]), [(41, 7)]);
    }

    #[test]
    fn a_revision_waiting_to_be_told_is_not_told_twice() {
        let mut notices = Notices::default();
        assert_eq!(revise(&mut notices, 10, &[3], &[]), [(11, 3)]);
        assert_eq!(revise(&mut notices, 10, &[3], &[]), []);
        assert_eq!(revise(&mut notices, 11, &[3], &[]), [(12, 3)], "11 is out, and told of what was then");
    }

    #[test]
    fn what_nobody_sees_passes_its_notice_on() {
        let mut notices = Notices::default();
        assert_eq!(revise(&mut notices, 10, &[3, 4], &[]), [(11, 3), (12, 4)]);
        assert_eq!(revise(&mut notices, 10, &[], &[11]), [(13, 3)]);
        assert_eq!(revise(&mut notices, 11, &[5], &[12, 14]), [(15, 4), (16, 5)]);
        assert_eq!(revise(&mut notices, 14, &[], &[15]), [(17, 4)]);
    }
}
