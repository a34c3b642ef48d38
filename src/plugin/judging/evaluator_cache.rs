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
use crate::plugin::judging::evaluator::{Evaluator, Key};
use crate::plugin::judging::pair_records::PairRecords;
use crate::plugin::judging::queue_places::Places;
use crate::plugin::limits::Config;
use crate::plugin::resources::capacity::{Unused, Wanted, Whose};
use crate::plugin::resources::purse::{Payer, Purse};
use crate::plugin::sandbox::component::{Component, WeakComponent};
use crate::tasks;

/// Tells those waiting for a pair when it is ready, or why it will not be. It does not carry the pair itself:
/// that would be in use.
pub type News = watch::Receiver<Option<Result<(), Refusal>>>;

/// Tells it.
type Teller = watch::Sender<Option<Result<(), Refusal>>>;

/// The answer to a request for a pair.
#[derive(Debug)]
pub enum Told {
    /// It is ready.
    Ready(Evaluator),
    /// It was refused lately, and would be again.
    Refused(Refusal),
    /// It is being made; ask again on good news.
    UnderWay(News),
    /// It has to be made, by the first who asked.
    New(News, Order),
}

/// The duty to make a pair ready, for all who wait for it. Dropped unfulfilled, it tells them that it failed.
#[derive(Debug)]
pub struct Order {
    kept: Arc<Kept>,
    key: Key,
    config_digest: String,
    tried: bool,
    purse: Arc<Purse>,
    open: bool,
}

impl Order {
    /// What is to be made.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// What the memory of its instances is charged to.
    #[must_use]
    pub const fn purse(&self) -> &Arc<Purse> {
        &self.purse
    }

    /// Whether it has to be tried on the sample.
    #[must_use]
    pub const fn tried(&self) -> bool {
        self.tried
    }

    /// Whether somebody still waits.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let inner = self.kept.inner.lock();
        inner
            .under_way
            .get(&(self.key.clone(), self.tried))
            .is_some_and(|making| making.teller.receiver_count() > 0)
    }

    /// Whether somebody still waits. Where nobody does, it is given up: who asks from now on asks anew.
    #[must_use]
    pub fn is_wanted(&mut self) -> bool {
        let mut inner = self.kept.inner.lock();
        let flight = (self.key.clone(), self.tried);
        let wanted = inner.under_way.get(&flight).is_some_and(|making| making.teller.receiver_count() > 0);
        if !wanted {
            inner.under_way.remove(&flight);
            self.open = false;
        }
        wanted
    }

    /// Tells all who wait, and remembers it.
    /// A refusal that is not `for_all` is one only for those who want it tried.
    pub fn fulfil(mut self, component: &Component, made: Result<Evaluator, Refusal>, for_all: bool) {
        self.kept.remember(&self, component, &made, for_all);
        self.tell(made);
    }

    /// Tells all who wait that it could not be done now.
    pub fn fail(mut self, refusal: Refusal) {
        self.tell(Err(refusal));
    }

    fn tell(&mut self, made: Result<Evaluator, Refusal>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let mut inner = self.kept.inner.lock();
        let news = made.map(|evaluator| {
            inner.evaluators.entry(self.key.clone()).or_insert(evaluator);
        });
        let making = inner.under_way.remove(&(self.key.clone(), self.tried));
        drop(inner);
        if let Some(making) = making {
            making.teller.send_replace(Some(news));
        }
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        self.tell(Err(Refusal::Crashed("the plugin could not be configured: the work was lost".to_owned())));
    }
}

/// What came of a configuration, without the evaluator.
#[derive(Debug)]
struct Outcome {
    /// `None`: it passed the trial.
    refusal: Option<Refusal>,
    /// It is refused to those, too, who do not want it tried.
    for_all: bool,
    since: Instant,
    loaded: WeakComponent,
}

impl Outcome {
    /// It is remembered no longer. A refusal may have had to do with the moment, so that it ends whoever has
    /// the component.
    fn is_over(&self, after: Duration) -> bool {
        (self.refusal.is_some() || !self.loaded.is_loaded()) && self.since.elapsed() >= after
    }
}

