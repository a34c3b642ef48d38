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
use crate::plugin::judging::quarantine::{FaultHistory, Quarantine, QuarantinePolicy};
use crate::plugin::judging::run::Run;
use crate::plugin::limits::Config;
use crate::plugin::resources::fault_budget::{FaultBudget, Requester};
use crate::plugin::resources::memory_account::AddressBudget;

/// So many pairs of a component are told of one by one to who asks which ones rest.
const LISTED_MAX: usize = 20;
/// Each costly fault doubles the proof a pair owes, so often.
const PROOF_DOUBLINGS_MAX: u32 = 5;

/// A pair that rests, told to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedPair {
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
pub struct QuarantinedPairs {
    /// Those that are called again first.
    pub listed: Vec<QuarantinedPair>,
    /// All of them.
    pub count: usize,
}

impl QuarantinedPairs {
    /// With those of another version of the plugin.
    #[must_use]
    pub fn merged_with(mut self, other: Self) -> Self {
        self.count += other.count;
        self.listed.extend(other.listed);
        self.listed.sort_by(|a, b| (a.until, &a.config_digest).cmp(&(b.until, &b.config_digest)));
        self.listed.truncate(LISTED_MAX);
        self
    }
}

/// What is known of one pair's calls of one kind. Shared by all evaluators of the pair, over their lives.
#[derive(Debug)]
pub struct CallRecord {
    digest: Arc<str>,
    config_digest: Arc<str>,
    is_live: bool,
    /// Calls that have to go well until it counts as one that works.
    proof_left: AtomicU32,
    proof_calls: u32,
    /// Faults that cost more than a turn.
    strikes: AtomicU32,
    /// Whether there is a rest, so that who behaves never asks a clock.
    has_quarantine: AtomicBool,
    history: Mutex<FaultHistory>,
    /// The last fault, for killmails that come while it rests.
    last_failure: Mutex<Option<Failure>>,
    budget: Arc<FaultBudget>,
    requester: Arc<Requester>,
}

impl CallRecord {
    /// The fault to answer with instead of a call, while the pair rests. `None`: call it, and say how it
    /// went.
    pub fn blocking_fault(&self) -> Option<Fault> {
        if !self.has_quarantine.load(Ordering::Relaxed) {
            return None;
        }
        self.history.lock().blocking_fault(Instant::now())
    }

