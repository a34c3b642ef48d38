//! History: killmails in the order of their ids, found through the bitmaps. Law 1 (select is accept) guards
//! this file.
//!
//! Ids are taken a window at a time from the end where the answer begins, so that the newest fifty of a
//! million cost fifty; between windows the lock is given back. Killmails whose time cannot be come after all
//! others where the newest come first.
//!
//! Must not know: places of readers.

use std::ops::RangeInclusive;

use crate::domain::filter::Filter;
use crate::domain::term::{Dimension, Term};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::index::Index;
use crate::store::index::plan::{Plan, accepts, needs_facts};
use crate::store::index::postings::Postings;
use crate::store::query::{HistoryQuery, Hit, Order, Totals};

/// Ids taken in one window at least, and at most (a lock is held for one window).
const WINDOW_MIN: u64 = 128;
pub const WINDOW_MAX: u64 = 65_536;
/// The same at least where ids have to be in several groups.
const WINDOW_JOINED: u64 = 4_096;

/// What of the ids is still to be read; `None`: nothing.
enum Range {
    Unread,
    Rest(Option<(u32, u32)>),
}

impl Store {
    /// The killmails a query asks for, in its order.
    ///
    /// # Errors
    /// The disk, when a role has to be looked up there.
    pub fn select(&self, query: &HistoryQuery<'_>) -> Result<Vec<Hit>, StoreError> {
        let mut all = u64::MAX;
        Ok(self.select_within(query, &mut all)?.unwrap_or_default())
    }

    /// The same, but at most so many killmails are looked up on the disk, which are taken off; `None` where
    /// that is not enough.
    ///
    /// # Errors
    /// As [`Store::select`].
    pub fn select_within(
        &self,
        query: &HistoryQuery<'_>,
        lookups: &mut u64,
    ) -> Result<Option<Vec<Hit>>, StoreError> {
        let mut hits = Vec::new();
        let among_undated = undated_last(query)
            && query.after.is_some_and(|id| self.resident.read().index.undated().contains(id));
        if !among_undated && !self.select_into(query, &mut hits, lookups)? {
            return Ok(None);
        }
        let undated = HistoryQuery { after: query.after.filter(|_| among_undated), ..*query };
        if undated_last(query)
            && hits.len() < query.limit
            && !self.select_undated(&undated, &mut hits, lookups)?
        {
            return Ok(None);
        }
        Ok(Some(hits))
    }

    /// The same, but for the undated ones where they come last.
    fn select_into(
        &self,
        query: &HistoryQuery<'_>,
        hits: &mut Vec<Hit>,
        lookups: &mut u64,
    ) -> Result<bool, StoreError> {
        let facts = needs_facts(query.filter, query.interest);
        let (mut range, mut eager) = (Range::Unread, 1);
        while hits.len() < query.limit {
            let (from, want) = (hits.len(), query.limit - hits.len());
            let more = self.window(query, &mut range, (want, eager), hits);
            if hits.len() - from < want {
                // What a window should hold was too much hoped for: tests or other terms take most of it out.
                eager = (eager * 4).min(WINDOW_MAX);
            }
            if facts && !self.keep_accepted(query, from, hits, lookups)? {
                return Ok(false);
            }
            if !more {
                break;
            }
        }
        Ok(true)
    }

