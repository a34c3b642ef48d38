//! The filters of all open streams and channels. Equal lists of ids are stored and indexed once, and all of them
//! together have a memory limit.
//!
//! Must not know: who reads, or what happens to a killmail that matches.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::filter::IdsIn;
use crate::domain::subscription::Subscription;
use crate::feed::wakeups::{ReaderId, Wakeups};
use crate::tasks;

/// An id in a list, bytes.
const ID_BYTES: u64 = 4;
/// An id in the reverse index, bytes: about its cost when many filters name the same ids in different lists.
const INDEXED_BYTES: u64 = 32;
/// An empty filter, bytes.
const FILTER_BYTES: u64 = 256;
/// Longer lists are indexed off the event loop.
pub const MANY_IDS: usize = 10_000;

/// The filters of all open streams and channels take all the memory they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the filters of all open streams and channels may take {max_bytes} bytes together (feed.filters_max_bytes); ask for fewer ids, or later"
)]
pub struct Full {
    pub max_bytes: u64,
}

/// Every filter in use.
pub struct Filters {
    wakeups: Arc<Wakeups>,
    max_bytes: u64,
    bytes: AtomicU64,
    refused: AtomicU64,
    hashing: RandomState,
    table: Mutex<HashMap<u64, Vec<Weak<Lists>>>>,
}

/// Lists of ids, one per dimension, shared by all filters with equal lists.
struct Lists {
    home: Weak<Filters>,
    hash: u64,
    dimensions: Vec<IdsIn>,
    /// Whether the lists are in the reverse index.
    indexed: bool,
    bytes: u64,
    reader_id: OnceLock<ReaderId>,
}

/// A filter in use: its share of the memory limit and its wakeups, released on drop.
pub struct FilterLease {
    filters: Arc<Filters>,
    /// Kept alive for equal filters.
    _lists: Option<Arc<Lists>>,
    woken: Woken,
    bytes: u64,
    /// Notified for killmails that may match.
    pub wakeup: Arc<Notify>,
}

enum Woken {
    /// For killmails with any of these ids.
    Lists(Arc<Lists>),
    /// For every killmail.
    Everything(ReaderId),
    /// Never: the filter only serves one response.
    Never,
}

/// The echo of a filter until its client has received it: its share of the memory limit, released on drop.
#[derive(Debug)]
pub struct EchoLease {
    filters: Arc<Filters>,
    bytes: u64,
}

impl Drop for EchoLease {
    fn drop(&mut self) {
        self.filters.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What a reader wants to be woken for.
enum Wake {
    Lists(Vec<IdsIn>),
    Everything,
    Never,
}

impl fmt::Debug for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filters")
            .field("bytes", &self.bytes)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

impl Filters {
    /// Creates an empty table.
    #[must_use]
    pub fn new(wakeups: Arc<Wakeups>, max_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            wakeups,
            max_bytes,
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            hashing: RandomState::default(),
            table: Mutex::default(),
        })
    }

    /// Bytes counted against the limit.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The limit, bytes.
    #[must_use]
    pub const fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// Requests refused because of the limit.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Checks that `ids` more ids would fit now.
    ///
    /// # Errors
    /// They would not.
    pub fn check_room(&self, ids: usize) -> Result<(), Full> {
        self.check_bytes(ids as u64 * (ID_BYTES + INDEXED_BYTES))
    }

    fn check_bytes(&self, bytes: u64) -> Result<(), Full> {
        if bytes == 0 || self.bytes() + bytes <= self.max_bytes {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Full { max_bytes: self.max_bytes })
    }

    /// Registers the filter of a subscription; its lists are replaced by shared ones. `woken` are the ids that wake
    /// its reader, `None` for every killmail.
    ///
    /// # Errors
    /// There is no room.
    pub fn register(
        self: &Arc<Self>,
        subscription: &mut Subscription,
        woken: Option<Vec<IdsIn>>,
    ) -> Result<FilterLease, Full> {
        self.enter(subscription, woken.map_or(Wake::Everything, Wake::Lists), Arc::default(), true)
    }

