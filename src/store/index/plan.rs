//! A query turned into set operations: groups of postings, each united, then intersected with one another, and
//! a test of the rows that remain.
//!
//! The result of a plan is exact except for roles, and for attacker counts that a row cannot hold. Callers test
//! those on the facts (`needs_facts`).
//!
//! Must not know: the disk, positions of readers.

use crate::domain::facts::Facts;
use crate::domain::filter::{Filter, Interest, Match, RoleClause};
use crate::domain::id::Seq;
use crate::domain::skip::skip_live;
use crate::domain::term::{Dimension, Role, Term};
use crate::store::index::id_range::IdRange;
use crate::store::index::postings::Postings;
use crate::store::index::rows::{ATTACKERS_MAX, Row};
use crate::store::index::value_bands::ValueRange;
use crate::store::index::{Flag, Index};

/// Cost of looking up one id in one list, relative to reading one id from a list.
pub const LOOKUP_COST: u64 = 4;
/// With more lists than this, their ids are not counted to decide whether value bands are worth a group.
const COUNTED_LISTS_MAX: usize = 64;

/// Lists of which a killmail has to be in at least one.
#[derive(Debug)]
pub struct Group<'a> {
    lists: Vec<&'a Postings>,
}

impl Group<'_> {
    /// An upper bound of the ids in the range: those in several lists count several times.
    pub fn count(&self, range: IdRange) -> u64 {
        self.lists.iter().map(|list| list.count(range)).sum()
    }

    pub fn contains(&self, id: u32) -> bool {
        self.lists.iter().any(|list| list.contains(id))
    }

    pub const fn list_count(&self) -> u64 {
        self.lists.len() as u64
    }

    /// The list, if there is only one.
    pub fn single_list(&self) -> Option<&Postings> {
        match self.lists[..] {
            [list] => Some(list),
            _ => None,
        }
    }

    /// Appends the ids in both groups if each is a single bitmap, which is then cheaper than looking up each
    /// id; otherwise returns false.
    fn append_common_to(&self, out: &mut Vec<u32>, other: &Self, range: IdRange) -> bool {
        match (self.single_list(), other.single_list()) {
            (Some(one), Some(other)) => one.append_common_to(out, other, range),
            _ => false,
        }
    }

    /// Replaces the contents of `out` by the ids in the range, ascending. Concatenating and sorting is much
    /// faster than uniting bitmaps one by one.
    pub fn collect_into(&self, out: &mut Vec<u32>, range: IdRange) {
        out.clear();
        for list in &self.lists {
            list.append_to(out, range);
        }
        if self.lists.len() > 1 {
            out.sort_unstable();
            out.dedup();
        }
    }
}

/// The conditions of a filter that a row can decide.
#[derive(Debug, Clone, Copy)]
pub struct RowTest {
    pub since: i64,
    pub until: i64,
    npc: Option<bool>,
    solo: Option<bool>,
    awox: Option<bool>,
    min_value: Option<f64>,
    max_value: Option<f64>,
    min_attackers: u32,
    max_attackers: u32,
    /// Only killmails from live sources, at most this old on arrival (seconds; 0: any age). `None`: all.
    pub live_max_age: Option<u32>,
    /// Whether it tests anything but the time.
    pub beyond_time: bool,
    /// Whether it tests the time.
    pub has_window: bool,
}

impl RowTest {
    fn new(filter: &Filter, interest: Option<&Interest>) -> Self {
        let min_value = match (filter.min_value, interest.and_then(|i| i.min_value)) {
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
            live_max_age: None,
            beyond_time,
            has_window: filter.has_window(),
        }
    }

    pub fn passes(&self, row: &Row) -> bool {
        let flag = |wanted: Option<bool>, is_set: bool| wanted.is_none_or(|wanted| wanted == is_set);
        row.time >= self.since
            && (row.time < self.until || self.until == i64::MAX)
            && (row.is_dated() || !self.has_window)
            && (!self.beyond_time
                || flag(self.npc, row.npc())
                    && flag(self.solo, row.solo())
                    && flag(self.awox, row.awox())
                    && self.min_value.is_none_or(|v| row.value >= v)
                    && self.max_value.is_none_or(|v| row.value <= v)
                    && self.passes_attackers(row.attackers))
            && self
                .live_max_age
                .is_none_or(|max_age_secs| skip_live(row.origin(), row.age_secs, max_age_secs).is_none())
    }

