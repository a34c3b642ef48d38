//! What plugins may ask of the past: implements the `History` of `plugin` on top of the store.
//!
//! Answers only contain killmails below an id and a sequence number, so that live, resumed and repeated runs
//! agree (law 7).
//!
//! An answer is charged before it is computed. Only lookups on disk are charged as they happen.
//!
//! Must not know: which plugin asks.

use std::sync::{Arc, Weak};

use crate::domain::filter::{Filter, RoleClause};
use crate::plugin::history::{Allowance, Bound, Exhausted, History, HistoryQuestion, Totals};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::history::effort::{Effort, UNITED_COST};
use crate::store::query::{HistoryQuery, Order};

// Charges, nanoseconds of CPU time: measured with `history_cost` on 40,000 killmails, and rounded up.
/// A list of killmails to open. It is searched for and counted several times, each time elsewhere in memory.
/// A list that does not exist counts as well, because it may exist when the same is asked again.
const LIST: u64 = 1_500;
/// A killmail id read from a list.
const READ: u64 = 10;
/// A killmail id read from one of several lists that are merged into one.
const UNITED: u64 = UNITED_COST * READ;
/// A killmail id looked up in a list.
const LOOKUP: u64 = 40;
/// A row to test.
const ROW: u64 = 30;
/// A killmail read from disk, for the roles of its participants.
const FACTS: u64 = 8_000;
/// Each term that such a killmail is compared with.
const FACTS_TERM: u64 = 300;

/// The store as plugins see it. It does not keep the store open, because instances may outlive it; their
/// questions then get empty answers.
pub struct StoreHistory {
    store: Weak<Store>,
}

impl StoreHistory {
    /// History on top of this store.
    #[must_use]
    pub fn new(store: &Arc<Store>) -> Self {
        Self { store: Arc::downgrade(store) }
    }
}

/// Charges an answer before it is computed. The charge is the same whenever the question is asked about the
/// same killmail (law 7).
fn charge(store: &Store, query: &HistoryQuery<'_>, allowance: &mut Allowance) -> Result<(), Exhausted> {
    let asked: u64 = query.filter.each.iter().map(|term| term.ids.as_slice().len() as u64).sum();
    let least = asked.saturating_mul(LIST);
    if least > allowance.remaining() {
        return allowance.charge(least);
    }
    let Effort { lists, read, united, lookups, rows } =
        store.estimate_effort(query, allowance.remaining() / READ + 1);
    let costs = [(lists, LIST), (read, READ), (united, UNITED), (lookups, LOOKUP), (rows, ROW)];
    let nanos =
        costs.into_iter().map(|(count, each)| count.saturating_mul(each)).fold(0, u64::saturating_add);
    allowance.charge(nanos)
}

fn filter_of(query: &HistoryQuestion) -> Filter {
    Filter { each: query.terms.clone(), since: query.since, until: query.until, ..Filter::default() }
}

const fn bounded_query(filter: &Filter, bound: Bound, limit: usize) -> HistoryQuery<'_> {
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

/// Lets the store look up at most as many killmails as the allowance pays for, and charges those it looked
/// up.
fn with_lookups<T: Default>(
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
        // The allowance was not enough for one more.
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
        let filter = filter_of(query);
        let query = bounded_query(&filter, bound, usize::MAX);
        let Some(store) = self.store.upgrade() else { return Ok(0) };
        charge(&store, &query, allowance)?;
        with_lookups(allowance, filter.each.len(), |lookups| store.count_within(&query, lookups))
    }

    fn totals(
        &self,
        query: &HistoryQuestion,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Totals, Exhausted> {
        let filter = filter_of(query);
        let query = bounded_query(&filter, bound, usize::MAX);
        let Some(store) = self.store.upgrade() else { return Ok(Totals::default()) };
        charge(&store, &query, allowance)?;
        let sums =
            with_lookups(allowance, filter.each.len(), |lookups| store.totals_within(&query, lookups))?;
        Ok(Totals { killmails: sums.killmails, value: sums.value, first: sums.first, last: sums.last })
    }

    fn last_seen(
        &self,
        term: &RoleClause,
        bound: Bound,
        allowance: &mut Allowance,
    ) -> Result<Option<i64>, Exhausted> {
        // Any time, but it has to be known.
        let filter = Filter { each: vec![term.clone()], since: Some(i64::MIN), ..Filter::default() };
        let query = bounded_query(&filter, bound, 1);
        // Usually the first killmail is the answer, so the cost of all of them says nothing.
        let Some(store) = self.store.upgrade() else { return Ok(None) };
        allowance.charge(LIST + READ + ROW)?;
        let hits = with_lookups(allowance, 1, |lookups| store.select_within(&query, lookups))?;
        Ok(hits.first().and_then(|hit| store.time_of(hit.seq)))
    }
}
