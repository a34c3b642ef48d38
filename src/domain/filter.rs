//! Which killmails someone wants. The one place where acceptance is decided, for every door.
//!
//! Law 1 (select is accept) stands on `Filter::accepts`.
//!
//! Must not know: how a filter is spelled in a query string or in JSON, limits of doors.

use std::sync::Arc;

use crate::domain::facts::Facts;
use crate::domain::term::{Dimension, Role};

/// A sorted, distinct list of ids. Clones share it: the same 50,000 ids stand in a subscription, its preload
/// and its place on the bell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdSet(Arc<[u32]>);

impl IdSet {
    /// Takes ids in any order, with repetitions.
    #[must_use]
    pub fn new(mut ids: Vec<u32>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self(ids.into())
    }

    /// The ids, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Whether the id is in the set.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// Whether any of these ascending ids is in the set: a merge for lists of like length, else searches for
    /// the shorter one's ids.
    #[must_use]
    pub fn meets(&self, sorted: &[u32]) -> bool {
        let (few, many) = if sorted.len() < self.0.len() { (sorted, &*self.0) } else { (&*self.0, sorted) };
        if few.len() * 12 < many.len() {
            return few.iter().any(|id| many.binary_search(id).is_ok());
        }
        let (mut i, mut j) = (0, 0);
        while i < few.len() && j < many.len() {
            match few[i].cmp(&many[j]) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
            }
        }
        false
    }
}

/// How dimensions of ids combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Match {
    /// One dimension that fits is enough.
    #[default]
    Any,
    /// Every named dimension must fit.
    All,
}

/// One dimension of a filter: any of these ids. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdsIn {
    /// The dimension.
    pub kind: Dimension,
    /// The ids.
    pub ids: IdSet,
}

/// What a plugin promises to need: the rest is kept away from it, as if it had dropped it. The default needs
/// everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Interest {
    /// Any of these parties or places; empty restricts nothing.
    pub any_of: Vec<RoleClause>,
    /// Total value at least this, ISK; a killmail without a value fails.
    pub min_value: Option<f64>,
    /// At least so many attackers.
    pub min_attackers: Option<u32>,
    /// At most so many attackers.
    pub max_attackers: Option<u32>,
}

/// Ids of one dimension in one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleClause {
    /// The dimension.
    pub kind: Dimension,
    /// The part they must have had; meaningless for places.
    pub role: Role,
    /// The ids.
    pub ids: IdSet,
}

impl Interest {
    /// Whether the plugin needs to see the killmail with these facts.
    #[must_use]
    pub fn accepts(&self, facts: &Facts) -> bool {
        self.min_value.is_none_or(|v| facts.total_value.is_some_and(|t| t >= v))
            && self.min_attackers.is_none_or(|n| facts.attacker_count >= n)
            && self.max_attackers.is_none_or(|n| facts.attacker_count <= n)
            && (self.any_of.is_empty() || self.any_of.iter().any(|w| meets(w.kind, w.role, &w.ids, facts)))
    }

    /// The ids of which a needed killmail has at least one; `None` when any killmail may be needed.
    #[must_use]
    pub fn bell_ids(&self) -> Option<Vec<IdsIn>> {
        let ids = |wanted: &RoleClause| IdsIn { kind: wanted.kind, ids: wanted.ids.clone() };
        (!self.any_of.is_empty()).then(|| self.any_of.iter().map(ids).collect())
    }
}

fn meets(kind: Dimension, role: Role, ids: &IdSet, facts: &Facts) -> bool {
    match facts.place(kind) {
        Some(id) => ids.contains(id),
        None => facts.columns(role).into_iter().flatten().any(|c| ids.meets(c.of(kind))),
    }
}

