//! What is kept of pairs of component and configuration: those ready to judge, those being made, and what
//! became of those made lately. A pair is made once for all who ask for it.
//!
//! Must not know: how guests are made or called, and on which thread.

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
use crate::plugin::sandbox::component::{Component, Loaded};
use crate::tasks;

/// Tells those waiting for a pair when it is ready, or why it will not be. It does not carry the pair itself:
/// that would be in use.
pub type SetupReceiver = watch::Receiver<Option<Result<(), Refusal>>>;

/// Tells it.
type SetupSender = watch::Sender<Option<Result<(), Refusal>>>;

/// The answer to a request for a pair.
#[derive(Debug)]
pub enum CacheLookup {
    /// It is ready.
    Ready(Evaluator),
    /// It was refused lately, and would be again.
    Refused(Refusal),
    /// It is being made; ask again on good news.
    Pending(SetupReceiver),
    /// It has to be made, by the first who asked.
    Missing(SetupReceiver, SetupTicket),
}

/// The duty to make a pair ready, for all who wait for it. Dropped unfulfilled, it tells them that it failed.
#[derive(Debug)]
pub struct SetupTicket {
    cache: Arc<EvaluatorCache>,
    key: EvaluatorKey,
    config_digest: String,
    needs_trial: bool,
    purse: Arc<MemoryAccount>,
    is_open: bool,
}

impl SetupTicket {
    /// What is to be made.
    #[must_use]
    pub const fn key(&self) -> &EvaluatorKey {
        &self.key
    }

    /// What the memory of its instances is charged to.
    #[must_use]
    pub const fn account(&self) -> &Arc<MemoryAccount> {
        &self.purse
    }

    /// Whether it has to be tried on the sample.
    #[must_use]
    pub const fn needs_trial(&self) -> bool {
        self.needs_trial
    }

