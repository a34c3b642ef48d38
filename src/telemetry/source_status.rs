//! How the sources are doing: written by whoever follows them, read by whoever reports.
//!
//! Must not know: what the sources are.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::entry::is_implausible;
use crate::telemetry::source_kind::SourceKind;

/// What a source is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Doing {
    /// There is none, or it is switched off; with the reason if it was meant to run.
    #[default]
    Off,
    /// It should run but may not.
    Refused(String),
    /// It follows the feed.
    Following,
    /// It waits before it asks again after a failure.
    BackingOff(String),
    /// It was refused by the other side and keeps away for minutes.
    BreakerOpen(String),
    /// It waits for disk space.
    NoSpace(String),
    /// It has played everything.
    Finished,
}

impl Doing {
    /// A word for programs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Refused(_) => "refused",
            Self::Following => "following",
            Self::BackingOff(_) => "backing_off",
            Self::BreakerOpen(_) => "breaker_open",
            Self::NoSpace(_) => "no_space",
            Self::Finished => "finished",
        }
    }

    /// The reason, where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused(why) | Self::BackingOff(why) | Self::BreakerOpen(why) | Self::NoSpace(why) => {
                Some(why)
            }
            Self::Off | Self::Following | Self::Finished => None,
        }
    }
}

/// Numbers of the source that never came and are not healed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first number.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// How many are missing from the first to the last.
    pub numbers: u64,
    /// Since when, unix milliseconds.
    pub since_ms: i64,
}

/// Documents refused one after the other for one reason, none taken in between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefusedRun {
    /// The reason, one word.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// The pulse of the running source. Times are unix milliseconds, 0: never.
#[derive(Debug, Default)]
pub struct SourceStatus {
    doing: Mutex<(Doing, i64)>,
    /// What kind of source this is.
    pub kind: Mutex<SourceKind>,
    /// When the source began to run.
    pub started_ms: AtomicI64,
    /// When a killmail last came.
    pub last_killmail_ms: AtomicI64,
    /// Killmail time of the one that came last, unix seconds.
    pub last_killmail_time: AtomicI64,
    /// When a request last succeeded.
    pub last_success_ms: AtomicI64,
    /// The number last taken from the source.
    pub sequence: AtomicU64,
    /// Killmails received.
    pub received: AtomicU64,
    /// Killmails that were over an hour old when they came, live.
    pub late: AtomicU64,
    /// Killmails the store took as new or revised.
    pub kept: AtomicU64,
    /// Killmails passed over: known, in conflict with what is kept, or too large.
    pub skipped: AtomicU64,
    /// Documents refused.
    pub refused: AtomicU64,
    /// Those since the last killmail that was taken.
    pub refused_run: Mutex<RefusedRun>,
    /// Numbers that never came and were passed over.
    pub gaps: AtomicU64,
    /// Numbers that never came and were healed later.
    pub healed: AtomicU64,
    /// Those still to be healed.
    pub open: Mutex<Vec<Gap>>,
    /// Killmails that archives filled in.
    pub backfilled: AtomicU64,
    /// Requests sent.
    pub requests: AtomicU64,
    /// Requests that failed.
    pub errors: AtomicU64,
    /// Requests that timed out.
    pub timeouts: AtomicU64,
    /// Failures since the last success.
    pub consecutive_errors: AtomicU64,
    /// Time spent in requests, milliseconds.
    pub request_ms: AtomicU64,
    /// Set while the source runs.
    pub running: AtomicBool,
}

impl SourceStatus {
    /// What the source is doing, and since when.
    pub fn doing(&self) -> (Doing, i64) {
        self.doing.lock().clone()
    }

    /// Notes what the source is doing now; the time stays while the word does.
    pub fn note(&self, doing: Doing, now_ms: i64) {
        let mut is = self.doing.lock();
        let since = if is.0.word() == doing.word() { is.1 } else { now_ms };
        *is = (doing, since);
    }

    /// Numbers of the source that are still to be healed.
    pub fn open_numbers(&self) -> u64 {
        self.open.lock().iter().map(|gap| gap.numbers).sum()
    }

    /// A document was refused for this reason.
    pub fn refuse(&self, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut run = self.refused_run.lock();
        if run.reason == reason {
            run.count += 1;
        } else {
            *run = RefusedRun { reason: reason.to_owned(), count: 1 };
        }
    }

    /// A killmail was taken: the run of refused documents is over.
    pub fn take_in(&self) {
        let mut run = self.refused_run.lock();
        if run.count > 0 {
            *run = RefusedRun::default();
        }
    }

    /// A killmail came.
    pub fn beat(&self, time: i64, now_ms: i64) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.last_killmail_ms.store(now_ms, Ordering::Relaxed);
        if !is_implausible(time, now_ms) {
            self.last_killmail_time.store(time, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_documents_are_counted_in_a_row_by_reason() {
        let status = SourceStatus::default();
        let run = |status: &SourceStatus| {
            let RefusedRun { reason, count } = status.refused_run.lock().clone();
            (reason, count)
        };
        status.refuse("a");
        status.refuse("a");
        assert_eq!(run(&status), ("a".to_owned(), 2));
        status.refuse("b");
        assert_eq!(run(&status), ("b".to_owned(), 1));
        status.take_in();
        assert_eq!((run(&status), status.refused.load(Ordering::Relaxed)), ((String::new(), 0), 3));
    }
}