/// Which killmails someone wants. The default takes everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Dimensions of ids, each kind at most once.
    pub dimensions: Vec<IdsIn>,
    /// How they combine.
    pub matching: Match,
    /// The part the named parties must have had.
    pub role: Role,
    /// Each of these must fit as well, whatever `matching` says.
    pub each: Vec<RoleClause>,
    /// Any of these labels; empty: all.
    pub labels: Vec<String>,
    /// zKillboard's flag must be this.
    pub npc: Option<bool>,
    /// zKillboard's flag must be this.
    pub solo: Option<bool>,
    /// zKillboard's flag must be this.
    pub awox: Option<bool>,
    /// Total value at least this, ISK; a killmail without a value fails.
    pub min_value: Option<f64>,
    /// Total value at most this, ISK; a killmail without a value fails.
    pub max_value: Option<f64>,
    /// Killmail time at least this, unix seconds. One whose time cannot be is in no window of time.
    pub since: Option<i64>,
    /// Killmail time before this, unix seconds.
    pub until: Option<i64>,
}

impl Filter {
    /// Takes no killmail at all: what a subscription without any id wants where that is not everything.
    #[must_use]
    pub fn nothing() -> Self {
        let none = RoleClause { kind: Dimension::System, role: Role::Any, ids: IdSet::default() };
        Self { each: vec![none], ..Self::default() }
    }

    /// Whether the killmail with these facts is wanted.
    #[must_use]
    pub fn accepts(&self, facts: &Facts) -> bool {
        self.restricts_to(facts) && self.names(facts)
    }

    /// Whether the time restricts.
    #[must_use]
    pub const fn has_window(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    /// Whether there is any list of ids.
    #[must_use]
    pub fn has_ids(&self) -> bool {
        !self.dimensions.is_empty()
    }

    /// The ids of a dimension, if the filter names it.
    #[must_use]
    pub fn ids(&self, kind: Dimension) -> Option<&IdSet> {
        self.dimensions.iter().find(|d| d.kind == kind).map(|d| &d.ids)
    }

    /// Sets the ids of a dimension; an empty list takes it out.
    pub fn set_ids(&mut self, kind: Dimension, ids: Vec<u32>) {
        self.dimensions.retain(|d| d.kind != kind);
        if !ids.is_empty() {
            self.dimensions.push(IdsIn { kind, ids: IdSet::new(ids) });
        }
    }

    /// The ids of which a wanted killmail has at least one; `None` when any killmail may be wanted.
    #[must_use]
    pub fn bell_ids(&self) -> Option<Vec<IdsIn>> {
        let nothing = self.each.iter().any(|wanted| wanted.ids.as_slice().is_empty());
        let picked = match self.matching {
            _ if nothing => &[][..],
            Match::Any => self.dimensions.as_slice(),
            Match::All => {
                let least = self.dimensions.iter().enumerate().min_by_key(|(_, d)| d.ids.as_slice().len());
                least.map_or(&[][..], |(at, _)| &self.dimensions[at..=at])
            }
        };
        (nothing || !picked.is_empty()).then(|| picked.to_vec())
    }

    fn restricts_to(&self, facts: &Facts) -> bool {
        let flag = |want: Option<bool>, is: bool| want.is_none_or(|w| w == is);
        !(self.has_window() && facts.time_implausible)
            && self.since.is_none_or(|t| facts.time >= t)
            && self.until.is_none_or(|t| facts.time < t)
            && flag(self.npc, facts.npc)
            && flag(self.solo, facts.solo)
            && flag(self.awox, facts.awox)
            && self.min_value.is_none_or(|v| facts.total_value.is_some_and(|t| t >= v))
            && self.max_value.is_none_or(|v| facts.total_value.is_some_and(|t| t <= v))
            && self.each.iter().all(|w| meets(w.kind, w.role, &w.ids, facts))
            && (self.labels.is_empty() || self.labels.iter().any(|l| facts.labels.contains(l)))
    }

    fn names(&self, facts: &Facts) -> bool {
        match self.matching {
            _ if self.dimensions.is_empty() => true,
            Match::Any => self.dimensions.iter().any(|d| self.fits(d, facts)),
            Match::All => self.dimensions.iter().all(|d| self.fits(d, facts)),
        }
    }

    fn fits(&self, dimension: &IdsIn, facts: &Facts) -> bool {
        meets(dimension.kind, self.role, &dimension.ids, facts)
    }
}
