//! Counters of what guests did, per component and in total.
//!
//! Must not know: how counts are shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::now_secs;
use crate::domain::verdict::{Failure, Fault, Verdict};

/// What the log adds to the text of a line, bytes, approximately: the time, the plugin's name and digest, the
/// killmail.
const AROUND_LOG_LINE_BYTES: usize = 400;
const MINUTE: Duration = Duration::from_secs(60);

/// Counters of one component.
#[derive(Debug, Default)]
pub struct Counters {
    remembered: AtomicU64,
    passed_over: AtomicU64,
    at_rest: AtomicU64,
    keeps: AtomicU64,
    drops: AtomicU64,
    faults: [AtomicU64; Fault::ALL.len()],
    log_lines_cut: AtomicU64,
    instances: AtomicU64,
    log_window: Mutex<LogWindow>,
    last: Mutex<Option<LastFault>>,
}

/// The last call that ended in a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFault {
    /// The fault and its message.
    pub failure: Failure,
    /// The killmail that it affected.
    pub killmail_id: u32,
    /// When, unix seconds.
    pub at: i64,
}

/// What was logged in the current minute.
#[derive(Debug)]
struct LogWindow {
    since: Instant,
    bytes: usize,
}

impl Default for LogWindow {
    fn default() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }
}

/// A snapshot of the counters. `calls` = `keeps` + `drops` + all `faults`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls of `evaluate`, including those for which no instance could be created.
    pub calls: u64,
    /// Killmails answered with the remembered verdict of an equal pair, without a call.
    pub remembered: u64,
    /// Killmails outside the plugin's interest: dropped without a call.
    pub passed_over: u64,
    /// Killmails that got a fault without a call because the pair rests.
    pub at_rest: u64,
    /// Calls that kept the killmail.
    pub keeps: u64,
    /// Calls that dropped it.
    pub drops: u64,
    /// Calls that ended in a fault, by its word; without zeros.
    pub faults: BTreeMap<&'static str, u64>,
    /// Log lines that were cut or dropped.
    pub log_lines_cut: u64,
    pub instances: u64,
    /// The latest fault.
    pub last_fault: Option<LastFault>,
}

impl Counters {
    /// Counts a call for this killmail.
    pub fn record_call(&self, answer: &Result<Verdict, Failure>, killmail_id: u32) {
        let counter = match answer {
            Ok(Verdict::Drop) => &self.drops,
            Ok(Verdict::Keep | Verdict::KeepWith(_)) => &self.keeps,
            Err(failure) => {
                *self.last.lock() = Some(LastFault { failure: failure.clone(), killmail_id, at: now_secs() });
                &self.faults[failure.fault as usize]
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts killmails answered with a remembered verdict.
    pub fn record_remembered(&self, killmails: u64) {
        self.remembered.fetch_add(killmails, Ordering::Relaxed);
    }

    /// Counts a killmail outside the interest.
    pub fn record_passed_over(&self) {
        self.passed_over.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether log output of this size fits the limit per minute, which all instances of the component share;
    /// if so, it is counted.
    #[must_use]
    pub fn try_log(&self, bytes: usize, bytes_max: usize) -> bool {
        let mut logged = self.log_window.lock();
        if logged.since.elapsed() >= MINUTE {
            *logged = LogWindow::default();
        }
        let sum = logged.bytes.saturating_add(bytes).saturating_add(AROUND_LOG_LINE_BYTES);
        let fits = sum <= bytes_max;
        if fits {
            logged.bytes = sum;
        }
        fits
    }

    /// The same for one line; a line that does not fit is counted as dropped.
    #[must_use]
    pub fn try_log_line(&self, bytes: usize, bytes_max: usize) -> bool {
        let fits = self.try_log(bytes, bytes_max);
        if !fits {
            self.record_log_lines_cut(1);
        }
        fits
    }

    /// Counts a killmail that got a fault because the pair rests.
    pub fn record_at_rest(&self) {
        self.at_rest.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts log lines that were cut or dropped.
    pub fn record_log_lines_cut(&self, lines: u64) {
        self.log_lines_cut.fetch_add(lines, Ordering::Relaxed);
    }

    /// Counts a new instance.
    pub fn record_instance(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> Counts {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let faults =
            Fault::ALL.iter().map(|f| (f.word(), get(&self.faults[*f as usize]))).filter(|(_, n)| *n > 0);
        let (keeps, drops, faults) = (get(&self.keeps), get(&self.drops), faults.collect::<BTreeMap<_, _>>());
        Counts {
            calls: keeps + drops + faults.values().sum::<u64>(),
            remembered: get(&self.remembered),
            passed_over: get(&self.passed_over),
            at_rest: get(&self.at_rest),
            keeps,
            drops,
            faults,
            log_lines_cut: get(&self.log_lines_cut),
            instances: get(&self.instances),
            last_fault: self.last.lock().clone(),
        }
    }
}

impl Counts {
    /// Adds another component's counts.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.remembered += other.remembered;
        self.passed_over += other.passed_over;
        self.at_rest += other.at_rest;
        self.keeps += other.keeps;
        self.drops += other.drops;
        for (word, count) in &other.faults {
            *self.faults.entry(word).or_default() += count;
        }
        self.log_lines_cut += other.log_lines_cut;
        self.instances += other.instances;
        let at = |last: &Option<LastFault>| last.as_ref().map(|last| last.at);
        if at(&other.last_fault) > at(&self.last_fault) {
            self.last_fault.clone_from(&other.last_fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_output_per_minute_is_limited_whatever_the_number_of_lines() {
        let counters = Counters::default();
        assert_eq!((0..1_000).filter(|_| counters.try_log(1, 64 << 10)).count(), 163);
        let counters = Counters::default();
        assert_eq!((0..1_000).filter(|_| counters.try_log(1_024, 64 << 10)).count(), 46);
        assert!(!counters.try_log(usize::MAX, 64 << 10));
    }
}
