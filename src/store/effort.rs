//! What answering a question about history takes, told before it is answered.
//!
//! Law 7 (same in, same out) stands here: it follows from the question, and from killmails it is about, which are numbered up to its head.
//! What came later changes nothing of it, neither ids that lie among the others nor lists that were empty before. So it is not always
//! the least that would do.
//!
//! Must not know: who asks, or how much of it he may have.

use crate::domain::id::Seq;
use crate::store::index::Index;
use crate::store::plan::{Group, LOOKUP_COST, Plan};
use crate::store::postings::Postings;
use crate::store::rows::{BLOCK, Row};
use crate::store::select::{WINDOW_MAX, count_times, narrowed, undated_last};
use crate::store::{Query, Store};

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

impl Store {
    /// What it takes to find all that a query asks for whose filter has nothing but `each` and times. It is not told exactly where it is
    /// more than reading `most` ids.
    #[must_use]
    pub fn effort(&self, query: &Query<'_>, most: u64) -> Effort {
        let memory = self.memory.read();
        let index = &memory.index;
        let plan = Plan::new(index, query.filter, query.interest);
        Asked::new(index, &plan, query, most).effort()
    }
}

/// A question being weighed.
struct Asked<'a> {
    index: &'a Index,
    plan: &'a Plan<'a>,
    query: &'a Query<'a>,
    range: (u32, u32),
    late: Late,
    most: u64,
}

/// Ids within the range of a question whose numbers are beyond its head.
enum Late {
    /// These, ascending.
    These(Vec<u32>),
    /// There are too many to look for.
    Many,
}

impl<'a> Asked<'a> {
    fn new(index: &'a Index, plan: &'a Plan<'a>, query: &'a Query<'a>, most: u64) -> Self {
        let range = narrowed(query, plan.bounds);
        Self { index, plan, query, range, late: late(index, plan, query.head, range), most }
    }

    fn effort(&self) -> Effort {
        let wanted = &self.query.filter.each;
        let groups = self.plan.groups().iter().zip(wanted).map(|(group, wanted)| (group, wanted.ids.as_slice().len() as u64));
        let mut groups: Vec<(&Group<'_>, u64)> = groups.collect();
        // Nothing but how long this takes depends on the order.
        groups.sort_by_cached_key(|(group, _)| group.count(self.range.0, self.range.1));
        let widths: u64 = groups.iter().map(|(_, width)| width).sum();
        let undated = if undated_last(self.query) { self.held(self.index.undated(), self.most) } else { 0 };
        let mut effort = Effort { lookups: undated.saturating_mul(widths), ..Effort::default() };
        let mut least = self.most;
        for (group, _) in &groups {
            least = least.min(self.held_by(group, least));
        }
        if groups.is_empty() {
            least = self.held(self.index.all(), self.most);
        }
        effort.rows = least;
        // Each window begins anew.
        effort.lists = widths.max(1).saturating_mul(least / WINDOW_MAX + 1);
        if groups.is_empty() {
            effort.read = least;
        }
        for (group, width) in groups {
            let lookups = least.saturating_mul(width);
            let worth = lookups.saturating_mul(LOOKUP_COST);
            let count = self.held_by(group, self.most.min(worth));
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

    /// How many ids a group holds that the question is about, up to so many; those in several lists as often.
    fn held_by(&self, group: &Group<'_>, most: u64) -> u64 {
        let mut held = 0;
        for list in group.lists() {
            if held >= most {
                return most;
            }
            held += self.held(list, most - held);
        }
        held
    }

    /// How many ids of a list the question is about, up to so many.
    fn held(&self, list: &Postings, most: u64) -> u64 {
        let (low, high) = self.range;
        let looked_at = || {
            let ids = list.range(low, high);
            let rows = ids.filter_map(|id| self.index.row_of(id)).filter(|(seq, row)| *seq <= self.query.head && self.plan.test.passes(row));
            rows.take(usize::try_from(most).unwrap_or(usize::MAX)).count() as u64
        };
        match &self.late {
            Late::Many => looked_at(),
            Late::These(late) if list.count(low, high) < late.len() as u64 => looked_at(),
            Late::These(late) => {
                let beyond = late.iter().filter(|id| list.contains(**id)).count() as u64;
                count_times(self.index, self.plan, list, self.range).saturating_sub(beyond).min(most)
            }
        }
    }
}

/// Mostly there are hardly any: whoever asks early asks about the newest killmail, and ids ascend with numbers, nearly.
fn late(index: &Index, plan: &Plan<'_>, head: Seq, (low, high): (u32, u32)) -> Late {
    let (mut late, mut looked_at) = (Vec::new(), 0);
    let first = (head.0.min(index.head().0) / BLOCK) as usize;
    for (at, block) in index.rows.blocks().iter().enumerate().skip(first) {
        if block.span.is_none_or(|(least, greatest)| least > high || greatest < low) {
            continue;
        }
        let begins = at as u64 * BLOCK;
        let rows = block.rows.get(head.0.saturating_sub(begins).min(block.rows.len() as u64) as usize..).unwrap_or_default();
        looked_at += rows.len() as u64;
        if looked_at > BLOCK {
            return Late::Many;
        }
        let concerned = |row: &&Row| row.killmail_id != 0 && (low..=high).contains(&row.killmail_id) && plan.test.passes(row);
        late.extend(rows.iter().filter(concerned).map(|row| row.killmail_id));
    }
    late.sort_unstable();
    Late::These(late)
}
