//! How a pair of component and configuration behaves: one that keeps failing, or takes more than its turns while others wait, rests for
//! a while. What it did is kept apart from its evaluators, which come and go, and what it did to live killmails from what it did to others.
//!
//! Law 6 (a guest hurts only itself) stands here, too: what rests costs nobody anything.
//!
//! Must not know: how guests are called, or who is waiting for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::now_secs;
use crate::domain::verdict::Fault;
use crate::plugin::evaluator::Run;
use crate::plugin::limits::Config;

/// When pairs rest, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    faults_max: usize,
    window: Duration,
    excess_max: Duration,
    first: Duration,
    longest: Duration,
}

impl Rules {
    /// The rules as they are set.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            faults_max: config.rest_faults,
            window: Duration::from_secs(config.rest_window_secs),
            excess_max: Duration::from_millis(config.rest_excess_ms),
            first: Duration::from_secs(config.rest_secs),
            longest: Duration::from_secs(config.rest_max_secs.max(config.rest_secs)),
        }
    }
}

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

#[derive(Debug)]
struct Rest {
    fault: Fault,
    reason: String,
    since_secs: i64,
    until: Instant,
    length: Duration,
    /// The rest is over and one call shows whether it was enough.
    trying: bool,
}

/// What one pair did lately, to killmails of one kind. It is handed the time, so that it can be tried without waiting.
#[derive(Debug)]
struct Conduct {
    rules: Rules,
    faults: VecDeque<Instant>,
    excess: Duration,
    excess_since: Option<Instant>,
    rest: Option<Rest>,
}

impl Conduct {
    const fn new(rules: Rules) -> Self {
        Self { rules, faults: VecDeque::new(), excess: Duration::ZERO, excess_since: None, rest: None }
    }

    /// The fault to answer with while it rests; `None`: call it.
    fn rests(&mut self, now: Instant) -> Option<Fault> {
        let rest = self.rest.as_mut()?;
        if now < rest.until || rest.trying {
            return Some(rest.fault);
        }
        rest.trying = true;
        None
    }

    /// A call ended in a fault; whether a rest begins with it.
    fn faulted(&mut self, fault: Fault, now: Instant) -> bool {
        if self.rest.as_ref().is_some_and(|rest| rest.trying) {
            self.rest(fault, format!("after its rest it failed again: {fault}"), now);
            return true;
        }
        if self.rules.faults_max == 0 || self.rest.is_some() {
            return false;
        }
        let window = self.rules.window;
        while self.faults.front().is_some_and(|at| now.saturating_duration_since(*at) >= window) {
            self.faults.pop_front();
        }
        self.faults.push_back(now);
        if self.faults.len() < self.rules.faults_max {
            return false;
        }
        let reason = format!("{} faults in {} s, the last: {fault}", self.faults.len(), window.as_secs());
        self.rest(fault, reason, now);
        true
    }

    /// A call went well.
    fn succeeded(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.trying) {
            *self = Self::new(self.rules);
        }
    }

    /// It took so much CPU time beyond its turn while others waited; whether a rest begins with it.
    fn overran(&mut self, by: Duration, now: Instant) -> bool {
        if self.rules.excess_max.is_zero() || self.rest.is_some() {
            return false;
        }
        let begun = *self.excess_since.get_or_insert(now);
        if now.saturating_duration_since(begun) >= self.rules.window {
            (self.excess, self.excess_since) = (Duration::ZERO, Some(now));
        }
        self.excess += by;
        if self.excess < self.rules.excess_max {
            return false;
        }
        let (excess, window) = (self.excess.as_millis(), self.rules.window.as_secs());
        self.rest(Fault::Deadline, format!("{excess} ms of CPU time beyond its turns in {window} s while others waited"), now);
        true
    }

    fn rest(&mut self, fault: Fault, reason: String, now: Instant) {
        let length = self.rest.as_ref().map_or(self.rules.first, |before| (before.length * 2).min(self.rules.longest));
        self.rest = Some(Rest { fault, reason, since_secs: now_secs(), until: now + length, length, trying: false });
        self.faults.clear();
        (self.excess, self.excess_since) = (Duration::ZERO, None);
    }

    /// Nothing of it is worth keeping any more once nobody uses the pair.
    fn is_forgiven(&self, now: Instant) -> bool {
        let window = self.rules.window;
        let recent = |at: &Instant| now.saturating_duration_since(*at) < window;
        match &self.rest {
            // A pair that comes back after that starts afresh.
            Some(rest) => now >= rest.until + rest.length,
            None => !self.faults.back().is_some_and(recent) && !self.excess_since.as_ref().is_some_and(recent),
        }
    }
}

