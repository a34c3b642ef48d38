//! What is known of pairs of component and configuration: how each behaves, and what the pairs of one
//! component cost together. It is kept apart from evaluators, which come and go, and for live killmails apart
//! from others.
//!
//! Must not know: how guests are called, or who is waiting for them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::verdict::{Failure, Fault};
use crate::plugin::judging::conduct::{Conduct, Rest, Rules};
use crate::plugin::judging::run::Run;
use crate::plugin::limits::Config;
use crate::plugin::resources::fault_budget::{FaultBudget, Requester};
use crate::plugin::resources::memory_account::AddressBudget;

/// So many pairs of a component are told of one by one to who asks which ones rest.
const TOLD_MAX: usize = 20;
/// Each costly fault doubles the proof a pair owes, so often.
const DOUBLED_MAX: u32 = 5;

/// A pair that rests, told to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting {
    /// SHA-256 of the configuration, 64 hex digits.
    pub config_digest: String,
    /// What it did.
    pub reason: String,
    /// When the rest began, unix seconds.
    pub since: i64,
    /// When it is called again, unix seconds.
    pub until: i64,
}

/// Some pairs that rest, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AtRest {
    /// Those that are called again first.
    pub some: Vec<Resting>,
    /// All of them.
    pub count: usize,
}

impl AtRest {
    /// With those of another version of the plugin.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.count += other.count;
        self.some.extend(other.some);
        self.some.sort_by(|a, b| (a.until, &a.config_digest).cmp(&(b.until, &b.config_digest)));
        self.some.truncate(TOLD_MAX);
        self
    }
}

/// What is known of one pair's calls of one kind. Shared by all evaluators of the pair, over their lives.
#[derive(Debug)]
pub struct Record {
    digest: Arc<str>,
    config_digest: Arc<str>,
    is_live: bool,
    /// Calls that have to go well until it counts as one that works.
    unproven: AtomicU32,
    proof_calls: u32,
    /// Faults that cost more than a turn.
    strikes: AtomicU32,
    /// Whether there is a rest, so that who behaves never asks a clock.
    rests: AtomicBool,
    conduct: Mutex<Conduct>,
    /// The last fault, for killmails that come while it rests.
    last: Mutex<Option<Failure>>,
    budget: Arc<FaultBudget>,
    requester: Arc<Requester>,
}

impl Record {
    /// The fault to answer with instead of a call, while the pair rests. `None`: call it, and say how it
    /// went.
    pub fn rests(&self) -> Option<Fault> {
        if !self.rests.load(Ordering::Relaxed) {
            return None;
        }
        self.conduct.lock().rests(Instant::now())
    }

