//! The cache of evaluators: pairs of component and configuration that are ready, pairs that are being set up,
//! and recent outcomes. A pair is set up once for everyone who asks for it.
//!
//! Must not know: how guests are created or called, and on which thread.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::plugin::error::Refusal;
use crate::plugin::judging::evaluator::{Evaluator, EvaluatorKey};
use crate::plugin::judging::pair_records::PairRecords;
use crate::plugin::judging::queue_slots::QueueSlots;
use crate::plugin::limits::Config;
use crate::plugin::resources::capacity::{EvictionScope, Evictor, Shortage};
use crate::plugin::resources::memory_account::{AddressBudget, MemoryAccount};
use crate::plugin::sandbox::component::{Component, WeakComponent};
use crate::tasks;

/// Receives the outcome of a setup. It does not carry the evaluator itself, which would then count as in use.
pub type SetupReceiver = watch::Receiver<Option<Result<(), Refusal>>>;

type SetupSender = watch::Sender<Option<Result<(), Refusal>>>;

/// The result of a lookup.
#[derive(Debug)]
pub enum CacheLookup {
    /// The evaluator is ready.
    Ready(Evaluator),
    /// A recent setup was refused, and would be again.
    Refused(Refusal),
    /// It is being set up; look it up again on success.
    Pending(SetupReceiver),
    /// It has to be set up, by this first caller.
    Missing(SetupReceiver, SetupTicket),
}

/// The duty to set up one pair, for everyone who waits for it. If dropped without a result, it reports a
/// failure.
#[derive(Debug)]
pub struct SetupTicket {
    cache: Arc<EvaluatorCache>,
    key: EvaluatorKey,
    config_digest: String,
    needs_trial: bool,
    account: Arc<MemoryAccount>,
    is_open: bool,
}

impl SetupTicket {
    /// The pair to set up.
    #[must_use]
    pub const fn key(&self) -> &EvaluatorKey {
        &self.key
    }

    /// The account that the memory of its instances is charged to.
    #[must_use]
    pub const fn account(&self) -> &Arc<MemoryAccount> {
        &self.account
    }

    /// Whether it has to pass a trial on the sample.
    #[must_use]
    pub const fn needs_trial(&self) -> bool {
        self.needs_trial
    }

    /// Whether anyone still waits.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let state = self.cache.state.lock();
        state.pending.get(&self.pending_key()).is_some_and(|setup| setup.sender.receiver_count() > 0)
    }

    /// Whether anyone still waits. If not, the ticket is closed, and the next caller starts another setup.
    #[must_use]
    pub fn close_unless_awaited(&mut self) -> bool {
        let mut state = self.cache.state.lock();
        let key = self.pending_key();
        let is_awaited = state.pending.get(&key).is_some_and(|setup| setup.sender.receiver_count() > 0);
        if !is_awaited {
            state.pending.remove(&key);
            self.is_open = false;
        }
        is_awaited
    }

    /// Publishes the result and remembers its outcome. A refusal counts for callers that want no trial only
    /// if `applies_without_trial`.
    pub fn complete(
        mut self,
        component: &Component,
        result: Result<Evaluator, Refusal>,
        applies_without_trial: bool,
    ) {
        self.cache.remember(&self, component, &result, applies_without_trial);
        self.publish(result);
    }

    /// Reports that it cannot be done now.
    pub fn fail(mut self, refusal: Refusal) {
        self.publish(Err(refusal));
    }

    fn pending_key(&self) -> PendingKey {
        PendingKey { evaluator: self.key.clone(), needs_trial: self.needs_trial }
    }

    fn publish(&mut self, result: Result<Evaluator, Refusal>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let mut state = self.cache.state.lock();
        let outcome = result.map(|evaluator| {
            state.evaluators.entry(self.key.clone()).or_insert(evaluator);
        });
        let setup = state.pending.remove(&self.pending_key());
        drop(state);
        if let Some(setup) = setup {
            setup.sender.send_replace(Some(outcome));
        }
    }
}

impl Drop for SetupTicket {
    fn drop(&mut self) {
        self.publish(Err(Refusal::Crashed(
            "the plugin could not be configured: the work was lost".to_owned(),
        )));
    }
}

/// The outcome of a setup, without the evaluator.
#[derive(Debug)]
struct SetupOutcome {
    /// `None`: it passed the trial.
    refusal: Option<Refusal>,
    /// It also refuses callers that want no trial.
    applies_without_trial: bool,
    since: Instant,
    component: WeakComponent,
}

impl SetupOutcome {
    /// Whether to forget it. A refusal may have had a temporary cause, so it expires even while the component
    /// is loaded.
    fn is_expired(&self, after: Duration) -> bool {
        (self.refusal.is_some() || !self.component.is_loaded()) && self.since.elapsed() >= after
    }
}