/// What is known of one pair's calls of one kind. Shared by all evaluators of the pair, over their lives.
#[derive(Debug)]
pub struct Record {
    digest: Arc<str>,
    config_digest: Arc<str>,
    is_live: bool,
    /// Whether there is a rest, so that who behaves never asks a clock.
    rests: AtomicBool,
    conduct: Mutex<Conduct>,
}

impl Record {
    fn new(rules: Rules, digest: &Arc<str>, config_digest: &Arc<str>, is_live: bool) -> Self {
        let (digest, config_digest) = (Arc::clone(digest), Arc::clone(config_digest));
        Self { digest, config_digest, is_live, rests: AtomicBool::new(false), conduct: Mutex::new(Conduct::new(rules)) }
    }

    /// The fault to answer with instead of a call, while the pair rests. `None`: call it, and say how it went.
    pub fn rests(&self) -> Option<Fault> {
        if !self.rests.load(Ordering::Relaxed) {
            return None;
        }
        self.conduct.lock().rests(Instant::now())
    }

    /// A call was made.
    pub fn called(&self, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.note(|conduct, now| conduct.faulted(fault, now)),
            None if self.rests.load(Ordering::Relaxed) => {
                let mut conduct = self.conduct.lock();
                conduct.succeeded();
                self.rests.store(conduct.rest.is_some(), Ordering::Relaxed);
            }
            None => {}
        }
    }

    /// A call was made and showed nothing: what ended it was no doing of the pair's.
    pub fn undecided(&self) {
        if let Some(rest) = self.conduct.lock().rest.as_mut() {
            rest.trying = false;
        }
    }

    /// It took so much CPU time beyond its turn while others waited.
    pub fn overran(&self, by: Duration) {
        self.note(|conduct, now| conduct.overran(by, now));
    }

    fn note(&self, what: impl FnOnce(&mut Conduct, Instant) -> bool) {
        let mut conduct = self.conduct.lock();
        if !what(&mut conduct, Instant::now()) {
            return;
        }
        self.rests.store(true, Ordering::Relaxed);
        let Some((reason, length)) = conduct.rest.as_ref().map(|rest| (self.words(rest), rest.length.as_secs())) else { return };
        drop(conduct);
        tracing::warn!(
            plugin.digest = &*self.digest,
            plugin.config_digest = &*self.config_digest,
            "the plugin {} with the configuration {} rests for {length} s: {reason}",
            self.digest,
            self.config_digest
        );
    }

    fn words(&self, rest: &Rest) -> String {
        if self.is_live { rest.reason.clone() } else { format!("for killmails of the past only: {}", rest.reason) }
    }

    /// The rest it is in at this time; one that is over waits only for a call to show whether it was enough.
    fn told(&self, now: Instant) -> Option<Resting> {
        if !self.rests.load(Ordering::Relaxed) {
            return None;
        }
        let conduct = self.conduct.lock();
        let rest = conduct.rest.as_ref().filter(|rest| now < rest.until)?;
        let length = i64::try_from(rest.length.as_secs()).unwrap_or(i64::MAX);
        Some(Resting {
            config_digest: self.config_digest.to_string(),
            reason: self.words(rest),
            since: rest.since_secs,
            until: rest.since_secs.saturating_add(length),
        })
    }
}

/// What is known of one pair. Anybody may ask for history, with killmails of his choice: what a pair does there must not take it from
/// those who follow live killmails.
#[derive(Debug)]
pub struct PairRecord {
    live: Record,
    past: Record,
}

