//! Estimates the work of a history query before it runs.
//!
//! Law 7 (same input, same output) guards this file: the estimate depends only on the query and on the killmails
//! it is about, which are numbered up to its head. Later killmails change nothing, even if their ids lie among
//! the others or their lists were empty before. Therefore the estimate is not always the least possible work.
//!
//! Must not know: who asks, or how much work the caller may cause.

use crate::domain::filter::RoleClause;
use crate::domain::id::Seq;
use crate::domain::term::Term;
use crate::store::Store;
use crate::store::history::select::{WINDOW_MAX, count_in_range, lists_undated_last, narrow};
use crate::store::index::Index;
use crate::store::index::id_range::IdRange;
use crate::store::index::plan::{LOOKUP_COST, Plan, RowTest};
use crate::store::index::postings::Postings;
use crate::store::index::rows::{BLOCK, Row};
use crate::store::query::HistoryQuery;

/// Cost of sorting one id from several lists into one, relative to reading one id from a list.
pub const UNITED_COST: u64 = 10;

/// The most work that a query takes, not counting killmails whose facts have to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Lists of killmails that are opened or searched for.
    pub lists: u64,
    /// Killmail ids read from single lists.
    pub read: u64,
    /// Killmail ids read from several lists and sorted into one.
    pub united: u64,
    /// Killmail ids looked up in a list.
    pub lookups: u64,
    /// Rows that are tested.
    pub rows: u64,
}

#[derive(Debug, Clone, Copy)]
enum List {
    All,
    Undated,
    Term(Term),
}

impl List {
    fn find(self, index: &Index) -> Option<&Postings> {
        match self {
            Self::All => Some(index.all()),
            Self::Undated => Some(index.undated()),
            Self::Term(term) => index.postings(term),
        }
    }
}

impl Store {
    /// The work of finding everything that a query matches. The filter may restrict nothing but `each` and the
    /// time. Numbers are not exact where the work exceeds reading `limit` ids.
    #[must_use]
    pub fn estimate_effort(&self, query: &HistoryQuery<'_>, limit: u64) -> Effort {
        let memory = self.resident.read();
        let index = &memory.index;
        let plan = Plan::new(index, query.filter, query.interest);
        let (test, range) = (plan.test, narrow(query, plan.bounds));
        let estimate = Estimate { store: self, query, test, range, limit };
        if let Some(late) = late_ids(index, &plan, query.head, range) {
            return estimate.effort(Some(&Locked { index, plan: &plan, late }));
        }
        drop(plan);
        drop(memory);
        estimate.effort(None)
    }
}

struct Estimate<'a> {
    store: &'a Store,
    query: &'a HistoryQuery<'a>,
    test: RowTest,
    range: IdRange,
    limit: u64,
}

/// The index under one read lock, for counting without testing each id. Possible where only a few ids (`late`)
/// do not count because their entries are beyond the head of the query.
struct Locked<'a> {
    index: &'a Index,
    plan: &'a Plan<'a>,
    late: Vec<u32>,
}

