//! A question turned into set operations: groups of postings that are united and then intersected, and a test
//! of the rows that remain.
//!
//! What a plan yields is exact but for roles (and attacker counts beyond a row's reach): those are tested
//! afterwards on the facts.
//!
//! Must not know: disks, places of readers.

use crate::domain::facts::Facts;
use crate::domain::filter::{Filter, Interest, Match, RoleClause};
use crate::domain::id::Seq;
use crate::domain::term::{Dimension, Role, Term};
use crate::store::index::postings::Postings;
use crate::store::index::rows::{ATTACKERS_MAX, Row};
use crate::store::index::{Flag, Index};

/// Looking one id up in one term's postings, against reading one id out of them.
pub const LOOKUP_COST: u64 = 4;
/// Of more lists than this nobody counts what is in them before it is asked.
const COUNTED_LISTS_MAX: usize = 64;

/// Postings of which one is enough.
#[derive(Debug)]
pub struct Group<'a> {
    lists: Vec<&'a Postings>,
}

impl Group<'_> {
    /// An upper bound of the ids from `low` to `high`.
    pub fn count(&self, low: u32, high: u32) -> u64 {
        self.lists.iter().map(|list| list.count(low, high)).sum()
    }

    /// Whether one has the id.
    pub fn contains(&self, id: u32) -> bool {
        self.lists.iter().any(|list| list.contains(id))
    }

    /// How many postings there are.
    pub const fn len(&self) -> u64 {
        self.lists.len() as u64
    }

    /// The only postings, if there is but one.
    pub fn single(&self) -> Option<&Postings> {
        match self.lists[..] {
            [list] => Some(list),
            _ => None,
        }
    }

    /// The ids from `low` to `high` that are in both, where both are bitmaps: then that is cheaper than
    /// looking each id up.
    fn join(&self, other: &Self, low: u32, high: u32, out: &mut Vec<u32>) -> bool {
        match (self.single(), other.single()) {
            (Some(one), Some(other)) => one.join(other, low, high, out),
            _ => false,
        }
    }

    /// The united ids from `low` to `high`, ascending: concatenated and sorted, which beats folding bitmaps
    /// by far.
    pub fn gather(&self, low: u32, high: u32, out: &mut Vec<u32>) {
        out.clear();
        for list in &self.lists {
            list.gather(low, high, out);
        }
        if self.lists.len() > 1 {
            out.sort_unstable();
            out.dedup();
        }
    }
}

/// What a row tells.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    pub since: i64,
    pub until: i64,
    npc: Option<bool>,
    solo: Option<bool>,
    awox: Option<bool>,
    min_value: Option<f64>,
    max_value: Option<f64>,
    min_attackers: u32,
    max_attackers: u32,
    /// Only what a running source brought, at most so old.
    pub live: Option<u32>,
    /// Whether anything but the time is tested.
    pub beyond_time: bool,
    /// Whether the time is.
    pub windowed: bool,
}

impl Test {
    fn new(filter: &Filter, interest: Option<&Interest>) -> Self {
        let least = interest.and_then(|i| i.min_value);
        let min_value = match (filter.min_value, least) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        let min_attackers = interest.and_then(|i| i.min_attackers).unwrap_or(0);
        let max_attackers = interest.and_then(|i| i.max_attackers).unwrap_or(u32::MAX);
        let (npc, solo, awox, max_value) = (filter.npc, filter.solo, filter.awox, filter.max_value);
        let flags = npc.or(solo).or(awox).is_some();
        let beyond_time =
            flags || min_value.or(max_value).is_some() || min_attackers > 0 || max_attackers < u32::MAX;
        Self {
            since: filter.since.unwrap_or(i64::MIN),
            until: filter.until.unwrap_or(i64::MAX),
            npc,
            solo,
            awox,
            min_value,
            max_value,
            min_attackers,
            max_attackers,
            live: None,
            beyond_time,
            windowed: filter.has_window(),
        }
    }

    /// Whether the row passes.
    pub fn passes(&self, row: &Row) -> bool {
        let flag = |want: Option<bool>, is: bool| want.is_none_or(|w| w == is);
        row.time >= self.since
            && (row.time < self.until || self.until == i64::MAX)
            && (row.is_dated() || !self.windowed)
            && (!self.beyond_time
                || flag(self.npc, row.npc())
                    && flag(self.solo, row.solo())
                    && flag(self.awox, row.awox())
                    && self.min_value.is_none_or(|v| row.value >= v)
                    && self.max_value.is_none_or(|v| row.value <= v)
                    && self.attackers(row.attackers))
            && self.live.is_none_or(|max_age| row.origin().is_delivered_live(row.age_secs, max_age))
    }

