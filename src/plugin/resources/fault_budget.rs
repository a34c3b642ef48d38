//! The fault budget of a component: the CPU time that calls ending in a fault may take for all its pairs
//! together. A pair that is not proven yet, or that failed recently, is called only as often as the budget
//! allows. So two hundred configurations of a looping guest take no more of the worker threads than one does.
//! These faults are also counted per address, so that those of one address do not delay the first calls of
//! another's pairs.
//!
//! Must not know: what a call is, which pairs there are, or what an address is.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::budget::Budget;
use crate::plugin::limits::Config;
use crate::plugin::resources::memory_account::AddressBudget;
use crate::plugin::resources::token_bucket::TokenBucket;

/// The log has at most one line in this time for the pairs of a component that go into quarantine. Further
/// ones are only counted.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The address that last asked for a pair, identified by its memory budget. A request without an address
/// leaves the earlier one in place.
#[derive(Debug, Default)]
pub struct Requester(Mutex<Option<Weak<Budget>>>);

impl Requester {
    /// Records that this address asked for the pair.
    pub fn set_address(&self, address: Option<&AddressBudget>) {
        if let Some(address) = address {
            *self.0.lock() = Some(Arc::downgrade(address));
        }
    }

    /// Distinguishes addresses; all unknown ones have the same key.
    fn key(&self) -> usize {
        self.0.lock().as_ref().map_or(0, |address| address.as_ptr().addr())
    }
}

/// The fault budget of one component, for one kind of killmails (live, or history).
#[derive(Debug)]
pub struct FaultBudget {
    created_at: Instant,
    window: Duration,
    faults_max: usize,
    /// Unproven pairs wait until this time, nanoseconds since `created_at`.
    held_until: AtomicU64,
    /// Until this time, pairs have to be checked one by one.
    faulty_until: AtomicU64,
    spending: Mutex<FaultSpending>,
    strikes: Mutex<HashMap<usize, Strikes>>,
}

/// Costly faults of the pairs that one address asked for.
#[derive(Debug)]
struct Strikes {
    /// Held so that no other address gets the same key.
    address: Option<Weak<Budget>>,
    count: u32,
    last: Instant,
}

#[derive(Debug)]
struct FaultSpending {
    /// `None`: no limit.
    bucket: Option<TokenBucket>,
    faults: VecDeque<Instant>,
    last_logged: Option<Instant>,
    unlogged: u64,
}

impl FaultBudget {
    /// An unused budget.
    #[must_use]
    pub fn new(config: &Config, now: Instant) -> Self {
        let bucket = TokenBucket::new(config.faults_cpu_ms_per_sec, now);
        Self {
            created_at: now,
            window: Duration::from_secs(config.rest_window_secs),
            faults_max: config.rest_faults,
            held_until: AtomicU64::new(0),
            faulty_until: AtomicU64::new(0),
            spending: Mutex::new(FaultSpending {
                bucket,
                faults: VecDeque::new(),
                last_logged: None,
                unlogged: 0,
            }),
            strikes: Mutex::default(),
        }
    }

    /// Whether calls that ended in a fault used budget recently.
    #[must_use]
    pub fn has_recent_faults(&self, now: Instant) -> bool {
        self.nanos_since_created(now) < self.faulty_until.load(Ordering::Relaxed)
    }

    /// How long unproven pairs have to wait.
    #[must_use]
    pub fn hold_time(&self, now: Instant) -> Duration {
        Duration::from_nanos(
            self.held_until.load(Ordering::Relaxed).saturating_sub(self.nanos_since_created(now)),
        )
    }

    /// Recent costly faults of the pairs that this address asked for. Pairs of an address with fewer come
    /// first.
    #[must_use]
    pub fn strikes_by(&self, requester: &Requester, now: Instant) -> u32 {
        let key = requester.key();
        let by_asker = self.strikes.lock();
        by_asker
            .get(&key)
            .filter(|strikes| strikes.is_recent(self.window, now))
            .map_or(0, |strikes| strikes.count)
    }