/// The digests that identify a component with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PairDigests {
    component: String,
    config: String,
}

/// The pair of a pending setup, and whether it includes a trial.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PendingKey {
    evaluator: EvaluatorKey,
    needs_trial: bool,
}

#[derive(Debug, Default)]
struct CacheState {
    evaluators: HashMap<EvaluatorKey, Evaluator>,
    pending: HashMap<PendingKey, PendingSetup>,
    outcomes: HashMap<PairDigests, SetupOutcome>,
    /// The keys of `outcomes`, the oldest first.
    outcome_order: VecDeque<PairDigests>,
    queue_slots: HashMap<String, Weak<QueueSlots>>,
}

/// A setup in progress.
#[derive(Debug)]
struct PendingSetup {
    sender: SetupSender,
    account: Arc<MemoryAccount>,
}

/// All evaluators, setups and outcomes of an engine.
#[derive(Debug)]
pub struct EvaluatorCache {
    config: Arc<Config>,
    records: PairRecords,
    state: Mutex<CacheState>,
}

impl EvaluatorCache {
    /// An empty cache.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::clone(config),
            records: PairRecords::new(config),
            state: Mutex::default(),
        })
    }

    /// The fault records of the pairs.
    #[must_use]
    pub const fn records(&self) -> &PairRecords {
        &self.records
    }

    /// Looks up a pair, for the address that is charged for its memory. With `needs_trial`, only if it passed
    /// a trial, or passes one now.
    #[must_use]
    pub fn lookup(
        self: &Arc<Self>,
        key: &EvaluatorKey,
        needs_trial: bool,
        address: Option<&AddressBudget>,
    ) -> CacheLookup {
        let pair = PairDigests { component: key.digest.clone(), config: key.config_digest() };
        let mut state = self.state.lock();
        let after = Duration::from_secs(self.config.outcome_secs);
        let known = state.outcomes.get(&pair).filter(|outcome| !outcome.is_expired(after));
        if let Some(SetupOutcome { refusal: Some(refusal), applies_without_trial, .. }) = known
            && (needs_trial || *applies_without_trial)
        {
            return CacheLookup::Refused(refusal.clone());
        }
        let needs_trial = needs_trial && known.is_none_or(|outcome| outcome.refusal.is_some());
        if let Some(evaluator) = state.evaluators.get(key).filter(|_| !needs_trial) {
            evaluator.touch();
            evaluator.account().add_requester(address);
            evaluator.record().add_requester(address);
            return CacheLookup::Ready(evaluator.clone());
        }
        let pending_key = PendingKey { evaluator: key.clone(), needs_trial };
        if let Some(setup) = state.pending.get(&pending_key) {
            // A setup that two addresses ask for is charged to neither.
            setup.account.add_requester(address);
            return CacheLookup::Pending(setup.sender.subscribe());
        }
        let (sender, receiver) = watch::channel(None);
        let account = MemoryAccount::new(address);
        state.pending.insert(pending_key, PendingSetup { sender, account: Arc::clone(&account) });
        drop(state);
        let ticket = SetupTicket {
            cache: Arc::clone(self),
            key: key.clone(),
            config_digest: pair.config,
            needs_trial,
            account,
            is_open: true,
        };
        CacheLookup::Missing(receiver, ticket)
    }

    /// The queue slots of this component.
    #[must_use]
    pub fn queue_slots(&self, digest: &str) -> Arc<QueueSlots> {
        let mut state = self.state.lock();
        if let Some(queue_slots) = state.queue_slots.get(digest).and_then(Weak::upgrade) {
            return queue_slots;
        }
        let queue_slots = Arc::new(QueueSlots::new(&self.config));
        state.queue_slots.insert(digest.to_owned(), Arc::downgrade(&queue_slots));
        queue_slots
    }

    /// Ready evaluators, in use or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.lock().evaluators.len()
    }

    /// Evicts the unused evaluator that was idle longest in this scope; `false` if all are in use. Its
    /// instances end here.
    fn evict_one(&self, scope: EvictionScope<'_>) -> bool {
        let evicted = self.state.lock().evict_one(scope);
        evicted.is_some()
    }

    /// Removes and returns all evaluators.
    #[must_use]
    pub fn drain(&self) -> Vec<Evaluator> {
        self.state.lock().evaluators.drain().map(|(_, evaluator)| evaluator).collect()
    }

    /// Evicts what has been idle too long.
    pub fn sweep(&self) {
        let after = Duration::from_secs(self.config.evaluator_idle_secs);
        let mut state = self.state.lock();
        let is_idle = |e: &Evaluator| e.is_idle() && e.idle_for() >= after;
        let idle: Vec<EvaluatorKey> =
            state.evaluators.iter().filter(|(_, e)| is_idle(e)).map(|(key, _)| key.clone()).collect();
        let evicted: Vec<Evaluator> = idle.iter().filter_map(|key| state.evaluators.remove(key)).collect();
        let unused: Vec<_> =
            state.evaluators.values().flat_map(|evaluator| evaluator.take_idle_instances(after)).collect();
        state.queue_slots.retain(|_, queue_slots| queue_slots.strong_count() > 0);
        state.remove_expired_outcomes(Duration::from_secs(self.config.outcome_secs));
        drop(state);
        if !evicted.is_empty() || !unused.is_empty() {
            drop_in_background((evicted, unused));
        }
        self.records.sweep();
    }

    /// Remembers an outcome that would be the same the next time. A refusal because something was full is
    /// not.
    fn remember(
        &self,
        ticket: &SetupTicket,
        component: &Component,
        result: &Result<Evaluator, Refusal>,
        applies_without_trial: bool,
    ) {
        let refusal = match result {
            Ok(_) if !ticket.needs_trial => return,
            Ok(_) => None,
            Err(
                refusal @ (Refusal::Configure { .. }
                | Refusal::NotRepeatable(_)
                | Refusal::Deadline { .. }
                | Refusal::HostBudget { .. }),
            ) => Some(refusal.clone()),
            Err(_) => return,
        };
        let pair = PairDigests { component: ticket.key.digest.clone(), config: ticket.config_digest.clone() };
        let outcome = SetupOutcome {
            refusal,
            applies_without_trial,
            since: Instant::now(),
            component: component.downgrade(),
        };
        let mut state = self.state.lock();
        if state.outcomes.insert(pair.clone(), outcome).is_none() {
            state.outcome_order.push_back(pair);
        }
        while state.outcome_order.len() > self.config.outcomes_max {
            let oldest = state.outcome_order.pop_front();
            oldest.and_then(|pair| state.outcomes.remove(&pair));
        }
    }
}

