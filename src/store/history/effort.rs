//! What answering a question about history takes, told before it is answered.
//!
//! Law 7 (same in, same out) stands here: it follows from the question, and from killmails it is about, which
//! are numbered up to its head. What came later changes nothing of it, neither ids that lie among the others
//! nor lists that were empty before. So it is not always the least that would do.
//!
//! Must not know: who asks, or how much of it he may have.

use crate::domain::filter::RoleClause;
use crate::domain::id::Seq;
use crate::domain::term::Term;
use crate::store::Store;
use crate::store::history::select::{WINDOW_MAX, count_times, narrowed, undated_last};
use crate::store::index::Index;
use crate::store::index::plan::{LOOKUP_COST, Plan, Test};
use crate::store::index::postings::Postings;
use crate::store::index::rows::{BLOCK, Row};
use crate::store::query::HistoryQuery;

/// Sorting one id out of several lists into one, against reading one id out of a list.
pub const UNITED_COST: u64 = 10;

/// The most that an answer takes, but for killmails whose facts have to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Lists of killmails that are opened, or looked for.
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

/// A list of killmails.
#[derive(Debug, Clone, Copy)]
enum List {
    All,
    Undated,
    Of(Term),
}

impl List {
    fn find(self, index: &Index) -> Option<&Postings> {
        match self {
            Self::All => Some(index.all()),
            Self::Undated => Some(index.undated()),
            Self::Of(term) => index.postings(term),
        }
    }
}

impl Store {
    /// What it takes to find all that a query asks for whose filter has nothing but `each` and times. It is
    /// not told exactly where it is more than reading `most` ids.
    #[must_use]
    pub fn effort(&self, query: &HistoryQuery<'_>, most: u64) -> Effort {
        let memory = self.resident.read();
        let index = &memory.index;
        let plan = Plan::new(index, query.filter, query.interest);
        let (test, range) = (plan.test, narrowed(query, plan.bounds));
        let asked = Asked { store: self, query, test, range, most };
        if let Some(late) = late(index, &plan, query.head, range) {
            return asked.effort(Some(&Counted { index, plan: &plan, late }));
        }
        drop(plan);
        drop(memory);
        asked.effort(None)
    }
}

/// A question being weighed.
struct Asked<'a> {
    store: &'a Store,
    query: &'a HistoryQuery<'a>,
    test: Test,
    range: (u32, u32),
    most: u64,
}

/// What it takes to count without looking at each id: the index, and the few ids that do not count because
/// they came later.
struct Counted<'a> {
    index: &'a Index,
    plan: &'a Plan<'a>,
    late: Vec<u32>,
}

