//! What filters and the index need to know about a killmail: ids in columns, time, value and labels.
//!
//! Must not know: where the derived ids (constellation, region, ship group) come from.

use crate::domain::term::{Dimension, FactsField, Role, Term};

/// Where a killmail happened: an id for each dimension of place, 0 if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places([u32; Dimension::PLACES]);

impl Places {
    /// The same with another id in a dimension of place; unchanged for dimensions of parties.
    #[must_use]
    pub const fn with(mut self, dimension: Dimension, id: u32) -> Self {
        if let FactsField::Place(at) = dimension.facts_field() {
            self.0[at] = id;
        }
        self
    }
}

/// The ids of one or more parties, with a column for each dimension of parties. Columns are sorted and distinct,
/// and never contain 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns([Vec<u32>; Dimension::PARTIES]);

impl Columns {
    /// The column of a dimension; empty for dimensions of place.
    #[must_use]
    pub fn ids(&self, dimension: Dimension) -> &[u32] {
        match dimension.facts_field() {
            FactsField::Party(at) => &self.0[at],
            FactsField::Place(_) => &[],
        }
    }

    /// Replaces the column of a dimension by these ids, in any order, with repetitions and zeros. Dimensions of
    /// place have no column.
    pub fn set(&mut self, dimension: Dimension, mut ids: Vec<u32>) {
        ids.retain(|id| *id != 0);
        ids.sort_unstable();
        ids.dedup();
        ids.shrink_to_fit();
        self.set_sorted(dimension, ids);
    }

    /// Replaces the column of a dimension by ids that are sorted and distinct, and contain no 0.
    pub fn set_sorted(&mut self, dimension: Dimension, ids: Vec<u32>) {
        if let FactsField::Party(at) = dimension.facts_field() {
            self.0[at] = ids;
        }
    }
}

/// What filters and the index know about one killmail.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Id of the killmail.
    pub killmail_id: u32,
    /// When it happened, unix seconds.
    pub time: i64,
    /// Whether `time` is implausible, see [`Killmail`](crate::domain::killmail::Killmail).
    pub time_implausible: bool,
    /// Where it happened.
    pub places: Places,
    /// The victim's ids, at most one in each column.
    pub victim: Columns,
    /// The ids of all attackers, including the one with the final blow.
    pub attackers: Columns,
    /// The ids of attackers marked with the final blow.
    pub final_blow: Columns,
    /// Number of attackers, counting repeated and anonymous ones.
    pub attacker_count: u32,
    /// zKillboard's labels.
    pub labels: Vec<String>,
    /// zKillboard: only NPCs attacked. Missing counts as false.
    pub npc: bool,
    /// zKillboard: one player attacked alone. Missing counts as false.
    pub solo: bool,
    /// zKillboard: killed by their own corporation. Missing counts as false.
    pub awox: bool,
    /// Total value in ISK, if the source gave one.
    pub total_value: Option<f64>,
}

impl Facts {
    /// The id of a dimension of place (0: unknown); `None` for dimensions of parties.
    #[must_use]
    pub const fn place(&self, dimension: Dimension) -> Option<u32> {
        match dimension.facts_field() {
            FactsField::Place(at) => Some(self.places.0[at]),
            FactsField::Party(_) => None,
        }
    }

    /// The solar system.
    #[must_use]
    pub fn system(&self) -> u32 {
        self.place(Dimension::System).unwrap_or(0)
    }

    /// The region; 0 if unknown.
    #[must_use]
    pub fn region(&self) -> u32 {
        self.place(Dimension::Region).unwrap_or(0)
    }

    /// The columns a role covers.
    #[must_use]
    pub const fn columns(&self, role: Role) -> [Option<&Columns>; 2] {
        match role {
            Role::Any => [Some(&self.victim), Some(&self.attackers)],
            Role::Victim => [Some(&self.victim), None],
            Role::Attacker => [Some(&self.attackers), None],
            Role::FinalBlow => [Some(&self.final_blow), None],
        }
    }

    /// The ids of a dimension in a role. An id that is both victim and attacker comes twice.
    pub fn ids(&self, dimension: Dimension, role: Role) -> impl Iterator<Item = u32> {
        let place = self.place(dimension).filter(|id| *id != 0);
        let parties =
            self.columns(role).into_iter().flatten().flat_map(move |c| c.ids(dimension).iter().copied());
        place.into_iter().chain(parties)
    }

    /// Every term the killmail is indexed under. A term may come twice.
    pub fn terms(&self) -> impl Iterator<Item = Term> {
        Dimension::ALL
            .into_iter()
            .flat_map(move |dimension| self.ids(dimension, Role::Any).map(move |id| Term { dimension, id }))
    }
}
