//! How a pair of component and configuration behaves: one that keeps failing, or takes more than its turns
//! while others wait, rests for a while.
//!
//! Law 6 (a guest hurts only itself) stands here, too: what rests costs nobody anything.
//!
//! Must not know: how guests are called, who is waiting for them, or other pairs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::now_secs;
use crate::domain::verdict::Fault;
use crate::plugin::limits::Config;

/// When pairs rest, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct QuarantinePolicy {
    faults_max: usize,
    window: Duration,
    excess_max: Duration,
    initial: Duration,
    max: Duration,
}

impl QuarantinePolicy {
    /// The rules as they are set.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            faults_max: config.rest_faults,
            window: Duration::from_secs(config.rest_window_secs),
            excess_max: Duration::from_millis(config.rest_excess_ms),
            initial: Duration::from_secs(config.rest_secs),
            max: Duration::from_secs(config.rest_max_secs.max(config.rest_secs)),
        }
    }
}

/// A rest.
#[derive(Debug)]
pub struct Quarantine {
    fault: Fault,
    /// What the pair did.
    pub reason: String,
    /// When it began, unix seconds.
    pub since_secs: i64,
    /// When the pair is called again.
    pub until: Instant,
    /// How long it is.
    pub length: Duration,
    /// It is over and one call shows whether it was enough.
    is_probing: bool,
}

/// What one pair did lately, to killmails of one kind. It is handed the time, so that it can be tried without
/// waiting.
#[derive(Debug)]
pub struct FaultHistory {
    policy: QuarantinePolicy,
    faults: VecDeque<Instant>,
    excess: Duration,
    excess_since: Option<Instant>,
    quarantine: Option<Quarantine>,
}

impl FaultHistory {
    /// Nothing is held against it.
    #[must_use]
    pub const fn new(rules: QuarantinePolicy) -> Self {
        Self {
            policy: rules,
            faults: VecDeque::new(),
            excess: Duration::ZERO,
            excess_since: None,
            quarantine: None,
        }
    }

