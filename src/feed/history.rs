//! What plugins may ask of our past: the plugin floor's `History`, answered from the store.
//!
//! Answers are bounded by killmail id and number, so live, resumed and repeated runs agree (law 7).
//!
//! Must not know: which plugin asks.

use std::sync::{Arc, Weak};

use crate::domain::filter::{Filter, Wanted};
use crate::plugin::history::{Bound, History, HistoryQuery, Totals};
use crate::store::{Order, Query, Store};

/// The store as plugins see it. Whoever judges does not keep it open: instances end in their own time, and what they say then is not heard.
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

fn filter(query: &HistoryQuery) -> Filter {
    Filter { each: query.terms.clone(), since: query.since, until: query.until, ..Filter::default() }
}

const fn bounded(filter: &Filter, bound: Bound, limit: usize) -> Query<'_> {
    Query { filter, interest: None, order: Order::Newest, after: None, below: Some(bound.below), head: bound.head, limit }
}

impl History for StoreHistory {
    fn count(&self, query: &HistoryQuery, bound: Bound) -> u64 {
        let Some(store) = self.store.upgrade() else { return 0 };
        store.count_matching(&bounded(&filter(query), bound, usize::MAX)).unwrap_or_else(|error| {
            tracing::error!(%error, "a plugin's history query failed");
            0
        })
    }

    fn totals(&self, query: &HistoryQuery, bound: Bound) -> Totals {
        let Some(store) = self.store.upgrade() else { return Totals::default() };
        match store.totals(&bounded(&filter(query), bound, usize::MAX)) {
            Ok(sums) => Totals { killmails: sums.killmails, value: sums.value, first: sums.first, last: sums.last },
            Err(error) => {
                tracing::error!(%error, "a plugin's history query failed");
                Totals::default()
            }
        }
    }

    fn last_seen(&self, term: &Wanted, bound: Bound) -> Option<i64> {
        let store = self.store.upgrade()?;
        // Any time, but one that can be.
        let filter = Filter { each: vec![term.clone()], since: Some(i64::MIN), ..Filter::default() };
        let hits = store.select(&bounded(&filter, bound, 1));
        let hits = hits.inspect_err(|error| tracing::error!(%error, "a plugin's history query failed"));
        hits.ok()?.first().and_then(|hit| store.time_of(hit.seq))
    }
}
