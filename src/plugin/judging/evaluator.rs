//! A component with one configuration, ready to judge; equal pairs are one.
//!
//! History and live never share an instance: each has its own place here.
//!
//! Must not know: queues and threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::domain::entry::{Entry, SharedEntry};
use crate::domain::filter::Interest;
use crate::domain::hex::sha256_hex;
use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::judging::pair_records::PairRecord;
use crate::plugin::judging::queue_places::Places;
use crate::plugin::judging::run::{Instance, Judged, Run};
use crate::plugin::judging::verdict_memo::Memo;
use crate::plugin::limits::Config;
use crate::plugin::resources::capacity::{Reservation, Whose};
use crate::plugin::resources::cpu_clock::calls_cpu;
use crate::plugin::resources::purse::Purse;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::{ConfigureError, Guest, MemoryShortage};
use crate::plugin::sandbox::setup::Setup;

/// What makes two evaluators equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// SHA-256 of the component, hex.
    pub digest: String,
    /// The configuration, byte for byte.
    pub config: String,
    /// How long instances live.
    pub instance: Instance,
}

impl Key {
    /// SHA-256 of the configuration, 64 hex digits.
    #[must_use]
    pub fn config_digest(&self) -> String {
        sha256_hex(self.config.as_bytes())
    }
}

/// A component with a configuration. Clones share instances and memory of verdicts.
#[derive(Debug, Clone)]
pub struct Evaluator {
    shared: Arc<Shared>,
    /// What its pages cost, where somebody wants to know.
    spent: Option<Arc<Spent>>,
}

/// CPU time that was spent for somebody, and may be.
#[derive(Debug)]
struct Spent {
    ns: AtomicU64,
    max: Duration,
}

/// What equal evaluators share.
pub struct Shared {
    component: Component,
    digest: Arc<str>,
    key: Key,
    needs: GuestInterest,
    shard: usize,
    /// The instance that was configured first, until somebody has a killmail judged.
    first: Mutex<Option<Box<Guest>>>,
    live: Mutex<Seat>,
    past: Mutex<Seat>,
    memo: Mutex<Memo>,
    used: Mutex<Instant>,
    record: Arc<PairRecord>,
    places: Arc<Places>,
    purse: Arc<Purse>,
    // Given back after the instances have ended.
    reserved: Reservation,
}

/// Where an instance waits between two pages.
struct Seat {
    guest: Option<Box<Guest>>,
    used: Instant,
}

impl Seat {
    fn empty() -> Mutex<Self> {
        Mutex::new(Self { guest: None, used: Instant::now() })
    }
}

/// What an evaluator stands on beside its component.
pub struct Grounds {
    /// What it needs to see.
    pub needs: GuestInterest,
    /// An instance that is configured and was not called.
    pub first: Option<Guest>,
    /// Which thread it belongs to.
    pub shard: usize,
    /// The component's digest.
    pub digest: Arc<str>,
    /// What is known of how the pair behaves.
    pub record: Arc<PairRecord>,
    /// The component's places in the queues.
    pub places: Arc<Places>,
    /// What its instances' memory is charged to.
    pub purse: Arc<Purse>,
    /// The right to the instances it may come to hold.
    pub reserved: Reservation,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&self.key).finish()
    }
}

impl Evaluator {
    /// An evaluator ready to judge. Instances are made when they are needed.
    #[must_use]
    pub fn new(config: &Config, component: Component, key: Key, grounds: Grounds) -> Self {
        let Grounds { needs, first, shard, digest, record, places, purse, reserved } = grounds;
        let first = first.filter(|_| key.instance == Instance::Warm).map(Box::new);
        let shared = Arc::new(Shared {
            component,
            digest,
            key,
            needs,
            shard,
            first: Mutex::new(first),
            live: Seat::empty(),
            past: Seat::empty(),
            memo: Mutex::new(Memo::new(config.memo_entries, config.memo_bytes)),
            used: Mutex::new(Instant::now()),
            record,
            places,
            purse,
            reserved,
        });
        Self { shared, spent: None }
    }

    /// The same, with a count of its own of what its pages cost.
    #[must_use]
    pub fn counted_apart(&self) -> Self {
        self.within(Duration::MAX)
    }

