//! The index in memory: what queries test without reading killmails. It holds the postings of every term (the
//! ids of its killmails) and a row for each entry.
//!
//! Postings are by killmail id (time order), rows by number (log order). The terms are spread over many small
//! maps: growing a single large map would block readers for tens of milliseconds, and a snapshot can copy one
//! small map at a time.
//!
//! Must not know: the disk; how filters combine.

pub(crate) mod id_range;
pub(crate) mod ids;
pub(crate) mod newest_entries;
pub(crate) mod plan;
pub(crate) mod postings;
pub(crate) mod resident;
pub(crate) mod rows;
pub(crate) mod snapshot;
pub(crate) mod time_bounds;
pub(crate) mod value_bands;

use hashbrown::HashMap;

use crate::domain::facts::Facts;
use crate::domain::id::Seq;
use crate::domain::term::{Dimension, Term};
use crate::store::index::id_range::IdRange;
use crate::store::index::ids::Ids;
use crate::store::index::postings::Postings;
use crate::store::index::rows::{Row, Rows};
use crate::store::index::time_bounds::TimeBounds;
use crate::store::index::value_bands::ValueBands;

/// Number of maps that the terms are spread over.
pub const SHARDS: usize = 256;
/// Memory of one term in its map, bytes: the entry, its control byte, and a share of the eighth that a map
/// keeps free.
const TERM_BYTES: usize = (size_of::<(Term, Postings)>() + 1) * 8 / 7;

/// One of zKillboard's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// All attackers are NPCs.
    Npc,
    /// There is one attacking player.
    Solo,
    /// Killed by members of their own corporation or alliance.
    Awox,
}

#[derive(Debug)]
pub struct Index {
    pub rows: Rows,
    pub ids: Ids,
    /// Of dated killmails only.
    pub time_bounds: TimeBounds,
    shards: Box<[HashMap<Term, Postings>]>,
    labels: HashMap<String, Postings>,
    flags: [Postings; 3],
    value_bands: ValueBands,
    all: Postings,
    undated: Postings,
    count: u64,
    systems: u64,
    terms: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            rows: Rows::default(),
            ids: Ids::default(),
            time_bounds: TimeBounds::default(),
            shards: (0..SHARDS).map(|_| HashMap::new()).collect(),
            labels: HashMap::new(),
            flags: Default::default(),
            value_bands: ValueBands::default(),
            all: Postings::default(),
            undated: Postings::default(),
            count: 0,
            systems: 0,
            terms: 0,
        }
    }
}

impl Index {
    /// The greatest number in the log.
    pub fn head(&self) -> Seq {
        self.rows.head()
    }

    /// Number of killmails.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Number of solar systems that have a killmail.
    pub const fn systems(&self) -> u64 {
        self.systems
    }

    /// Number of terms that have a killmail.
    pub const fn terms(&self) -> u64 {
        self.terms
    }

    /// Time of the dated killmail with the smallest id, unix seconds.
    pub fn oldest_time(&self) -> Option<i64> {
        let id = self.all.iter(IdRange::ALL).find(|id| !self.undated.contains(*id))?;
        self.row_of(id).map(|(_, row)| row.time)
    }

    /// Time of the dated killmail with the greatest id, unix seconds.
    pub fn newest_time(&self) -> Option<i64> {
        let id = self.all.iter(IdRange::ALL).rev().find(|id| !self.undated.contains(*id))?;
        self.row_of(id).map(|(_, row)| row.time)
    }

    /// The number of a killmail, and its row.
    pub fn row_of(&self, killmail_id: u32) -> Option<(Seq, &Row)> {
        let seq = self.ids.get(killmail_id)?;
        self.rows.get(seq).map(|row| (seq, row))
    }

    /// Killmails whose time is implausible. They are in no time window, and in newest-first order they come
    /// last.
    pub const fn undated(&self) -> &Postings {
        &self.undated
    }

    pub const fn all(&self) -> &Postings {
        &self.all
    }

    /// The killmails of a term.
    pub fn postings(&self, term: Term) -> Option<&Postings> {
        self.shards[shard(term)].get(&term)
    }

    /// The killmails with a label.
    pub fn labelled(&self, label: &str) -> Option<&Postings> {
        self.labels.get(label)
    }

    /// The killmails with a flag.
    pub const fn flagged(&self, flag: Flag) -> &Postings {
        &self.flags[flag as usize]
    }

    pub const fn value_bands(&self) -> &ValueBands {
        &self.value_bands
    }

    /// Adds an entry whose number is beyond the head, or replaces the value and time of the one that has this
    /// number. Inserting the same entry twice changes nothing.
    pub fn insert(&mut self, seq: Seq, row: Row, facts: &Facts) {
        let id = row.killmail_id;
        if self.ids.get(id).is_none() {
            self.count += 1;
            self.ids.set(id, seq);
        }
        if let Some(before) = self.rows.get(seq).copied() {
            self.value_bands.remove(before.value, before.killmail_id);
            self.undated.remove(before.killmail_id);
        }
        self.rows.set(seq, row);
        self.insert_time(&row);
        self.value_bands.insert(row.value, id);
        self.all.insert(id);
        self.link(facts);
    }

