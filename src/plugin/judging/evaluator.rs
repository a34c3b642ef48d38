//! An evaluator: a component with one configuration, ready to judge. Equal pairs share one.
//!
//! History and live pages never share an instance: each kind has its own slot here.
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
use crate::plugin::judging::queue_slots::QueueSlots;
use crate::plugin::judging::run::{Instance, Judgment, Run};
use crate::plugin::judging::verdict_memo::VerdictMemo;
use crate::plugin::limits::Config;
use crate::plugin::resources::capacity::{EvictionScope, Reservation};
use crate::plugin::resources::cpu_clock::billable_cpu;
use crate::plugin::resources::memory_account::MemoryAccount;
use crate::plugin::sandbox::component::Component;
use crate::plugin::sandbox::convert::GuestInterest;
use crate::plugin::sandbox::guest::{ConfigureError, Guest, MemoryShortage};
use crate::plugin::sandbox::setup::Setup;

/// Evaluators with the same key are shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EvaluatorKey {
    /// SHA-256 of the component, hex.
    pub digest: String,
    /// The configuration, byte for byte.
    pub config: String,
    /// How long its instances live.
    pub instance: Instance,
}

impl EvaluatorKey {
    /// SHA-256 of the configuration, 64 hex digits.
    #[must_use]
    pub fn config_digest(&self) -> String {
        sha256_hex(self.config.as_bytes())
    }
}

/// A component with a configuration. Clones share instances and remembered verdicts.
#[derive(Debug, Clone)]
pub struct Evaluator {
    shared: Arc<Shared>,
    /// Measures what its pages cost, if that is limited or asked for.
    meter: Option<Arc<CpuMeter>>,
}

/// CPU time used through one handle to an evaluator, and its limit.
#[derive(Debug)]
struct CpuMeter {
    used_ns: AtomicU64,
    max: Duration,
}

/// What equal evaluators share.
pub struct Shared {
    component: Component,
    digest: Arc<str>,
    key: EvaluatorKey,
    needs: GuestInterest,
    shard: usize,
    /// The instance that was configured by the setup, until the first page takes it.
    initial_instance: Mutex<Option<Box<Guest>>>,
    live: Mutex<InstanceSlot>,
    history: Mutex<InstanceSlot>,
    memo: Mutex<VerdictMemo>,
    last_used: Mutex<Instant>,
    record: Arc<PairRecord>,
    slots: Arc<QueueSlots>,
    account: Arc<MemoryAccount>,
    // Dropped last: the instances end before it is released.
    reserved: Reservation,
}

/// Holds an instance between two pages.
struct InstanceSlot {
    guest: Option<Box<Guest>>,
    used: Instant,
}

impl InstanceSlot {
    fn empty() -> Mutex<Self> {
        Mutex::new(Self { guest: None, used: Instant::now() })
    }
}

/// What an evaluator is built from, beside its component.
pub struct EvaluatorParts {
    /// The killmails and fields it needs.
    pub needs: GuestInterest,
    /// A configured instance that was not called yet.
    pub initial_instance: Option<Guest>,
    /// Index of its worker thread.
    pub shard: usize,
    /// The component's digest.
    pub digest: Arc<str>,
    /// The fault record of the pair.
    pub record: Arc<PairRecord>,
    /// The queue slots of the component.
    pub slots: Arc<QueueSlots>,
    /// The account that the memory of its instances is charged to.
    pub account: Arc<MemoryAccount>,
    /// The reservation for its instances.
    pub reserved: Reservation,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shared").field(&self.key).finish()
    }
}

impl Evaluator {
    /// An evaluator that is ready to judge. Further instances are created on demand.
    #[must_use]
    pub fn new(config: &Config, component: Component, key: EvaluatorKey, parts: EvaluatorParts) -> Self {
        let EvaluatorParts {
            needs,
            initial_instance: first,
            shard,
            digest,
            record,
            slots,
            account,
            reserved,
        } = parts;
        let first = first.filter(|_| key.instance == Instance::Warm).map(Box::new);
        let shared = Arc::new(Shared {
            component,
            digest,
            key,
            needs,
            shard,
            initial_instance: Mutex::new(first),
            live: InstanceSlot::empty(),
            history: InstanceSlot::empty(),
            memo: Mutex::new(VerdictMemo::new(config.memo_entries, config.memo_bytes)),
            last_used: Mutex::new(Instant::now()),
            record,
            slots,
            account,
            reserved,
        });
        Self { shared, meter: None }
    }

    /// The same evaluator with a CPU meter of its own.
    #[must_use]
    pub fn with_cpu_meter(&self) -> Self {
        self.with_cpu_limit(Duration::MAX)
    }

