//! What a killmail can be found by.
//!
//! Must not know: how postings are kept.

use std::fmt;

/// A dimension of ids. Its number is on disk in snapshots of the index: append only.
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
    /// Type of the ship lost or flown.
    ShipType,
    /// Group of the ship lost or flown.
    ShipGroup,
    /// Type of the weapon used.
    WeaponType,
}

impl Dimension {
    /// Every dimension, in the order filters name them.
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

    /// Whether the dimension says who took part (roles apply), not where it happened.
    #[must_use]
    pub const fn is_party(self) -> bool {
        !matches!(self, Self::System | Self::Constellation | Self::Region)
    }

    /// The field's word: `system`, `ship_type` and so on.
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

/// One thing a killmail can be found by: a dimension and an id in it. Ids are never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// The dimension.
    pub kind: Dimension,
    /// The id in it.
    pub id: u32,
}

/// Which part someone had in a killmail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Role {
    /// Victim or attacker.
    #[default]
    Any,
    /// The one who lost.
    Victim,
    /// One of those who did it.
    Attacker,
    /// The attacker who had the final blow.
    FinalBlow,
}