/// A component's and a configuration's digest.
type Pair = (String, String);

#[derive(Debug, Default)]
struct Inner {
    evaluators: HashMap<Key, Evaluator>,
    under_way: HashMap<(Key, bool), UnderWay>,
    outcomes: HashMap<Pair, Outcome>,
    /// The pairs of `outcomes`, the oldest first.
    order: VecDeque<Pair>,
    places: HashMap<String, Weak<Places>>,
}

/// A pair that is being made.
#[derive(Debug)]
struct UnderWay {
    teller: Teller,
    purse: Arc<Purse>,
}

/// All pairs that are known.
#[derive(Debug)]
pub struct Kept {
    config: Arc<Config>,
    records: PairRecords,
    inner: Mutex<Inner>,
}

impl Kept {
    /// Nothing yet.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::clone(config),
            records: PairRecords::new(config),
            inner: Mutex::default(),
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
    pub fn ask(self: &Arc<Self>, key: &Key, tried: bool, payer: Option<&Payer>) -> Told {
        let pair = (key.digest.clone(), key.config_digest());
        let mut inner = self.inner.lock();
        let after = Duration::from_secs(self.config.outcome_secs);
        let known = inner.outcomes.get(&pair).filter(|outcome| !outcome.is_over(after));
        if let Some(Outcome { refusal: Some(refusal), for_all, .. }) = known
            && (tried || *for_all)
        {
            return Told::Refused(refusal.clone());
        }
        let tried = tried && known.is_none_or(|outcome| outcome.refusal.is_some());
        if let Some(evaluator) = inner.evaluators.get(key).filter(|_| !tried) {
            evaluator.touch();
            evaluator.purse().asked_for_by(payer);
            evaluator.record().asked_for_by(payer);
            return Told::Ready(evaluator.clone());
        }
        let flight = (key.clone(), tried);
        if let Some(making) = inner.under_way.get(&flight) {
            // What is made for two addresses is charged to neither.
            making.purse.asked_for_by(payer);
            return Told::UnderWay(making.teller.subscribe());
        }
        let (teller, answer) = watch::channel(None);
        let purse = Purse::new(payer);
        inner.under_way.insert(flight, UnderWay { teller, purse: Arc::clone(&purse) });
        drop(inner);
        let order = Order {
            kept: Arc::clone(self),
            key: key.clone(),
            config_digest: pair.1,
            tried,
            purse,
            open: true,
        };
        Told::New(answer, order)
    }

    /// The places in the queues for pages of this component.
    #[must_use]
    pub fn places(&self, digest: &str) -> Arc<Places> {
        let mut inner = self.inner.lock();
        if let Some(places) = inner.places.get(digest).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(Places::new(&self.config));
        inner.places.insert(digest.to_owned(), Arc::downgrade(&places));
        places
    }

