//! What calls that end in a fault may cost all pairs of one component together. A pair that has not yet shown that it works, or lately
//! showed that it does not, is called only as often as that allows: two hundred configurations of a guest that loops take no more of the
//! judging threads than one does.
//!
//! Must not know: what a call is, or which pairs there are.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::plugin::limits::Config;
use crate::plugin::steady::Steady;

/// Pairs of one component that begin to rest are told of one by one no more often than this; the others are counted.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What the pairs of one component have in common, for killmails of one kind.
#[derive(Debug)]
pub struct Share {
    born: Instant,
    window: Duration,
    faults_max: usize,
    /// Until when pairs without proof wait, nanoseconds from `born`.
    held_until: AtomicU64,
    /// Until when there is reason to look at pairs one by one.
    suspected_until: AtomicU64,
    spent: Mutex<Spent>,
}

#[derive(Debug)]
struct Spent {
    /// `None`: it may cost anything.
    budget: Option<Steady>,
    faults: VecDeque<Instant>,
    told: Option<Instant>,
    untold: u64,
}

impl Share {
    /// Nothing was spent yet.
    #[must_use]
    pub fn new(config: &Config, now: Instant) -> Self {
        let per_sec = Duration::from_millis(config.faults_cpu_ms_per_sec);
        let budget = (!per_sec.is_zero()).then(|| Steady::new(per_sec, now));
        Self {
            born: now,
            window: Duration::from_secs(config.rest_window_secs),
            faults_max: config.rest_faults,
            held_until: AtomicU64::new(0),
            suspected_until: AtomicU64::new(0),
            spent: Mutex::new(Spent { budget, faults: VecDeque::new(), told: None, untold: 0 }),
        }
    }

    /// Whether calls that ended in a fault cost something lately.
    #[must_use]
    pub fn is_suspected(&self, now: Instant) -> bool {
        self.since_born(now) < self.suspected_until.load(Ordering::Relaxed)
    }

    /// How long pairs without proof have to wait.
    #[must_use]
    pub fn held(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.held_until.load(Ordering::Relaxed).saturating_sub(self.since_born(now)))
    }

    /// A call that ended in a fault took so much CPU time beyond its turn. Whether there were so many of them that a pair without proof
    /// rests after its first.
    #[must_use]
    pub fn wasted(&self, by: Duration, now: Instant) -> bool {
        let mut spent = self.spent.lock();
        let Spent { budget: Some(budget), faults, .. } = &mut *spent else { return false };
        // What came back since the last time is counted first.
        budget.wait(now);
        budget.spend(by);
        let wait = budget.wait(now);
        while faults.front().is_some_and(|at| now.saturating_duration_since(*at) >= self.window) {
            faults.pop_front();
        }
        let many = self.faults_max > 0 && faults.len() >= self.faults_max;
        if faults.len() >= self.faults_max {
            faults.pop_front();
        }
        faults.push_back(now);
        self.held_until.store(self.since_born(now + wait), Ordering::Relaxed);
        self.suspected_until.store(self.since_born(now + wait.max(self.window)), Ordering::Relaxed);
        many
    }

    /// A pair begins to rest: whether that is told of, or only counted.
    #[must_use]
    pub fn tells(&self, now: Instant) -> bool {
        let mut spent = self.spent.lock();
        let tells = spent.told.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY);
        if tells {
            spent.told = Some(now);
        } else {
            spent.untold += 1;
        }
        tells
    }

    /// How many began to rest without being told of, once a minute is over.
    #[must_use]
    pub fn untold(&self, now: Instant) -> Option<u64> {
        let mut spent = self.spent.lock();
        let is_due = spent.untold > 0 && spent.told.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY);
        if !is_due {
            return None;
        }
        spent.told = Some(now);
        Some(std::mem::take(&mut spent.untold))
    }

    /// Whether nothing of it is worth keeping.
    #[must_use]
    pub fn is_forgiven(&self, now: Instant) -> bool {
        !self.is_suspected(now) && self.spent.lock().told.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY)
    }

    fn since_born(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_faults_cost_together_is_a_hundredth_of_a_thread() {
        let begun = Instant::now();
        let share = Share::new(&Config::default(), begun);
        let (mut now, mut calls) = (begun, 0);
        while now < begun + 100 * SECOND {
            assert_eq!(share.wasted(8 * MS, now), calls >= 5, "the sixth is one too many: {calls}");
            calls += 1;
            now += 10 * MS + share.held(now);
        }
        assert!((115..=130).contains(&calls), "{calls} calls of 8 ms beyond their turn in 100 s");
        assert!(share.is_suspected(now) && !share.is_suspected(now + 61 * SECOND));
        assert!(share.held(now + 61 * SECOND).is_zero());
    }

    #[test]
    fn faults_far_apart_are_not_many() {
        let begun = Instant::now();
        let share = Share::new(&Config::default(), begun);
        assert!(!(0..50).any(|n| share.wasted(8 * MS, begun + n * 15 * SECOND)));
    }

    #[test]
    fn nobody_waits_where_it_may_cost_anything() {
        let now = Instant::now();
        let share = Share::new(&Config { faults_cpu_ms_per_sec: 0, ..Config::default() }, now);
        assert!(!(0..50).any(|_| share.wasted(SECOND, now)));
        assert!(!share.is_suspected(now) && share.held(now).is_zero());
    }

    #[test]
    fn pairs_that_begin_to_rest_are_told_of_once_a_minute() {
        let begun = Instant::now();
        let share = Share::new(&Config::default(), begun);
        assert_eq!((0..200).filter(|_| share.tells(begun)).count(), 1);
        assert_eq!(share.untold(begun + 59 * SECOND), None);
        assert_eq!((share.untold(begun + 60 * SECOND), share.untold(begun + 60 * SECOND)), (Some(199), None));
        assert!(!share.tells(begun + 61 * SECOND), "the sum was a line, too");
    }
}
