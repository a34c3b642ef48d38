//! What a killmail is indexed under: dimensions, ids and roles.
//!
//! Must not know: how postings are stored.

use std::fmt;

enum_with_all! {
    /// A kind of id. Snapshots of the index store its number, and a checksum of all words in their order: one with
    /// other dimensions is rebuilt. Filters list dimensions in this order, so append to it.
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
}

/// What a dimension is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Where it happened: one id for each killmail.
    Place,
    /// Who took part, and with what: ids for each role.
    Party,
}

/// Where [`Facts`](crate::domain::facts::Facts) keep the ids of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactsField {
    /// The number of the place.
    Place(usize),
    /// The number of the column of parties.
    Party(usize),
}

const COUNT: usize = Dimension::ALL.len();

impl Dimension {
    /// How many dimensions are about places.
    pub const PLACES: usize = COUNT - Self::PARTIES;
    /// How many dimensions are about parties.
    pub const PARTIES: usize = {
        let (mut at, mut parties) = (0, 0);
        while at < COUNT {
            parties += Self::ALL[at].is_party() as usize;
            at += 1;
        }
        parties
    };
    /// The names of all lists of ids in parameters.
    pub const PARAMETERS: [&str; COUNT] = {
        let (mut at, mut names) = (0, [""; COUNT]);
        while at < COUNT {
            names[at] = Self::ALL[at].parameter();
            at += 1;
        }
        names
    };
    /// `facts_field` of every dimension.
    const FACTS_FIELDS: [FactsField; COUNT] = {
        let (mut at, mut parties, mut fields) = (0, 0, [FactsField::Place(0); COUNT]);
        while at < COUNT {
            if Self::ALL[at].is_party() {
                fields[at] = FactsField::Party(parties);
                parties += 1;
            } else {
                fields[at] = FactsField::Place(at - parties);
            }
            at += 1;
        }
        fields
    };

    /// What it is about, its word, and the name of its list of ids in parameters.
    const fn description(self) -> (Subject, &'static str, &'static str) {
        match self {
            Self::System => (Subject::Place, "system", "system_ids"),
            Self::Constellation => (Subject::Place, "constellation", "constellation_ids"),
            Self::Region => (Subject::Place, "region", "region_ids"),
            Self::Character => (Subject::Party, "character", "character_ids"),
            Self::Corporation => (Subject::Party, "corporation", "corporation_ids"),
            Self::Alliance => (Subject::Party, "alliance", "alliance_ids"),
            Self::Faction => (Subject::Party, "faction", "faction_ids"),
            Self::ShipType => (Subject::Party, "ship_type", "ship_type_ids"),
            Self::ShipGroup => (Subject::Party, "ship_group", "ship_group_ids"),
            Self::WeaponType => (Subject::Party, "weapon_type", "weapon_type_ids"),
        }
    }

    /// Whether it is about parties, so that roles apply, and not about places.
    #[must_use]
    pub const fn is_party(self) -> bool {
        matches!(self.description().0, Subject::Party)
    }

    /// Its word: `system`, `ship_type` and so on.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.description().1
    }

    /// The name of its list of ids in parameters: the word and `_ids`.
    #[must_use]
    pub const fn parameter(self) -> &'static str {
        self.description().2
    }

    /// Where facts keep its ids.
    #[must_use]
    pub const fn facts_field(self) -> FactsField {
        Self::FACTS_FIELDS[self as usize]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_words_with_an_ending() {
        for dimension in Dimension::ALL {
            assert_eq!(dimension.parameter(), format!("{dimension}_ids"));
        }
    }
}
