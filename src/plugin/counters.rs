//! What guests did, counted: for each component, and for all of them together.
//!
//! Must not know: how counts are shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::now_secs;
use crate::domain::verdict::{Failure, Fault, Verdict};

/// What our log puts around the text of a line, bytes, about: the time, the plugin's name and digest, the
/// killmail.
const AROUND_LOG_LINE_BYTES: usize = 400;
const MINUTE: Duration = Duration::from_secs(60);

/// Counts of one component, or of all.
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
    /// What it was.
    pub failure: Failure,
    /// The killmail it hid.
    pub killmail_id: u32,
    /// When, unix seconds.
    pub at: i64,
}

/// What was written into the log since when.
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

/// The counts at one moment. `calls` = `keeps` + `drops` + all `faults`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls of `evaluate` really made, or begun with an instance that could not be had.
    pub calls: u64,
    /// Killmails answered from the memory of an equal pair's verdict, without a call.
    pub remembered: u64,
    /// Killmails outside the plugin's interest: dropped without a call.
    pub passed_over: u64,
    /// Killmails answered with a fault without a call, because the pair of plugin and configuration rests.
    pub at_rest: u64,
    /// Calls that kept the killmail.
    pub keeps: u64,
    /// Calls that dropped it.
    pub drops: u64,
    /// Calls that ended in a fault, by its word; words without a fault are left out.
    pub faults: BTreeMap<&'static str, u64>,
    /// Lines of log cut or left out.
    pub log_lines_cut: u64,
    /// Instances made.
    pub instances: u64,
    /// The last of the faults.
    pub last_fault: Option<LastFault>,
}

impl Counters {
    /// Counts one call, on this killmail.
    pub fn record_call(&self, answer: &Result<Verdict, Failure>, killmail_id: u32) {
        let place = match answer {
            Ok(Verdict::Drop) => &self.drops,
            Ok(Verdict::Keep | Verdict::KeepWith(_)) => &self.keeps,
            Err(failure) => {
                *self.last.lock() = Some(LastFault { failure: failure.clone(), killmail_id, at: now_secs() });
                &self.faults[failure.fault as usize]
            }
        };
        place.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an answer from memory.
    pub fn record_remembered(&self, killmails: u64) {
        self.remembered.fetch_add(killmails, Ordering::Relaxed);
    }

    /// Counts a killmail outside the interest.
    pub fn record_passed_over(&self) {
        self.passed_over.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a line of log of so many bytes fits what the component may write in a minute, with all its
    /// instances; if so, it counts.
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

    /// The same for one line; one that does not fit counts as left out.
    #[must_use]
    pub fn try_log_line(&self, bytes: usize, bytes_max: usize) -> bool {
        let fits = self.try_log(bytes, bytes_max);
        if !fits {
            self.record_log_lines_cut(1);
        }
        fits
    }

    /// Counts a killmail answered with a fault while the pair rests.
    pub fn record_at_rest(&self) {
        self.at_rest.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts lines of log cut or left out.
    pub fn record_log_lines_cut(&self, lines: u64) {
        self.log_lines_cut.fetch_add(lines, Ordering::Relaxed);
    }

    /// Counts an instance made.
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
    fn a_minute_holds_so_much_log_in_however_many_lines() {
        let counters = Counters::default();
        assert_eq!((0..1_000).filter(|_| counters.try_log(1, 64 << 10)).count(), 163);
        let counters = Counters::default();
        assert_eq!((0..1_000).filter(|_| counters.try_log(1_024, 64 << 10)).count(), 46);
        assert!(!counters.try_log(usize::MAX, 64 << 10));
    }
}