    /// The values that pass; `None` if every value does, also an unknown one.
    fn values(&self) -> Option<ValueRange> {
        self.min_value.or(self.max_value)?;
        Some(ValueRange {
            min: self.min_value.unwrap_or(f64::NEG_INFINITY),
            max: self.max_value.unwrap_or(f64::INFINITY),
        })
    }

    /// True also where the row cannot decide.
    fn passes_attackers(&self, count: u16) -> bool {
        if count == ATTACKERS_MAX {
            return self.max_attackers >= u32::from(ATTACKERS_MAX);
        }
        (self.min_attackers..=self.max_attackers).contains(&u32::from(count))
    }

    const fn needs_exact_attackers(&self) -> bool {
        self.min_attackers > ATTACKERS_MAX as u32
            || (self.max_attackers >= ATTACKERS_MAX as u32 && self.max_attackers < u32::MAX)
    }
}

/// A query, prepared against one index.
#[derive(Debug)]
pub struct Plan<'a> {
    /// A killmail has to be in every one; without groups every killmail qualifies.
    groups: Vec<Group<'a>>,
    /// Lists a killmail must not be in; only where there are no groups.
    excluded: Vec<&'a Postings>,
    pub test: RowTest,
    /// No killmail in the time window has an id outside.
    pub bounds: IdRange,
}

impl<'a> Plan<'a> {
    /// `interest` is what a plugin narrows the filter to.
    pub fn new(index: &'a Index, filter: &Filter, interest: Option<&Interest>) -> Self {
        let mut groups = groups(index, filter, interest);
        if groups.is_empty() {
            groups.extend(flagged(index, filter, true).map(|list| Group { lists: vec![list] }));
        }
        let test = RowTest::new(filter, interest);
        let few_lists = groups.iter().map(|group| group.lists.len()).sum::<usize>() <= COUNTED_LISTS_MAX;
        if let Some(values) = test.values().filter(|_| few_lists) {
            // Worth a group only if it removes most of the ids that the other groups leave.
            let in_bands = index.value_bands().count(values);
            let left =
                groups.iter().map(|group| group.count(IdRange::ALL)).min().unwrap_or_else(|| index.count());
            if in_bands.saturating_mul(LOOKUP_COST) <= left {
                groups.push(Group { lists: index.value_bands().lists(values) });
            }
        }
        let excluded = if groups.is_empty() { flagged(index, filter, false).collect() } else { Vec::new() };
        Self { groups, excluded, bounds: time_bounds(index, &test), test }
    }

    /// Restricts the plan to what live readers receive: killmails from live sources, at most this old on
    /// arrival (seconds; 0: any age).
    #[must_use]
    pub const fn restricted_to_live(mut self, max_age_secs: u32) -> Self {
        self.test.live_max_age = Some(max_age_secs);
        self
    }

    /// The groups; none means every killmail.
    pub fn groups(&self) -> &[Group<'a>] {
        &self.groups
    }

    /// The list that alone decides, if there is only one.
    pub fn single_list(&self, index: &'a Index) -> Option<&Postings> {
        match &self.groups[..] {
            [] => Some(index.all()),
            [group] => group.single_list(),
            _ => None,
        }
    }

    /// Whether the matches up to this number can be counted without testing rows: there is one term or none,
    /// and nothing but the time is restricted.
    pub fn can_count_in_bitmaps(&self, index: &'a Index, head: Seq) -> bool {
        self.single_list(index).is_some() && !self.test.beyond_time && head >= index.head()
    }

    pub fn is_in_every_group(&self, id: u32) -> bool {
        self.groups.iter().all(|group| group.contains(id))
    }

    /// How many lists have to be consulted to look up one id.
    pub fn list_count(&self) -> u64 {
        self.groups.iter().map(Group::list_count).sum()
    }

    /// An upper bound of the ids in the range, from the smallest group.
    pub fn count(&self, index: &Index, range: IdRange) -> u64 {
        self.groups.iter().map(|group| group.count(range)).min().unwrap_or_else(|| {
            let excluded = self.excluded.iter().map(|list| list.count(range)).max().unwrap_or(0);
            index.all().count(range).saturating_sub(excluded)
        })
    }