    /// Whether enough calls went well to count on it that the next does.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.unproven.load(Ordering::Relaxed) == 0
    }

    /// Whether a call went well, so that less is left to prove than at first.
    fn has_earned(&self) -> bool {
        self.unproven.load(Ordering::Relaxed) < self.proof_calls
    }

    /// Faults that cost more than a turn.
    #[must_use]
    pub fn strikes(&self) -> u32 {
        self.strikes.load(Ordering::Relaxed)
    }

    /// Such faults of all pairs that its address asked for, then its own: of pairs without proof, the one
    /// with fewer comes first.
    #[must_use]
    pub fn all_strikes(&self, now: Instant) -> (u32, u32) {
        (self.budget.strikes_by(&self.requester, now), self.strikes())
    }

    /// What the pairs of its component have in common.
    #[must_use]
    pub fn fault_budget(&self) -> &FaultBudget {
        &self.budget
    }

    /// Whether it has to wait while pairs of its component that have proved nothing yet are held.
    #[must_use]
    pub fn is_held(&self, now: Instant) -> bool {
        let is_at_rest = || self.rests.load(Ordering::Relaxed) && self.conduct.lock().is_at_rest(now);
        !self.is_proven() && !is_at_rest()
    }

    /// What a killmail is answered with while the pair rests because of such a fault.
    #[must_use]
    pub fn words_at_rest(&self, fault: Fault) -> Failure {
        match &*self.last.lock() {
            Some(last) if last.fault == fault => {
                Failure::new(fault, format!("it rests; its last fault: {}", last.message))
            }
            _ => Failure::new(fault, "it was not called: it rests because of what it did before"),
        }
    }

    /// A call was made, and perhaps failed.
    pub fn called(&self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            *self.last.lock() = Some(failure.clone());
            self.note(|conduct, now| conduct.faulted(failure.fault, now));
            return;
        }
        // It is judged by one thread for most of its life, and one call more or less is no matter.
        let unproven = self.unproven.load(Ordering::Relaxed);
        if unproven > 0 {
            self.unproven.store(unproven - 1, Ordering::Relaxed);
        }
        if self.rests.load(Ordering::Relaxed) {
            let mut conduct = self.conduct.lock();
            conduct.succeeded();
            self.rests.store(conduct.rest().is_some(), Ordering::Relaxed);
        }
    }

    /// A call was made and showed nothing: what ended it was no doing of the pair's.
    pub fn undecided(&self) {
        self.conduct.lock().undecided();
    }

    /// It took so much CPU time beyond its turn while others waited.
    pub fn overran(&self, by: Duration) {
        self.note(|conduct, now| conduct.overran(by, now));
    }

    /// A call ended in a fault and took so much CPU time beyond its turn, whether or not others waited.
    pub fn wasted(&self, fault: Fault, by: Duration) {
        let had_proof = self.is_proven();
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed);
        self.unproven
            .store(self.proof_calls.saturating_mul(1 << (strikes + 1).min(DOUBLED_MAX)), Ordering::Relaxed);
        let many = self.budget.charge_fault(by, &self.requester, Instant::now());
        if many && !had_proof {
            self.note(|conduct, now| conduct.wasted(fault, by, now));
        }
    }

    /// A call that ended for want of memory that others hold took so much CPU time beyond its turn: the
    /// component pays for it, the pair does not.
    pub fn crowded_out(&self, by: Duration) {
        let _ = self.budget.charge_fault(by, &self.requester, Instant::now());
    }

    fn note(&self, what: impl FnOnce(&mut Conduct, Instant) -> bool) {
        let (mut conduct, now) = (self.conduct.lock(), Instant::now());
        if !what(&mut conduct, now) {
            return;
        }
        self.rests.store(true, Ordering::Relaxed);
        let Some((reason, length)) = conduct.rest().map(|rest| (self.words(rest), rest.length.as_secs()))
        else {
            return;
        };
        drop(conduct);
        if !self.budget.should_log(now) {
            return;
        }
        tracing::warn!(
            plugin.digest = &*self.digest,
            plugin.config_digest = &*self.config_digest,
            "the plugin {} with the configuration {} rests for {length} s: {reason}",
            self.digest,
            self.config_digest
        );
    }

    fn words(&self, rest: &Rest) -> String {
        if self.is_live {
            rest.reason.clone()
        } else {
            format!("for killmails of the past only: {}", rest.reason)
        }
    }

    /// The rest it is in at this time; one that is over waits only for a call to show whether it was enough.
    fn told(&self, now: Instant) -> Option<Resting> {
        if !self.rests.load(Ordering::Relaxed) {
            return None;
        }
        let conduct = self.conduct.lock();
        let rest = conduct.rest().filter(|rest| now < rest.until)?;
        let length = i64::try_from(rest.length.as_secs()).unwrap_or(i64::MAX);
        Some(Resting {
            config_digest: self.config_digest.to_string(),
            reason: self.words(rest),
            since: rest.since_secs,
            until: rest.since_secs.saturating_add(length),
        })
    }
}

/// What is known of one pair. Anybody may ask for history, with killmails of his choice: what a pair does
/// there must not take it from those who follow live killmails.
#[derive(Debug)]
pub struct PairRecord {
    live: Record,
    past: Record,
    asker: Arc<Requester>,
}

impl PairRecord {
    fn new(
        rules: Rules,
        proof_calls: u32,
        (digest, config_digest): (&Arc<str>, &str),
        budgets: &FaultBudgets,
    ) -> Self {
        let (config_digest, asker): (Arc<str>, _) = (config_digest.into(), Arc::<Requester>::default());
        let record = |is_live, budget: &Arc<FaultBudget>| Record {
            digest: Arc::clone(digest),
            config_digest: Arc::clone(&config_digest),
            is_live,
            unproven: AtomicU32::new(proof_calls),
            proof_calls,
            strikes: AtomicU32::new(0),
            rests: AtomicBool::new(false),
            conduct: Mutex::new(Conduct::new(rules)),
            last: Mutex::new(None),
            budget: Arc::clone(budget),
            requester: Arc::clone(&asker),
        };
        Self { live: record(true, &budgets.live), past: record(false, &budgets.past), asker }
    }

    /// This address asks for it.
    pub fn add_requester(&self, payer: Option<&AddressBudget>) {
        self.asker.set_address(payer);
    }

    /// The part that concerns pages of this kind.
    #[must_use]
    pub const fn of(&self, run: Run) -> &Record {
        match run {
            Run::Live => &self.live,
            Run::History { .. } => &self.past,
        }
    }

    const fn both(&self) -> [&Record; 2] {
        [&self.live, &self.past]
    }

    /// Whether it is kept for as long as there is room, used or not: who comes back is not taken for a
    /// stranger.
    fn is_kept(&self, now: Instant) -> bool {
        !self.is_forgiven(now) || self.both().into_iter().any(Record::has_earned)
    }

    /// Calls that have to go well until it has proof for one kind of killmails or the other.
    fn owes(&self) -> u32 {
        self.both()
            .map(|record| record.unproven.load(Ordering::Relaxed))
            .into_iter()
            .min()
            .unwrap_or_default()
    }

    fn is_forgiven(&self, now: Instant) -> bool {
        self.both().into_iter().all(|record| {
            record.conduct.lock().is_forgiven(now)
                && !(record.strikes() > 0 && record.budget.has_recent_faults(now))
        })
    }

