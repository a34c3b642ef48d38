//! The records of pairs of component and configuration: the recent faults of each, and the fault budget that
//! the pairs of one component share. They are kept separately from evaluators, which come and go, and
//! separately for live and past killmails.
//!
//! Must not know: how guests are called, or who waits for them.

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

/// At most this many quarantined pairs of a component are listed; the others are counted.
const LISTED_MAX: usize = 20;
/// Each costly fault doubles the number of calls that prove a pair, up to this many times.
const PROOF_DOUBLINGS_MAX: u32 = 5;

/// A quarantined pair, as shown to users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedPair {
    /// SHA-256 of the configuration, 64 hex digits.
    pub config_digest: String,
    /// What it did.
    pub reason: String,
    /// When the quarantine began, unix seconds.
    pub since: i64,
    /// When it ends, unix seconds.
    pub until: i64,
}

/// The quarantined pairs of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuarantinedPairs {
    /// Some of them, by the end of their quarantine.
    pub listed: Vec<QuarantinedPair>,
    /// The number of all of them.
    pub count: usize,
}

impl QuarantinedPairs {
    /// Adds those of another version of the plugin.
    #[must_use]
    pub fn merged_with(mut self, other: Self) -> Self {
        self.count += other.count;
        self.listed.extend(other.listed);
        self.listed.sort_by(|a, b| (a.until, &a.config_digest).cmp(&(b.until, &b.config_digest)));
        self.listed.truncate(LISTED_MAX);
        self
    }
}

/// The calls of one pair for one kind of killmails. All evaluators of the pair share it, one after another.
#[derive(Debug)]
pub struct CallRecord {
    digest: Arc<str>,
    config_digest: Arc<str>,
    is_live: bool,
    /// Successful calls left until the pair is proven.
    proof_left: AtomicU32,
    proof_calls: u32,
    /// Faults that took longer than a time slice.
    strikes: AtomicU32,
    /// Whether the history holds a quarantine, so that other pairs need neither the lock nor a clock.
    has_quarantine: AtomicBool,
    history: Mutex<FaultHistory>,
    /// The last fault, returned for killmails during a quarantine.
    last_failure: Mutex<Option<Failure>>,
    budget: Arc<FaultBudget>,
    requester: Arc<Requester>,
}

impl CallRecord {
    /// The fault to return instead of calling the pair while it is in quarantine. `None`: call it and record
    /// the result.
    pub fn blocking_fault(&self) -> Option<Fault> {
        if !self.has_quarantine.load(Ordering::Relaxed) {
            return None;
        }
        self.history.lock().blocking_fault(Instant::now())
    }