    /// Counts `bytes` of a filter's echo until its client has received it.
    ///
    /// # Errors
    /// There is no room.
    pub fn lease_echo(self: &Arc<Self>, bytes: usize) -> Result<EchoLease, Full> {
        let bytes = bytes as u64;
        self.check_bytes(bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(EchoLease { filters: Arc::clone(self), bytes })
    }

    /// Registers the filter of one request: it wakes nobody.
    ///
    /// # Errors
    /// There is no room.
    pub fn register_request(self: &Arc<Self>, subscription: &mut Subscription) -> Result<FilterLease, Full> {
        self.enter(subscription, Wake::Never, Arc::default(), true)
    }

    fn enter(
        self: &Arc<Self>,
        subscription: &mut Subscription,
        wake: Wake,
        wakeup: Arc<Notify>,
        limited: bool,
    ) -> Result<FilterLease, Full> {
        let bytes = bytes_besides_ids(subscription);
        if limited {
            self.check_bytes(bytes)?;
        }
        let dimensions = &mut subscription.filter.dimensions;
        let is_same = matches!(&wake, Wake::Lists(ids) if ids == dimensions);
        let lists =
            if dimensions.is_empty() { None } else { Some(self.share(dimensions, is_same, limited)?) };
        if let Some(lists) = &lists {
            dimensions.clone_from(&lists.dimensions);
        }
        let woken = match (wake, &lists) {
            (Wake::Never, _) => Woken::Never,
            (Wake::Everything, _) => {
                let reader_id = self.wakeups.register_silent();
                self.wakeups.watch(reader_id, None);
                Woken::Everything(reader_id)
            }
            (Wake::Lists(_), Some(lists)) if is_same => Woken::Lists(Arc::clone(lists)),
            (Wake::Lists(ids), _) => Woken::Lists(self.share(&ids, true, limited)?),
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let lease = FilterLease { filters: Arc::clone(self), _lists: lists, woken, bytes, wakeup };
        if let Some(reader_id) = lease.reader_id() {
            self.wakeups.listen(reader_id, Arc::clone(&lease.wakeup));
        }
        Ok(lease)
    }

    fn share(
        self: &Arc<Self>,
        dimensions: &[IdsIn],
        indexed: bool,
        limited: bool,
    ) -> Result<Arc<Lists>, Full> {
        let hash = self.hash(dimensions, indexed);
        // Declared first, so that it is dropped without the lock: dropping the last of some lists takes it.
        let mut others = Vec::new();
        let mut table = self.table.lock();
        let equal = table.entry(hash).or_default();
        for lists in equal.iter().filter_map(Weak::upgrade) {
            if lists.indexed == indexed && lists.dimensions == dimensions {
                return Ok(lists);
            }
            others.push(lists);
        }
        let ids: usize = dimensions.iter().map(|dimension| dimension.ids.as_slice().len()).sum();
        let bytes = FILTER_BYTES + ids as u64 * (ID_BYTES + if indexed { INDEXED_BYTES } else { 0 });
        if limited && let Err(full) = self.check_bytes(bytes) {
            if equal.is_empty() {
                table.remove(&hash);
            }
            return Err(full);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let (home, dimensions) = (Arc::downgrade(self), dimensions.to_vec());
        let lists = Arc::new(Lists { home, hash, dimensions, indexed, bytes, reader_id: OnceLock::new() });
        equal.push(Arc::downgrade(&lists));
        Ok(lists)
    }

    fn hash(&self, dimensions: &[IdsIn], indexed: bool) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        indexed.hash(&mut hasher);
        for listed in dimensions {
            listed.dimension.hash(&mut hasher);
            listed.ids.as_slice().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Bytes of a subscription besides its ids.
fn bytes_besides_ids(subscription: &Subscription) -> u64 {
    let labels: usize =
        subscription.filter.labels.iter().map(|label| label.len() + size_of::<String>()).sum();
    let plugin = subscription.plugin.as_ref().map_or(0, |used| used.name.len() + used.config.len());
    (labels + plugin) as u64
}

impl FilterLease {
    /// Replaces the filter by that of another subscription of the same reader. Never refused: callers that let a
    /// filter grow check the room first.
    pub fn replace(&mut self, subscription: &mut Subscription, woken: Option<Vec<IdsIn>>) {
        let wake = woken.map_or(Wake::Everything, Wake::Lists);
        if let Ok(lease) = self.filters.enter(subscription, wake, Arc::clone(&self.wakeup), false) {
            *self = lease;
        }
        // Finds what arrived in between.
        self.wakeup.notify_one();
    }

    fn reader_id(&self) -> Option<ReaderId> {
        match &self.woken {
            Woken::Never => None,
            Woken::Everything(reader_id) => Some(*reader_id),
            Woken::Lists(lists) => Some(*lists.reader_id.get_or_init(|| {
                let reader_id = self.filters.wakeups.register_silent();
                self.filters.wakeups.watch(reader_id, Some(&lists.dimensions));
                reader_id
            })),
        }
    }
}

impl Drop for FilterLease {
    fn drop(&mut self) {
        let wakeups = &self.filters.wakeups;
        if let Some(reader_id) = self.reader_id() {
            wakeups.leave(reader_id, &self.wakeup);
        }
        if let Woken::Everything(reader_id) = self.woken {
            wakeups.unwatch(reader_id, None);
            wakeups.unregister(reader_id);
        }
        self.filters.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut table = home.table.lock();
        if let Some(equal) = table.get_mut(&self.hash) {
            equal.retain(|lists| lists.strong_count() > 0);
            if equal.is_empty() {
                table.remove(&self.hash);
            }
        }
        drop(table);
        let (dimensions, reader_id, bytes) =
            (std::mem::take(&mut self.dimensions), self.reader_id.take(), self.bytes);
        let many =
            dimensions.iter().map(|dimension| dimension.ids.as_slice().len()).sum::<usize>() > MANY_IDS;
        let give_back = move || {
            if let Some(reader_id) = reader_id {
                home.wakeups.unwatch(reader_id, Some(&dimensions));
                home.wakeups.unregister(reader_id);
            }
            home.bytes.fetch_sub(bytes, Ordering::Relaxed);
        };
        if many { tasks::run_detached(give_back) } else { give_back() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::facts::{Facts, Places};
    use crate::domain::filter::{Filter, Match};
    use crate::domain::term::Dimension;

    #[test]
    fn an_echo_counts_until_it_is_received() {
        let filters = Filters::new(Arc::default(), 1_000);
        let echo = filters.lease_echo(900).unwrap();
        assert_eq!((filters.lease_echo(101).unwrap_err(), filters.bytes()), (Full { max_bytes: 1_000 }, 900));
        drop(echo);
        assert_eq!(filters.bytes(), 0);
    }

    fn wanting(dimension: Dimension, ids: impl IntoIterator<Item = u32>) -> Subscription {
        let mut filter = Filter::default();
        filter.set_ids(dimension, ids.into_iter().collect());
        Subscription { filter, ..Subscription::default() }
    }

    fn in_place(dimension: Dimension, id: u32) -> Facts {
        Facts { places: Places::default().with(dimension, id), ..Facts::default() }
    }

    fn held(filters: &Arc<Filters>, subscription: &mut Subscription) -> Result<FilterLease, Full> {
        let woken = subscription.filter.wakeup_ids();
        filters.register(subscription, woken)
    }

    #[test]
    fn equal_lists_are_stored_once() {
        let filters = Filters::new(Arc::default(), 1 << 20);
        let (mut one, mut other) =
            (wanting(Dimension::System, 1..1000), wanting(Dimension::System, (1..1000).rev()));
        other.filter.min_value = Some(1e9);
        let first = held(&filters, &mut one).unwrap();
        let (bytes, indexed) = (filters.bytes(), filters.wakeups.bytes());
        let second = held(&filters, &mut other).unwrap();
        assert_eq!((filters.bytes(), filters.wakeups.bytes(), filters.wakeups.len()), (bytes, indexed, 1));
        let ids = |subscription: &Subscription| {
            subscription.filter.ids(Dimension::System).unwrap().as_slice().as_ptr()
        };
        assert_eq!(ids(&one), ids(&other));
        let mut found = Vec::new();
        let facts = in_place(Dimension::System, 500);
        assert_eq!(filters.wakeups.wake(&facts, &mut found), 2, "both are woken");
        drop(first);
        assert_eq!((filters.wakeups.wake(&facts, &mut found), filters.bytes()), (1, bytes));
        drop(second);
        assert_eq!(
            (filters.wakeups.wake(&facts, &mut found), filters.bytes(), filters.wakeups.len()),
            (0, 0, 0)
        );
        assert!(filters.table.lock().is_empty());
    }

    #[test]
    fn the_limit_is_for_all_together_and_given_back() {
        let filters = Filters::new(Arc::default(), 100_000);
        let first = held(&filters, &mut wanting(Dimension::System, 1..2000)).unwrap();
        let full = Full { max_bytes: 100_000 };
        assert_eq!(held(&filters, &mut wanting(Dimension::System, 2..2000)).map(drop), Err(full));
        assert_eq!(
            (filters.check_room(2000), filters.check_room(100), filters.refused()),
            (Err(full), Ok(()), 2)
        );
        assert!(
            held(&filters, &mut wanting(Dimension::System, 1..2000)).is_ok(),
            "an equal one takes nothing more"
        );
        assert!(held(&filters, &mut Subscription::default()).is_ok(), "everything is no list");
        assert_eq!(filters.register_request(&mut wanting(Dimension::System, 1..30_000)).map(drop), Err(full));
        assert!(
            filters.register_request(&mut wanting(Dimension::System, 1..5_000)).is_ok(),
            "what is not indexed takes less"
        );
        let labelled = |count: usize| {
            let mut subscription = Subscription::default();
            subscription.filter.labels = vec!["x".repeat(1000); count];
            subscription
        };
        assert_eq!(held(&filters, &mut labelled(100)).map(drop), Err(full));
        drop(first);
        assert!(held(&filters, &mut wanting(Dimension::System, 2..2000)).is_ok());
        assert!(filters.bytes() == 0 && filters.wakeups.is_empty() && filters.table.lock().is_empty());
    }

    #[test]
    fn a_changed_filter_takes_the_place_of_the_old_one() {
        let filters = Filters::new(Arc::default(), 1 << 20);
        let mut subscription = wanting(Dimension::System, [1, 2]);
        let mut held = held(&filters, &mut subscription).unwrap();
        let wakeup = Arc::clone(&held.wakeup);
        subscription.filter.set_ids(Dimension::System, vec![2, 3]);
        subscription.filter.set_ids(Dimension::Region, vec![10]);
        subscription.filter.matching = Match::All;
        let woken = subscription.filter.wakeup_ids();
        held.replace(&mut subscription, woken);
        let mut found = Vec::new();
        let in_region = |id| in_place(Dimension::Region, id);
        let in_system = |id| in_place(Dimension::System, id);
        assert_eq!(filters.wakeups.wake(&in_region(10), &mut found), 1, "the shorter list is what wakes");
        assert_eq!(
            (
                filters.wakeups.wake(&in_system(1), &mut found),
                filters.wakeups.wake(&in_system(3), &mut found)
            ),
            (0, 0)
        );
        assert!(Arc::ptr_eq(&wakeup, &held.wakeup));
        held.replace(&mut subscription, None);
        assert_eq!(filters.wakeups.wake(&in_system(77), &mut found), 1);
        drop(held);
        assert!(filters.bytes() == 0 && filters.wakeups.is_empty());
    }

    /// Also where lists overlap, which costs most.
    #[test]
    fn the_count_is_not_less_than_the_memory_used() {
        for overlap in [0, 500, 999] {
            let filters = Filters::new(Arc::default(), 1 << 30);
            let all: Vec<FilterLease> = (0..40)
                .map(|n| {
                    held(
                        &filters,
                        &mut wanting(Dimension::Character, (0..1000).map(|id| 1 + n * (1000 - overlap) + id)),
                    )
                    .unwrap()
                })
                .collect();
            let taken = filters.wakeups.bytes() as u64 + 40 * 1000 * ID_BYTES;
            assert!(
                filters.bytes() >= taken,
                "overlap {overlap}: {taken} bytes taken, {} counted",
                filters.bytes()
            );
            drop(all);
        }
    }
}
