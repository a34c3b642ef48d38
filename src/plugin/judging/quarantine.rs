//! Quarantine: a pair of component and configuration that keeps failing, or exceeds its time slices while
//! others wait, is not called for a while. Settings, metrics and the API say that such a pair *rests*.
//!
//! The length doubles each time, as with a backoff. Law 6 (a guest hurts only itself) is enforced here too: a
//! pair in quarantine costs nothing.
//!
//! Must not know: how guests are called, who waits for them, or other pairs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::clock::now_secs;
use crate::domain::verdict::Fault;
use crate::plugin::limits::Config;

/// When pairs go into quarantine, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct QuarantinePolicy {
    faults_max: usize,
    window: Duration,
    excess_max: Duration,
    initial: Duration,
    max: Duration,
}

impl QuarantinePolicy {
    /// The policy from the settings.
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

#[derive(Debug)]
pub struct Quarantine {
    fault: Fault,
    /// What the pair did.
    pub reason: String,
    /// When it began, unix seconds.
    pub since_secs: i64,
    /// When the pair may be called again.
    pub until: Instant,
    pub length: Duration,
    /// It is over, and one call is showing whether the pair works again.
    is_probing: bool,
}

/// Recent faults and overruns of one pair, for one kind of killmails. The time is passed in, so that tests
/// need not wait.
#[derive(Debug)]
pub struct FaultHistory {
    policy: QuarantinePolicy,
    faults: VecDeque<Instant>,
    excess: Duration,
    excess_since: Option<Instant>,
    quarantine: Option<Quarantine>,
}

impl FaultHistory {
    /// An empty history.
    #[must_use]
    pub const fn new(policy: QuarantinePolicy) -> Self {
        Self { policy, faults: VecDeque::new(), excess: Duration::ZERO, excess_since: None, quarantine: None }
    }

    /// The current quarantine, or one that is over and waits for a call to show whether the pair works again.
    #[must_use]
    pub const fn quarantine(&self) -> Option<&Quarantine> {
        self.quarantine.as_ref()
    }

    /// Whether the pair gets a fault without a call.
    #[must_use]
    pub fn is_quarantined(&self, now: Instant) -> bool {
        self.quarantine.as_ref().is_some_and(|quarantine| now < quarantine.until || quarantine.is_probing)
    }

    /// The fault to return instead of calling the pair. `None`: call it and record the result.
    pub fn blocking_fault(&mut self, now: Instant) -> Option<Fault> {
        let quarantine = self.quarantine.as_mut()?;
        if now < quarantine.until || quarantine.is_probing {
            return Some(quarantine.fault);
        }
        quarantine.is_probing = true;
        None
    }