impl PairRecord {
    fn new(rules: Rules, digest: &Arc<str>, config_digest: &str) -> Self {
        let config_digest: Arc<str> = config_digest.into();
        let record = |is_live| Record::new(rules, digest, &config_digest, is_live);
        Self { live: record(true), past: record(false) }
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

    fn is_forgiven(&self, now: Instant) -> bool {
        self.both().into_iter().all(|record| record.conduct.lock().is_forgiven(now))
    }

    /// When the last of its rests ends.
    fn ends(&self) -> Option<Instant> {
        self.both().into_iter().filter_map(|record| record.conduct.lock().rest.as_ref().map(|rest| rest.until)).max()
    }
}

/// Digests of a component and of a configuration.
type Pair = (Arc<str>, String);

/// The records of all pairs that are in use, or did wrong lately.
#[derive(Debug)]
pub struct PairRecords {
    rules: Rules,
    max: usize,
    pairs: Mutex<HashMap<Pair, Arc<PairRecord>>>,
}

impl PairRecords {
    /// None yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        // As many again as may be in use, so that a pair does not escape its rest by leaving.
        Self { rules: Rules::new(config), max: config.evaluators_max.saturating_mul(2).max(1), pairs: Mutex::default() }
    }

    /// That of this pair.
    #[must_use]
    pub fn of(&self, digest: &Arc<str>, config_digest: &str) -> Arc<PairRecord> {
        let mut pairs = self.pairs.lock();
        if pairs.len() >= self.max {
            let now = Instant::now();
            pairs.retain(|_, record| Arc::strong_count(record) > 1 || !record.is_forgiven(now));
        }
        if pairs.len() >= self.max {
            let unused = pairs.iter().filter(|(_, record)| Arc::strong_count(record) == 1);
            let soonest = unused.min_by_key(|(_, record)| record.ends()).map(|(pair, _)| pair.clone());
            soonest.and_then(|pair| pairs.remove(&pair));
        }
        let made = || Arc::new(PairRecord::new(self.rules, digest, config_digest));
        Arc::clone(pairs.entry((Arc::clone(digest), config_digest.to_owned())).or_insert_with(made))
    }

    /// Lets go of what nobody uses and nothing is held against.
    pub fn tidy(&self) {
        let now = Instant::now();
        self.pairs.lock().retain(|_, record| Arc::strong_count(record) > 1 || !record.is_forgiven(now));
    }

    /// The pairs of a component that rest, those first that are called again first.
    #[must_use]
    pub fn resting(&self, digest: &str) -> Vec<Resting> {
        let (now, pairs) = (Instant::now(), self.pairs.lock());
        let theirs = pairs.iter().filter(|((component, _), _)| &**component == digest);
        let mut resting: Vec<Resting> = theirs.flat_map(|(_, pair)| pair.both()).filter_map(|record| record.told(now)).collect();
        drop(pairs);
        resting.sort_by(|a, b| (a.until, &a.config_digest).cmp(&(b.until, &b.config_digest)));
        resting
    }

