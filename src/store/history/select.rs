//! History queries: killmails in the order of their ids, found through the index. Law 1 (selection agrees with
//! the filter) guards this file.
//!
//! Ids are read in windows from the end where the answer begins, so that the newest 50 of a million cost 50;
//! the lock is released between windows. In newest-first order, killmails with an implausible time come last.
//!
//! Must not know: positions of readers.

use crate::domain::filter::Filter;
use crate::domain::term::{Dimension, Term};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::index::Index;
use crate::store::index::id_range::IdRange;
use crate::store::index::plan::{Plan, accepts, needs_facts};
use crate::store::index::postings::Postings;
use crate::store::query::{HistoryQuery, Hit, Order, Totals};

/// Fewest ids in a window.
const WINDOW_MIN: u64 = 128;
/// Most ids in a window, which is read under one lock.
pub const WINDOW_MAX: u64 = 65_536;
/// Fewest ids in a window of a query with several groups.
const WINDOW_JOINED_MIN: u64 = 4_096;

/// What is left to read of a query.
enum Remaining {
    All,
    Ids(IdRange),
}

struct WindowSize {
    /// Hits still missing.
    wanted: usize,
    /// Makes the window this many times larger than should be enough for them.
    factor: u64,
}

impl Store {
    /// The killmails that match a query, in its order.
    ///
    /// # Errors
    /// The disk, if facts have to be read to test roles.
    pub fn select(&self, query: &HistoryQuery<'_>) -> Result<Vec<Hit>, StoreError> {
        let mut lookups = u64::MAX;
        Ok(self.select_within(query, &mut lookups)?.unwrap_or_default())
    }

    /// As [`Store::select`], but reads the facts of at most `lookups` killmails and subtracts those it read.
    /// `None` if they do not suffice.
    ///
    /// # Errors
    /// As [`Store::select`].
    pub fn select_within(
        &self,
        query: &HistoryQuery<'_>,
        lookups: &mut u64,
    ) -> Result<Option<Vec<Hit>>, StoreError> {
        let mut hits = Vec::new();
        let among_undated = lists_undated_last(query)
            && query.after.is_some_and(|id| self.resident.read().index.undated().contains(id));
        if !among_undated && !self.select_into(query, &mut hits, lookups)? {
            return Ok(None);
        }
        let undated = HistoryQuery { after: query.after.filter(|_| among_undated), ..*query };
        if lists_undated_last(query)
            && hits.len() < query.limit
            && !self.select_undated(&undated, &mut hits, lookups)?
        {
            return Ok(None);
        }
        Ok(Some(hits))
    }

    /// Appends the matches, without undated killmails where those come last. Returns false if the lookups do
    /// not suffice.
    fn select_into(
        &self,
        query: &HistoryQuery<'_>,
        hits: &mut Vec<Hit>,
        lookups: &mut u64,
    ) -> Result<bool, StoreError> {
        let needs_facts = needs_facts(query.filter, query.interest);
        let (mut remaining, mut factor) = (Remaining::All, 1);
        while hits.len() < query.limit {
            let (from, wanted) = (hits.len(), query.limit - hits.len());
            let more = self.select_window(query, &mut remaining, &WindowSize { wanted, factor }, hits);
            if hits.len() - from < wanted {
                // Row tests or other groups remove most of the ids: try larger windows.
                factor = (factor * 4).min(WINDOW_MAX);
            }
            if needs_facts && !self.keep_accepted(query, from, hits, lookups)? {
                return Ok(false);
            }
            if !more {
                break;
            }
        }
        Ok(true)
    }