impl Estimate<'_> {
    fn effort(&self, locked: Option<&Locked<'_>>) -> Effort {
        let mut clauses: Vec<&RoleClause> = self.query.filter.each.iter().collect();
        // The order affects only how long the estimate takes.
        clauses.sort_by_cached_key(|clause| self.count_at_most(clause, locked));
        let widths: u64 = clauses.iter().map(|clause| width(clause)).sum();
        let undated = if lists_undated_last(self.query) {
            self.count_list(List::Undated, self.limit, locked)
        } else {
            0
        };
        let mut effort = Effort { lookups: undated.saturating_mul(widths), ..Effort::default() };
        let mut least =
            if clauses.is_empty() { self.count_list(List::All, self.limit, locked) } else { self.limit };
        for clause in &clauses {
            least = least.min(self.count_clause(clause, least, locked));
        }
        effort.rows = least;
        // Each window opens the lists again.
        effort.lists = widths.max(1).saturating_mul(least / WINDOW_MAX + 1);
        if clauses.is_empty() {
            effort.read = least;
        }
        for clause in clauses {
            let lookups = least.saturating_mul(width(clause));
            let lookups_cost = lookups.saturating_mul(LOOKUP_COST);
            let count = self.count_clause(clause, self.limit.min(lookups_cost), locked);
            if count >= lookups_cost {
                effort.lookups = effort.lookups.saturating_add(lookups);
            } else if width(clause) > 1 {
                effort.united = effort.united.saturating_add(count);
            } else {
                effort.read = effort.read.saturating_add(count);
            }
            if effort.read.saturating_add(effort.united.saturating_mul(UNITED_COST)) > self.limit {
                break;
            }
        }
        effort
    }

    /// An upper bound of the ids in the lists of a clause.
    fn count_at_most(&self, clause: &RoleClause, locked: Option<&Locked<'_>>) -> u64 {
        let count = |index: &Index| {
            lists(clause).filter_map(|list| list.find(index)).map(|ids| ids.count(self.range)).sum::<u64>()
        };
        locked.map_or_else(|| count(&self.store.resident.read().index), |locked| count(locked.index))
    }

    /// How many ids in the lists of a clause the query is about, up to `limit`. An id in several lists counts
    /// several times.
    fn count_clause(&self, clause: &RoleClause, limit: u64, locked: Option<&Locked<'_>>) -> u64 {
        let mut count = 0;
        for list in lists(clause) {
            if count >= limit {
                return limit;
            }
            count += self.count_list(list, limit - count, locked);
        }
        count
    }

    /// How many ids of a list the query is about, up to `limit`.
    fn count_list(&self, list: List, limit: u64, locked: Option<&Locked<'_>>) -> u64 {
        let Some(Locked { index, plan, late }) = locked else { return self.count_rows(list, limit) };
        let Some(ids) = list.find(index) else { return 0 };
        if ids.count(self.range) < late.len() as u64 {
            let rows = ids.iter(self.range).filter_map(|id| index.row_of(id));
            return (rows.filter(|(seq, row)| self.concerns(*seq, row)).count() as u64).min(limit);
        }
        let beyond_head = late.iter().filter(|id| ids.contains(**id)).count() as u64;
        count_in_range(index, plan, ids, self.range).saturating_sub(beyond_head).min(limit)
    }

    /// As `count_list`, by testing each row; releases the lock in between.
    fn count_rows(&self, list: List, limit: u64) -> u64 {
        let (mut count, mut range) = (0, self.range);
        while count < limit {
            let memory = self.store.resident.read();
            let Some(ids) = list.find(&memory.index) else { break };
            let mut last = None;
            for id in ids.iter(range).take(WINDOW_MAX as usize) {
                last = Some(id);
                count += u64::from(memory.index.row_of(id).is_some_and(|(seq, row)| self.concerns(seq, row)));
            }
            let Some(last) = last else { break };
            range = range.above(last);
        }
        count.min(limit)
    }

    fn concerns(&self, seq: Seq, row: &Row) -> bool {
        seq <= self.query.head && self.test.passes(row)
    }
}

fn width(clause: &RoleClause) -> u64 {
    clause.ids.as_slice().len() as u64
}

fn lists(clause: &RoleClause) -> impl Iterator<Item = List> {
    clause.ids.as_slice().iter().map(|id| List::Term(Term { dimension: clause.dimension, id: *id }))
}

/// Ids in the range whose entries are beyond the head of the query; `None` if there may be too many to search
/// for. There are hardly any in most cases: queries are about the newest killmails, and ids grow with numbers,
/// but not strictly.
fn late_ids(index: &Index, plan: &Plan<'_>, head: Seq, range: IdRange) -> Option<Vec<u32>> {
    let (mut late, mut rows_tested) = (Vec::new(), 0);
    let first_block = (head.0.min(index.head().0) / BLOCK) as usize;
    for (at, block) in index.rows.blocks().iter().enumerate().skip(first_block) {
        if block.span.is_none_or(|span| span.intersect(range).is_empty()) {
            continue;
        }
        let begin = at as u64 * BLOCK;
        let rows = block
            .rows
            .get(head.0.saturating_sub(begin).min(block.rows.len() as u64) as usize..)
            .unwrap_or_default();
        rows_tested += rows.len() as u64;
        if rows_tested > BLOCK {
            return None;
        }
        let is_late =
            |row: &&Row| row.killmail_id != 0 && range.contains(row.killmail_id) && plan.test.passes(row);
        late.extend(rows.iter().filter(is_late).map(|row| row.killmail_id));
    }
    Some(late)
}