    /// The undated killmails a query asks for, the greatest ids first.
    fn select_undated(
        &self,
        query: &HistoryQuery<'_>,
        hits: &mut Vec<Hit>,
        lookups: &mut u64,
    ) -> Result<bool, StoreError> {
        let mut rest = Some(narrowed(query, (0, u32::MAX)));
        while let Some(range) = rest.filter(|(low, high)| low <= high && hits.len() < query.limit) {
            let from = hits.len();
            {
                let memory = self.resident.read();
                let index = &memory.index;
                let plan = Plan::new(index, query.filter, query.interest);
                rest = walk(index.undated(), Order::Newest, range, &mut |id| {
                    let row = index
                        .row_of(id)
                        .filter(|(seq, row)| *seq <= query.head && plan.test.passes(row) && plan.named(id));
                    hits.extend(row.map(|(seq, _)| Hit { seq, killmail_id: id }));
                    hits.len() < query.limit
                });
            }
            if needs_facts(query.filter, query.interest) && !self.keep_accepted(query, from, hits, lookups)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many killmails a query asks for; its limit and order do not matter.
    ///
    /// # Errors
    /// The disk, when a role has to be looked up there.
    pub fn count_matching(&self, query: &HistoryQuery<'_>) -> Result<u64, StoreError> {
        let mut all = u64::MAX;
        Ok(self.count_within(query, &mut all)?.unwrap_or_default())
    }

    /// The same within so many killmails looked up on the disk, as [`Store::select_within`].
    ///
    /// # Errors
    /// As [`Store::count_matching`].
    pub fn count_within(
        &self,
        query: &HistoryQuery<'_>,
        lookups: &mut u64,
    ) -> Result<Option<u64>, StoreError> {
        if let Some(count) = self.count_in_bitmaps(query) {
            return Ok(Some(count));
        }
        let query = HistoryQuery { limit: usize::MAX, ..*query };
        Ok(self.select_within(&query, lookups)?.map(|hits| hits.len() as u64))
    }

    /// Sums over the killmails a query asks for; its limit and order do not matter.
    ///
    /// # Errors
    /// The disk, when a role has to be looked up there.
    pub fn totals(&self, query: &HistoryQuery<'_>) -> Result<Totals, StoreError> {
        let mut all = u64::MAX;
        Ok(self.totals_within(query, &mut all)?.unwrap_or_default())
    }

    /// The same within so many killmails looked up on the disk, as [`Store::select_within`].
    ///
    /// # Errors
    /// As [`Store::totals`].
    pub fn totals_within(
        &self,
        query: &HistoryQuery<'_>,
        lookups: &mut u64,
    ) -> Result<Option<Totals>, StoreError> {
        let Some(hits) = self.select_within(&HistoryQuery { limit: usize::MAX, ..*query }, lookups)? else {
            return Ok(None);
        };
        let mut totals = Totals { killmails: hits.len() as u64, ..Totals::default() };
        for hits in hits.chunks(WINDOW_MAX as usize) {
            let memory = self.resident.read();
            for row in hits.iter().filter_map(|hit| memory.index.rows.get(hit.seq)) {
                totals.value += if row.value.is_nan() { 0.0 } else { row.value };
                if row.is_dated() {
                    totals.first = Some(totals.first.map_or(row.time, |t| t.min(row.time)));
                    totals.last = Some(totals.last.map_or(row.time, |t| t.max(row.time)));
                }
            }
        }
        Ok(Some(totals))
    }

    /// Killmails in a solar system at or after a time, unix seconds.
    #[must_use]
    pub fn system_count(&self, system: u32, since: i64) -> u64 {
        let mut filter = Filter { since: Some(since), ..Filter::default() };
        filter.set_ids(Dimension::System, vec![system]);
        let memory = self.resident.read();
        let Some(postings) = memory.index.postings(Term { kind: Dimension::System, id: system }) else {
            return 0;
        };
        let plan = Plan::new(&memory.index, &filter, None);
        count_times(&memory.index, &plan, postings, plan.bounds)
    }

    /// Takes the next window of a query, `eager` times as large as should do for `want`; says whether there
    /// may be more.
    fn window(
        &self,
        query: &HistoryQuery<'_>,
        range: &mut Range,
        (want, eager): (usize, u64),
        hits: &mut Vec<Hit>,
    ) -> bool {
        let memory = self.resident.read();
        let index = &memory.index;
        let plan = Plan::new(index, query.filter, query.interest);
        let mut rest = match range {
            Range::Unread => Some(narrowed(query, plan.bounds)),
            Range::Rest(rest) => *rest,
        };
        let upto = hits.len().saturating_add(want);
        let sure = sure_range(query, &plan, index);
        let passed_over = if undated_last(query) {
            Some(index.undated()).filter(|undated| !undated.is_empty())
        } else {
            None
        };
        let mut test = |id: u32| {
            if passed_over.is_some_and(|undated| undated.contains(id)) {
                return hits.len() < upto;
            }
            let seq = match &sure {
                Some(sure) if sure.contains(&id) && !(plan.test.windowed && index.undated().contains(id)) => {
                    index.ids.get(id)
                }
                _ => index
                    .row_of(id)
                    .filter(|(seq, row)| *seq <= query.head && plan.test.passes(row))
                    .map(|(seq, _)| seq),
            };
            hits.extend(seq.map(|seq| Hit { seq, killmail_id: id }));
            hits.len() < upto
        };
        if let Some(only) = plan.only(index) {
            rest = rest.and_then(|rest| walk(only, query.order, rest, &mut test));
        } else {
            // What is left where several terms must fit is unknown before: larger windows then, since each
            // costs a start.
            let least = if plan.groups().len() > 1 { WINDOW_JOINED } else { WINDOW_MIN };
            let aim = (want as u64).saturating_mul(2).max(least).saturating_mul(eager).min(WINDOW_MAX);
            let ids = take_window(&plan, index, query.order, &mut rest, aim);
            let (high, low) = (rest.map(|(_, high)| high), rest.map(|(low, _)| low));
            let full = match query.order {
                Order::Newest => !ids.iter().rev().all(|id| test(*id)),
                Order::Oldest => !ids.iter().all(|id| test(*id)),
            };
            if let (true, Some(last)) = (full, hits.last()) {
                // More of this window may be wanted if facts take some of these out.
                rest = match query.order {
                    Order::Newest => {
                        last.killmail_id.checked_sub(1).map(|to| (low.unwrap_or_else(|| ids[0]), to))
                    }
                    Order::Oldest => last
                        .killmail_id
                        .checked_add(1)
                        .map(|from| (from, high.unwrap_or_else(|| ids[ids.len() - 1]))),
                };
            }
        }
        *range = Range::Rest(rest);
        rest.is_some_and(|(low, high)| low <= high)
    }

    /// Takes out the hits whose facts are not asked for; `false` where no more may be looked up.
    fn keep_accepted(
        &self,
        query: &HistoryQuery<'_>,
        from: usize,
        hits: &mut Vec<Hit>,
        lookups: &mut u64,
    ) -> Result<bool, StoreError> {
        let candidates = hits.split_off(from);
        for hit in candidates {
            let Some(left) = lookups.checked_sub(1) else { return Ok(false) };
            *lookups = left;
            if self
                .with_facts(hit.seq, |facts| accepts(query.filter, query.interest, facts))?
                .unwrap_or(false)
            {
                hits.push(hit);
            }
        }
        Ok(true)
    }

    /// The count where bitmaps alone can tell: one term or none, and nothing but time restricting.
    fn count_in_bitmaps(&self, query: &HistoryQuery<'_>) -> Option<u64> {
        if needs_facts(query.filter, query.interest) {
            return None;
        }
        let memory = self.resident.read();
        let plan = Plan::new(&memory.index, query.filter, query.interest);
        let postings =
            plan.only(&memory.index).filter(|_| plan.counts_in_bitmaps(&memory.index, query.head))?;
        Some(count_times(&memory.index, &plan, postings, narrowed(query, plan.bounds)))
    }
}

/// Whether undated killmails come last: where the newest come first, and no window of time leaves them out.
pub const fn undated_last(query: &HistoryQuery<'_>) -> bool {
    matches!(query.order, Order::Newest) && !query.filter.has_window()
}

/// Goes through one term's ids from the end where the answer begins, at most a window of them, until `wanted`
/// has enough; what is left.
fn walk(
    only: &Postings,
    order: Order,
    (low, high): (u32, u32),
    wanted: &mut impl FnMut(u32) -> bool,
) -> Option<(u32, u32)> {
    let mut looked_at = 0;
    let mut goes_on = |id: &u32| {
        looked_at += 1;
        wanted(*id) && looked_at < WINDOW_MAX
    };
    let mut ids = only.range(low, high);
    match order {
        Order::Newest => {
            ids.rev().find(|id| !goes_on(id)).and_then(|id| id.checked_sub(1)).map(|to| (low, to))
        }
        Order::Oldest => {
            ids.find(|id| !goes_on(id)).and_then(|id| id.checked_add(1)).map(|from| (from, high))
        }
    }
}

/// Ids whose rows need not be looked at: nothing but time restricts, and the hours tell that these are within
/// it.
fn sure_range(query: &HistoryQuery<'_>, plan: &Plan<'_>, index: &Index) -> Option<RangeInclusive<u32>> {
    if plan.test.beyond_time || plan.test.live.is_some() || query.head < index.head() {
        return None;
    }
    let low = if plan.test.since == i64::MIN {
        0
    } else {
        index.hours.surely_since(plan.test.since).saturating_add(1)
    };
    let until = if plan.test.until == i64::MAX { None } else { index.hours.surely_until(plan.test.until) };
    Some(low..=until.map_or(u32::MAX, |bound| bound.saturating_sub(1)))
}

/// Counts by bitmap what is surely in the window of time, and tests the few at its edges.
pub fn count_times(index: &Index, plan: &Plan<'_>, postings: &Postings, (low, high): (u32, u32)) -> u64 {
    if low > high {
        return 0;
    }
    let sure_low = if plan.test.since == i64::MIN {
        low
    } else {
        index.hours.surely_since(plan.test.since).saturating_add(1).max(low)
    };
    let sure_until =
        if plan.test.until == i64::MAX { None } else { index.hours.surely_until(plan.test.until) };
    let sure_high = sure_until.map_or(high, |bound| bound.saturating_sub(1).min(high));
    let exact = |low: u32, high: u32| {
        let mut ids = Vec::new();
        postings.gather(low, high, &mut ids);
        ids.into_iter().filter_map(|id| index.row_of(id)).filter(|(_, row)| plan.test.passes(row)).count()
            as u64
    };
    if sure_low > sure_high {
        return exact(low, high);
    }
    let below = if low < sure_low { exact(low, sure_low - 1) } else { 0 };
    let above = if sure_high < high { exact(sure_high + 1, high) } else { 0 };
    let undated = if plan.test.windowed {
        index.undated().range(sure_low, sure_high).filter(|id| postings.contains(*id)).count()
    } else {
        0
    };
    below + postings.count(sure_low, sure_high).saturating_sub(undated as u64) + above
}

/// The bounds of a plan within what the query asks for; nothing if the first is greater.
pub fn narrowed(query: &HistoryQuery<'_>, (low, high): (u32, u32)) -> (u32, u32) {
    let (mut low, mut high) = (i64::from(low), i64::from(high));
    let bounds = [query.below, query.after.filter(|_| query.order == Order::Newest)];
    for bound in bounds.into_iter().flatten() {
        high = high.min(i64::from(bound) - 1);
    }
    if let (Order::Oldest, Some(after)) = (query.order, query.after) {
        low = low.max(i64::from(after) + 1);
    }
    u32::try_from(low).ok().zip(u32::try_from(high).ok()).unwrap_or((1, 0))
}

/// Takes ids from the end of the range where the answer begins, about `aim` of them, and moves the range
/// behind them.
fn take_window(
    plan: &Plan<'_>,
    index: &Index,
    order: Order,
    range: &mut Option<(u32, u32)>,
    aim: u64,
) -> Vec<u32> {
    let mut scale = 1;
    while let Some((low, high)) = range.filter(|(low, high)| low <= high) {
        let (from, to) = window_of(plan, index, order, (low, high), aim, scale);
        let rest = match order {
            Order::Newest => from.checked_sub(1).map(|high| (low, high)),
            Order::Oldest => to.checked_add(1).map(|low| (low, high)),
        };
        *range = rest.filter(|(low, high)| low <= high);
        let ids = plan.gather(index, from, to);
        if !ids.is_empty() {
            return ids;
        }
        // Ids come in runs with wide gaps between them: a gap must not be crossed in small steps.
        scale *= 4;
    }
    *range = None;
    Vec::new()
}

/// The part of a range of ids, at the end where the answer begins, that should hold `aim` of them.
fn window_of(
    plan: &Plan<'_>,
    index: &Index,
    order: Order,
    (low, high): (u32, u32),
    aim: u64,
    scale: u64,
) -> (u32, u32) {
    let count = plan.count(index, low, high);
    if count <= aim {
        return (low, high);
    }
    // Bounds may reach far beyond the ids there are.
    let (first, last) = index.all().ends().unwrap_or((low, high));
    let (low_id, high_id) = (low.max(first), high.min(last));
    let span = u64::from(high_id.saturating_sub(low_id)) + 1;
    let width = (span.saturating_mul(aim) / count).saturating_mul(scale).clamp(1, u64::from(u32::MAX)) as u32;
    match order {
        Order::Newest => (low.max(high_id.saturating_sub(width)), high),
        Order::Oldest => (low, high.min(low_id.saturating_add(width))),
    }
}