    /// Whether enough calls succeeded to expect that the next does.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proof_left.load(Ordering::Relaxed) == 0
    }

    /// Whether a call succeeded, so that less proof is needed than at first.
    fn has_proof_progress(&self) -> bool {
        self.proof_left.load(Ordering::Relaxed) < self.proof_calls
    }

    /// Faults that took longer than a time slice.
    #[must_use]
    pub fn strikes(&self) -> u32 {
        self.strikes.load(Ordering::Relaxed)
    }

    /// Such faults of all pairs that its address asked for, then its own. Among unproven pairs, those with
    /// fewer come first.
    #[must_use]
    pub fn strike_priority(&self, now: Instant) -> (u32, u32) {
        (self.budget.strikes_by(&self.requester, now), self.strikes())
    }

    /// The fault budget of its component.
    #[must_use]
    pub fn fault_budget(&self) -> &FaultBudget {
        &self.budget
    }

    /// Whether it has to wait while unproven pairs of its component are held.
    #[must_use]
    pub fn is_held(&self, now: Instant) -> bool {
        let is_quarantined =
            || self.has_quarantine.load(Ordering::Relaxed) && self.history.lock().is_quarantined(now);
        !self.is_proven() && !is_quarantined()
    }

    /// What a killmail gets during a quarantine with this fault.
    #[must_use]
    pub fn quarantine_failure(&self, fault: Fault) -> Failure {
        match &*self.last_failure.lock() {
            Some(last) if last.fault == fault => Failure::new(
                fault,
                format!("not called: it is in quarantine after its last fault: {}", last.message),
            ),
            _ => Failure::new(fault, "not called: it is resting after earlier faults or overruns"),
        }
    }

    /// Records a call, and its failure if it failed.
    pub fn record_call(&self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            *self.last_failure.lock() = Some(failure.clone());
            self.update_history(|history, now| history.record_fault(failure.fault, now));
            return;
        }
        // Mostly one thread calls it, and one call more or less does not matter.
        let left = self.proof_left.load(Ordering::Relaxed);
        if left > 0 {
            self.proof_left.store(left - 1, Ordering::Relaxed);
        }
        if self.has_quarantine.load(Ordering::Relaxed) {
            let mut history = self.history.lock();
            history.record_success();
            self.has_quarantine.store(history.quarantine().is_some(), Ordering::Relaxed);
        }
    }

    /// Records a call that ended for a reason outside the pair's control.
    pub fn record_inconclusive(&self) {
        self.history.lock().record_inconclusive();
    }

    /// Records CPU time beyond the time slice while others waited.
    pub fn record_overrun(&self, by: Duration) {
        self.update_history(|history, now| history.record_overrun(by, now));
    }

    /// Records a call that ended in a fault `by` beyond its time slice, whether or not others waited.
    pub fn record_costly_fault(&self, fault: Fault, by: Duration) {
        let was_proven = self.is_proven();
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed);
        self.proof_left.store(
            self.proof_calls.saturating_mul(1 << (strikes + 1).min(PROOF_DOUBLINGS_MAX)),
            Ordering::Relaxed,
        );
        let is_over_limit = self.budget.charge_fault(by, &self.requester, Instant::now());
        if is_over_limit && !was_proven {
            self.update_history(|history, now| history.record_costly_fault(fault, by, now));
        }
    }

    /// Records a call that ended `by` beyond its time slice because others hold the memory. It is charged to
    /// the component and not to the pair.
    pub fn record_memory_shortage(&self, by: Duration) {
        let _ = self.budget.charge_fault(by, &self.requester, Instant::now());
    }

    /// Applies `record` to the history. Logs a quarantine that begins with it.
    fn update_history(&self, record: impl FnOnce(&mut FaultHistory, Instant) -> bool) {
        let (mut history, now) = (self.history.lock(), Instant::now());
        if !record(&mut history, now) {
            return;
        }
        self.has_quarantine.store(true, Ordering::Relaxed);
        let Some((reason, length)) =
            history.quarantine().map(|quarantine| (self.reason(quarantine), quarantine.length.as_secs()))
        else {
            return;
        };
        drop(history);
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

    fn reason(&self, quarantine: &Quarantine) -> String {
        if self.is_live {
            quarantine.reason.clone()
        } else {
            format!("for past killmails only: {}", quarantine.reason)
        }
    }

    /// The current quarantine; `None` for one that is over and waits for a call.
    fn quarantined_pair(&self, now: Instant) -> Option<QuarantinedPair> {
        if !self.has_quarantine.load(Ordering::Relaxed) {
            return None;
        }
        let history = self.history.lock();
        let quarantine = history.quarantine().filter(|quarantine| now < quarantine.until)?;
        let length = i64::try_from(quarantine.length.as_secs()).unwrap_or(i64::MAX);
        Some(QuarantinedPair {
            config_digest: self.config_digest.to_string(),
            reason: self.reason(quarantine),
            since: quarantine.since_secs,
            until: quarantine.since_secs.saturating_add(length),
        })
    }
}

/// The record of one pair. Anyone may request history with killmails of their choice, so what a pair does
/// there must not affect those who follow live killmails.
#[derive(Debug)]
pub struct PairRecord {
    live: CallRecord,
    history: CallRecord,
    requester: Arc<Requester>,
}

impl PairRecord {
    fn new(policy: QuarantinePolicy, proof_calls: u32, key: &PairKey, budgets: &FaultBudgets) -> Self {
        let requester = Arc::<Requester>::default();
        let record = |is_live, budget: &Arc<FaultBudget>| CallRecord {
            digest: Arc::clone(&key.digest),
            config_digest: Arc::clone(&key.config_digest),
            is_live,
            proof_left: AtomicU32::new(proof_calls),
            proof_calls,
            strikes: AtomicU32::new(0),
            has_quarantine: AtomicBool::new(false),
            history: Mutex::new(FaultHistory::new(policy)),
            last_failure: Mutex::new(None),
            budget: Arc::clone(budget),
            requester: Arc::clone(&requester),
        };
        Self { live: record(true, &budgets.live), history: record(false, &budgets.history), requester }
    }

    /// Records that this address asks for the pair.
    pub fn add_requester(&self, address: Option<&AddressBudget>) {
        self.requester.set_address(address);
    }

    /// The part for pages of this kind.
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

    /// Whether to keep it, used or not, while there is room: a pair that comes back keeps its proof and its
    /// faults.
    fn is_worth_keeping(&self, now: Instant) -> bool {
        !self.is_expired(now) || self.both().into_iter().any(CallRecord::has_proof_progress)
    }

    /// Successful calls left until the pair is proven for one kind of killmails.
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

    /// When the last of its quarantines ends.
    fn quarantine_end(&self) -> Option<Instant> {
        self.both()
            .into_iter()
            .filter_map(|record| record.history.lock().quarantine().map(|quarantine| quarantine.until))
            .max()
    }
}

