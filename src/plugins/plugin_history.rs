//! What plugins may ask of our past: the plugin floor's `History`, answered from the store.
//!
//! Answers are bounded by killmail id and number, so live, resumed and repeated runs agree (law 7).
//!
//! What an answer takes is charged before it is looked for; only what has to be looked up on the disk is
//! charged as it is.
//!
//! Must not know: which plugin asks.

use std::sync::{Arc, Weak};

use crate::domain::filter::{Filter, RoleClause};
use crate::plugin::history::{Allowance, Bound, Exhausted, History, HistoryQuestion, Totals};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::history::effort::{Effort, UNITED_COST};
use crate::store::query::{HistoryQuery, Order};

// Charges, nanoseconds of CPU time: measured by `history_cost` on 40,000 killmails, and rounded up.
/// A list of killmails that is opened: it is found and counted several times, each time somewhere else in
/// memory. One that is not there counts as well: it may be when the same is asked again.
const LIST: u64 = 1_500;
/// A killmail id read from a list.
const READ: u64 = 10;
/// One that is read from several lists and sorted into one.
const UNITED: u64 = UNITED_COST * READ;
/// One that is looked up in a list.
const LOOKUP: u64 = 40;
/// A row that is tested.
const ROW: u64 = 30;
/// A killmail looked up on the disk, for the roles of those who took part.
const FACTS: u64 = 8_000;
/// Each term that such a killmail is held against.
const FACTS_TERM: u64 = 300;

/// The store as plugins see it. Judging threads do not keep it open: instances end in their own time, and
/// their questions then go unanswered.
pub struct StoreHistory {
    store: Weak<Store>,
}

impl StoreHistory {
    /// Over this store.
    #[must_use]
    pub fn new(store: &Arc<Store>) -> Self {
        Self { store: Arc::downgrade(store) }
    }
}

/// Charges what an answer takes before it is looked for: as much whenever it is asked about the same killmail
/// (law 7).
fn charge(store: &Store, query: &HistoryQuery<'_>, allowance: &mut Allowance) -> Result<(), Exhausted> {
    let asked: u64 = query.filter.each.iter().map(|term| term.ids.as_slice().len() as u64).sum();
    let least = asked.saturating_mul(LIST);
    if least > allowance.remaining() {
        return allowance.charge(least);
    }
    let Effort { lists, read, united, lookups, rows } = store.effort(query, allowance.remaining() / READ + 1);
    let costs = [(lists, LIST), (read, READ), (united, UNITED), (lookups, LOOKUP), (rows, ROW)];
    let nanos =
        costs.into_iter().map(|(count, each)| count.saturating_mul(each)).fold(0, u64::saturating_add);
    allowance.charge(nanos)
}

fn filter(query: &HistoryQuestion) -> Filter {
    Filter { each: query.terms.clone(), since: query.since, until: query.until, ..Filter::default() }
}

const fn bounded(filter: &Filter, bound: Bound, limit: usize) -> HistoryQuery<'_> {
    HistoryQuery {
        filter,
        interest: None,
        order: Order::Newest,
        after: None,
        below: Some(bound.below),
        head: bound.head,
        limit,
    }
}

/// Asks the store to look up no more killmails than there is allowance for, and charges those it did.
fn within<T: Default>(
    allowance: &mut Allowance,
    terms: usize,
    ask: impl FnOnce(&mut u64) -> Result<Option<T>, StoreError>,
) -> Result<T, Exhausted> {
    let each = FACTS + FACTS_TERM * terms as u64;
    let most = allowance.remaining() / each;
    let mut left = most;
    let answer = ask(&mut left);
    allowance.charge((most - left) * each)?;
    match answer {
        Ok(Some(answer)) => Ok(answer),
        // There was no allowance for one more.
        Ok(None) => allowance.charge(each).map(|()| T::default()),
        Err(error) => {
            tracing::error!(%error, "a plugin's history query failed");
            Ok(T::default())
        }
    }
}

impl History for StoreHistory {
    fn count(
        &self,
        query: &HistoryQuestion,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<u64, Exhausted> {
        let filter = filter(query);
        let query = bounded(&filter, bound, usize::MAX);
        let Some(store) = self.store.upgrade() else { return Ok(0) };
        charge(&store, &query, allowance)?;
        within(allowance, filter.each.len(), |lookups| store.count_within(&query, lookups))
    }

    fn totals(
        &self,
        query: &HistoryQuestion,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Totals, Exhausted> {
        let filter = filter(query);
        let query = bounded(&filter, bound, usize::MAX);
        let Some(store) = self.store.upgrade() else { return Ok(Totals::default()) };
        charge(&store, &query, allowance)?;
        let sums = within(allowance, filter.each.len(), |lookups| store.totals_within(&query, lookups))?;
        Ok(Totals { killmails: sums.killmails, value: sums.value, first: sums.first, last: sums.last })
    }

    fn last_seen(
        &self,
        term: &RoleClause,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Option<i64>, Exhausted> {
        // Any time, but one that can be.
        let filter = Filter { each: vec![term.clone()], since: Some(i64::MIN), ..Filter::default() };
        let query = bounded(&filter, bound, 1);
        // Mostly the first killmail is the one: what all of them would take says nothing.
        let Some(store) = self.store.upgrade() else { return Ok(None) };
        allowance.charge(LIST + READ + ROW)?;
        let hits = within(allowance, 1, |lookups| store.select_within(&query, lookups))?;
        Ok(hits.first().and_then(|hit| store.time_of(hit.seq)))
    }
}
