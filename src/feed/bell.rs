//! The bell: which readers does this killmail concern. A reverse index from terms to readers, and one ring per reader.
//!
//! A lost ring costs lateness only: readers also look when their tick is due. The index is cut into shards so that hanging up
//! a large subscription never holds up a killmail for long.
//!
//! Must not know: what readers do when they wake.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::domain::facts::Facts;
use crate::domain::term::Term;
use crate::store::postings::Postings;

const SHARDS: usize = 64;

type Shard = HashMap<Term, Postings, RandomState>;

/// The number of a reader on the bell.
pub type Rope = u32;

/// The reverse index and the rings.
pub struct Bell {
    shards: Vec<RwLock<Shard>>,
    ropes: RwLock<Ropes>,
}

#[derive(Default)]
struct Ropes {
    rings: Vec<Option<Arc<Notify>>>,
    free: Vec<Rope>,
    everything: Postings,
}

impl Default for Bell {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), ropes: RwLock::default() }
    }
}

impl Bell {
    /// A new rope, rung for nothing yet.
    pub fn hang(&self) -> (Rope, Arc<Notify>) {
        let ring = Arc::new(Notify::new());
        let mut ropes = self.ropes.write();
        let rope = ropes.free.pop().unwrap_or_else(|| {
            ropes.rings.push(None);
            Rope::try_from(ropes.rings.len() - 1).unwrap_or(Rope::MAX)
        });
        ropes.rings[rope as usize] = Some(ring.clone());
        (rope, ring)
    }

    /// Rings this rope for killmails with any of these terms; `None`: for every killmail.
    pub fn tie(&self, rope: Rope, terms: Option<&[Term]>) {
        match terms {
            None => {
                self.ropes.write().everything.insert(rope);
            }
            Some(terms) => self.each_shard(terms, |shard, term| {
                shard.entry(term).or_default().insert(rope);
            }),
        }
    }

    /// Stops ringing this rope for these terms (`None`: for every killmail).
    pub fn untie(&self, rope: Rope, terms: Option<&[Term]>) {
        match terms {
            None => {
                self.ropes.write().everything.remove(rope);
            }
            Some(terms) => self.each_shard(terms, |shard, term| {
                if let Some(postings) = shard.get_mut(&term) {
                    postings.remove(rope);
                    if postings.is_empty() {
                        shard.remove(&term);
                    }
                }
            }),
        }
    }

    /// Takes the rope down; it must be untied.
    pub fn take_down(&self, rope: Rope) {
        let mut ropes = self.ropes.write();
        if let Some(ring) = ropes.rings.get_mut(rope as usize)
            && ring.take().is_some()
        {
            ropes.free.push(rope);
        }
    }

    /// The ropes tied to any of these terms, ascending and distinct, without those tied to everything.
    pub fn find(&self, terms: impl Iterator<Item = Term>, found: &mut Vec<Rope>) {
        found.clear();
        for term in terms {
            if let Some(postings) = self.shards[shard_of(term)].read().get(&term) {
                postings.gather(0, Rope::MAX, found);
            }
        }
        found.sort_unstable();
        found.dedup();
    }

    /// Wakes the readers this killmail concerns and says how many.
    pub fn ring(&self, facts: &Facts, found: &mut Vec<Rope>) -> usize {
        self.find(facts.terms(), found);
        let ropes = self.ropes.read();
        ropes.everything.gather(0, Rope::MAX, found);
        for rope in found.iter() {
            if let Some(Some(ring)) = ropes.rings.get(*rope as usize) {
                ring.notify_one();
            }
        }
        found.len()
    }

    /// Wakes every reader.
    pub fn ring_all(&self) {
        self.ropes.read().rings.iter().flatten().for_each(|ring| ring.notify_one());
    }

    /// Readers on the bell.
    pub fn len(&self) -> usize {
        let ropes = self.ropes.read();
        ropes.rings.len() - ropes.free.len()
    }

    /// Whether nobody is on the bell.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes the reverse index takes, about.
    pub fn bytes(&self) -> usize {
        let slot = size_of::<(Term, Postings)>() + 1;
        self.shards
            .iter()
            .map(|shard| {
                let shard = shard.read();
                shard.capacity() * slot + shard.values().map(Postings::heap_bytes).sum::<usize>()
            })
            .sum()
    }

    fn each_shard(&self, terms: &[Term], mut change: impl FnMut(&mut Shard, Term)) {
        if let [term] = terms {
            return change(&mut self.shards[shard_of(*term)].write(), *term);
        }
        let mut sorted = terms.to_vec();
        sorted.sort_unstable_by_key(|term| (shard_of(*term), *term));
        for run in sorted.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
            let mut shard = self.shards[shard_of(run[0])].write();
            for term in run {
                change(&mut shard, *term);
            }
        }
    }
}

const fn shard_of(term: Term) -> usize {
    // Ids of one dimension are dense, so their low bits spread well.
    (term.id as usize ^ ((term.kind as usize) << 3)) % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::term::Kind;

    fn system(id: u32) -> Term {
        Term { kind: Kind::System, id }
    }

    fn killmail_in(id: u32) -> Facts {
        Facts { system: id, ..Facts::default() }
    }

    #[test]
    fn only_the_concerned_are_rung() {
        let bell = Bell::default();
        let (jita, _) = bell.hang();
        let (tama, _) = bell.hang();
        let (all, _) = bell.hang();
        bell.tie(jita, Some(&[system(30_000_142)]));
        bell.tie(tama, Some(&[system(30_002_813), system(30_000_144)]));
        bell.tie(all, None);
        let mut found = Vec::new();
        assert_eq!(bell.ring(&killmail_in(30_000_142), &mut found), 2);
        assert_eq!(found, [jita, all]);
        bell.ring(&killmail_in(30_000_144), &mut found);
        assert_eq!(found, [tama, all]);
        bell.untie(tama, Some(&[system(30_000_144)]));
        bell.untie(all, None);
        assert_eq!(bell.ring(&killmail_in(30_000_144), &mut found), 0);
    }

    #[test]
    fn ropes_are_used_again() {
        let bell = Bell::default();
        let (first, _) = bell.hang();
        bell.take_down(first);
        bell.take_down(first);
        assert!(bell.is_empty());
        assert_eq!(bell.hang().0, first);
        assert_eq!(bell.len(), 1);
    }
}
