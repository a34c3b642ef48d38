//! What answering a question about history takes, told from the index before it is answered.
//!
//! Must not know: who asks, or how much of it he may have.

use crate::store::index::Index;
use crate::store::plan::{LOOKUP_COST, Plan, needs_facts};
use crate::store::select::{WINDOW_MAX, narrowed, undated_last};
use crate::store::{Query, Store};

/// The most that an answer takes, but for killmails whose facts have to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Lists of killmails that are opened.
    pub lists: u64,
    /// Killmail ids read from a list that stands alone.
    pub read: u64,
    /// Killmail ids read from several lists and sorted into one.
    pub united: u64,
    /// Killmail ids looked up in a list.
    pub lookups: u64,
    /// Rows that are tested.
    pub rows: u64,
}

impl Store {
    /// What it takes to find all that a query asks for; `counted` where only their number is asked for.
    #[must_use]
    pub fn effort(&self, query: &Query<'_>, counted: bool) -> Effort {
        let memory = self.memory.read();
        let index = &memory.index;
        let plan = Plan::new(index, query.filter, query.interest);
        let known = counted && !needs_facts(query.filter, query.interest) && plan.counts_in_bitmaps(index, query.head);
        if known { Effort { lists: plan.lookups(), ..Effort::default() } } else { of(&plan, index, query) }
    }
}

fn of(plan: &Plan<'_>, index: &Index, query: &Query<'_>) -> Effort {
    let (low, high) = narrowed(query, plan.bounds);
    let undated = if undated_last(query) { index.undated().count(0, u32::MAX) } else { 0 };
    let mut effort = Effort { lookups: undated.saturating_mul(plan.lookups()), ..Effort::default() };
    if low > high {
        effort.lists = plan.lookups();
        return effort;
    }
    let least = plan.count(index, low, high);
    effort.rows = least;
    // Each window begins anew.
    effort.lists = plan.lookups().saturating_mul(least / WINDOW_MAX + 1);
    if plan.only(index).is_some() {
        effort.read = least;
        return effort;
    }
    for group in plan.groups() {
        let (count, lists) = (group.count(low, high), group.len());
        let lookups = least.saturating_mul(lists);
        if lookups.saturating_mul(LOOKUP_COST) <= count {
            effort.lookups = effort.lookups.saturating_add(lookups);
        } else if lists > 1 {
            effort.united = effort.united.saturating_add(count);
        } else {
            effort.read = effort.read.saturating_add(count);
        }
    }
    effort
}