    /// Whether enough calls went well to count on it that the next does.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proof_left.load(Ordering::Relaxed) == 0
    }

    /// Whether a call went well, so that less is left to prove than at first.
    fn has_proof_progress(&self) -> bool {
        self.proof_left.load(Ordering::Relaxed) < self.proof_calls
    }

    /// Faults that cost more than a turn.
    #[must_use]
    pub fn strikes(&self) -> u32 {
        self.strikes.load(Ordering::Relaxed)
    }

    /// Such faults of all pairs that its address asked for, then its own: of pairs without proof, the one
    /// with fewer comes first.
    #[must_use]
    pub fn strike_priority(&self, now: Instant) -> (u32, u32) {
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
        let is_at_rest =
            || self.has_quarantine.load(Ordering::Relaxed) && self.history.lock().is_quarantined(now);
        !self.is_proven() && !is_at_rest()
    }

    /// What a killmail is answered with while the pair rests because of such a fault.
    #[must_use]
    pub fn quarantine_failure(&self, fault: Fault) -> Failure {
        match &*self.last_failure.lock() {
            Some(last) if last.fault == fault => {
                Failure::new(fault, format!("it rests; its last fault: {}", last.message))
            }
            _ => Failure::new(fault, "it was not called: it rests because of what it did before"),
        }
    }

    /// A call was made, and perhaps failed.
    pub fn record_call(&self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            *self.last_failure.lock() = Some(failure.clone());
            self.update_history(|conduct, now| conduct.record_fault(failure.fault, now));
            return;
        }
        // It is judged by one thread for most of its life, and one call more or less is no matter.
        let unproven = self.proof_left.load(Ordering::Relaxed);
        if unproven > 0 {
            self.proof_left.store(unproven - 1, Ordering::Relaxed);
        }
        if self.has_quarantine.load(Ordering::Relaxed) {
            let mut conduct = self.history.lock();
            conduct.record_success();
            self.has_quarantine.store(conduct.quarantine().is_some(), Ordering::Relaxed);
        }
    }

    /// A call was made and showed nothing: what ended it was no doing of the pair's.
    pub fn record_inconclusive(&self) {
        self.history.lock().record_inconclusive();
    }

    /// It took so much CPU time beyond its turn while others waited.
    pub fn record_overrun(&self, by: Duration) {
        self.update_history(|conduct, now| conduct.record_overrun(by, now));
    }

    /// A call ended in a fault and took so much CPU time beyond its turn, whether or not others waited.
    pub fn record_costly_fault(&self, fault: Fault, by: Duration) {
        let had_proof = self.is_proven();
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed);
        self.proof_left.store(
            self.proof_calls.saturating_mul(1 << (strikes + 1).min(PROOF_DOUBLINGS_MAX)),
            Ordering::Relaxed,
        );
        let many = self.budget.charge_fault(by, &self.requester, Instant::now());
        if many && !had_proof {
            self.update_history(|conduct, now| conduct.record_costly_fault(fault, by, now));
        }
    }

    /// A call that ended for want of memory that others hold took so much CPU time beyond its turn: the
    /// component pays for it, the pair does not.
    pub fn record_memory_shortage(&self, by: Duration) {
        let _ = self.budget.charge_fault(by, &self.requester, Instant::now());
    }

    fn update_history(&self, what: impl FnOnce(&mut FaultHistory, Instant) -> bool) {
        let (mut conduct, now) = (self.history.lock(), Instant::now());
        if !what(&mut conduct, now) {
            return;
        }
        self.has_quarantine.store(true, Ordering::Relaxed);
        let Some((reason, length)) =
            conduct.quarantine().map(|rest| (self.reason(rest), rest.length.as_secs()))
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

    fn reason(&self, rest: &Quarantine) -> String {
        if self.is_live {
            rest.reason.clone()
        } else {
            format!("for killmails of the past only: {}", rest.reason)
        }
    }

    /// The rest it is in at this time; one that is over waits only for a call to show whether it was enough.
    fn quarantined_pair(&self, now: Instant) -> Option<QuarantinedPair> {
        if !self.has_quarantine.load(Ordering::Relaxed) {
            return None;
        }
        let conduct = self.history.lock();
        let rest = conduct.quarantine().filter(|rest| now < rest.until)?;
        let length = i64::try_from(rest.length.as_secs()).unwrap_or(i64::MAX);
        Some(QuarantinedPair {
            config_digest: self.config_digest.to_string(),
            reason: self.reason(rest),
            since: rest.since_secs,
            until: rest.since_secs.saturating_add(length),
        })
    }
}

/// What is known of one pair. Anybody may ask for history, with killmails of his choice: what a pair does
/// there must not take it from those who follow live killmails.
#[derive(Debug)]
pub struct PairRecord {
    live: CallRecord,
    history: CallRecord,
    asker: Arc<Requester>,
}

impl PairRecord {
    fn new(
        rules: QuarantinePolicy,
        proof_calls: u32,
        (digest, config_digest): (&Arc<str>, &str),
        budgets: &FaultBudgets,
    ) -> Self {
        let (config_digest, asker): (Arc<str>, _) = (config_digest.into(), Arc::<Requester>::default());
        let record = |is_live, budget: &Arc<FaultBudget>| CallRecord {
            digest: Arc::clone(digest),
            config_digest: Arc::clone(&config_digest),
            is_live,
            proof_left: AtomicU32::new(proof_calls),
            proof_calls,
            strikes: AtomicU32::new(0),
            has_quarantine: AtomicBool::new(false),
            history: Mutex::new(FaultHistory::new(rules)),
            last_failure: Mutex::new(None),
            budget: Arc::clone(budget),
            requester: Arc::clone(&asker),
        };
        Self { live: record(true, &budgets.live), history: record(false, &budgets.history), asker }
    }

    /// This address asks for it.
    pub fn add_requester(&self, payer: Option<&AddressBudget>) {
        self.asker.set_address(payer);
    }

    /// The part that concerns pages of this kind.
    #[must_use]
    pub const fn for_run(&self, run: Run) -> &CallRecord {
        match run {
            Run::Live => &self.live,
            Run::History { .. } => &self.history,
        }
    }

    const fn both(&self) -> [&CallRecord; 2] {
        [&self.live, &self.history]
    }

    /// Whether it is kept for as long as there is room, used or not: who comes back is not taken for a
    /// stranger.
    fn is_worth_keeping(&self, now: Instant) -> bool {
        !self.is_expired(now) || self.both().into_iter().any(CallRecord::has_proof_progress)
    }