    /// Records a call that ended in a fault. Returns whether a quarantine begins.
    #[must_use]
    pub fn record_fault(&mut self, fault: Fault, now: Instant) -> bool {
        if self.quarantine.as_ref().is_some_and(|quarantine| quarantine.is_probing) {
            self.start_quarantine(fault, format!("failed again after its quarantine: {fault}"), now);
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

    /// Records a successful call.
    pub fn record_success(&mut self) {
        if self.quarantine.as_ref().is_some_and(|quarantine| quarantine.is_probing) {
            *self = Self::new(self.policy);
        }
    }

    /// Records CPU time beyond the time slice while others waited. Returns whether a quarantine begins.
    #[must_use]
    pub fn record_overrun(&mut self, by: Duration, now: Instant) -> bool {
        if self.policy.excess_max.is_zero() || self.quarantine.is_some() {
            return false;
        }
        let start = *self.excess_since.get_or_insert(now);
        if now.saturating_duration_since(start) >= self.policy.window {
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

    /// Records a fault of an unproven pair whose component exceeded its fault budget. Returns whether a
    /// quarantine begins.
    #[must_use]
    pub fn record_costly_fault(&mut self, fault: Fault, by: Duration, now: Instant) -> bool {
        if self.quarantine.is_some() {
            return false;
        }
        let why = "while unproven pairs of its component keep failing";
        self.start_quarantine(
            fault,
            format!("{fault} after {} ms of CPU time beyond its turn, {why}", by.as_millis()),
            now,
        );
        true
    }

    /// Records that the call after a quarantine did not show whether the pair works again.
    pub const fn record_inconclusive(&mut self) {
        if let Some(quarantine) = self.quarantine.as_mut() {
            quarantine.is_probing = false;
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

    /// Whether nothing in it is worth keeping once nobody uses the pair.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        let window = self.policy.window;
        let recent = |at: &Instant| now.saturating_duration_since(*at) < window;
        match &self.quarantine {
            // A pair that comes back later starts with an empty history.
            Some(quarantine) => now >= quarantine.until + quarantine.length,
            None => {
                !self.faults.back().is_some_and(recent) && !self.excess_since.as_ref().is_some_and(recent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> FaultHistory {
        FaultHistory::new(QuarantinePolicy::new(&Config::default()))
    }

    fn fail(history: &mut FaultHistory, now: Instant) {
        let _ = history.record_fault(Fault::Trap, now);
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn five_faults_within_a_minute_start_a_quarantine() {
        let (mut history, start) = (history(), Instant::now());
        for n in 0..4 {
            assert!(!history.record_fault(Fault::Trap, start + secs(n)));
        }
        assert_eq!(history.blocking_fault(start + secs(4)), None);
        assert!(history.record_fault(Fault::Deadline, start + secs(59)));
        assert_eq!(
            history.blocking_fault(start + secs(59)),
            Some(Fault::Deadline),
            "the last fault is returned"
        );
        assert_eq!(history.quarantine.as_ref().unwrap().reason, "5 faults in 60 s, the last: deadline");
    }

    #[test]
    fn faults_far_apart_do_not_add_up() {
        let (mut history, start) = (history(), Instant::now());
        for n in 0..50 {
            assert!(!history.record_fault(Fault::Trap, start + secs(15 * n)), "fault {n}");
        }
        assert!(history.faults.len() <= 5);
    }

    #[test]
    fn a_quarantine_doubles_up_to_an_hour_until_a_call_succeeds() {
        let (mut history, mut now) = (history(), Instant::now());
        (0..5).for_each(|_| fail(&mut history, now));
        for length in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(history.blocking_fault(now + secs(length - 1)), Some(Fault::Trap), "{length}");
            now += secs(length);
            assert_eq!(history.blocking_fault(now), None, "one call is made after {length} s");
            assert_eq!(history.blocking_fault(now), Some(Fault::Trap), "and only one");
            assert!(history.record_fault(Fault::Trap, now));
        }
        now += secs(3600);
        assert_eq!(history.blocking_fault(now), None);
        history.record_success();
        assert_eq!((history.blocking_fault(now), history.blocking_fault(now)), (None, None));
        (0..5).for_each(|_| fail(&mut history, now));
        assert_eq!(history.blocking_fault(now + secs(29)), Some(Fault::Trap));
        assert_eq!(history.blocking_fault(now + secs(30)), None, "it starts with the shortest again");
    }

    #[test]
    fn overruns_count_within_the_window() {
        let (mut history, start) = (history(), Instant::now());
        assert!(!history.record_overrun(secs(4), start));
        assert!(!history.record_overrun(secs(4), start + secs(60)), "another window");
        assert!(history.record_overrun(secs(1), start + secs(61)));
        assert_eq!(history.blocking_fault(start + secs(62)), Some(Fault::Deadline));
    }

    #[test]
    fn one_fault_is_enough_if_the_component_keeps_failing() {
        let (mut history, now) = (history(), Instant::now());
        assert!(history.record_costly_fault(Fault::Deadline, secs(1), now));
        assert!(!history.record_costly_fault(Fault::Deadline, secs(1), now), "it is in quarantine already");
        assert_eq!(history.blocking_fault(now + secs(29)), Some(Fault::Deadline));
        assert!(history.is_quarantined(now + secs(29)) && !history.is_quarantined(now + secs(30)));
        assert_eq!(history.blocking_fault(now + secs(30)), None);
    }

    #[test]
    fn nothing_is_quarantined_without_limits() {
        let mut history = FaultHistory::new(QuarantinePolicy::new(&Config {
            rest_faults: 0,
            rest_excess_ms: 0,
            ..Config::default()
        }));
        let now = Instant::now();
        assert!(
            !(0..100).any(|_| history.record_fault(Fault::Trap, now) || history.record_overrun(secs(9), now))
        );
        assert!(history.faults.is_empty());
    }
}
