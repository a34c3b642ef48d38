//! The status of a source: written by ingest, read by the HTTP API.
//!
//! Must not know: how a source is followed.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::entry::is_implausible;
use crate::telemetry::source_kind::SourceKind;

/// What a source is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Doing {
    /// There is no source, or it is switched off.
    #[default]
    Off,
    /// It should run but may not, for this reason.
    Refused(String),
    Following,
    /// It waits after a failure.
    BackingOff(String),
    /// The other side refused it or failed repeatedly; it waits for minutes.
    BreakerOpen(String),
    /// It waits for disk space.
    NoSpace(String),
    /// A replay has ended.
    Finished,
}

impl Doing {
    /// The word used in `/health` and metrics.
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

    /// The reason, for states that have one.
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

/// Numbers of the feed that are missing and not recovered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StillMissing {
    pub first: u64,
    pub last: u64,
    /// How many numbers from `first` to `last` are missing.
    pub numbers: u64,
    /// Since when, unix milliseconds.
    pub since_ms: i64,
}

/// Documents refused in a row for the same reason, with no killmail accepted in between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RefusedRun {
    pub reason: String,
    pub count: u64,
}

/// The status of one source. Times are unix milliseconds, 0: never.
#[derive(Debug, Default)]
pub struct SourceStatus {
    doing: Mutex<(Doing, i64)>,
    pub kind: Mutex<SourceKind>,
    /// When the source started.
    pub started_ms: AtomicI64,
    /// When a killmail last arrived.
    pub last_killmail_ms: AtomicI64,
    /// The killmail time of that one, unix seconds.
    pub last_killmail_time: AtomicI64,
    /// When a request last succeeded.
    pub last_success_ms: AtomicI64,
    /// The last number taken from R2Z2.
    pub sequence: AtomicU64,
    /// Killmails received live.
    pub received: AtomicU64,
    /// Live killmails that were over an hour old on arrival.
    pub late: AtomicU64,
    /// Killmails stored as new or revised.
    pub stored: AtomicU64,
    /// Killmails not stored: known, in conflict with a stored one, or too large.
    pub skipped: AtomicU64,
    pub refused: AtomicU64,
    /// Documents refused since the last accepted killmail.
    pub refused_run: Mutex<RefusedRun>,
    /// Numbers that were missing and were passed over.
    pub missing: AtomicU64,
    /// Missing numbers that were recovered or given up.
    pub recovered: AtomicU64,
    /// The missing numbers that are still looked for.
    pub still_missing: Mutex<Vec<StillMissing>>,
    /// Killmails that came from archives.
    pub backfilled: AtomicU64,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    /// Requests that timed out.
    pub timeouts: AtomicU64,
    /// Failures since the last success.
    pub consecutive_errors: AtomicU64,
    /// Time spent in requests, milliseconds.
    pub request_ms: AtomicU64,
    /// Whether the source is running.
    pub running: AtomicBool,
}

impl SourceStatus {
    /// What the source is doing, and since when (unix milliseconds).
    pub fn doing(&self) -> (Doing, i64) {
        self.doing.lock().clone()
    }

    /// Sets what the source is doing; the time changes only with the word.
    pub fn note(&self, doing: Doing, now_ms: i64) {
        let mut current = self.doing.lock();
        let since = if current.0.word() == doing.word() { current.1 } else { now_ms };
        *current = (doing, since);
    }

    /// How many missing numbers are still looked for.
    pub fn still_missing_count(&self) -> u64 {
        self.still_missing.lock().iter().map(|range| range.numbers).sum()
    }

    /// Counts a document refused for this reason.
    pub fn count_refused(&self, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let mut run = self.refused_run.lock();
        if run.reason == reason {
            run.count += 1;
        } else {
            *run = RefusedRun { reason: reason.to_owned(), count: 1 };
        }
    }

    /// Notes an accepted killmail: the run of refused documents is over.
    pub fn end_refused_run(&self) {
        let mut run = self.refused_run.lock();
        if run.count > 0 {
            *run = RefusedRun::default();
        }
    }

    /// Counts a killmail that arrived at `now_ms` and happened at `time` (unix seconds).
    pub fn count_received(&self, time: i64, now_ms: i64) {
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
    fn documents_refused_in_a_row_are_counted_by_reason() {
        let status = SourceStatus::default();
        let run = |status: &SourceStatus| {
            let RefusedRun { reason, count } = status.refused_run.lock().clone();
            (reason, count)
        };
        status.count_refused("a");
        status.count_refused("a");
        assert_eq!(run(&status), ("a".to_owned(), 2));
        status.count_refused("b");
        assert_eq!(run(&status), ("b".to_owned(), 1));
        status.end_refused_run();
        assert_eq!((run(&status), status.refused.load(Ordering::Relaxed)), ((String::new(), 0), 3));
    }
}
