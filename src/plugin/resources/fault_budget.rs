//! The fault budget of a component: what calls that end in a fault may cost all its pairs together. A pair
//! that has not yet shown that it works, or lately showed that it does not, is called only as often as that
//! allows: two hundred configurations of a guest that loops take no more of the judging threads than one
//! does. Such faults are counted for each address, too, so that those of one do not keep another's pairs from
//! their first calls.
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

/// Pairs of one component that begin to rest are told of one by one no more often than this; the others are
/// counted.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The address that asked for a pair last, told by the memory it may have. An address that asks while another
/// uses the pair is not told of; the one before then stands.
#[derive(Debug, Default)]
pub struct Requester(Mutex<Option<Weak<Budget>>>);

impl Requester {
    /// This address asks for it.
    pub fn set_address(&self, payer: Option<&AddressBudget>) {
        if let Some(payer) = payer {
            *self.0.lock() = Some(Arc::downgrade(payer));
        }
    }

    /// Tells addresses apart; all that are not known count as one.
    fn key(&self) -> usize {
        self.0.lock().as_ref().map_or(0, |payer| payer.as_ptr().addr())
    }
}

/// What faults may cost the pairs of one component together, for killmails of one kind.
#[derive(Debug)]
pub struct FaultBudget {
    created_at: Instant,
    window: Duration,
    faults_max: usize,
    /// Until when pairs without proof wait, nanoseconds from `born`.
    held_until: AtomicU64,
    /// Until when there is reason to look at pairs one by one.
    faulty_until: AtomicU64,
    spending: Mutex<FaultSpending>,
    strikes: Mutex<HashMap<usize, Strikes>>,
}

/// Costly faults of the pairs one address asked for.
#[derive(Debug)]
struct Strikes {
    /// Held, so that no other address is given the same key.
    address: Option<Weak<Budget>>,
    count: u32,
    last: Instant,
}

#[derive(Debug)]
struct FaultSpending {
    /// `None`: it may cost anything.
    bucket: Option<TokenBucket>,
    faults: VecDeque<Instant>,
    last_logged: Option<Instant>,
    unlogged: u64,
}

impl FaultBudget {
    /// Nothing was spent yet.
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

    /// Whether calls that ended in a fault cost something lately.
    #[must_use]
    pub fn has_recent_faults(&self, now: Instant) -> bool {
        self.nanos_since_created(now) < self.faulty_until.load(Ordering::Relaxed)
    }

    /// How long pairs without proof have to wait.
    #[must_use]
    pub fn hold_time(&self, now: Instant) -> Duration {
        Duration::from_nanos(
            self.held_until.load(Ordering::Relaxed).saturating_sub(self.nanos_since_created(now)),
        )
    }

    /// How many costly faults the pairs had lately that this address asked for: one that has fewer comes
    /// first.
    #[must_use]
    pub fn strikes_by(&self, asker: &Requester, now: Instant) -> u32 {
        let key = asker.key();
        let by_asker = self.strikes.lock();
        by_asker
            .get(&key)
            .filter(|strikes| strikes.is_recent(self.window, now))
            .map_or(0, |strikes| strikes.count)
    }

