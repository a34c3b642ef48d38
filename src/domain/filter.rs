//! Which killmails a subscription gets. Acceptance is decided here and nowhere else, for every transport.
//!
//! Law 1 (select is accept) rests on `Filter::accepts`.
//!
//! Must not know: how a filter is written in a query string or in JSON, or the limits of transports.

use std::sync::Arc;

use crate::domain::facts::Facts;
use crate::domain::term::{Dimension, Role};

/// A sorted list of distinct ids. Clones share it: a subscription, its preload and its entry in the wakeups
/// hold the same 50,000 ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdSet(Arc<[u32]>);

impl IdSet {
    /// From ids in any order, possibly repeated.
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

    /// Whether any of these ascending ids is in the set. Lists of similar length are merged; otherwise each
    /// id of the shorter one is looked up in the longer one.
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

/// How the dimensions of a filter combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Match {
    /// One matching dimension is enough.
    #[default]
    Any,
    /// Every dimension the filter names must match.
    All,
}

/// One dimension of a filter: any of these ids. The list is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdsIn {
    /// Where the ids are looked up.
    pub dimension: Dimension,
    /// A killmail must have one of these.
    pub ids: IdSet,
}

/// Which killmails a plugin says it needs to see. All others count as dropped by it without a call. The
/// default needs everything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Interest {
    /// Any of these parties or places; no restriction if empty.
    pub any_of: Vec<RoleClause>,
    /// Total value at least this, ISK. A killmail without a value does not match.
    pub min_value: Option<f64>,
    /// At least this many attackers.
    pub min_attackers: Option<u32>,
    /// At most this many attackers.
    pub max_attackers: Option<u32>,
}

/// Ids of one dimension in one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleClause {
    /// Where the ids are looked up.
    pub dimension: Dimension,
    /// The role the parties must have; ignored for places.
    pub role: Role,
    /// A killmail must have one of these. It may be empty: then none matches.
    pub ids: IdSet,
}

impl Interest {
    /// Whether the plugin needs to see a killmail with these facts.
    #[must_use]
    pub fn accepts(&self, facts: &Facts) -> bool {
        self.min_value.is_none_or(|v| facts.total_value.is_some_and(|t| t >= v))
            && self.min_attackers.is_none_or(|n| facts.attacker_count >= n)
            && self.max_attackers.is_none_or(|n| facts.attacker_count <= n)
            && (self.any_of.is_empty()
                || self.any_of.iter().any(|w| meets(w.dimension, w.role, &w.ids, facts)))
    }

    /// Ids of which every needed killmail has at least one; `None` if there are no such ids.
    #[must_use]
    pub fn wakeup_ids(&self) -> Option<Vec<IdsIn>> {
        let ids = |clause: &RoleClause| IdsIn { dimension: clause.dimension, ids: clause.ids.clone() };
        (!self.any_of.is_empty()).then(|| self.any_of.iter().map(ids).collect())
    }
}

fn meets(dimension: Dimension, role: Role, ids: &IdSet, facts: &Facts) -> bool {
    match facts.place(dimension) {
        Some(id) => ids.contains(id),
        None => facts.columns(role).into_iter().flatten().any(|c| ids.meets(c.ids(dimension))),
    }
}

/// Which killmails a subscription gets. The default accepts every killmail.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Lists of ids, at most one for each dimension.
    pub dimensions: Vec<IdsIn>,
    /// How `dimensions` combine.
    pub matching: Match,
    /// The role that the parties in `dimensions` must have.
    pub role: Role,
    /// Each of these must match as well, whatever `matching` is.
    pub each: Vec<RoleClause>,
    /// Any of these labels; no restriction if empty.
    pub labels: Vec<String>,
    /// Required value of zKillboard's flag.
    pub npc: Option<bool>,
    /// Required value of zKillboard's flag.
    pub solo: Option<bool>,
    /// Required value of zKillboard's flag.
    pub awox: Option<bool>,
    /// Total value at least this, ISK. A killmail without a value does not match.
    pub min_value: Option<f64>,
    /// Total value at most this, ISK. A killmail without a value does not match.
    pub max_value: Option<f64>,
    /// Killmail time at least this, unix seconds. An implausible time never matches.
    pub since: Option<i64>,
    /// Killmail time before this, unix seconds. An implausible time never matches.
    pub until: Option<i64>,
}

impl Filter {
    /// Accepts no killmail: a channel without any ids gets nothing, where a stream gets everything.
    #[must_use]
    pub fn nothing() -> Self {
        let none = RoleClause { dimension: Dimension::System, role: Role::Any, ids: IdSet::default() };
        Self { each: vec![none], ..Self::default() }
    }

    /// Whether a killmail with these facts matches.
    #[must_use]
    pub fn accepts(&self, facts: &Facts) -> bool {
        self.passes_restrictions(facts) && self.passes_dimensions(facts)
    }

    /// Whether it restricts the time.
    #[must_use]
    pub const fn has_window(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    /// Whether it has any list of ids.
    #[must_use]
    pub fn has_ids(&self) -> bool {
        !self.dimensions.is_empty()
    }

    /// The ids of a dimension, if it has a list of them.
    #[must_use]
    pub fn ids(&self, dimension: Dimension) -> Option<&IdSet> {
        self.dimensions.iter().find(|d| d.dimension == dimension).map(|d| &d.ids)
    }

    /// Sets the ids of a dimension; an empty list removes the dimension.
    pub fn set_ids(&mut self, dimension: Dimension, ids: Vec<u32>) {
        self.dimensions.retain(|d| d.dimension != dimension);
        if !ids.is_empty() {
            self.dimensions.push(IdsIn { dimension, ids: IdSet::new(ids) });
        }
    }

    /// Ids of which every matching killmail has at least one; `None` if there are no such ids.
    #[must_use]
    pub fn wakeup_ids(&self) -> Option<Vec<IdsIn>> {
        let nothing = self.each.iter().any(|clause| clause.ids.as_slice().is_empty());
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

    fn passes_restrictions(&self, facts: &Facts) -> bool {
        let flag = |want: Option<bool>, is: bool| want.is_none_or(|w| w == is);
        !(self.has_window() && facts.time_implausible)
            && self.since.is_none_or(|t| facts.time >= t)
            && self.until.is_none_or(|t| facts.time < t)
            && flag(self.npc, facts.npc)
            && flag(self.solo, facts.solo)
            && flag(self.awox, facts.awox)
            && self.min_value.is_none_or(|v| facts.total_value.is_some_and(|t| t >= v))
            && self.max_value.is_none_or(|v| facts.total_value.is_some_and(|t| t <= v))
            && self.each.iter().all(|w| meets(w.dimension, w.role, &w.ids, facts))
            && (self.labels.is_empty() || self.labels.iter().any(|l| facts.labels.contains(l)))
    }

    fn passes_dimensions(&self, facts: &Facts) -> bool {
        match self.matching {
            _ if self.dimensions.is_empty() => true,
            Match::Any => self.dimensions.iter().any(|d| self.matches(d, facts)),
            Match::All => self.dimensions.iter().all(|d| self.matches(d, facts)),
        }
    }

    fn matches(&self, listed: &IdsIn, facts: &Facts) -> bool {
        meets(listed.dimension, self.role, &listed.ids, facts)
    }
}
