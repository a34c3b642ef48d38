//! What filters and the index need to know about a killmail: ids in columns, time, value and labels.
//!
//! Must not know: where the derived ids (constellation, region, ship group) come from.

use crate::domain::term::{Dimension, Role, Term};

/// The ids of one or more parties, with a column for each dimension that has roles. Columns are sorted and
/// distinct, and never contain 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    /// Characters.
    pub characters: Vec<u32>,
    /// Corporations.
    pub corporations: Vec<u32>,
    /// Alliances.
    pub alliances: Vec<u32>,
    /// Factions.
    pub factions: Vec<u32>,
    /// Ship types.
    pub ship_types: Vec<u32>,
    /// Ship groups.
    pub ship_groups: Vec<u32>,
    /// Weapon types.
    pub weapon_types: Vec<u32>,
}

impl Columns {
    /// The column of a dimension; empty for dimensions of place.
    #[must_use]
    pub fn ids(&self, dimension: Dimension) -> &[u32] {
        match dimension {
            Dimension::Character => &self.characters,
            Dimension::Corporation => &self.corporations,
            Dimension::Alliance => &self.alliances,
            Dimension::Faction => &self.factions,
            Dimension::ShipType => &self.ship_types,
            Dimension::ShipGroup => &self.ship_groups,
            Dimension::WeaponType => &self.weapon_types,
            Dimension::System | Dimension::Constellation | Dimension::Region => &[],
        }
    }

    /// Sorts and deduplicates every column, and removes zeros.
    pub fn tidy(&mut self) {
        for column in [
            &mut self.characters,
            &mut self.corporations,
            &mut self.alliances,
            &mut self.factions,
            &mut self.ship_types,
            &mut self.ship_groups,
            &mut self.weapon_types,
        ] {
            column.retain(|id| *id != 0);
            column.sort_unstable();
            column.dedup();
            column.shrink_to_fit();
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
    /// Solar system.
    pub system: u32,
    /// Constellation; 0 if unknown.
    pub constellation: u32,
    /// Region; 0 if unknown.
    pub region: u32,
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
        match dimension {
            Dimension::System => Some(self.system),
            Dimension::Constellation => Some(self.constellation),
            Dimension::Region => Some(self.region),
            _ => None,
        }
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