    /// Moves the head to this number, for numbers without a killmail.
    pub fn skip_to(&mut self, seq: Seq) {
        if self.head() < seq {
            self.rows.set(seq, Row::HOLE);
        }
    }

    /// Replaces an entry by its revision.
    pub fn replace(&mut self, seq: Seq, row: Row, old: &Facts, new: &Facts) {
        self.unlink(old);
        self.insert(seq, row, new);
    }

    /// Adds a killmail to the postings of its terms, labels and flags.
    pub fn link(&mut self, facts: &Facts) {
        for term in facts.terms() {
            let postings = self.shards[shard(term)].entry(term).or_insert_with(|| {
                self.terms += 1;
                self.systems += u64::from(term.dimension == Dimension::System);
                Postings::default()
            });
            postings.insert(facts.killmail_id);
        }
        for label in &facts.labels {
            self.labels.entry_ref(label.as_str()).or_default().insert(facts.killmail_id);
        }
        for (is_set, flag) in flags(facts) {
            if is_set {
                self.flags[flag as usize].insert(facts.killmail_id);
            }
        }
    }

    /// Removes a killmail from the postings of these facts. Terms that become empty are removed.
    pub fn unlink(&mut self, facts: &Facts) {
        for term in facts.terms() {
            let shard = &mut self.shards[shard(term)];
            let Some(postings) = shard.get_mut(&term) else { continue };
            postings.remove(facts.killmail_id);
            if postings.is_empty() {
                shard.remove(&term);
                self.terms -= 1;
                self.systems -= u64::from(term.dimension == Dimension::System);
            }
        }
        for label in &facts.labels {
            if let Some(postings) = self.labels.get_mut(label) {
                postings.remove(facts.killmail_id);
            }
        }
        for (is_set, flag) in flags(facts) {
            if is_set {
                self.flags[flag as usize].remove(facts.killmail_id);
            }
        }
    }

    /// The terms of one of the `SHARDS` maps.
    pub fn shard(&self, number: usize) -> impl Iterator<Item = (Term, &Postings)> {
        self.shards.get(number).into_iter().flatten().map(|(term, postings)| (*term, postings))
    }

    pub fn labels(&self) -> impl Iterator<Item = (&str, &Postings)> {
        self.labels.iter().map(|(label, postings)| (label.as_str(), postings))
    }

    /// Adds the terms of one shard of a snapshot.
    pub fn restore_terms(&mut self, terms: Vec<(Term, Postings)>) {
        for (term, postings) in terms {
            self.terms += 1;
            self.systems += u64::from(term.dimension == Dimension::System);
            self.shards[shard(term)].insert(term, postings);
        }
    }

    /// Sets the labels and flags of a snapshot.
    pub fn restore_labels(&mut self, labels: Vec<(String, Postings)>, flags: [Postings; 3]) {
        self.labels = labels.into_iter().collect();
        self.flags = flags;
    }

    /// Adds a row of a snapshot, without its terms.
    pub fn restore_row(&mut self, seq: Seq, row: Row) {
        if row.killmail_id == 0 {
            self.skip_to(seq);
            return;
        }
        self.count += 1;
        self.ids.set(row.killmail_id, seq);
        self.rows.set(seq, row);
        self.insert_time(&row);
        self.value_bands.insert(row.value, row.killmail_id);
        self.all.insert(row.killmail_id);
    }

    fn insert_time(&mut self, row: &Row) {
        if row.is_dated() {
            self.time_bounds.insert(row.time, row.killmail_id);
        } else {
            self.undated.insert(row.killmail_id);
        }
    }

    /// Memory of one of the `SHARDS` maps, bytes, estimated.
    pub fn shard_bytes(&self, number: usize) -> u64 {
        let map = self.shards.get(number);
        map.map_or(0, |map| {
            (map.capacity() * TERM_BYTES + map.values().map(Postings::heap_bytes).sum::<usize>()) as u64
        })
    }

    /// Memory of everything else, bytes, estimated.
    pub fn other_bytes(&self) -> u64 {
        let postings = self
            .labels
            .values()
            .chain(&self.flags)
            .chain([&self.all, &self.undated])
            .map(Postings::heap_bytes)
            .sum::<usize>();
        let rows =
            self.rows.blocks().iter().map(|block| block.rows.capacity() * size_of::<Row>()).sum::<usize>();
        (postings + rows + self.ids.heap_bytes() + self.value_bands.heap_bytes()) as u64
    }
}

const fn flags(facts: &Facts) -> [(bool, Flag); 3] {
    [(facts.npc, Flag::Npc), (facts.solo, Flag::Solo), (facts.awox, Flag::Awox)]
}

const fn shard(term: Term) -> usize {
    (term.id.wrapping_mul(0x9E37_79B1) >> 24) as usize ^ term.dimension as usize
}