    /// Charges a call that ended in a fault `by` beyond its time slice. Returns whether there were so many
    /// that an unproven pair goes into quarantine after its first one.
    #[must_use]
    pub fn charge_fault(&self, by: Duration, requester: &Requester, now: Instant) -> bool {
        self.count_strike(requester, now);
        let mut spending = self.spending.lock();
        let FaultSpending { bucket: Some(bucket), faults, .. } = &mut *spending else { return false };
        // First adds what has been refilled since.
        bucket.time_until_available(now);
        bucket.spend(by);
        let wait = bucket.time_until_available(now);
        while faults.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.window) {
            faults.pop_front();
        }
        let is_over_limit = self.faults_max > 0 && faults.len() >= self.faults_max;
        if faults.len() >= self.faults_max {
            faults.pop_front();
        }
        faults.push_back(now);
        self.held_until.store(self.nanos_since_created(now + wait), Ordering::Relaxed);
        self.faulty_until.store(self.nanos_since_created(now + wait.max(self.window)), Ordering::Relaxed);
        is_over_limit
    }

    fn count_strike(&self, requester: &Requester, now: Instant) {
        let address = requester.0.lock().clone();
        let key = address.as_ref().map_or(0, |address| address.as_ptr().addr());
        let mut by_asker = self.strikes.lock();
        by_asker.retain(|_, strikes| strikes.is_recent(self.window, now));
        let strikes = by_asker.entry(key).or_insert(Strikes { address, count: 0, last: now });
        (strikes.count, strikes.last) = (strikes.count.saturating_add(1), now);
    }

    /// Whether the quarantine that just began gets a log line; if not, it is counted.
    #[must_use]
    pub fn should_log(&self, now: Instant) -> bool {
        let mut spending = self.spending.lock();
        let should_log =
            spending.last_logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if should_log {
            spending.last_logged = Some(now);
        } else {
            spending.unlogged += 1;
        }
        should_log
    }

    /// How many quarantines were not logged, once the interval is over.
    #[must_use]
    pub fn take_unlogged(&self, now: Instant) -> Option<u64> {
        let mut spending = self.spending.lock();
        let is_due = spending.unlogged > 0
            && spending.last_logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if !is_due {
            return None;
        }
        spending.last_logged = Some(now);
        Some(std::mem::take(&mut spending.unlogged))
    }

    /// Whether nothing in it is worth keeping.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        !self.has_recent_faults(now)
            && self
                .spending
                .lock()
                .last_logged
                .is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL)
    }

    fn nanos_since_created(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.created_at).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Strikes {
    /// Whether they still count: the address still exists, and the last one is not older than the window.
    fn is_recent(&self, window: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < window
            && self.address.as_ref().is_none_or(|address| address.strong_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> Requester {
        Requester::default()
    }

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn faults_take_a_hundredth_of_a_thread_together() {
        let start = Instant::now();
        let budget = FaultBudget::new(&Config { faults_cpu_ms_per_sec: 10, ..Config::default() }, start);
        let (mut now, mut calls) = (start, 0);
        while now < start + 100 * SECOND {
            assert_eq!(
                budget.charge_fault(8 * MS, &unknown(), now),
                calls >= 5,
                "the sixth is one too many: {calls}"
            );
            calls += 1;
            now += 10 * MS + budget.hold_time(now);
        }
        assert!((115..=130).contains(&calls), "{calls} calls of 8 ms beyond their time slice in 100 s");
        assert!(budget.has_recent_faults(now) && !budget.has_recent_faults(now + 61 * SECOND));
        assert!(budget.hold_time(now + 61 * SECOND).is_zero());
    }

    #[test]
    fn faults_far_apart_are_not_many() {
        let start = Instant::now();
        let budget = FaultBudget::new(&Config::default(), start);
        assert!(!(0..50).any(|n| budget.charge_fault(8 * MS, &unknown(), start + n * 15 * SECOND)));
    }

    #[test]
    fn nothing_waits_without_a_limit() {
        let now = Instant::now();
        let budget = FaultBudget::new(&Config { faults_cpu_ms_per_sec: 0, ..Config::default() }, now);
        assert!(!(0..50).any(|_| budget.charge_fault(SECOND, &unknown(), now)));
        assert!(!budget.has_recent_faults(now) && budget.hold_time(now).is_zero());
    }

    #[test]
    fn quarantines_are_logged_once_a_minute() {
        let start = Instant::now();
        let budget = FaultBudget::new(&Config::default(), start);
        assert_eq!((0..200).filter(|_| budget.should_log(start)).count(), 1);
        assert_eq!(budget.take_unlogged(start + 59 * SECOND), None);
        assert_eq!(
            (budget.take_unlogged(start + 60 * SECOND), budget.take_unlogged(start + 60 * SECOND)),
            (Some(199), None)
        );
        assert!(!budget.should_log(start + 61 * SECOND), "the sum counts as a line");
    }

    #[test]
    fn strikes_are_counted_per_address() {
        let now = Instant::now();
        let budget = FaultBudget::new(&Config::default(), now);
        let addresses: [AddressBudget; 2] = [Arc::new(Budget::new(1)), Arc::new(Budget::new(1))];
        let requesters =
            [Requester::default(), Requester::default(), Requester::default(), Requester::default()];
        for (requester, address) in
            requesters.iter().zip([Some(&addresses[0]), Some(&addresses[0]), Some(&addresses[1]), None])
        {
            requester.set_address(address);
        }
        let counts = |now| requesters.each_ref().map(|requester| budget.strikes_by(requester, now));
        let _ = (budget.charge_fault(MS, &requesters[0], now), budget.charge_fault(MS, &requesters[1], now));
        assert_eq!(counts(now), [2, 2, 0, 0], "those of one address count together");
        let _ = budget.charge_fault(MS, &unknown(), now);
        assert_eq!(counts(now), [2, 2, 0, 1], "unknown addresses count together");
        requesters[1].set_address(None);
        assert_eq!(
            counts(now + 59 * SECOND),
            [2, 2, 0, 1],
            "a request without an address does not hide the earlier one"
        );
        assert_eq!(counts(now + 60 * SECOND), [0, 0, 0, 0]);
        drop(addresses);
        assert_eq!(counts(now), [0, 0, 0, 1]);
    }
}