    /// The ids in the range that are in every group, ascending. Rows are not tested.
    pub fn collect(&self, index: &Index, range: IdRange) -> Vec<u32> {
        let mut ids = Vec::new();
        let counts: Vec<u64> = if self.groups.len() > 1 {
            self.groups.iter().map(|group| group.count(range)).collect()
        } else {
            vec![0]
        };
        let smallest = (0..self.groups.len()).min_by_key(|at| counts[*at]);
        let Some(smallest) = smallest else {
            match self.excluded.iter().max_by_key(|list| list.count(range)) {
                None => index.all().append_to(&mut ids, range),
                Some(list) => index.all().append_difference_to(&mut ids, list, range),
            }
            return ids;
        };
        if let [one, other] = &self.groups[..]
            && one.append_common_to(&mut ids, other, range)
        {
            return ids;
        }
        self.groups[smallest].collect_into(&mut ids, range);
        let mut other = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            if at == smallest || ids.is_empty() {
                continue;
            }
            if ids.len() as u64 * group.list_count() * LOOKUP_COST <= counts[at] {
                ids.retain(|id| group.contains(*id));
            } else {
                group.collect_into(&mut other, range);
                intersect(&mut ids, &other);
            }
        }
        ids
    }
}

/// The groups of all conditions but flags and values.
fn groups<'a>(index: &'a Index, filter: &Filter, interest: Option<&Interest>) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    let lists = |dimension: Dimension, ids: &[u32]| {
        ids.iter().filter_map(|id| index.postings(Term { dimension, id: *id })).collect::<Vec<_>>()
    };
    let dimensions = filter.dimensions.iter().map(|d| lists(d.dimension, d.ids.as_slice()));
    match filter.matching {
        _ if filter.dimensions.is_empty() => {}
        Match::Any => groups.push(Group { lists: dimensions.flatten().collect() }),
        Match::All => groups.extend(dimensions.map(|lists| Group { lists })),
    }
    groups.extend(
        filter.each.iter().map(|clause| Group { lists: lists(clause.dimension, clause.ids.as_slice()) }),
    );
    if let Some(interest) = interest.filter(|i| !i.any_of.is_empty()) {
        let clauses = interest.any_of.iter();
        groups.push(Group {
            lists: clauses.flat_map(|clause| lists(clause.dimension, clause.ids.as_slice())).collect(),
        });
    }
    if !filter.labels.is_empty() {
        let labels = filter.labels.iter();
        groups.push(Group { lists: labels.filter_map(|label| index.labelled(label)).collect() });
    }
    groups
}

/// The killmails with each flag that the filter wants to be `set` or not.
fn flagged<'a>(index: &'a Index, filter: &Filter, set: bool) -> impl Iterator<Item = &'a Postings> + use<'a> {
    let flags = [(filter.npc, Flag::Npc), (filter.solo, Flag::Solo), (filter.awox, Flag::Awox)];
    flags.into_iter().filter(move |(wanted, _)| *wanted == Some(set)).map(|(_, flag)| index.flagged(flag))
}

/// Whether the facts of each candidate have to be tested: for roles, and for attacker counts that a row cannot
/// hold.
pub fn needs_facts(filter: &Filter, interest: Option<&Interest>) -> bool {
    let by_role = filter.role != Role::Any && filter.dimensions.iter().any(|d| d.dimension.is_party());
    let has_role = |clause: &RoleClause| clause.role != Role::Any && clause.dimension.is_party();
    by_role
        || interest.is_some_and(|i| i.any_of.iter().any(has_role))
        || filter.each.iter().any(has_role)
        || RowTest::new(filter, interest).needs_exact_attackers()
}

/// Whether the filter and the plugin's interest accept these facts.
pub fn accepts(filter: &Filter, interest: Option<&Interest>, facts: &Facts) -> bool {
    filter.accepts(facts) && interest.is_none_or(|i| i.accepts(facts))
}

fn time_bounds(index: &Index, test: &RowTest) -> IdRange {
    let bounds = &index.time_bounds;
    let low = if test.since == i64::MIN { Some(0) } else { bounds.lowest_since(test.since) };
    let high = if test.until == i64::MAX { Some(u32::MAX) } else { bounds.highest_until(test.until) };
    low.zip(high).map_or(IdRange::EMPTY, |(low, high)| IdRange::new(low, high))
}

/// Both lists are ascending.
fn intersect(ids: &mut Vec<u32>, other: &[u32]) {
    let mut at = 0;
    ids.retain(|id| {
        while other.get(at).is_some_and(|o| o < id) {
            at += 1;
        }
        other.get(at) == Some(id)
    });
}