    /// Whether somebody still waits.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let inner = self.cache.state.lock();
        inner
            .pending
            .get(&(self.key.clone(), self.needs_trial))
            .is_some_and(|making| making.sender.receiver_count() > 0)
    }

    /// Whether somebody still waits. Where nobody does, it is given up: who asks from now on asks anew.
    #[must_use]
    pub fn close_unless_awaited(&mut self) -> bool {
        let mut inner = self.cache.state.lock();
        let flight = (self.key.clone(), self.needs_trial);
        let wanted = inner.pending.get(&flight).is_some_and(|making| making.sender.receiver_count() > 0);
        if !wanted {
            inner.pending.remove(&flight);
            self.is_open = false;
        }
        wanted
    }

    /// Tells all who wait, and remembers it.
    /// A refusal that is not `for_all` is one only for those who want it tried.
    pub fn complete(mut self, component: &Component, made: Result<Evaluator, Refusal>, for_all: bool) {
        self.cache.remember(&self, component, &made, for_all);
        self.publish(made);
    }

    /// Tells all who wait that it could not be done now.
    pub fn fail(mut self, refusal: Refusal) {
        self.publish(Err(refusal));
    }

    fn publish(&mut self, made: Result<Evaluator, Refusal>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let mut inner = self.cache.state.lock();
        let news = made.map(|evaluator| {
            inner.evaluators.entry(self.key.clone()).or_insert(evaluator);
        });
        let making = inner.pending.remove(&(self.key.clone(), self.needs_trial));
        drop(inner);
        if let Some(making) = making {
            making.sender.send_replace(Some(news));
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

/// What came of a configuration, without the evaluator.
#[derive(Debug)]
struct SetupOutcome {
    /// `None`: it passed the trial.
    refusal: Option<Refusal>,
    /// It is refused to those, too, who do not want it tried.
    applies_without_trial: bool,
    since: Instant,
    component: Loaded,
}

impl SetupOutcome {
    /// It is remembered no longer. A refusal may have had to do with the moment, so that it ends whoever has
    /// the component.
    fn is_expired(&self, after: Duration) -> bool {
        (self.refusal.is_some() || !self.component.is_loaded()) && self.since.elapsed() >= after
    }
}

/// A component's and a configuration's digest.
type Pair = (String, String);

#[derive(Debug, Default)]
struct CacheState {
    evaluators: HashMap<EvaluatorKey, Evaluator>,
    pending: HashMap<(EvaluatorKey, bool), PendingSetup>,
    outcomes: HashMap<Pair, SetupOutcome>,
    /// The pairs of `outcomes`, the oldest first.
    outcome_order: VecDeque<Pair>,
    places: HashMap<String, Weak<QueueSlots>>,
}

/// A pair that is being made.
#[derive(Debug)]
struct PendingSetup {
    sender: SetupSender,
    purse: Arc<MemoryAccount>,
}

/// All pairs that are known.
#[derive(Debug)]
pub struct EvaluatorCache {
    config: Arc<Config>,
    records: PairRecords,
    state: Mutex<CacheState>,
}

impl EvaluatorCache {
    /// Nothing yet.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::clone(config),
            records: PairRecords::new(config),
            state: Mutex::default(),
        })
    }

    /// What the pairs did wrong lately.
    #[must_use]
    pub const fn records(&self) -> &PairRecords {
        &self.records
    }

    /// Asks for a pair, for the address that pays for its memory; `tried`: only if it has passed, or passes,
    /// a trial.
    #[must_use]
    pub fn lookup(
        self: &Arc<Self>,
        key: &EvaluatorKey,
        tried: bool,
        payer: Option<&AddressBudget>,
    ) -> CacheLookup {
        let pair = (key.digest.clone(), key.config_digest());
        let mut inner = self.state.lock();
        let after = Duration::from_secs(self.config.outcome_secs);
        let known = inner.outcomes.get(&pair).filter(|outcome| !outcome.is_expired(after));
        if let Some(SetupOutcome { refusal: Some(refusal), applies_without_trial: for_all, .. }) = known
            && (tried || *for_all)
        {
            return CacheLookup::Refused(refusal.clone());
        }
        let tried = tried && known.is_none_or(|outcome| outcome.refusal.is_some());
        if let Some(evaluator) = inner.evaluators.get(key).filter(|_| !tried) {
            evaluator.touch();
            evaluator.account().add_requester(payer);
            evaluator.record().add_requester(payer);
            return CacheLookup::Ready(evaluator.clone());
        }
        let flight = (key.clone(), tried);
        if let Some(making) = inner.pending.get(&flight) {
            // What is made for two addresses is charged to neither.
            making.purse.add_requester(payer);
            return CacheLookup::Pending(making.sender.subscribe());
        }
        let (teller, answer) = watch::channel(None);
        let purse = MemoryAccount::new(payer);
        inner.pending.insert(flight, PendingSetup { sender: teller, purse: Arc::clone(&purse) });
        drop(inner);
        let order = SetupTicket {
            cache: Arc::clone(self),
            key: key.clone(),
            config_digest: pair.1,
            needs_trial: tried,
            purse,
            is_open: true,
        };
        CacheLookup::Missing(answer, order)
    }

    /// The places in the queues for pages of this component.
    #[must_use]
    pub fn queue_slots(&self, digest: &str) -> Arc<QueueSlots> {
        let mut inner = self.state.lock();
        if let Some(places) = inner.places.get(digest).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(QueueSlots::new(&self.config));
        inner.places.insert(digest.to_owned(), Arc::downgrade(&places));
        places
    }

    /// How many pairs are kept ready, in use or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().evaluators.len()
    }

    /// Gives up the pair that was not used for longest, of these; `false`: all are in use. Its instances end
    /// here.
    fn let_go(&self, whose: EvictionScope<'_>) -> bool {
        let evicted = self.state.lock().evict_one(whose);
        evicted.is_some()
    }

    /// Gives up everything.
    #[must_use]
    pub fn drain(&self) -> Vec<Evaluator> {
        self.state.lock().evaluators.drain().map(|(_, evaluator)| evaluator).collect()
    }

    /// Lets go of what was not used for long.
    pub fn sweep(&self) {
        let after = Duration::from_secs(self.config.evaluator_idle_secs);
        let mut inner = self.state.lock();
        let is_idle = |e: &Evaluator| e.is_idle() && e.idle_for() >= after;
        let idle: Vec<EvaluatorKey> =
            inner.evaluators.iter().filter(|(_, e)| is_idle(e)).map(|(key, _)| key.clone()).collect();
        let evicted: Vec<Evaluator> = idle.iter().filter_map(|key| inner.evaluators.remove(key)).collect();
        let unused: Vec<_> =
            inner.evaluators.values().flat_map(|evaluator| evaluator.take_idle_instances(after)).collect();
        inner.places.retain(|_, places| places.strong_count() > 0);
        inner.remove_expired_outcomes(Duration::from_secs(self.config.outcome_secs));
        drop(inner);
        if !evicted.is_empty() || !unused.is_empty() {
            drop_in_background((evicted, unused));
        }
        self.records.sweep();
    }

    /// Remembers what would come out the same again; what was refused for want of room may go well the next
    /// time.
    fn remember(
        &self,
        order: &SetupTicket,
        component: &Component,
        made: &Result<Evaluator, Refusal>,
        for_all: bool,
    ) {
        let refusal = match made {
            Ok(_) if !order.needs_trial => return,
            Ok(_) => None,
            Err(
                refusal @ (Refusal::Configure(_)
                | Refusal::NotRepeatable(_)
                | Refusal::Deadline { .. }
                | Refusal::HostBudget { .. }),
            ) => Some(refusal.clone()),
            Err(_) => return,
        };
        let pair = (order.key.digest.clone(), order.config_digest.clone());
        let outcome = SetupOutcome {
            refusal,
            applies_without_trial: for_all,
            since: Instant::now(),
            component: component.loaded(),
        };
        let mut inner = self.state.lock();
        if inner.outcomes.insert(pair.clone(), outcome).is_none() {
            inner.outcome_order.push_back(pair);
        }
        while inner.outcome_order.len() > self.config.outcomes_max {
            let oldest = inner.outcome_order.pop_front();
            oldest.and_then(|pair| inner.outcomes.remove(&pair));
        }
    }
}

