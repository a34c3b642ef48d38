//! The two queries of the store and their results: a page of history by killmail id, and the next page of the
//! log for a reader.
//!
//! Must not know: how the results are found.

use crate::domain::entry::SharedEntry;
use crate::domain::filter::{Filter, Interest};
use crate::domain::id::Seq;

/// A killmail found in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its number in the log.
    pub seq: Seq,
    /// Its id.
    pub killmail_id: u32,
}

/// The order of a history query: by killmail id, which is about the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Greatest killmail id first.
    #[default]
    Newest,
    /// Smallest killmail id first.
    Oldest,
}

/// A query for a page of history.
#[derive(Debug, Clone, Copy)]
pub struct HistoryQuery<'a> {
    /// Which killmails match.
    pub filter: &'a Filter,
    /// What a plugin restricts them to.
    pub interest: Option<&'a Interest>,
    /// The order of the hits.
    pub order: Order,
    /// Only killmails that follow this id in that order.
    pub after: Option<u32>,
    /// Only ids below this one.
    pub below: Option<u32>,
    /// Only entries up to this number.
    pub head: Seq,
    /// Killmails in the result, at most.
    pub limit: usize,
}

/// A reader's query: what comes after a place in the log.
#[derive(Debug, Clone, Copy)]
pub struct PageQuery<'a> {
    /// Which killmails match.
    pub filter: &'a Filter,
    /// What a plugin restricts them to.
    pub interest: Option<&'a Interest>,
    /// Only entries after this number.
    pub after: Seq,
    /// Only entries up to this number.
    pub head: Seq,
    /// Only killmails that were at most this old when they came, seconds; 0: any age.
    pub max_age_secs: u32,
    /// Killmails in the result, at most.
    pub limit: usize,
    /// JSON in the result, bytes, at most; the first killmail is included whatever its size.
    pub limit_bytes: usize,
    /// Entries to examine, at most.
    pub scan: usize,
}

/// The next page for a reader, in log order.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The entries that match.
    pub entries: Vec<SharedEntry>,
    /// Everything up to this number was examined.
    pub passed: Seq,
}

/// Sums over the killmails that match a query.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// How many match.
    pub killmails: u64,
    /// The sum of their total values, ISK; one without a value adds nothing.
    pub value: f64,
    /// Time of the earliest, unix seconds.
    pub first: Option<i64>,
    /// Time of the latest, unix seconds.
    pub last: Option<i64>,
}