    /// The rest it is in, or that waits only for a call to show whether it was enough.
    #[must_use]
    pub const fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_ref()
    }

    /// Whether it is answered for without a call.
    #[must_use]
    pub fn is_quarantined(&self, now: Instant) -> bool {
        self.quarantine.as_ref().is_some_and(|rest| now < rest.until || rest.is_probing)
    }

    /// The fault to answer with while it rests; `None`: call it.
    pub fn blocking_fault(&mut self, now: Instant) -> Option<Fault> {
        let rest = self.quarantine.as_mut()?;
        if now < rest.until || rest.is_probing {
            return Some(rest.fault);
        }
        rest.is_probing = true;
        None
    }

    /// A call ended in a fault; whether a rest begins with it.
    #[must_use]
    pub fn record_fault(&mut self, fault: Fault, now: Instant) -> bool {
        if self.quarantine.as_ref().is_some_and(|rest| rest.is_probing) {
            self.start_quarantine(fault, format!("after its rest it failed again: {fault}"), now);
            return true;
        }
        if self.policy.faults_max == 0 || self.quarantine.is_some() {
            return false;
        }
        let window = self.policy.window;
        while self.faults.front().is_some_and(|at| now.saturating_duration_since(*at) >= window) {
            self.faults.pop_front();
        }
        self.faults.push_back(now);
        if self.faults.len() < self.policy.faults_max {
            return false;
        }
        let reason = format!("{} faults in {} s, the last: {fault}", self.faults.len(), window.as_secs());
        self.start_quarantine(fault, reason, now);
        true
    }

    /// A call went well.
    pub fn record_success(&mut self) {
        if self.quarantine.as_ref().is_some_and(|rest| rest.is_probing) {
            *self = Self::new(self.policy);
        }
    }

    /// It took so much CPU time beyond its turn while others waited; whether a rest begins with it.
    #[must_use]
    pub fn record_overrun(&mut self, by: Duration, now: Instant) -> bool {
        if self.policy.excess_max.is_zero() || self.quarantine.is_some() {
            return false;
        }
        let begun = *self.excess_since.get_or_insert(now);
        if now.saturating_duration_since(begun) >= self.policy.window {
            (self.excess, self.excess_since) = (Duration::ZERO, Some(now));
        }
        self.excess += by;
        if self.excess < self.policy.excess_max {
            return false;
        }
        let (excess, window) = (self.excess.as_millis(), self.policy.window.as_secs());
        self.start_quarantine(
            Fault::Deadline,
            format!("{excess} ms of CPU time beyond its turns in {window} s while others waited"),
            now,
        );
        true
    }

    /// A call ended in a fault that cost others too much; whether a rest begins with it.
    #[must_use]
    pub fn record_costly_fault(&mut self, fault: Fault, by: Duration, now: Instant) -> bool {
        if self.quarantine.is_some() {
            return false;
        }
        let why = "while pairs of its component that have proved nothing yet keep failing";
        self.start_quarantine(
            fault,
            format!("{fault} after {} ms of CPU time beyond its turn, {why}", by.as_millis()),
            now,
        );
        true
    }

    /// The call that was to show whether the rest was enough showed nothing.
    pub const fn record_inconclusive(&mut self) {
        if let Some(rest) = self.quarantine.as_mut() {
            rest.is_probing = false;
        }
    }

    fn start_quarantine(&mut self, fault: Fault, reason: String, now: Instant) {
        let length = self
            .quarantine
            .as_ref()
            .map_or(self.policy.initial, |before| (before.length * 2).min(self.policy.max));
        self.quarantine = Some(Quarantine {
            fault,
            reason,
            since_secs: now_secs(),
            until: now + length,
            length,
            is_probing: false,
        });
        self.faults.clear();
        (self.excess, self.excess_since) = (Duration::ZERO, None);
    }

    /// Nothing of it is worth keeping any more once nobody uses the pair.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        let window = self.policy.window;
        let recent = |at: &Instant| now.saturating_duration_since(*at) < window;
        match &self.quarantine {
            // A pair that comes back after that starts afresh.
            Some(rest) => now >= rest.until + rest.length,
            None => {
                !self.faults.back().is_some_and(recent) && !self.excess_since.as_ref().is_some_and(recent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conduct() -> FaultHistory {
        FaultHistory::new(QuarantinePolicy::new(&Config::default()))
    }

    fn fail(conduct: &mut FaultHistory, now: Instant) {
        let _ = conduct.record_fault(Fault::Trap, now);
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn five_faults_within_a_minute_are_one_too_many() {
        let (mut conduct, begun) = (conduct(), Instant::now());
        for n in 0..4 {
            assert!(!conduct.record_fault(Fault::Trap, begun + secs(n)));
        }
        assert_eq!(conduct.blocking_fault(begun + secs(4)), None);
        assert!(conduct.record_fault(Fault::Deadline, begun + secs(59)));
        assert_eq!(
            conduct.blocking_fault(begun + secs(59)),
            Some(Fault::Deadline),
            "the last fault is the answer"
        );
        assert_eq!(conduct.quarantine.as_ref().unwrap().reason, "5 faults in 60 s, the last: deadline");
    }

    #[test]
    fn faults_that_are_far_apart_do_not_add_up() {
        let (mut conduct, begun) = (conduct(), Instant::now());
        for n in 0..50 {
            assert!(!conduct.record_fault(Fault::Trap, begun + secs(15 * n)), "fault {n}");
        }
        assert!(conduct.faults.len() <= 5);
    }

    #[test]
    fn a_rest_doubles_up_to_an_hour_until_a_call_goes_well() {
        let (mut conduct, mut now) = (conduct(), Instant::now());
        (0..5).for_each(|_| fail(&mut conduct, now));
        for length in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(conduct.blocking_fault(now + secs(length - 1)), Some(Fault::Trap), "{length}");
            now += secs(length);
            assert_eq!(conduct.blocking_fault(now), None, "one call tries it after {length} s");
            assert_eq!(conduct.blocking_fault(now), Some(Fault::Trap), "and only one");
            assert!(conduct.record_fault(Fault::Trap, now));
        }
        now += secs(3600);
        assert_eq!(conduct.blocking_fault(now), None);
        conduct.record_success();
        assert_eq!((conduct.blocking_fault(now), conduct.blocking_fault(now)), (None, None));
        (0..5).for_each(|_| fail(&mut conduct, now));
        assert_eq!(conduct.blocking_fault(now + secs(29)), Some(Fault::Trap));
        assert_eq!(conduct.blocking_fault(now + secs(30)), None, "it begins with the shortest again");
    }

    #[test]
    fn what_is_taken_from_others_counts_within_the_window() {
        let (mut conduct, begun) = (conduct(), Instant::now());
        assert!(!conduct.record_overrun(secs(4), begun));
        assert!(!conduct.record_overrun(secs(4), begun + secs(60)), "another window");
        assert!(conduct.record_overrun(secs(1), begun + secs(61)));
        assert_eq!(conduct.blocking_fault(begun + secs(62)), Some(Fault::Deadline));
    }

    #[test]
    fn one_fault_is_enough_where_a_component_keeps_failing() {
        let (mut conduct, now) = (conduct(), Instant::now());
        assert!(conduct.record_costly_fault(Fault::Deadline, secs(1), now));
        assert!(!conduct.record_costly_fault(Fault::Deadline, secs(1), now), "it rests already");
        assert_eq!(conduct.blocking_fault(now + secs(29)), Some(Fault::Deadline));
        assert!(conduct.is_quarantined(now + secs(29)) && !conduct.is_quarantined(now + secs(30)));
        assert_eq!(conduct.blocking_fault(now + secs(30)), None);
    }

    #[test]
    fn none_rests_where_the_rules_say_so() {
        let mut conduct = FaultHistory::new(QuarantinePolicy::new(&Config {
            rest_faults: 0,
            rest_excess_ms: 0,
            ..Config::default()
        }));
        let now = Instant::now();
        assert!(
            !(0..100).any(|_| conduct.record_fault(Fault::Trap, now) || conduct.record_overrun(secs(9), now))
        );
        assert!(conduct.faults.is_empty());
    }
}