    /// Appends the undated matches, greatest ids first. Returns false if the lookups do not suffice.
    fn select_undated(
        &self,
        query: &HistoryQuery<'_>,
        hits: &mut Vec<Hit>,
        lookups: &mut u64,
    ) -> Result<bool, StoreError> {
        let mut range = narrow(query, IdRange::ALL);
        while !range.is_empty() && hits.len() < query.limit {
            let from = hits.len();
            {
                let memory = self.resident.read();
                let index = &memory.index;
                let plan = Plan::new(index, query.filter, query.interest);
                range = scan_list(index.undated(), Order::Newest, range, &mut |id| {
                    let matching = index.row_of(id).filter(|(seq, row)| {
                        *seq <= query.head && plan.test.passes(row) && plan.is_in_every_group(id)
                    });
                    hits.extend(matching.map(|(seq, _)| Hit { seq, killmail_id: id }));
                    hits.len() < query.limit
                });
            }
            if needs_facts(query.filter, query.interest) && !self.keep_accepted(query, from, hits, lookups)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The number of killmails that match a query; its limit and order are ignored.
    ///
    /// # Errors
    /// As [`Store::select`].
    pub fn count_matching(&self, query: &HistoryQuery<'_>) -> Result<u64, StoreError> {
        let mut lookups = u64::MAX;
        Ok(self.count_within(query, &mut lookups)?.unwrap_or_default())
    }

    /// As [`Store::count_matching`], with limited lookups as in [`Store::select_within`].
    ///
    /// # Errors
    /// As [`Store::select`].
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

    /// Sums over the killmails that match a query; its limit and order are ignored. Lookups are limited as in
    /// [`Store::select_within`].
    ///
    /// # Errors
    /// As [`Store::select`].
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

    /// The number of killmails in a solar system since a time, unix seconds.
    #[must_use]
    pub fn count_in_system(&self, system: u32, since: i64) -> u64 {
        let mut filter = Filter { since: Some(since), ..Filter::default() };
        filter.set_ids(Dimension::System, vec![system]);
        let memory = self.resident.read();
        let Some(postings) = memory.index.postings(Term { dimension: Dimension::System, id: system }) else {
            return 0;
        };
        let plan = Plan::new(&memory.index, &filter, None);
        count_in_range(&memory.index, &plan, postings, plan.bounds)
    }

    /// Appends the hits of the next window. Returns whether any ids remain.
    fn select_window(
        &self,
        query: &HistoryQuery<'_>,
        remaining: &mut Remaining,
        size: &WindowSize,
        hits: &mut Vec<Hit>,
    ) -> bool {
        let memory = self.resident.read();
        let index = &memory.index;
        let plan = Plan::new(index, query.filter, query.interest);
        let mut rest = match remaining {
            Remaining::All => narrow(query, plan.bounds),
            Remaining::Ids(rest) => *rest,
        };
        let limit = hits.len().saturating_add(size.wanted);
        let untested = ids_without_row_test(query, &plan, index);
        let skipped = if lists_undated_last(query) {
            Some(index.undated()).filter(|ids| !ids.is_empty())
        } else {
            None
        };
        // Returns whether another hit is wanted.
        let mut visit = |id: u32| {
            if skipped.is_some_and(|undated| undated.contains(id)) {
                return hits.len() < limit;
            }
            let seq = match untested {
                Some(ids) if ids.contains(id) && !(plan.test.has_window && index.undated().contains(id)) => {
                    index.ids.get(id)
                }
                _ => index
                    .row_of(id)
                    .filter(|(seq, row)| *seq <= query.head && plan.test.passes(row))
                    .map(|(seq, _)| seq),
            };
            hits.extend(seq.map(|seq| Hit { seq, killmail_id: id }));
            hits.len() < limit
        };
        if let Some(list) = plan.single_list(index) {
            rest = scan_list(list, query.order, rest, &mut visit);
        } else {
            // It is unknown how many ids are in all of several groups. Windows are larger then, because each
            // has a fixed cost.
            let min = if plan.groups().len() > 1 { WINDOW_JOINED_MIN } else { WINDOW_MIN };
            let aim = (size.wanted as u64).saturating_mul(2).max(min);
            let aim = aim.saturating_mul(size.factor).min(WINDOW_MAX);
            let ids = read_window(&plan, index, query.order, &mut rest, aim);
            let is_full = match query.order {
                Order::Newest => !ids.iter().rev().all(|id| visit(*id)),
                Order::Oldest => !ids.iter().all(|id| visit(*id)),
            };
            if let (true, Some(hit)) = (is_full, hits.last())
                && let (Some(first_id), Some(last_id)) = (ids.first(), ids.last())
            {
                // The rest of this window is needed again if facts rule out some of these hits.
                let unread = if rest.is_empty() { IdRange::new(*first_id, *last_id) } else { rest };
                rest = match query.order {
                    Order::Newest => IdRange { high: *last_id, ..unread }.below(hit.killmail_id),
                    Order::Oldest => IdRange { low: *first_id, ..unread }.above(hit.killmail_id),
                };
            }
        }
        *remaining = Remaining::Ids(rest);
        !rest.is_empty()
    }

    /// Removes the hits after the first `from` whose facts the query does not accept. Returns false if the
    /// lookups do not suffice.
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

    /// The number of matches, if it can be counted without testing rows.
    fn count_in_bitmaps(&self, query: &HistoryQuery<'_>) -> Option<u64> {
        if needs_facts(query.filter, query.interest) {
            return None;
        }
        let memory = self.resident.read();
        let plan = Plan::new(&memory.index, query.filter, query.interest);
        if !plan.can_count_in_bitmaps(&memory.index, query.head) {
            return None;
        }
        let list = plan.single_list(&memory.index)?;
        Some(count_in_range(&memory.index, &plan, list, narrow(query, plan.bounds)))
    }
}

/// Whether undated killmails come last: in newest-first order, unless a time window excludes them.
pub const fn lists_undated_last(query: &HistoryQuery<'_>) -> bool {
    matches!(query.order, Order::Newest) && !query.filter.has_window()
}

/// Visits the ids of one list from the end where the answer begins, at most one window of them, until `visit`
/// returns false. Returns the ids that remain.
fn scan_list(list: &Postings, order: Order, range: IdRange, visit: &mut impl FnMut(u32) -> bool) -> IdRange {
    let mut visited = 0;
    let mut stops_at = |id: &u32| {
        visited += 1;
        !visit(*id) || visited >= WINDOW_MAX
    };
    let mut ids = list.iter(range);
    match order {
        Order::Newest => ids.rev().find(&mut stops_at).map_or(IdRange::EMPTY, |id| range.below(id)),
        Order::Oldest => ids.find(&mut stops_at).map_or(IdRange::EMPTY, |id| range.above(id)),
    }
}

/// Ids whose rows need no test, because nothing but the time is restricted and these are in the time window.
fn ids_without_row_test(query: &HistoryQuery<'_>, plan: &Plan<'_>, index: &Index) -> Option<IdRange> {
    if plan.test.beyond_time || plan.test.live_max_age.is_some() || query.head < index.head() {
        return None;
    }
    Some(ids_within_window(index, plan))
}

/// Ids that are in the time window of the plan, unless they are undated.
fn ids_within_window(index: &Index, plan: &Plan<'_>) -> IdRange {
    let (since, until) = (plan.test.since, plan.test.until);
    let low = if since == i64::MIN { 0 } else { index.time_bounds.all_since_above(since).saturating_add(1) };
    let above = if until == i64::MAX { None } else { index.time_bounds.all_until_below(until) };
    IdRange::new(low, above.map_or(u32::MAX, |id| id.saturating_sub(1)))
}

/// The number of ids of a list in the range and in the time window of the plan: counted in the bitmap where
/// every id is in the window, tested one by one at its edges.
pub fn count_in_range(index: &Index, plan: &Plan<'_>, postings: &Postings, range: IdRange) -> u64 {
    if range.is_empty() {
        return 0;
    }
    let count_tested = |range: IdRange| {
        let mut ids = Vec::new();
        postings.append_to(&mut ids, range);
        ids.into_iter().filter_map(|id| index.row_of(id)).filter(|(_, row)| plan.test.passes(row)).count()
            as u64
    };
    let within = ids_within_window(index, plan).intersect(range);
    if within.is_empty() {
        return count_tested(range);
    }
    let below = count_tested(range.below(within.low));
    let above = count_tested(range.above(within.high));
    let undated = if plan.test.has_window {
        index.undated().iter(within).filter(|id| postings.contains(*id)).count()
    } else {
        0
    };
    below + postings.count(within).saturating_sub(undated as u64) + above
}

/// The part of a range that the query asks for.
pub fn narrow(query: &HistoryQuery<'_>, mut range: IdRange) -> IdRange {
    if let Some(below) = query.below {
        range = range.below(below);
    }
    match (query.order, query.after) {
        (Order::Newest, Some(after)) => range.below(after),
        (Order::Oldest, Some(after)) => range.above(after),
        (_, None) => range,
    }
}

/// Reads about `aim` ids from the end of the range where the answer begins, and removes them from the range.
fn read_window(plan: &Plan<'_>, index: &Index, order: Order, range: &mut IdRange, aim: u64) -> Vec<u32> {
    let mut scale = 1;
    while !range.is_empty() {
        let window = window_of(plan, index, order, *range, aim, scale);
        *range = match order {
            Order::Newest => range.below(window.low),
            Order::Oldest => range.above(window.high),
        };
        let ids = plan.collect(index, window);
        if !ids.is_empty() {
            return ids;
        }
        // Ids come in runs with wide gaps between them. Larger steps cross a gap in few iterations.
        scale *= 4;
    }
    Vec::new()
}

/// The part of a range, at the end where the answer begins, that should hold `aim` ids, times `scale`.
fn window_of(plan: &Plan<'_>, index: &Index, order: Order, range: IdRange, aim: u64, scale: u64) -> IdRange {
    let count = plan.count(index, range);
    if count <= aim {
        return range;
    }
    // The range may reach far beyond the ids that exist.
    let existing = index.all().span().map_or(range, |span| span.intersect(range));
    let span = u64::from(existing.high.saturating_sub(existing.low)) + 1;
    let width = (span.saturating_mul(aim) / count).saturating_mul(scale).clamp(1, u64::from(u32::MAX)) as u32;
    match order {
        Order::Newest => IdRange { low: range.low.max(existing.high.saturating_sub(width)), ..range },
        Order::Oldest => IdRange { high: range.high.min(existing.low.saturating_add(width)), ..range },
    }
}