impl Asked<'_> {
    fn effort(&self, counted: Option<&Counted<'_>>) -> Effort {
        let mut groups: Vec<(&RoleClause, u64)> =
            self.query.filter.each.iter().map(|w| (w, w.ids.as_slice().len() as u64)).collect();
        // Nothing but how long this takes depends on the order.
        groups.sort_by_cached_key(|(wanted, _)| self.at_most(wanted, counted));
        let widths: u64 = groups.iter().map(|(_, width)| width).sum();
        let undated = if undated_last(self.query) { self.held(List::Undated, self.most, counted) } else { 0 };
        let mut effort = Effort { lookups: undated.saturating_mul(widths), ..Effort::default() };
        let mut least = if groups.is_empty() { self.held(List::All, self.most, counted) } else { self.most };
        for (wanted, _) in &groups {
            least = least.min(self.held_by(wanted, least, counted));
        }
        effort.rows = least;
        // Each window begins anew.
        effort.lists = widths.max(1).saturating_mul(least / WINDOW_MAX + 1);
        if groups.is_empty() {
            effort.read = least;
        }
        for (wanted, width) in groups {
            let lookups = least.saturating_mul(width);
            let worth = lookups.saturating_mul(LOOKUP_COST);
            let count = self.held_by(wanted, self.most.min(worth), counted);
            if count >= worth {
                effort.lookups = effort.lookups.saturating_add(lookups);
            } else if width > 1 {
                effort.united = effort.united.saturating_add(count);
            } else {
                effort.read = effort.read.saturating_add(count);
            }
            if effort.read.saturating_add(effort.united.saturating_mul(UNITED_COST)) > self.most {
                break;
            }
        }
        effort
    }

    /// An upper bound of the ids in the lists of a term.
    fn at_most(&self, wanted: &RoleClause, counted: Option<&Counted<'_>>) -> u64 {
        let count = |index: &Index| {
            lists(wanted)
                .filter_map(|list| list.find(index))
                .map(|ids| ids.count(self.range.0, self.range.1))
                .sum::<u64>()
        };
        counted.map_or_else(|| count(&self.store.resident.read().index), |counted| count(counted.index))
    }

    /// How many ids of a term's lists the question is about, up to so many; those in several as often.
    fn held_by(&self, wanted: &RoleClause, most: u64, counted: Option<&Counted<'_>>) -> u64 {
        let mut held = 0;
        for list in lists(wanted) {
            if held >= most {
                return most;
            }
            held += self.held(list, most - held, counted);
        }
        held
    }

    /// How many ids of a list the question is about, up to so many.
    fn held(&self, list: List, most: u64, counted: Option<&Counted<'_>>) -> u64 {
        let Some(Counted { index, plan, late }) = counted else { return self.looked_at(list, most) };
        let Some(ids) = list.find(index) else { return 0 };
        let (low, high) = self.range;
        if ids.count(low, high) < late.len() as u64 {
            let rows = ids.range(low, high).filter_map(|id| index.row_of(id));
            return (rows.filter(|(seq, row)| self.is_concerned(*seq, row)).count() as u64).min(most);
        }
        let beyond = late.iter().filter(|id| ids.contains(**id)).count() as u64;
        count_times(index, plan, ids, self.range).saturating_sub(beyond).min(most)
    }

    /// The same by looking at each; the lock is given back in between.
    fn looked_at(&self, list: List, most: u64) -> u64 {
        let (mut held, (mut low, high)) = (0, self.range);
        while held < most {
            let memory = self.store.resident.read();
            let Some(ids) = list.find(&memory.index) else { break };
            let mut last = None;
            for id in ids.range(low, high).take(WINDOW_MAX as usize) {
                last = Some(id);
                held +=
                    u64::from(memory.index.row_of(id).is_some_and(|(seq, row)| self.is_concerned(seq, row)));
            }
            let Some(next) = last.and_then(|id| id.checked_add(1)) else { break };
            low = next;
        }
        held.min(most)
    }

    fn is_concerned(&self, seq: Seq, row: &Row) -> bool {
        seq <= self.query.head && self.test.passes(row)
    }
}

fn lists(wanted: &RoleClause) -> impl Iterator<Item = List> {
    wanted.ids.as_slice().iter().map(|id| List::Of(Term { kind: wanted.kind, id: *id }))
}

/// Ids within the range of a question whose numbers are beyond its head; `None` where there may be too many
/// to look for. Mostly there are hardly any: whoever asks early asks about the newest killmail, and ids
/// ascend with numbers, nearly.
fn late(index: &Index, plan: &Plan<'_>, head: Seq, (low, high): (u32, u32)) -> Option<Vec<u32>> {
    let (mut late, mut looked_at) = (Vec::new(), 0);
    let first = (head.0.min(index.head().0) / BLOCK) as usize;
    for (at, block) in index.rows.blocks().iter().enumerate().skip(first) {
        if block.span.is_none_or(|(least, greatest)| least > high || greatest < low) {
            continue;
        }
        let begins = at as u64 * BLOCK;
        let rows = block
            .rows
            .get(head.0.saturating_sub(begins).min(block.rows.len() as u64) as usize..)
            .unwrap_or_default();
        looked_at += rows.len() as u64;
        if looked_at > BLOCK {
            return None;
        }
        let concerned = |row: &&Row| {
            row.killmail_id != 0 && (low..=high).contains(&row.killmail_id) && plan.test.passes(row)
        };
        late.extend(rows.iter().filter(concerned).map(|row| row.killmail_id));
    }
    Some(late)
}
