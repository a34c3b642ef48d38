//! The two questions the store answers, and their answers: a page of history by killmail id, and the next
//! page of the log for a reader.
//!
//! Must not know: how the answers are found.

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

/// The direction of a history query, by killmail id, which is time order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Greatest killmail id first.
    #[default]
    Newest,
    /// Smallest killmail id first.
    Oldest,
}

/// A question about history.
#[derive(Debug, Clone, Copy)]
pub struct HistoryQuery<'a> {
    /// Which killmails.
    pub filter: &'a Filter,
    /// What a plugin narrows them to.
    pub interest: Option<&'a Interest>,
    /// The direction.
    pub order: Order,
    /// Only what comes after this killmail id in the direction.
    pub after: Option<u32>,
    /// Only ids smaller than this.
    pub below: Option<u32>,
    /// Only entries numbered up to this.
    pub head: Seq,
    /// At most so many killmails.
    pub limit: usize,
}

/// A reader's question: what comes next after a place in the log.
#[derive(Debug, Clone, Copy)]
pub struct PageQuery<'a> {
    /// Which killmails.
    pub filter: &'a Filter,
    /// What a plugin narrows them to.
    pub interest: Option<&'a Interest>,
    /// Entries numbered after this.
    pub after: Seq,
    /// Entries numbered up to this.
    pub head: Seq,
    /// Only what was at most so old when it came, seconds; 0: any age.
    pub max_age_secs: u32,
    /// At most so many killmails.
    pub limit: usize,
    /// At most so much JSON, bytes; the first killmail comes whatever its size.
    pub limit_bytes: usize,
    /// At most so many entries are looked at.
    pub scan: usize,
}

/// The next entries for a reader, in log order.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What is wanted.
    pub entries: Vec<SharedEntry>,
    /// Everything up to this number was looked at.
    pub passed: Seq,
}

/// Sums over a selection.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// How many killmails.
    pub killmails: u64,
    /// Their total value together, ISK; those without a value count nothing.
    pub value: f64,
    /// Time of the earliest, unix seconds.
    pub first: Option<i64>,
    /// Time of the latest, unix seconds.
    pub last: Option<i64>,
}