impl Evictor for Weak<EvaluatorCache> {
    fn reclaimable(&self, wanted: Shortage<'_>, whose: EvictionScope<'_>) -> u64 {
        self.upgrade().map_or(0, |kept| kept.state.lock().reclaimable(wanted, whose))
    }

    fn evict_one(&self, whose: EvictionScope<'_>) -> bool {
        self.upgrade().is_some_and(|kept| kept.let_go(whose))
    }
}

impl CacheState {
    /// What the pairs hold that nobody uses. A component that only they have can be unloaded after them.
    fn reclaimable(&self, wanted: Shortage<'_>, whose: EvictionScope<'_>) -> u64 {
        let unused =
            self.evaluators.values().filter(|evaluator| evaluator.is_idle() && evaluator.is_in_scope(whose));
        if let Shortage::Slots(budget) = wanted {
            return unused.map(|evaluator| evaluator.reserved().amount_of(budget)).sum();
        }
        let (mut bytes, mut components) = (0, HashMap::new());
        for evaluator in unused {
            bytes += evaluator.account().bytes();
            components.entry(evaluator.digest()).or_insert((0, evaluator.component())).0 += 1;
        }
        let theirs = components
            .into_values()
            .filter(|(holders, component)| component.is_of(whose) && component.holders() <= holders + 1);
        bytes + theirs.map(|(_, component)| component.charged_bytes()).sum::<u64>()
    }

    /// Gives up the pair that was not used for longest, of those nobody uses. It ends when the answer is
    /// dropped.
    fn evict_one(&mut self, whose: EvictionScope<'_>) -> Option<Evaluator> {
        let idle = self.evaluators.iter().filter(|(_, e)| e.is_idle() && e.is_in_scope(whose));
        let idlest = idle.max_by_key(|(_, e)| e.idle_for()).map(|(key, _)| key.clone())?;
        self.evaluators.remove(&idlest)
    }

    /// Outcomes that are remembered no longer.
    fn remove_expired_outcomes(&mut self, after: Duration) {
        let gone: HashSet<Pair> = self
            .outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_expired(after))
            .map(|(pair, _)| pair.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        self.outcomes.retain(|pair, _| !gone.contains(pair));
        self.outcome_order.retain(|pair| !gone.contains(pair));
    }
}

/// Ends instances on a thread of its own: each takes the system a tenth of a millisecond, and neither judging
/// nor stopping waits for a thousand of them.
pub fn drop_in_background(instances: impl Send + 'static) {
    if let Err(error) = tasks::thread("plugin-end", move || drop(instances)) {
        tracing::debug!("instances end at once: {error}");
    }
}