    /// Calls that have to go well until it has proof for one kind of killmails or the other.
    fn proof_owed(&self) -> u32 {
        self.both()
            .map(|record| record.proof_left.load(Ordering::Relaxed))
            .into_iter()
            .min()
            .unwrap_or_default()
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.both().into_iter().all(|record| {
            record.history.lock().is_expired(now)
                && !(record.strikes() > 0 && record.budget.has_recent_faults(now))
        })
    }

    /// When the last of its rests ends.
    fn quarantine_end(&self) -> Option<Instant> {
        self.both()
            .into_iter()
            .filter_map(|record| record.history.lock().quarantine().map(|rest| rest.until))
            .max()
    }
}

/// What the pairs of one component have in common.
#[derive(Debug)]
struct FaultBudgets {
    live: Arc<FaultBudget>,
    history: Arc<FaultBudget>,
}

impl FaultBudgets {
    fn new(config: &Config) -> Self {
        let now = Instant::now();
        Self {
            live: Arc::new(FaultBudget::new(config, now)),
            history: Arc::new(FaultBudget::new(config, now)),
        }
    }

    const fn both(&self) -> [&Arc<FaultBudget>; 2] {
        [&self.live, &self.history]
    }

    fn is_forgiven(&self, now: Instant) -> bool {
        self.both().into_iter().all(|budget| Arc::strong_count(budget) == 1 && budget.is_expired(now))
    }
}

/// Digests of a component and of a configuration.
type Pair = (Arc<str>, String);

#[derive(Debug, Default)]
struct RecordTables {
    pairs: HashMap<Pair, Arc<PairRecord>>,
    budgets: HashMap<Arc<str>, FaultBudgets>,
}

/// The records of all pairs that are in use, did wrong lately, or have shown that they work.
#[derive(Debug)]
pub struct PairRecords {
    rules: QuarantinePolicy,
    config: Config,
    max: usize,
    tables: Mutex<RecordTables>,
}

impl PairRecords {
    /// None yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        // As many again as may be in use, so that a pair does not escape its rest by leaving.
        let max = config.evaluators_max.saturating_mul(2).max(1);
        Self { rules: QuarantinePolicy::new(config), config: config.clone(), max, tables: Mutex::default() }
    }

    /// That of this pair.
    #[must_use]
    pub fn get_or_create(&self, digest: &Arc<str>, config_digest: &str) -> Arc<PairRecord> {
        let mut known = self.tables.lock();
        let RecordTables { pairs, budgets } = &mut *known;
        if pairs.len() >= self.max {
            let now = Instant::now();
            pairs.retain(|_, record| Arc::strong_count(record) > 1 || record.is_worth_keeping(now));
        }
        if pairs.len() >= self.max {
            let unused = pairs.iter().filter(|(_, record)| Arc::strong_count(record) == 1);
            // Those that rest stay longest, then those that have proved most.
            let least = unused
                .min_by_key(|(_, record)| (record.quarantine_end(), Reverse(record.proof_owed())))
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
        self.tables
            .lock()
            .pairs
            .retain(|(component, _), record| &**component != digest || Arc::strong_count(record) > 1);
    }

    /// Lets go of what nobody uses and is not worth keeping, and tells how many began to rest without a line
    /// of their own.
    pub fn sweep(&self) {
        let (now, mut untold) = (Instant::now(), Vec::new());
        let mut known = self.tables.lock();
        known.pairs.retain(|_, record| Arc::strong_count(record) > 1 || record.is_worth_keeping(now));
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
    pub fn quarantined(&self, digest: &str) -> QuarantinedPairs {
        let (now, known) = (Instant::now(), self.tables.lock());
        let theirs = known.pairs.iter().filter(|((component, _), _)| &**component == digest);
        let some: Vec<QuarantinedPair> = theirs
            .flat_map(|(_, pair)| pair.both())
            .filter_map(|record| record.quarantined_pair(now))
            .collect();
        drop(known);
        QuarantinedPairs::default().merged_with(QuarantinedPairs { count: some.len(), listed: some })
    }

    /// How many pairs rest.
    #[must_use]
    pub fn quarantined_count(&self) -> usize {
        let now = Instant::now();
        let rests =
            |pair: &PairRecord| pair.both().into_iter().any(|record| record.quarantined_pair(now).is_some());
        self.tables.lock().pairs.values().filter(|pair| rests(pair)).count()
    }
}

#[cfg(test)]
#[path = "pair_records_tests.rs"]
mod tests;