    /// When the last of its rests ends.
    fn ends(&self) -> Option<Instant> {
        self.both().into_iter().filter_map(|record| record.conduct.lock().rest().map(|rest| rest.until)).max()
    }
}

/// What the pairs of one component have in common.
#[derive(Debug)]
struct FaultBudgets {
    live: Arc<FaultBudget>,
    past: Arc<FaultBudget>,
}

impl FaultBudgets {
    fn new(config: &Config) -> Self {
        let now = Instant::now();
        Self { live: Arc::new(FaultBudget::new(config, now)), past: Arc::new(FaultBudget::new(config, now)) }
    }

    const fn both(&self) -> [&Arc<FaultBudget>; 2] {
        [&self.live, &self.past]
    }

    fn is_forgiven(&self, now: Instant) -> bool {
        self.both().into_iter().all(|budget| Arc::strong_count(budget) == 1 && budget.is_expired(now))
    }
}

/// Digests of a component and of a configuration.
type Pair = (Arc<str>, String);

#[derive(Debug, Default)]
struct Known {
    pairs: HashMap<Pair, Arc<PairRecord>>,
    budgets: HashMap<Arc<str>, FaultBudgets>,
}

/// The records of all pairs that are in use, did wrong lately, or have shown that they work.
#[derive(Debug)]
pub struct PairRecords {
    rules: Rules,
    config: Config,
    max: usize,
    known: Mutex<Known>,
}

impl PairRecords {
    /// None yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        // As many again as may be in use, so that a pair does not escape its rest by leaving.
        let max = config.evaluators_max.saturating_mul(2).max(1);
        Self { rules: Rules::new(config), config: config.clone(), max, known: Mutex::default() }
    }

    /// That of this pair.
    #[must_use]
    pub fn of(&self, digest: &Arc<str>, config_digest: &str) -> Arc<PairRecord> {
        let mut known = self.known.lock();
        let Known { pairs, budgets } = &mut *known;
        if pairs.len() >= self.max {
            let now = Instant::now();
            pairs.retain(|_, record| Arc::strong_count(record) > 1 || record.is_kept(now));
        }
        if pairs.len() >= self.max {
            let unused = pairs.iter().filter(|(_, record)| Arc::strong_count(record) == 1);
            // Those that rest stay longest, then those that have proved most.
            let least = unused
                .min_by_key(|(_, record)| (record.ends(), Reverse(record.owes())))
                .map(|(pair, _)| pair.clone());
            least.and_then(|pair| pairs.remove(&pair));
        }
        let budgets = budgets.entry(Arc::clone(digest)).or_insert_with(|| FaultBudgets::new(&self.config));
        let made = || {
            Arc::new(PairRecord::new(self.rules, self.config.proof_calls, (digest, config_digest), budgets))
        };
        Arc::clone(pairs.entry((Arc::clone(digest), config_digest.to_owned())).or_insert_with(made))
    }

    /// Forgets the pairs of a component that nobody uses: it is gone.
    pub fn forget(&self, digest: &str) {
        self.known
            .lock()
            .pairs
            .retain(|(component, _), record| &**component != digest || Arc::strong_count(record) > 1);
    }

    /// Lets go of what nobody uses and is not worth keeping, and tells how many began to rest without a line
    /// of their own.
    pub fn tidy(&self) {
        let (now, mut untold) = (Instant::now(), Vec::new());
        let mut known = self.known.lock();
        known.pairs.retain(|_, record| Arc::strong_count(record) > 1 || record.is_kept(now));
        known.budgets.retain(|digest, budgets| {
            untold.extend(
                budgets
                    .both()
                    .into_iter()
                    .filter_map(|budget| budget.take_unlogged(now))
                    .map(|pairs| (Arc::clone(digest), pairs)),
            );
            !budgets.is_forgiven(now)
        });
        drop(known);
        for (digest, pairs) in untold {
            tracing::warn!(
                plugin.digest = &*digest,
                "the plugin {digest}: {pairs} more rests of its configurations have begun"
            );
        }
    }

    /// The pairs of a component that rest, those first that are called again first.
    #[must_use]
    pub fn resting(&self, digest: &str) -> AtRest {
        let (now, known) = (Instant::now(), self.known.lock());
        let theirs = known.pairs.iter().filter(|((component, _), _)| &**component == digest);
        let some: Vec<Resting> =
            theirs.flat_map(|(_, pair)| pair.both()).filter_map(|record| record.told(now)).collect();
        drop(known);
        AtRest::default().and(AtRest { count: some.len(), some })
    }

    /// How many pairs rest.
    #[must_use]
    pub fn count(&self) -> usize {
        let now = Instant::now();
        let rests = |pair: &PairRecord| pair.both().into_iter().any(|record| record.told(now).is_some());
        self.known.lock().pairs.values().filter(|pair| rests(pair)).count()
    }
}

#[cfg(test)]
#[path = "pair_records_tests.rs"]
mod tests;
