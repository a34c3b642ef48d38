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
use crate::domain::filter::IdsIn;
use crate::domain::term::{Dimension, Term};
use crate::store::index::postings::Postings;

const SHARDS: usize = 64;
/// Marks a number that stands for a list of ropes, not for a rope.
const LIST: u32 = 1 << 31;

/// The number of a reader on the bell.
pub type Rope = u32;

/// A part of the reverse index. Most characters are wanted by one reader: nine bytes then, the rope beside the id. Others have a list.
#[derive(Default)]
struct Shard {
    by_kind: [HashMap<u32, u32, RandomState>; Dimension::ALL.len()],
    lists: Vec<Postings>,
    free: Vec<u32>,
}

/// The reverse index and the rings.
pub struct Bell {
    shards: Vec<RwLock<Shard>>,
    ropes: RwLock<Ropes>,
}

#[derive(Default)]
struct Ropes {
    /// Who is rung: several where equal filters share a rope.
    rings: Vec<Option<Vec<Arc<Notify>>>>,
    free: Vec<Rope>,
    everything: Postings,
}

impl Default for Bell {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), ropes: RwLock::default() }
    }
}

impl Bell {
    /// A new rope with one ring, rung for nothing yet.
    pub fn hang(&self) -> (Rope, Arc<Notify>) {
        let (rope, ring) = (self.hang_bare(), Arc::new(Notify::new()));
        self.listen(rope, Arc::clone(&ring));
        (rope, ring)
    }

    /// A new rope without rings.
    pub fn hang_bare(&self) -> Rope {
        let mut ropes = self.ropes.write();
        let rope = ropes.free.pop().unwrap_or_else(|| {
            ropes.rings.push(None);
            Rope::try_from(ropes.rings.len() - 1).unwrap_or(Rope::MAX) & !LIST
        });
        ropes.rings[rope as usize] = Some(Vec::new());
        rope
    }

    /// Puts a ring on the rope.
    pub fn listen(&self, rope: Rope, ring: Arc<Notify>) {
        if let Some(Some(rings)) = self.ropes.write().rings.get_mut(rope as usize) {
            rings.reserve_exact(usize::from(rings.is_empty()));
            rings.push(ring);
        }
    }

    /// Takes a ring off the rope.
    pub fn leave(&self, rope: Rope, ring: &Arc<Notify>) {
        if let Some(Some(rings)) = self.ropes.write().rings.get_mut(rope as usize)
            && let Some(at) = rings.iter().position(|other| Arc::ptr_eq(other, ring))
        {
            rings.swap_remove(at);
        }
    }

    /// Rings this rope for killmails with any of these ids; `None`: for every killmail.
    pub fn tie(&self, rope: Rope, ids: Option<&[IdsIn]>) {
        match ids {
            None => self.ropes.write().everything.insert(rope),
            Some(ids) => self.each(ids, |shard, kind, id| shard.insert(kind, id, rope)),
        }
    }

    /// Stops ringing this rope for these ids (`None`: for every killmail).
    pub fn untie(&self, rope: Rope, ids: Option<&[IdsIn]>) {
        match ids {
            None => self.ropes.write().everything.remove(rope),
            Some(ids) => self.each(ids, |shard, kind, id| shard.remove(kind, id, rope)),
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
            self.shards[shard_of(term.id)].read().gather(term.kind, term.id, found);
        }
        found.sort_unstable();
        found.dedup();
    }

    /// Wakes the readers this killmail concerns and says how many.
    pub fn ring(&self, facts: &Facts, found: &mut Vec<Rope>) -> usize {
        self.find(facts.terms(), found);
        let ropes = self.ropes.read();
        ropes.everything.gather(0, Rope::MAX, found);
        let mut rung = 0;
        for rings in found.iter().filter_map(|rope| ropes.rings.get(*rope as usize)?.as_ref()) {
            rings.iter().for_each(|ring| ring.notify_one());
            rung += rings.len();
        }
        rung
    }

    /// Wakes every reader.
    pub fn ring_all(&self) {
        self.ropes.read().rings.iter().flatten().flatten().for_each(|ring| ring.notify_one());
    }

    /// Ropes on the bell.
    pub fn len(&self) -> usize {
        let ropes = self.ropes.read();
        ropes.rings.len() - ropes.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes the reverse index takes, about.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().bytes()).sum()
    }

    /// Goes through ids shard by shard, so that each lock is taken once and held for a part of them only.
    fn each(&self, ids: &[IdsIn], mut change: impl FnMut(&mut Shard, Dimension, u32)) {
        for IdsIn { kind, ids } in ids {
            let mut sorted = ids.as_slice().to_vec();
            sorted.sort_unstable_by_key(|id| shard_of(*id));
            for run in sorted.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
                let mut shard = self.shards[shard_of(run[0])].write();
                for id in run {
                    change(&mut shard, *kind, *id);
                }
            }
        }
    }
}

