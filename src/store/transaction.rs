//! One transaction while it is put together: which numbers it assigns, what it writes, and what became of
//! each incoming killmail.
//!
//! Must not know: how anything is written or published.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hashbrown::HashMap;

use crate::domain::entry::{Entry, SharedEntry};
use crate::domain::facts::Facts;
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::store::arrival;
use crate::store::engine::meta::Numbers;
use crate::store::format::log_entry::Revised;
use crate::store::format::record::Packed;
use crate::store::incoming::{Appended, Incoming};

/// What can be computed for a killmail before it has a number.
pub struct Prepared {
    pub facts: Facts,
    pub json: Bytes,
    pub packed: Packed,
}

/// An entry about to be written.
pub struct Draft {
    pub entry: SharedEntry,
    pub prepared: Prepared,
    /// What it replaces.
    pub old: Option<SharedEntry>,
}

/// What becomes of an incoming killmail; new and revised ones by the index of their draft.
pub enum Outcome {
    New(usize),
    Revised(usize),
    Known(Seq),
    Conflict(Seq),
}

/// What a revision changes about the stored entry.
pub struct Revision {
    pub killmail: Killmail,
    pub uploaded_at: Option<i64>,
    pub prepared: Prepared,
}

pub struct Transaction {
    /// The store's numbers as they are after it.
    pub numbers: Numbers,
    pub drafts: Vec<Draft>,
    /// Killmail id -> index of its draft.
    by_id: HashMap<u32, usize>,
    pub outcomes: Vec<Outcome>,
    /// Killmails that arrived with another body than the stored one.
    pub conflicts: Vec<u32>,
}

impl Transaction {
    pub fn new(numbers: Numbers) -> Self {
        Self {
            numbers,
            drafts: Vec::new(),
            by_id: HashMap::new(),
            outcomes: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    /// The entry that an earlier killmail of the same transaction made.
    pub fn drafted(&self, killmail_id: u32) -> Option<&SharedEntry> {
        self.by_id.get(&killmail_id).map(|at| &self.drafts[*at].entry)
    }

    pub fn add_new(&mut self, incoming: Incoming, prepared: Prepared) {
        self.numbers.head += 1;
        self.numbers.count += 1;
        let age_secs = arrival::age_secs(&incoming);
        let entry = Entry {
            seq: Seq(self.numbers.head),
            rev: 0,
            origin: incoming.origin,
            received_at_ms: incoming.received_at_ms,
            uploaded_at: incoming.uploaded_at,
            age_secs,
            facts: prepared.facts.clone(),
            json: OnceLock::from(prepared.json.clone()),
            killmail: incoming.killmail,
        };
        let at = self.add_draft(Draft { entry: Arc::new(entry), prepared, old: None });
        self.outcomes.push(Outcome::New(at));
    }

    /// Changes the draft of this transaction, or adds one that replaces the stored entry.
    pub fn revise(&mut self, stored: &SharedEntry, revision: Revision) {
        let Revision { killmail, uploaded_at, prepared } = revision;
        let drafted = self.by_id.get(&killmail.killmail_id).copied();
        let rev = if drafted.is_some() { stored.rev } else { self.numbers.rev + 1 };
        let entry = Arc::new(Entry {
            seq: stored.seq,
            rev,
            origin: stored.origin,
            received_at_ms: stored.received_at_ms,
            uploaded_at,
            age_secs: stored.age_secs,
            facts: prepared.facts.clone(),
            json: OnceLock::from(prepared.json.clone()),
            killmail,
        });
        let at = match drafted {
            Some(at) => {
                let draft = &mut self.drafts[at];
                (draft.entry, draft.prepared) = (entry, prepared);
                at
            }
            None => {
                self.numbers.rev = rev;
                self.add_draft(Draft { entry, prepared, old: Some(Arc::clone(stored)) })
            }
        };
        self.outcomes.push(Outcome::Revised(at));
    }

    pub fn add_known(&mut self, seq: Seq) {
        self.outcomes.push(Outcome::Known(seq));
    }

    /// Counts a killmail whose body differs from the stored one, which stays.
    pub fn add_conflict(&mut self, killmail_id: u32, seq: Seq) {
        self.numbers.conflicts += 1;
        self.conflicts.push(killmail_id);
        self.outcomes.push(Outcome::Conflict(seq));
    }

    /// The revisions made.
    pub fn revisions(&self) -> impl Iterator<Item = Revised> {
        self.drafts
            .iter()
            .filter(|draft| draft.old.is_some())
            .map(|draft| Revised { killmail_id: draft.entry.facts.killmail_id, rev: draft.entry.rev })
    }

    /// What became of each incoming killmail, in their order.
    pub fn into_appended(self) -> Vec<Appended> {
        let entry = |at: usize| Arc::clone(&self.drafts[at].entry);
        let appended = |outcome| match outcome {
            Outcome::New(at) => Appended::New(entry(at)),
            Outcome::Revised(at) => Appended::Revised(entry(at)),
            Outcome::Known(seq) => Appended::Known(seq),
            Outcome::Conflict(seq) => Appended::Conflict(seq),
        };
        self.outcomes.into_iter().map(appended).collect()
    }

    fn add_draft(&mut self, draft: Draft) -> usize {
        let at = self.drafts.len();
        self.by_id.insert(draft.entry.facts.killmail_id, at);
        self.drafts.push(draft);
        at
    }
}