/// The fault budgets of one component.
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

    fn is_expired(&self, now: Instant) -> bool {
        self.both().into_iter().all(|budget| Arc::strong_count(budget) == 1 && budget.is_expired(now))
    }
}

/// The digests that identify a pair.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PairKey {
    digest: Arc<str>,
    config_digest: Arc<str>,
}

#[derive(Debug, Default)]
struct RecordTables {
    pairs: HashMap<PairKey, Arc<PairRecord>>,
    budgets: HashMap<Arc<str>, FaultBudgets>,
}

/// The records of all pairs that are in use, failed recently, or are proven.
#[derive(Debug)]
pub struct PairRecords {
    policy: QuarantinePolicy,
    config: Config,
    max: usize,
    tables: Mutex<RecordTables>,
}

impl PairRecords {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        // Twice as many as may be in use, so that a pair does not escape its quarantine by leaving.
        let max = config.evaluators_max.saturating_mul(2).max(1);
        Self { policy: QuarantinePolicy::new(config), config: config.clone(), max, tables: Mutex::default() }
    }

    /// The record of this pair. Evicts another one if there are too many.
    #[must_use]
    pub fn get_or_create(&self, digest: &Arc<str>, config_digest: &str) -> Arc<PairRecord> {
        let mut tables = self.tables.lock();
        let RecordTables { pairs, budgets } = &mut *tables;
        if pairs.len() >= self.max {
            let now = Instant::now();
            pairs.retain(|_, record| Arc::strong_count(record) > 1 || record.is_worth_keeping(now));
        }
        if pairs.len() >= self.max {
            let unused = pairs.iter().filter(|(_, record)| Arc::strong_count(record) == 1);
            // Those in quarantine are kept longest, then those with the most proof.
            let evicted = unused
                .min_by_key(|(_, record)| (record.quarantine_end(), Reverse(record.proof_owed())))
                .map(|(pair, _)| pair.clone());
            evicted.and_then(|pair| pairs.remove(&pair));
        }
        let budgets = budgets.entry(Arc::clone(digest)).or_insert_with(|| FaultBudgets::new(&self.config));
        let key = PairKey { digest: Arc::clone(digest), config_digest: config_digest.into() };
        let create =
            |key: &PairKey| Arc::new(PairRecord::new(self.policy, self.config.proof_calls, key, budgets));
        Arc::clone(pairs.entry(key).or_insert_with_key(create))
    }

    /// Removes the unused records of a component that no longer exists.
    pub fn forget(&self, digest: &str) {
        self.tables
            .lock()
            .pairs
            .retain(|key, record| &*key.digest != digest || Arc::strong_count(record) > 1);
    }

    /// Removes unused records that are not worth keeping, and logs how many quarantines had no log line.
    pub fn sweep(&self) {
        let (now, mut unlogged) = (Instant::now(), Vec::new());
        let mut tables = self.tables.lock();
        tables.pairs.retain(|_, record| Arc::strong_count(record) > 1 || record.is_worth_keeping(now));
        tables.budgets.retain(|digest, budgets| {
            unlogged.extend(
                budgets
                    .both()
                    .into_iter()
                    .filter_map(|budget| budget.take_unlogged(now))
                    .map(|pairs| (Arc::clone(digest), pairs)),
            );
            !budgets.is_expired(now)
        });
        drop(tables);
        for (digest, pairs) in unlogged {
            tracing::warn!(
                plugin.digest = &*digest,
                "the plugin {digest}: {pairs} more of its configurations have begun to rest"
            );
        }
    }

    /// The quarantined pairs of a component, by the end of their quarantine.
    #[must_use]
    pub fn quarantined(&self, digest: &str) -> QuarantinedPairs {
        let (now, tables) = (Instant::now(), self.tables.lock());
        let of_component = tables.pairs.iter().filter(|(key, _)| &*key.digest == digest);
        let listed: Vec<QuarantinedPair> = of_component
            .flat_map(|(_, pair)| pair.both())
            .filter_map(|record| record.quarantined_pair(now))
            .collect();
        drop(tables);
        QuarantinedPairs::default().merged_with(QuarantinedPairs { count: listed.len(), listed })
    }

    /// The number of quarantined pairs.
    #[must_use]
    pub fn quarantined_count(&self) -> usize {
        let now = Instant::now();
        let is_quarantined =
            |pair: &PairRecord| pair.both().into_iter().any(|record| record.quarantined_pair(now).is_some());
        self.tables.lock().pairs.values().filter(|pair| is_quarantined(pair)).count()
    }
}

#[cfg(test)]
#[path = "pair_records_tests.rs"]
mod tests;