    /// The same, with a count of its own of what its pages cost; once that is so much CPU time, no more is
    /// judged by it.
    #[must_use]
    pub fn within(&self, max: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), spent: Some(Arc::new(Spent { ns: AtomicU64::new(0), max })) }
    }

    /// CPU time its pages cost so far, the host's work for them included; zero where it is not counted.
    #[must_use]
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.as_ref().map_or(0, |spent| spent.ns.load(Ordering::Relaxed)))
    }

    /// Whether it has had what it may cost.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spent
            .as_ref()
            .is_some_and(|spent| Duration::from_nanos(spent.ns.load(Ordering::Relaxed)) >= spent.max)
    }

    /// Does work for it on this thread, and counts what that costs.
    pub fn spend<T>(&self, work: impl FnOnce() -> T) -> T {
        // Asking the system costs as much as a verdict.
        let Some(spent) = &self.spent else { return work() };
        let before = calls_cpu();
        let done = work();
        let cpu = calls_cpu().saturating_sub(before);
        spent.ns.fetch_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        done
    }

    /// The component's digest, to be kept.
    #[must_use]
    pub fn digest_shared(&self) -> &Arc<str> {
        &self.shared.digest
    }

    /// What is known of how the pair behaves.
    #[must_use]
    pub fn record(&self) -> &PairRecord {
        &self.shared.record
    }

    /// What its instances' memory is charged to.
    #[must_use]
    pub fn purse(&self) -> &Purse {
        &self.shared.purse
    }

    /// The right to the instances it may come to hold.
    #[must_use]
    pub fn reserved(&self) -> &Reservation {
        &self.shared.reserved
    }

    /// The places in the queue for its pages of this kind.
    #[must_use]
    pub fn places_of(&self, run: Run) -> &Arc<Semaphore> {
        self.shared.places.of(run, self.shared.record.of(run).is_proven())
    }

    /// Takes out the instances that were not used for so long. That of live killmails stays, unless it is of
    /// the class that takes tens of megabytes: the next killmail may come any moment.
    #[must_use]
    pub fn unused(&self, after: Duration) -> Vec<Box<Guest>> {
        let take = |seat: &Mutex<Seat>| {
            let mut seat = seat.lock();
            if seat.used.elapsed() >= after { seat.guest.take() } else { None }
        };
        let mut unused: Vec<Box<Guest>> = take(&self.shared.past).into_iter().collect();
        if self.shared.component.class() == Class::Scripting {
            unused.extend(take(&self.shared.live));
            if self.idle_for() >= after {
                unused.extend(self.shared.first.lock().take());
            }
        }
        unused
    }

    /// What it promises to need of killmails; the index keeps the rest away. `None` restricts nothing.
    #[must_use]
    pub fn interest(&self) -> Option<&Interest> {
        self.shared.needs.interest.as_ref()
    }

    /// SHA-256 of the component, 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.shared.key.digest
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.shared.key.config
    }

    /// Its component.
    #[must_use]
    pub fn component(&self) -> &Component {
        &self.shared.component
    }

    /// Which thread it belongs to.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shared.shard
    }

    /// Nobody but the engine holds it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Whether it is one of these.
    #[must_use]
    pub fn is_of(&self, whose: Whose<'_>) -> bool {
        match whose {
            Whose::Payer(payer) => self.shared.purse.is_of(payer),
            Whose::Anyones | Whose::Class(_) => self.shared.component.is_of(whose),
        }
    }

    /// How long it was not used.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        self.shared.used.lock().elapsed()
    }

    /// It is used now.
    pub fn touch(&self) {
        *self.shared.used.lock() = Instant::now();
    }

    /// The whole page from memory, if every verdict on it is there.
    #[must_use]
    pub fn recall(&self, page: &[SharedEntry]) -> Option<Vec<Judged>> {
        let memo = self.shared.memo.lock();
        let answers: Option<Vec<Judged>> = page
            .iter()
            .map(
                |entry| {
                    if self.shared.needs.accepts(entry) { memo.get(entry) } else { Some(Ok(Verdict::Drop)) }
                },
            )
            .collect();
        drop(memo);
        if answers.is_some() {
            let counters = self.shared.component.counters();
            for entry in page {
                if self.shared.needs.accepts(entry) { counters.remembered(1) } else { counters.passed_over() }
            }
        }
        answers
    }

    /// Whether it needs to see this killmail at all.
    #[must_use]
    pub fn accepts(&self, entry: &Entry) -> bool {
        self.shared.needs.accepts(entry)
    }

    /// How long its instances live.
    #[must_use]
    pub fn instance(&self) -> Instance {
        self.shared.key.instance
    }

    /// The verdict on this killmail at this revision, if it is remembered.
    #[must_use]
    pub fn remembered(&self, entry: &Entry) -> Option<Judged> {
        self.shared.memo.lock().get(entry)
    }

    /// Remembers a verdict for equal pairs.
    pub fn remember(&self, entry: &Entry, answer: &Judged) {
        self.shared.memo.lock().put(entry, answer);
    }

    /// Takes out the instance for this kind of run, to be put back with [`Self::put_instance`].
    #[must_use]
    pub fn take_instance(&self, run: Run) -> Option<Box<Guest>> {
        self.seat(run).lock().guest.take().or_else(|| self.shared.first.lock().take())
    }

    /// Puts an instance back after its run; `None` where it did not survive.
    pub fn put_instance(&self, run: Run, guest: Option<Box<Guest>>) {
        let mut seat = self.seat(run).lock();
        seat.used = Instant::now();
        seat.guest = guest;
    }

    fn seat(&self, run: Run) -> &Mutex<Seat> {
        match run {
            Run::Live => &self.shared.live,
            Run::History { .. } => &self.shared.past,
        }
    }

    /// Makes and configures an instance.
    ///
    /// # Errors
    /// The fault, and whose memory ran out if there was too little.
    pub fn instantiate(&self, setup: &Setup) -> Result<Box<Guest>, (Failure, Option<MemoryShortage>)> {
        let failure = |fault, refusal: Refusal| {
            let crowded = MemoryShortage::from_refusal(&refusal);
            let message = refusal.legible(setup.config.text_bytes).to_string();
            (Failure::new(if crowded.is_some() { Fault::Memory } else { fault }, message), crowded)
        };
        let mut guest = Guest::with_purse(setup, &self.shared.component, &self.shared.purse)
            .map_err(|refusal| failure(Fault::Instantiate, refusal))?;
        match guest.configure(setup, &self.shared.key.config) {
            Ok(_) => Ok(Box::new(guest)),
            Err(
                ConfigureError::RefusedByGuest(refusal)
                | ConfigureError::OverLimit(refusal)
                | ConfigureError::Faulted(refusal),
            ) => Err(failure(Fault::Configure, refusal)),
        }
    }
}