    /// The least and the greatest value that pass; `None` if any does, known or not.
    fn values(&self) -> Option<(f64, f64)> {
        self.min_value.or(self.max_value)?;
        Some((self.min_value.unwrap_or(f64::NEG_INFINITY), self.max_value.unwrap_or(f64::INFINITY)))
    }

    fn attackers(&self, count: u16) -> bool {
        if count == ATTACKERS_MAX {
            return self.max_attackers >= u32::from(ATTACKERS_MAX);
        }
        (self.min_attackers..=self.max_attackers).contains(&u32::from(count))
    }

    const fn needs_count(&self) -> bool {
        self.min_attackers > ATTACKERS_MAX as u32
            || (self.max_attackers >= ATTACKERS_MAX as u32 && self.max_attackers < u32::MAX)
    }
}

/// A question, ready to be asked of the index it was made from.
#[derive(Debug)]
pub struct Plan<'a> {
    groups: Vec<Group<'a>>,
    /// Where there are no groups: postings no killmail may be in.
    without: Vec<&'a Postings>,
    /// What rows must pass.
    pub test: Test,
    /// Ids asked about, both included; nothing if the first is greater.
    pub bounds: (u32, u32),
}

impl<'a> Plan<'a> {
    /// Of a filter and what a plugin narrows it to.
    pub fn new(index: &'a Index, filter: &Filter, interest: Option<&Interest>) -> Self {
        let mut groups = Vec::new();
        let lists = |kind: Dimension, ids: &[u32]| {
            ids.iter().filter_map(|id| index.postings(Term { kind, id: *id })).collect::<Vec<_>>()
        };
        let dimensions = filter.dimensions.iter().map(|d| lists(d.kind, d.ids.as_slice()));
        match filter.matching {
            _ if filter.dimensions.is_empty() => {}
            Match::Any => groups.push(Group { lists: dimensions.flatten().collect() }),
            Match::All => groups.extend(dimensions.map(|lists| Group { lists })),
        }
        groups.extend(filter.each.iter().map(|w| Group { lists: lists(w.kind, w.ids.as_slice()) }));
        if let Some(interest) = interest.filter(|i| !i.any_of.is_empty()) {
            groups.push(Group {
                lists: interest.any_of.iter().flat_map(|w| lists(w.kind, w.ids.as_slice())).collect(),
            });
        }
        if !filter.labels.is_empty() {
            groups.push(Group {
                lists: filter.labels.iter().filter_map(|label| index.labelled(label)).collect(),
            });
        }
        if groups.is_empty() {
            let flags = [(filter.npc, Flag::Npc), (filter.solo, Flag::Solo), (filter.awox, Flag::Awox)];
            groups.extend(
                flags
                    .into_iter()
                    .filter(|(want, _)| *want == Some(true))
                    .map(|(_, flag)| Group { lists: vec![index.flagged(flag)] }),
            );
        }
        let test = Test::new(filter, interest);
        let short = groups.iter().map(|group| group.lists.len()).sum::<usize>() <= COUNTED_LISTS_MAX;
        if let Some(values) = test.values().filter(|_| short) {
            // Worth another group only where values take out most of what the others leave.
            let worth = index.bands().count(values);
            let left =
                groups.iter().map(|group| group.count(0, u32::MAX)).min().unwrap_or_else(|| index.count());
            if worth.saturating_mul(LOOKUP_COST) <= left {
                groups.push(Group { lists: index.bands().lists(values) });
            }
        }
        let mut without = Vec::new();
        if groups.is_empty() {
            let flags = [(filter.npc, Flag::Npc), (filter.solo, Flag::Solo), (filter.awox, Flag::Awox)];
            without.extend(
                flags
                    .into_iter()
                    .filter(|(want, _)| *want == Some(false))
                    .map(|(_, flag)| index.flagged(flag)),
            );
        }
        Self { groups, without, bounds: bounds(index, &test), test }
    }

    /// The same for what live readers are given.
    #[must_use]
    pub const fn live(mut self, max_age_secs: u32) -> Self {
        self.test.live = Some(max_age_secs);
        self
    }