impl Shard {
    fn insert(&mut self, kind: Dimension, id: u32, rope: Rope) {
        let slot = self.by_kind[kind as usize].entry(id).or_insert(rope);
        if *slot & LIST != 0 {
            self.lists[(*slot & !LIST) as usize].insert(rope);
        } else if *slot != rope {
            let mut both = Postings::One(*slot);
            both.insert(rope);
            let at = self.free.pop().unwrap_or_else(|| {
                self.lists.push(Postings::default());
                self.lists.len() as u32 - 1
            });
            self.lists[at as usize] = both;
            *slot = at | LIST;
        }
    }

    fn remove(&mut self, kind: Dimension, id: u32, rope: Rope) {
        let ids = &mut self.by_kind[kind as usize];
        let Some(slot) = ids.get_mut(&id) else { return };
        if *slot == rope {
            ids.remove(&id);
        } else if *slot & LIST != 0 {
            let at = *slot & !LIST;
            let list = &mut self.lists[at as usize];
            list.remove(rope);
            if let Some((one, last)) = list.ends()
                && one == last
            {
                *slot = one;
                *list = Postings::default();
                self.free.push(at);
            }
        }
    }

    fn gather(&self, kind: Dimension, id: u32, found: &mut Vec<Rope>) {
        match self.by_kind[kind as usize].get(&id) {
            None => {}
            Some(slot) if slot & LIST != 0 => self.lists[(slot & !LIST) as usize].gather(0, Rope::MAX, found),
            Some(rope) => found.push(*rope),
        }
    }

    fn bytes(&self) -> usize {
        let slots: usize = self.by_kind.iter().map(|ids| ids.allocation_size()).sum();
        let lists: usize = self.lists.iter().map(|list| size_of::<Postings>() + list.heap_bytes()).sum();
        slots + lists + self.free.capacity() * size_of::<u32>()
    }
}

const fn shard_of(id: u32) -> usize {
    // Ids of one dimension are dense, so their low bits spread well.
    id as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::domain::filter::IdSet;

    fn systems(ids: &[u32]) -> Vec<IdsIn> {
        vec![IdsIn { kind: Dimension::System, ids: IdSet::new(ids.to_vec()) }]
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
        bell.tie(jita, Some(&systems(&[30_000_142])));
        bell.tie(tama, Some(&systems(&[30_002_813, 30_000_144])));
        bell.tie(all, None);
        let mut found = Vec::new();
        assert_eq!(bell.ring(&killmail_in(30_000_142), &mut found), 2);
        assert_eq!(found, [jita, all]);
        bell.ring(&killmail_in(30_000_144), &mut found);
        assert_eq!(found, [tama, all]);
        bell.untie(tama, Some(&systems(&[30_000_144])));
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

    proptest! {
        #[test]
        fn whatever_is_tied_and_untied_the_right_ropes_are_found(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..6, 0_u32..3, proptest::collection::vec(0_u32..150, 1..20)), 1..60),
        ) {
            let bell = Bell::default();
            let ropes: Vec<Rope> = (0..6).map(|_| bell.hang().0).collect();
            let mut known: BTreeMap<(Dimension, u32), BTreeSet<Rope>> = BTreeMap::new();
            for (tie, rope, kind, ids) in steps {
                let (rope, kind) = (ropes[rope as usize], Dimension::ALL[kind as usize]);
                let dimension = [IdsIn { kind, ids: IdSet::new(ids.clone()) }];
                if tie { bell.tie(rope, Some(&dimension)) } else { bell.untie(rope, Some(&dimension)) }
                for id in ids {
                    let at = known.entry((kind, id)).or_default();
                    if tie { at.insert(rope) } else { at.remove(&rope) };
                }
            }
            let mut found = Vec::new();
            for ((kind, id), ropes) in &known {
                bell.find([Term { kind: *kind, id: *id }].into_iter(), &mut found);
                prop_assert!(found.iter().eq(ropes), "{kind:?} {id}: {found:?}, not {ropes:?}");
            }
            for rope in ropes {
                bell.untie(rope, Some(&Dimension::ALL.map(|kind| IdsIn { kind, ids: IdSet::new((0..150).collect()) })));
            }
            let is_empty = |shard: &Shard| shard.by_kind.iter().all(HashMap::is_empty) && shard.free.len() == shard.lists.len();
            prop_assert!(bell.shards.iter().all(|shard| is_empty(&shard.read())));
        }
    }
}