impl Evictor for Weak<EvaluatorCache> {
    fn reclaimable(&self, shortage: Shortage<'_>, scope: EvictionScope<'_>) -> u64 {
        self.upgrade().map_or(0, |kept| kept.state.lock().reclaimable(shortage, scope))
    }

    fn evict_one(&self, scope: EvictionScope<'_>) -> bool {
        self.upgrade().is_some_and(|kept| kept.evict_one(scope))
    }
}

impl CacheState {
    /// What unused pairs hold. A component that only they hold can be unloaded after them.
    fn reclaimable(&self, shortage: Shortage<'_>, scope: EvictionScope<'_>) -> u64 {
        let unused =
            self.evaluators.values().filter(|evaluator| evaluator.is_idle() && evaluator.is_in_scope(scope));
        if let Shortage::Slots(budget) = shortage {
            return unused.map(|evaluator| evaluator.reserved().amount_of(budget)).sum();
        }
        let (mut bytes, mut components) = (0, HashMap::new());
        for evaluator in unused {
            bytes += evaluator.account().bytes();
            components.entry(evaluator.digest()).or_insert((0, evaluator.component())).0 += 1;
        }
        let unloadable = components
            .into_values()
            .filter(|(holders, component)| component.is_of(scope) && component.holders() <= holders + 1);
        bytes + unloadable.map(|(_, component)| component.charged_bytes()).sum::<u64>()
    }

    /// Evicts the unused evaluator that was idle longest in this scope. It ends when the result is dropped.
    fn evict_one(&mut self, scope: EvictionScope<'_>) -> Option<Evaluator> {
        let idle = self.evaluators.iter().filter(|(_, e)| e.is_idle() && e.is_in_scope(scope));
        let key = idle.max_by_key(|(_, e)| e.idle_for()).map(|(key, _)| key.clone())?;
        self.evaluators.remove(&key)
    }

    fn remove_expired_outcomes(&mut self, after: Duration) {
        let expired: HashSet<PairDigests> = self
            .outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_expired(after))
            .map(|(pair, _)| pair.clone())
            .collect();
        if expired.is_empty() {
            return;
        }
        self.outcomes.retain(|pair, _| !expired.contains(pair));
        self.outcome_order.retain(|pair| !expired.contains(pair));
    }
}

/// Drops instances on a separate thread: each takes the system a tenth of a millisecond, and neither workers
/// nor shutdown should wait for a thousand of them.
pub fn drop_in_background(instances: impl Send + 'static) {
    if let Err(error) = tasks::thread("plugin-end", move || drop(instances)) {
        tracing::debug!("dropping instances on this thread: {error}");
    }
}
