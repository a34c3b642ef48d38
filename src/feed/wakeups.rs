//! Which readers a new killmail wakes: a reverse index from terms to readers.
//!
//! A missed wakeup only costs time, since readers also check the log at every tick. The index is sharded, so that
//! registering a large subscription never blocks a killmail for long.
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
use crate::store::index::id_range::IdRange;
use crate::store::index::postings::Postings;

const SHARDS: usize = 64;
/// Marks a slot that holds the number of a list of readers, not the id of one.
const LIST: u32 = 1 << 31;

/// The number of a reader in the index. Readers with equal filters share one.
pub type ReaderId = u32;

/// A shard of the reverse index. Most characters are wanted by one reader: its number stands beside the id then,
/// nine bytes in all. Others have a list.
#[derive(Default)]
struct Shard {
    by_dimension: [HashMap<u32, u32, RandomState>; Dimension::ALL.len()],
    lists: Vec<Postings>,
    free: Vec<u32>,
}

/// The reverse index, and how each reader is notified.
pub struct Wakeups {
    shards: Vec<RwLock<Shard>>,
    reader_ids: RwLock<ReaderIds>,
}

#[derive(Default)]
struct ReaderIds {
    /// Whom to notify: several where equal filters share a number.
    notifies: Vec<Option<Vec<Arc<Notify>>>>,
    free: Vec<ReaderId>,
    everything: Postings,
}

impl Default for Wakeups {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), reader_ids: RwLock::default() }
    }
}

impl Wakeups {
    /// Registers a reader that watches nothing yet.
    pub fn register(&self) -> (ReaderId, Arc<Notify>) {
        let (reader_id, notify) = (self.register_silent(), Arc::new(Notify::new()));
        self.listen(reader_id, Arc::clone(&notify));
        (reader_id, notify)
    }

    /// Registers a number that notifies nobody yet.
    pub fn register_silent(&self) -> ReaderId {
        let mut reader_ids = self.reader_ids.write();
        let reader_id = reader_ids.free.pop().unwrap_or_else(|| {
            reader_ids.notifies.push(None);
            ReaderId::try_from(reader_ids.notifies.len() - 1).unwrap_or(ReaderId::MAX) & !LIST
        });
        reader_ids.notifies[reader_id as usize] = Some(Vec::new());
        reader_id
    }

    /// Notifies one more reader under this number.
    pub fn listen(&self, reader_id: ReaderId, notify: Arc<Notify>) {
        if let Some(Some(notifies)) = self.reader_ids.write().notifies.get_mut(reader_id as usize) {
            notifies.reserve_exact(usize::from(notifies.is_empty()));
            notifies.push(notify);
        }
    }

    /// Stops notifying a reader under this number.
    pub fn leave(&self, reader_id: ReaderId, notify: &Arc<Notify>) {
        if let Some(Some(notifies)) = self.reader_ids.write().notifies.get_mut(reader_id as usize)
            && let Some(at) = notifies.iter().position(|other| Arc::ptr_eq(other, notify))
        {
            notifies.swap_remove(at);
        }
    }

    /// Wakes this number for killmails with any of these ids; `None`: for every killmail.
    pub fn watch(&self, reader_id: ReaderId, ids: Option<&[IdsIn]>) {
        match ids {
            None => self.reader_ids.write().everything.insert(reader_id),
            Some(ids) => self.each(ids, |shard, dimension, id| shard.insert(dimension, id, reader_id)),
        }
    }

    /// Stops waking this number for these ids; `None`: for every killmail.
    pub fn unwatch(&self, reader_id: ReaderId, ids: Option<&[IdsIn]>) {
        match ids {
            None => self.reader_ids.write().everything.remove(reader_id),
            Some(ids) => self.each(ids, |shard, dimension, id| shard.remove(dimension, id, reader_id)),
        }
    }

