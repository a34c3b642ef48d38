//! What a killmail is indexed under: dimensions, ids and roles.
//!
//! Must not know: how postings are stored.

use std::fmt;

/// A kind of id. Its discriminant is stored in index snapshots on disk: only append to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Dimension {
    /// Solar system.
    System,
    /// Constellation.
    Constellation,
    /// Region.
    Region,
    /// Character.
    Character,
    /// Corporation.
    Corporation,
    /// Alliance.
    Alliance,
    /// Faction.
    Faction,
    /// Type of a ship that was lost or flown.
    ShipType,
    /// Group of a ship that was lost or flown.
    ShipGroup,
    /// Type of a weapon that was used.
    WeaponType,
}

impl Dimension {
    /// Every dimension, in the order in which filters list them.
    pub const ALL: [Self; 10] = [
        Self::System,
        Self::Constellation,
        Self::Region,
        Self::Character,
        Self::Corporation,
        Self::Alliance,
        Self::Faction,
        Self::ShipType,
        Self::ShipGroup,
        Self::WeaponType,
    ];

    /// Whether it is about parties, so that roles apply, and not about places.
    #[must_use]
    pub const fn is_party(self) -> bool {
        !matches!(self, Self::System | Self::Constellation | Self::Region)
    }

    /// Its name in parameters, without `_ids`: `system`, `ship_type` and so on.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Constellation => "constellation",
            Self::Region => "region",
            Self::Character => "character",
            Self::Corporation => "corporation",
            Self::Alliance => "alliance",
            Self::Faction => "faction",
            Self::ShipType => "ship_type",
            Self::ShipGroup => "ship_group",
            Self::WeaponType => "weapon_type",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An id in a dimension, under which a killmail is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// Dimension of the id.
    pub dimension: Dimension,
    /// Never 0.
    pub id: u32,
}

/// The role of a party in a killmail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Role {
    /// Victim or attacker.
    #[default]
    Any,
    /// The party that lost the ship.
    Victim,
    /// Any attacker, including the one with the final blow.
    Attacker,
    /// The attacker with the final blow.
    FinalBlow,
}
