//! What a guest may ask of the killmails before the one it judges. Declared here, answered by whoever holds the store.
//!
//! Law 7 (same in, same out) rests on `Bound`: a question is always about the same killmails, whenever it is asked.
//!
//! Must not know: how killmails are kept.

use crate::domain::filter::Wanted;
use crate::domain::id::Seq;

/// Which killmails may be seen at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Only killmail ids smaller than this.
    pub below: u32,
    /// Only what the log held up to this number.
    pub head: Seq,
}

/// Killmails that fit **all** terms, within a time. A term without ids fits nothing; no terms: all killmails of that time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// The terms.
    pub terms: Vec<Wanted>,
    /// Killmail time at least this, unix seconds.
    pub since: Option<i64>,
    /// Killmail time before this, unix seconds.
    pub until: Option<i64>,
}

/// What a set of killmails amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// How many.
    pub killmails: u64,
    /// Their total values summed, ISK.
    pub value: f64,
    /// Time of the earliest, unix seconds.
    pub first: Option<i64>,
    /// Time of the latest, unix seconds.
    pub last: Option<i64>,
}

/// The memory of guests. Called on the judging threads; may block for the time a bitmap takes.
pub trait History: Send + Sync {
    /// How many killmails fit.
    fn count(&self, query: &HistoryQuery, bound: Bound) -> u64;
    /// What those that fit amount to.
    fn totals(&self, query: &HistoryQuery, bound: Bound) -> Totals;
    /// When the latest killmail that fits this term happened, unix seconds.
    fn last_seen(&self, term: &Wanted, bound: Bound) -> Option<i64>;
}

/// No history at all: for trials of plugins.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHistory;

impl History for NoHistory {
    fn count(&self, _: &HistoryQuery, _: Bound) -> u64 {
        0
    }

    fn totals(&self, _: &HistoryQuery, _: Bound) -> Totals {
        Totals::default()
    }

    fn last_seen(&self, _: &Wanted, _: Bound) -> Option<i64> {
        None
    }
}