    /// Frees the number. It must not watch anything any more.
    pub fn unregister(&self, reader_id: ReaderId) {
        let mut reader_ids = self.reader_ids.write();
        if let Some(notify) = reader_ids.notifies.get_mut(reader_id as usize)
            && notify.take().is_some()
        {
            reader_ids.free.push(reader_id);
        }
    }

    /// Finds the numbers that watch any of these terms, ascending and distinct, without those that watch everything.
    pub fn find(&self, terms: impl Iterator<Item = Term>, found: &mut Vec<ReaderId>) {
        found.clear();
        for term in terms {
            self.shards[shard_of(term.id)].read().gather(term.dimension, term.id, found);
        }
        found.sort_unstable();
        found.dedup();
    }

    /// Wakes the readers that may want this killmail; returns how many.
    pub fn wake(&self, facts: &Facts, found: &mut Vec<ReaderId>) -> usize {
        self.find(facts.terms(), found);
        let reader_ids = self.reader_ids.read();
        reader_ids.everything.append_to(found, IdRange::ALL);
        let mut woken = 0;
        for notifies in
            found.iter().filter_map(|reader_id| reader_ids.notifies.get(*reader_id as usize)?.as_ref())
        {
            notifies.iter().for_each(|notify| notify.notify_one());
            woken += notifies.len();
        }
        woken
    }

    /// Wakes every reader.
    pub fn wake_all(&self) {
        self.reader_ids.read().notifies.iter().flatten().flatten().for_each(|notify| notify.notify_one());
    }

    /// Numbers in use.
    pub fn len(&self) -> usize {
        let reader_ids = self.reader_ids.read();
        reader_ids.notifies.len() - reader_ids.free.len()
    }

    /// Whether no number is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Approximate size of the reverse index, bytes.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().bytes()).sum()
    }

    /// Applies a change shard by shard, so that each lock is taken once and held for its part of the ids only.
    fn each(&self, ids: &[IdsIn], mut change: impl FnMut(&mut Shard, Dimension, u32)) {
        for IdsIn { dimension, ids } in ids {
            let mut sorted = ids.as_slice().to_vec();
            sorted.sort_unstable_by_key(|id| shard_of(*id));
            for run in sorted.chunk_by(|a, b| shard_of(*a) == shard_of(*b)) {
                let mut shard = self.shards[shard_of(run[0])].write();
                for id in run {
                    change(&mut shard, *dimension, *id);
                }
            }
        }
    }
}

impl Shard {
    fn insert(&mut self, dimension: Dimension, id: u32, reader_id: ReaderId) {
        let slot = self.by_dimension[dimension as usize].entry(id).or_insert(reader_id);
        if *slot & LIST != 0 {
            self.lists[(*slot & !LIST) as usize].insert(reader_id);
        } else if *slot != reader_id {
            let mut both = Postings::One(*slot);
            both.insert(reader_id);
            let at = self.free.pop().unwrap_or_else(|| {
                self.lists.push(Postings::default());
                self.lists.len() as u32 - 1
            });
            self.lists[at as usize] = both;
            *slot = at | LIST;
        }
    }

    fn remove(&mut self, dimension: Dimension, id: u32, reader_id: ReaderId) {
        let ids = &mut self.by_dimension[dimension as usize];
        let Some(slot) = ids.get_mut(&id) else { return };
        if *slot == reader_id {
            ids.remove(&id);
        } else if *slot & LIST != 0 {
            let at = *slot & !LIST;
            let list = &mut self.lists[at as usize];
            list.remove(reader_id);
            if let Some(span) = list.span()
                && span.low == span.high
            {
                *slot = span.low;
                *list = Postings::default();
                self.free.push(at);
            }
        }
    }

    fn gather(&self, dimension: Dimension, id: u32, found: &mut Vec<ReaderId>) {
        match self.by_dimension[dimension as usize].get(&id) {
            None => {}
            Some(slot) if slot & LIST != 0 => {
                self.lists[(slot & !LIST) as usize].append_to(found, IdRange::ALL)
            }
            Some(reader_id) => found.push(*reader_id),
        }
    }