    /// A call that ended in a fault took so much CPU time beyond its turn. Whether there were so many of them
    /// that a pair without proof rests after its first.
    #[must_use]
    pub fn charge_fault(&self, by: Duration, asker: &Requester, now: Instant) -> bool {
        self.count_strike(asker, now);
        let mut spent = self.spending.lock();
        let FaultSpending { bucket: Some(bucket), faults, .. } = &mut *spent else { return false };
        // What came back since the last time is counted first.
        bucket.time_until_available(now);
        bucket.spend(by);
        let wait = bucket.time_until_available(now);
        while faults.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.window) {
            faults.pop_front();
        }
        let many = self.faults_max > 0 && faults.len() >= self.faults_max;
        if faults.len() >= self.faults_max {
            faults.pop_front();
        }
        faults.push_back(now);
        self.held_until.store(self.nanos_since_created(now + wait), Ordering::Relaxed);
        self.faulty_until.store(self.nanos_since_created(now + wait.max(self.window)), Ordering::Relaxed);
        many
    }

    fn count_strike(&self, asker: &Requester, now: Instant) {
        let payer = asker.0.lock().clone();
        let key = payer.as_ref().map_or(0, |payer| payer.as_ptr().addr());
        let mut by_asker = self.strikes.lock();
        by_asker.retain(|_, strikes| strikes.is_recent(self.window, now));
        let strikes = by_asker.entry(key).or_insert(Strikes { address: payer, count: 0, last: now });
        (strikes.count, strikes.last) = (strikes.count.saturating_add(1), now);
    }

    /// A pair begins to rest: whether that is told of, or only counted.
    #[must_use]
    pub fn should_log(&self, now: Instant) -> bool {
        let mut spent = self.spending.lock();
        let tells = spent.last_logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if tells {
            spent.last_logged = Some(now);
        } else {
            spent.unlogged += 1;
        }
        tells
    }

    /// How many began to rest without being told of, once a minute is over.
    #[must_use]
    pub fn take_unlogged(&self, now: Instant) -> Option<u64> {
        let mut spent = self.spending.lock();
        let is_due = spent.unlogged > 0
            && spent.last_logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_INTERVAL);
        if !is_due {
            return None;
        }
        spent.last_logged = Some(now);
        Some(std::mem::take(&mut spent.unlogged))
    }

    /// Whether nothing of it is worth keeping.
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
    /// Whether they still count: not once the address is gone, or did nothing of the kind for so long.
    fn is_recent(&self, window: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < window
            && self.address.as_ref().is_none_or(|payer| payer.strong_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Requester {
        Requester::default()
    }

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_faults_cost_together_is_a_hundredth_of_a_thread() {
        let begun = Instant::now();
        let budget = FaultBudget::new(&Config::default(), begun);
        let (mut now, mut calls) = (begun, 0);
        while now < begun + 100 * SECOND {
            assert_eq!(
                budget.charge_fault(8 * MS, &nobody(), now),
                calls >= 5,
                "the sixth is one too many: {calls}"
            );
            calls += 1;
            now += 10 * MS + budget.hold_time(now);
        }
        assert!((115..=130).contains(&calls), "{calls} calls of 8 ms beyond their turn in 100 s");
        assert!(budget.has_recent_faults(now) && !budget.has_recent_faults(now + 61 * SECOND));
        assert!(budget.hold_time(now + 61 * SECOND).is_zero());
    }

    #[test]
    fn faults_far_apart_are_not_many() {
        let begun = Instant::now();
        let budget = FaultBudget::new(&Config::default(), begun);
        assert!(!(0..50).any(|n| budget.charge_fault(8 * MS, &nobody(), begun + n * 15 * SECOND)));
    }

    #[test]
    fn nobody_waits_where_it_may_cost_anything() {
        let now = Instant::now();
        let budget = FaultBudget::new(&Config { faults_cpu_ms_per_sec: 0, ..Config::default() }, now);
        assert!(!(0..50).any(|_| budget.charge_fault(SECOND, &nobody(), now)));
        assert!(!budget.has_recent_faults(now) && budget.hold_time(now).is_zero());
    }

    #[test]
    fn pairs_that_begin_to_rest_are_told_of_once_a_minute() {
        let begun = Instant::now();
        let budget = FaultBudget::new(&Config::default(), begun);
        assert_eq!((0..200).filter(|_| budget.should_log(begun)).count(), 1);
        assert_eq!(budget.take_unlogged(begun + 59 * SECOND), None);
        assert_eq!(
            (budget.take_unlogged(begun + 60 * SECOND), budget.take_unlogged(begun + 60 * SECOND)),
            (Some(199), None)
        );
        assert!(!budget.should_log(begun + 61 * SECOND), "the sum was a line, too");
    }

    #[test]
    fn strikes_are_counted_for_each_address() {
        let now = Instant::now();
        let budget = FaultBudget::new(&Config::default(), now);
        let payers: [AddressBudget; 2] = [Arc::new(Budget::new(1)), Arc::new(Budget::new(1))];
        let askers = [Requester::default(), Requester::default(), Requester::default(), Requester::default()];
        for (asker, payer) in askers.iter().zip([Some(&payers[0]), Some(&payers[0]), Some(&payers[1]), None])
        {
            asker.set_address(payer);
        }
        let counts = |now| askers.each_ref().map(|asker| budget.strikes_by(asker, now));
        let _ = (budget.charge_fault(MS, &askers[0], now), budget.charge_fault(MS, &askers[1], now));
        assert_eq!(counts(now), [2, 2, 0, 0], "those of one address are counted together");
        let _ = budget.charge_fault(MS, &nobody(), now);
        assert_eq!(counts(now), [2, 2, 0, 1], "those of no known address are one more");
        askers[1].set_address(None);
        assert_eq!(counts(now + 59 * SECOND), [2, 2, 0, 1], "who joins does not hide who asked");
        assert_eq!(counts(now + 60 * SECOND), [0, 0, 0, 0]);
        drop(payers);
        assert_eq!(counts(now), [0, 0, 0, 1]);
    }
}
