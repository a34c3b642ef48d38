//! What filters and the index need to know of a killmail: its ids in columns, its time and value. No items,
//! no texts but labels.
//!
//! Must not know: where the derived ids (constellation, region, ship group) come from.

use crate::domain::term::{Dimension, Role, Term};

/// Ids of one or more parties, a column for each dimension with roles; every column sorted and distinct, 0
/// never in it.
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
    /// The column of a dimension; empty for places.
    #[must_use]
    pub fn of(&self, kind: Dimension) -> &[u32] {
        match kind {
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

    /// Sorts and dedups every column and takes out zeros.
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

/// The facts of one killmail.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// The killmail.
    pub killmail_id: u32,
    /// When it happened, unix seconds.
    pub time: i64,
    /// Whether that cannot be.
    pub time_implausible: bool,
    /// Solar system.
    pub system: u32,
    /// Constellation; 0 where unknown.
    pub constellation: u32,
    /// Region; 0 where unknown.
    pub region: u32,
    /// The victim's ids (at most one in a column).
    pub victim: Columns,
    /// All attackers' ids, those with the final blow included.
    pub attackers: Columns,
    /// The ids of those marked with the final blow.
    pub final_blow: Columns,
    /// How many attackers there are, repeated and nameless ones counted.
    pub attacker_count: u32,
    /// zKillboard's labels.
    pub labels: Vec<String>,
    /// zKillboard's flag; missing counts as false.
    pub npc: bool,
    /// zKillboard's flag; missing counts as false.
    pub solo: bool,
    /// zKillboard's flag; missing counts as false.
    pub awox: bool,
    /// Total ISK value, where the source gave one.
    pub total_value: Option<f64>,
}

impl Facts {
    /// The place id of a dimension (0: unknown); `None` for dimensions of parties.
    #[must_use]
    pub const fn place(&self, kind: Dimension) -> Option<u32> {
        match kind {
            Dimension::System => Some(self.system),
            Dimension::Constellation => Some(self.constellation),
            Dimension::Region => Some(self.region),
            _ => None,
        }
    }

    /// The columns that a role means; for `Any` the victim's and the attackers'.
    #[must_use]
    pub const fn columns(&self, role: Role) -> [Option<&Columns>; 2] {
        match role {
            Role::Any => [Some(&self.victim), Some(&self.attackers)],
            Role::Victim => [Some(&self.victim), None],
            Role::Attacker => [Some(&self.attackers), None],
            Role::FinalBlow => [Some(&self.final_blow), None],
        }
    }

    /// The ids of a dimension in a role; may repeat an id that is both victim and attacker.
    pub fn ids(&self, kind: Dimension, role: Role) -> impl Iterator<Item = u32> {
        let place = self.place(kind).filter(|id| *id != 0);
        let parties = self.columns(role).into_iter().flatten().flat_map(move |c| c.of(kind).iter().copied());
        place.into_iter().chain(parties)
    }

    /// Every term the killmail is found by; a term may come twice.
    pub fn terms(&self) -> impl Iterator<Item = Term> {
        Dimension::ALL
            .into_iter()
            .flat_map(move |kind| self.ids(kind, Role::Any).map(move |id| Term { kind, id }))
    }
}