    fn bytes(&self) -> usize {
        let slots: usize = self.by_dimension.iter().map(|ids| ids.allocation_size()).sum();
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
    use crate::domain::facts::Places;
    use crate::domain::filter::IdSet;

    fn systems(ids: &[u32]) -> Vec<IdsIn> {
        vec![IdsIn { dimension: Dimension::System, ids: IdSet::new(ids.to_vec()) }]
    }

    fn killmail_in(id: u32) -> Facts {
        Facts { places: Places::default().with(Dimension::System, id), ..Facts::default() }
    }

    #[test]
    fn only_readers_that_may_want_it_are_woken() {
        let wakeups = Wakeups::default();
        let (jita, _) = wakeups.register();
        let (tama, _) = wakeups.register();
        let (all, _) = wakeups.register();
        wakeups.watch(jita, Some(&systems(&[30_000_142])));
        wakeups.watch(tama, Some(&systems(&[30_002_813, 30_000_144])));
        wakeups.watch(all, None);
        let mut found = Vec::new();
        assert_eq!(wakeups.wake(&killmail_in(30_000_142), &mut found), 2);
        assert_eq!(found, [jita, all]);
        wakeups.wake(&killmail_in(30_000_144), &mut found);
        assert_eq!(found, [tama, all]);
        wakeups.unwatch(tama, Some(&systems(&[30_000_144])));
        wakeups.unwatch(all, None);
        assert_eq!(wakeups.wake(&killmail_in(30_000_144), &mut found), 0);
    }

    #[test]
    fn numbers_are_reused() {
        let wakeups = Wakeups::default();
        let (first, _) = wakeups.register();
        wakeups.unregister(first);
        wakeups.unregister(first);
        assert!(wakeups.is_empty());
        assert_eq!(wakeups.register().0, first);
        assert_eq!(wakeups.len(), 1);
    }

    proptest! {
        #[test]
        fn watching_and_unwatching_finds_the_right_readers(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..6, 0_u32..3, proptest::collection::vec(0_u32..150, 1..20)), 1..60),
        ) {
            let wakeups = Wakeups::default();
            let reader_ids: Vec<ReaderId> = (0..6).map(|_| wakeups.register().0).collect();
            let mut known: BTreeMap<(Dimension, u32), BTreeSet<ReaderId>> = BTreeMap::new();
            for (tie, reader_id, dimension, ids) in steps {
                let (reader_id, dimension) = (reader_ids[reader_id as usize], Dimension::ALL[dimension as usize]);
                let listed = [IdsIn { dimension, ids: IdSet::new(ids.clone()) }];
                if tie { wakeups.watch(reader_id, Some(&listed)) } else { wakeups.unwatch(reader_id, Some(&listed)) }
                for id in ids {
                    let at = known.entry((dimension, id)).or_default();
                    if tie { at.insert(reader_id) } else { at.remove(&reader_id) };
                }
            }
            let mut found = Vec::new();
            for ((dimension, id), reader_ids) in &known {
                wakeups.find([Term { dimension: *dimension, id: *id }].into_iter(), &mut found);
                prop_assert!(found.iter().eq(reader_ids), "{dimension:?} {id}: {found:?}, not {reader_ids:?}");
            }
            for reader_id in reader_ids {
                wakeups.unwatch(reader_id, Some(&Dimension::ALL.map(|dimension| IdsIn { dimension, ids: IdSet::new((0..150).collect()) })));
            }
            let is_empty = |shard: &Shard| shard.by_dimension.iter().all(HashMap::is_empty) && shard.free.len() == shard.lists.len();
            prop_assert!(wakeups.shards.iter().all(|shard| is_empty(&shard.read())));
        }
    }
}