    /// The groups; none means every killmail.
    pub fn groups(&self) -> &[Group<'a>] {
        &self.groups
    }

    /// The only postings that count, if there are but these.
    pub fn only(&self, index: &'a Index) -> Option<&Postings> {
        match &self.groups[..] {
            [] => Some(index.all()),
            [group] => group.single(),
            _ => None,
        }
    }

    /// Whether bitmaps alone can tell how many there are up to this number: one term or none, and nothing but
    /// time restricting.
    pub fn counts_in_bitmaps(&self, index: &'a Index, head: Seq) -> bool {
        self.only(index).is_some() && !self.test.beyond_time && head >= index.head()
    }

    /// Whether the killmail is in every group.
    pub fn named(&self, id: u32) -> bool {
        self.groups.iter().all(|group| group.contains(id))
    }

    /// How many lists one id would have to be looked up in.
    pub fn lookups(&self) -> u64 {
        self.groups.iter().map(Group::len).sum()
    }

    /// An upper bound of the ids from `low` to `high`: of the smallest group.
    pub fn count(&self, index: &Index, low: u32, high: u32) -> u64 {
        self.groups.iter().map(|group| group.count(low, high)).min().unwrap_or_else(|| {
            let taken = self.without.iter().map(|flagged| flagged.count(low, high)).max().unwrap_or(0);
            index.all().count(low, high).saturating_sub(taken)
        })
    }

    /// The ids from `low` to `high` that are in every group, ascending; rows are not tested.
    pub fn gather(&self, index: &Index, low: u32, high: u32) -> Vec<u32> {
        let mut ids = Vec::new();
        let counts: Vec<u64> = if self.groups.len() > 1 {
            self.groups.iter().map(|g| g.count(low, high)).collect()
        } else {
            vec![0]
        };
        let Some((first, _)) = self
            .groups
            .iter()
            .zip(&counts)
            .enumerate()
            .min_by_key(|(_, (_, count))| **count)
            .map(|(at, g)| (at, g.1))
        else {
            match self.without.iter().max_by_key(|flagged| flagged.count(low, high)) {
                None => index.all().gather(low, high, &mut ids),
                Some(flagged) => index.all().gather_without(flagged, low, high, &mut ids),
            }
            return ids;
        };
        if let [one, other] = &self.groups[..]
            && one.join(other, low, high, &mut ids)
        {
            return ids;
        }
        self.groups[first].gather(low, high, &mut ids);
        let mut other = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            if at == first || ids.is_empty() {
                continue;
            }
            if ids.len() as u64 * group.lists.len() as u64 * LOOKUP_COST <= counts[at] {
                ids.retain(|id| group.contains(*id));
            } else {
                group.gather(low, high, &mut other);
                intersect(&mut ids, &other);
            }
        }
        ids
    }
}

/// Whether the answer needs the facts of each candidate: for roles, and for attacker counts a row cannot
/// hold.
pub fn needs_facts(filter: &Filter, interest: Option<&Interest>) -> bool {
    let by_role = filter.role != Role::Any && filter.dimensions.iter().any(|d| d.kind.is_party());
    let wanted_by_role = |w: &RoleClause| w.role != Role::Any && w.kind.is_party();
    let narrowed_by_role = interest.is_some_and(|i| i.any_of.iter().any(wanted_by_role));
    by_role
        || narrowed_by_role
        || filter.each.iter().any(wanted_by_role)
        || Test::new(filter, interest).needs_count()
}

/// Whether the killmail with these facts is asked for.
pub fn accepts(filter: &Filter, interest: Option<&Interest>, facts: &Facts) -> bool {
    filter.accepts(facts) && interest.is_none_or(|i| i.accepts(facts))
}

fn bounds(index: &Index, test: &Test) -> (u32, u32) {
    let low = if test.since == i64::MIN { Some(0) } else { index.hours.at_least(test.since) };
    let high = if test.until == i64::MAX { Some(u32::MAX) } else { index.hours.at_most(test.until) };
    low.zip(high).unwrap_or((1, 0))
}

fn intersect(ids: &mut Vec<u32>, other: &[u32]) {
    let mut at = 0;
    ids.retain(|id| {
        while other.get(at).is_some_and(|o| o < id) {
            at += 1;
        }
        other.get(at) == Some(id)
    });
}