    /// How many pairs rest.
    #[must_use]
    pub fn count(&self) -> usize {
        let now = Instant::now();
        let rests = |pair: &PairRecord| pair.both().into_iter().any(|record| record.told(now).is_some());
        self.pairs.lock().values().filter(|pair| rests(pair)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Seq;

    fn conduct() -> Conduct {
        Conduct::new(Rules::new(&Config::default()))
    }

    fn fail(conduct: &mut Conduct, now: Instant) {
        conduct.faulted(Fault::Trap, now);
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn five_faults_within_a_minute_are_one_too_many() {
        let (mut conduct, begun) = (conduct(), Instant::now());
        for n in 0..4 {
            assert!(!conduct.faulted(Fault::Trap, begun + secs(n)));
        }
        assert_eq!(conduct.rests(begun + secs(4)), None);
        assert!(conduct.faulted(Fault::Deadline, begun + secs(59)));
        assert_eq!(conduct.rests(begun + secs(59)), Some(Fault::Deadline), "the last fault is the answer");
        assert_eq!(conduct.rest.as_ref().unwrap().reason, "5 faults in 60 s, the last: deadline");
    }

    #[test]
    fn faults_that_are_far_apart_do_not_add_up() {
        let (mut conduct, begun) = (conduct(), Instant::now());
        for n in 0..50 {
            assert!(!conduct.faulted(Fault::Trap, begun + secs(15 * n)), "fault {n}");
        }
        assert!(conduct.faults.len() <= 5);
    }

    #[test]
    fn a_rest_doubles_up_to_an_hour_until_a_call_goes_well() {
        let (mut conduct, mut now) = (conduct(), Instant::now());
        (0..5).for_each(|_| fail(&mut conduct, now));
        for length in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(conduct.rests(now + secs(length - 1)), Some(Fault::Trap), "{length}");
            now += secs(length);
            assert_eq!(conduct.rests(now), None, "one call tries it after {length} s");
            assert_eq!(conduct.rests(now), Some(Fault::Trap), "and only one");
            assert!(conduct.faulted(Fault::Trap, now));
        }
        now += secs(3600);
        assert_eq!(conduct.rests(now), None);
        conduct.succeeded();
        assert_eq!((conduct.rests(now), conduct.rests(now)), (None, None));
        (0..5).for_each(|_| fail(&mut conduct, now));
        assert_eq!(conduct.rests(now + secs(29)), Some(Fault::Trap));
        assert_eq!(conduct.rests(now + secs(30)), None, "it begins with the shortest again");
    }

    #[test]
    fn what_is_taken_from_others_counts_within_the_window() {
        let (mut conduct, begun) = (conduct(), Instant::now());
        assert!(!conduct.overran(secs(4), begun));
        assert!(!conduct.overran(secs(4), begun + secs(60)), "another window");
        assert!(conduct.overran(secs(1), begun + secs(61)));
        assert_eq!(conduct.rests(begun + secs(62)), Some(Fault::Deadline));
    }

    #[test]
    fn none_rests_where_the_rules_say_so() {
        let mut conduct = Conduct::new(Rules::new(&Config { rest_faults: 0, rest_excess_ms: 0, ..Config::default() }));
        let now = Instant::now();
        assert!(!(0..100).any(|_| conduct.faulted(Fault::Trap, now) || conduct.overran(secs(9), now)));
        assert!(conduct.faults.is_empty());
    }

    #[test]
    fn a_rest_outlives_the_evaluator_and_room_is_bounded() {
        let records = PairRecords::new(&Config { evaluators_max: 2, ..Config::default() });
        let digest: Arc<str> = "d".into();
        let record = records.of(&digest, "bad");
        (0..5).for_each(|_| record.of(Run::Live).called(Some(Fault::Memory)));
        drop(record);
        records.tidy();
        assert_eq!(records.of(&digest, "bad").of(Run::Live).rests(), Some(Fault::Memory));
        for n in 0..20 {
            drop(records.of(&digest, &n.to_string()));
        }
        assert!(records.pairs.lock().len() <= 4);
        assert_eq!((records.resting("d").len(), records.count(), records.resting("e").len()), (1, 1, 0), "who rests stays longest");
    }

    #[test]
    fn what_a_pair_does_to_the_past_is_held_against_it_there_only() {
        let records = PairRecords::new(&Config::default());
        let (record, past) = (records.of(&"d".into(), "c"), Run::History { head: Seq(1) });
        (0..5).for_each(|_| record.of(past).called(Some(Fault::Trap)));
        assert_eq!((record.of(past).rests(), record.of(Run::Live).rests()), (Some(Fault::Trap), None));
        assert_eq!((records.resting("d").len(), records.count()), (1, 1));
        assert!(records.resting("d")[0].reason.starts_with("for killmails of the past only: 5 faults"));
        (0..5).for_each(|_| record.of(Run::Live).called(Some(Fault::Memory)));
        assert_eq!((record.of(past).rests(), record.of(Run::Live).rests()), (Some(Fault::Trap), Some(Fault::Memory)));
        assert_eq!((records.resting("d").len(), records.count()), (2, 1), "it is one pair");
    }
}