    /// The same evaluator with a CPU meter of its own. It judges nothing more once that reaches `max`.
    #[must_use]
    pub fn with_cpu_limit(&self, max: Duration) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            meter: Some(Arc::new(CpuMeter { used_ns: AtomicU64::new(0), max })),
        }
    }

    /// CPU time of its pages so far, including the host's work for them; zero without a meter.
    #[must_use]
    pub fn cpu_used(&self) -> Duration {
        Duration::from_nanos(self.meter.as_ref().map_or(0, |spent| spent.used_ns.load(Ordering::Relaxed)))
    }

    /// Whether it has reached its CPU limit.
    #[must_use]
    pub fn is_cpu_exhausted(&self) -> bool {
        self.meter
            .as_ref()
            .is_some_and(|spent| Duration::from_nanos(spent.used_ns.load(Ordering::Relaxed)) >= spent.max)
    }

    /// Runs work for it on this thread, and adds the CPU time to its meter.
    pub fn metered<T>(&self, work: impl FnOnce() -> T) -> T {
        // Reading the thread's CPU time costs as much as a verdict, so it is skipped without a meter.
        let Some(spent) = &self.meter else { return work() };
        let before = billable_cpu();
        let result = work();
        let cpu = billable_cpu().saturating_sub(before);
        spent.used_ns.fetch_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }

    /// The component's digest, cheap to clone.
    #[must_use]
    pub fn shared_digest(&self) -> &Arc<str> {
        &self.shared.digest
    }

    /// The fault record of the pair.
    #[must_use]
    pub fn record(&self) -> &PairRecord {
        &self.shared.record
    }

    /// The account that the memory of its instances is charged to.
    #[must_use]
    pub fn account(&self) -> &MemoryAccount {
        &self.shared.account
    }

    /// The reservation for its instances.
    #[must_use]
    pub fn reserved(&self) -> &Reservation {
        &self.shared.reserved
    }

    /// The queue slots for its pages of this kind.
    #[must_use]
    pub fn queue_slots(&self, run: Run) -> &Arc<Semaphore> {
        self.shared.slots.for_run(run, self.shared.record.for_run(run).is_proven())
    }

    /// Takes out the instances that were not used for this long. The one for live killmails stays, because
    /// the next killmail may come at any moment, unless the class is `scripting`, whose instances take tens
    /// of megabytes.
    #[must_use]
    pub fn take_idle_instances(&self, after: Duration) -> Vec<Box<Guest>> {
        let take = |slot: &Mutex<InstanceSlot>| {
            let mut slot = slot.lock();
            if slot.used.elapsed() >= after { slot.guest.take() } else { None }
        };
        let mut unused: Vec<Box<Guest>> = take(&self.shared.history).into_iter().collect();
        if self.shared.component.class() == Class::Scripting {
            unused.extend(take(&self.shared.live));
            if self.idle_for() >= after {
                unused.extend(self.shared.initial_instance.lock().take());
            }
        }
        unused
    }

    /// The killmails that it declared to need, which the index filters for; `None` means all.
    #[must_use]
    pub fn interest(&self) -> Option<&Interest> {
        self.shared.needs.interest.as_ref()
    }

    /// SHA-256 of the component, 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.shared.key.digest
    }

    /// Its component.
    #[must_use]
    pub fn config(&self) -> &str {
        &self.shared.key.config
    }

    /// Its component.
    #[must_use]
    pub fn component(&self) -> &Component {
        &self.shared.component
    }

    /// Index of its worker thread.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shared.shard
    }

    /// Whether only the engine holds it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// Whether it may be evicted in this scope.
    #[must_use]
    pub fn is_in_scope(&self, scope: EvictionScope<'_>) -> bool {
        match scope {
            EvictionScope::Address(payer) => self.shared.account.is_charged_to(payer),
            EvictionScope::All | EvictionScope::Class(_) => self.shared.component.is_of(scope),
        }
    }

    /// Time since its last use.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        self.shared.last_used.lock().elapsed()
    }

    /// Marks it as used now.
    pub fn touch(&self) {
        *self.shared.last_used.lock() = Instant::now();
    }

    /// The verdicts of the whole page, if all are remembered.
    #[must_use]
    pub fn remembered_page(&self, page: &[SharedEntry]) -> Option<Vec<Judgment>> {
        let memo = self.shared.memo.lock();
        let answers: Option<Vec<Judgment>> = page
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
                if self.shared.needs.accepts(entry) {
                    counters.record_remembered(1)
                } else {
                    counters.record_passed_over()
                }
            }
        }
        answers
    }

    /// Whether it needs this killmail at all.
    #[must_use]
    pub fn accepts(&self, entry: &Entry) -> bool {
        self.shared.needs.accepts(entry)
    }

    /// How long its instances live.
    #[must_use]
    pub fn instance(&self) -> Instance {
        self.shared.key.instance
    }

    /// The remembered verdict on this revision of the killmail.
    #[must_use]
    pub fn remembered(&self, entry: &Entry) -> Option<Judgment> {
        self.shared.memo.lock().get(entry)
    }

    /// Remembers a verdict for equal pairs.
    pub fn remember(&self, entry: &Entry, answer: &Judgment) {
        self.shared.memo.lock().put(entry, answer);
    }

    /// Takes the instance for this kind of run; put it back with [`Self::put_instance`].
    #[must_use]
    pub fn take_instance(&self, run: Run) -> Option<Box<Guest>> {
        self.slot(run).lock().guest.take().or_else(|| self.shared.initial_instance.lock().take())
    }

    /// Puts the instance back after its run; `None` if it did not survive.
    pub fn put_instance(&self, run: Run, guest: Option<Box<Guest>>) {
        let mut slot = self.slot(run).lock();
        slot.used = Instant::now();
        slot.guest = guest;
    }

    fn slot(&self, run: Run) -> &Mutex<InstanceSlot> {
        match run {
            Run::Live => &self.shared.live,
            Run::History { .. } => &self.shared.history,
        }
    }

    /// Creates and configures an instance.
    ///
    /// # Errors
    /// The fault, and whose memory is used up if there was too little.
    pub fn instantiate(&self, setup: &Setup) -> Result<Box<Guest>, (Failure, Option<MemoryShortage>)> {
        let failure = |fault, refusal: Refusal| {
            let shortage = MemoryShortage::from_refusal(&refusal);
            let message = refusal.legible(setup.config.text_bytes).to_string();
            (Failure::new(if shortage.is_some() { Fault::Memory } else { fault }, message), shortage)
        };
        let mut guest = Guest::with_account(setup, &self.shared.component, &self.shared.account)
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