    /// How many pairs are kept ready, in use or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().evaluators.len()
    }

    /// Gives up the pair that was not used for longest, of these; `false`: all are in use. Its instances end
    /// here.
    fn let_go(&self, whose: Whose<'_>) -> bool {
        let evicted = self.inner.lock().evict_one(whose);
        evicted.is_some()
    }

    /// Gives up everything.
    #[must_use]
    pub fn clear(&self) -> Vec<Evaluator> {
        self.inner.lock().evaluators.drain().map(|(_, evaluator)| evaluator).collect()
    }

    /// Lets go of what was not used for long.
    pub fn tidy(&self) {
        let after = Duration::from_secs(self.config.evaluator_idle_secs);
        let mut inner = self.inner.lock();
        let is_idle = |e: &Evaluator| e.is_idle() && e.idle_for() >= after;
        let idle: Vec<Key> =
            inner.evaluators.iter().filter(|(_, e)| is_idle(e)).map(|(key, _)| key.clone()).collect();
        let evicted: Vec<Evaluator> = idle.iter().filter_map(|key| inner.evaluators.remove(key)).collect();
        let unused: Vec<_> =
            inner.evaluators.values().flat_map(|evaluator| evaluator.unused(after)).collect();
        inner.places.retain(|_, places| places.strong_count() > 0);
        inner.forget(Duration::from_secs(self.config.outcome_secs));
        drop(inner);
        if !evicted.is_empty() || !unused.is_empty() {
            end((evicted, unused));
        }
        self.records.tidy();
    }

    /// Remembers what would come out the same again; what was refused for want of room may go well the next
    /// time.
    fn remember(
        &self,
        order: &Order,
        component: &Component,
        made: &Result<Evaluator, Refusal>,
        for_all: bool,
    ) {
        let refusal = match made {
            Ok(_) if !order.tried => return,
            Ok(_) => None,
            Err(
                refusal @ (Refusal::Configure { .. }
                | Refusal::NotRepeatable(_)
                | Refusal::Deadline { .. }
                | Refusal::HostBudget { .. }),
            ) => Some(refusal.clone()),
            Err(_) => return,
        };
        let pair = (order.key.digest.clone(), order.config_digest.clone());
        let outcome = Outcome { refusal, for_all, since: Instant::now(), loaded: component.downgrade() };
        let mut inner = self.inner.lock();
        if inner.outcomes.insert(pair.clone(), outcome).is_none() {
            inner.order.push_back(pair);
        }
        while inner.order.len() > self.config.outcomes_max {
            let oldest = inner.order.pop_front();
            oldest.and_then(|pair| inner.outcomes.remove(&pair));
        }
    }
}

impl Unused for Weak<Kept> {
    fn amount(&self, wanted: Wanted<'_>, whose: Whose<'_>) -> u64 {
        self.upgrade().map_or(0, |kept| kept.inner.lock().unused(wanted, whose))
    }

    fn let_go(&self, whose: Whose<'_>) -> bool {
        self.upgrade().is_some_and(|kept| kept.let_go(whose))
    }
}

impl Inner {
    /// What the pairs hold that nobody uses. A component that only they have can be unloaded after them.
    fn unused(&self, wanted: Wanted<'_>, whose: Whose<'_>) -> u64 {
        let unused =
            self.evaluators.values().filter(|evaluator| evaluator.is_idle() && evaluator.is_of(whose));
        if let Wanted::Places(budget) = wanted {
            return unused.map(|evaluator| evaluator.reserved().of(budget)).sum();
        }
        let (mut bytes, mut components) = (0, HashMap::new());
        for evaluator in unused {
            bytes += evaluator.purse().bytes();
            components.entry(evaluator.digest()).or_insert((0, evaluator.component())).0 += 1;
        }
        let theirs = components
            .into_values()
            .filter(|(holders, component)| component.is_of(whose) && component.holders() <= holders + 1);
        bytes + theirs.map(|(_, component)| component.charged_bytes()).sum::<u64>()
    }

    /// Gives up the pair that was not used for longest, of those nobody uses. It ends when the answer is
    /// dropped.
    fn evict_one(&mut self, whose: Whose<'_>) -> Option<Evaluator> {
        let idle = self.evaluators.iter().filter(|(_, e)| e.is_idle() && e.is_of(whose));
        let idlest = idle.max_by_key(|(_, e)| e.idle_for()).map(|(key, _)| key.clone())?;
        self.evaluators.remove(&idlest)
    }

    /// Outcomes that are remembered no longer.
    fn forget(&mut self, after: Duration) {
        let gone: HashSet<Pair> = self
            .outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_over(after))
            .map(|(pair, _)| pair.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        self.outcomes.retain(|pair, _| !gone.contains(pair));
        self.order.retain(|pair| !gone.contains(pair));
    }
}

/// Ends instances on a thread of its own: each takes the system a tenth of a millisecond, and neither judging
/// nor stopping waits for a thousand of them.
pub fn end(instances: impl Send + 'static) {
    if let Err(error) = tasks::thread("plugin-end", move || drop(instances)) {
        tracing::debug!("instances end at once: {error}");
    }
}
