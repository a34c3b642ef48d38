//! The facts of a killmail: its own ids, and those that follow from static EVE data (constellation, region,
//! ship groups).
//!
//! Must not know: how facts are stored or queried.

use crate::domain::facts::Facts;
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::term::Dimension;
use crate::domain::zkb::Zkb;
use crate::universe;

/// How the ids of a dimension are found.
enum Rule {
    /// The killmail contains the id of the place.
    Place(fn(&Killmail) -> u32),
    /// The place follows from the solar system.
    PlaceOfSystem(fn(&universe::System) -> u32),
    /// The killmail contains an id for each party.
    Party { victim: fn(&Victim) -> Option<u32>, attacker: fn(&Attacker) -> Option<u32> },
    /// Each id follows from one in another dimension, which the killmail contains.
    PartyOf { other: Dimension, id: fn(u32) -> Option<u32> },
}

const fn rule(dimension: Dimension) -> Rule {
    match dimension {
        Dimension::System => Rule::Place(|killmail| killmail.solar_system_id),
        Dimension::Constellation => Rule::PlaceOfSystem(|system| system.constellation_id),
        Dimension::Region => Rule::PlaceOfSystem(|system| system.region_id),
        Dimension::Character => {
            Rule::Party { victim: |victim| victim.character_id, attacker: |attacker| attacker.character_id }
        }
        Dimension::Corporation => Rule::Party {
            victim: |victim| victim.corporation_id,
            attacker: |attacker| attacker.corporation_id,
        },
        Dimension::Alliance => {
            Rule::Party { victim: |victim| victim.alliance_id, attacker: |attacker| attacker.alliance_id }
        }
        Dimension::Faction => {
            Rule::Party { victim: |victim| victim.faction_id, attacker: |attacker| attacker.faction_id }
        }
        Dimension::ShipType => {
            Rule::Party { victim: |victim| victim.ship_type_id, attacker: |attacker| attacker.ship_type_id }
        }
        Dimension::ShipGroup => Rule::PartyOf { other: Dimension::ShipType, id: universe::group_of },
        Dimension::WeaponType => {
            Rule::Party { victim: |_| None, attacker: |attacker| attacker.weapon_type_id }
        }
    }
}

/// Rules of places are for dimensions of place.
const _: () = {
    let mut at = 0;
    while at < Dimension::ALL.len() {
        let dimension = Dimension::ALL[at];
        let is_party = matches!(rule(dimension), Rule::Party { .. } | Rule::PartyOf { .. });
        assert!(is_party == dimension.is_party());
        at += 1;
    }
};

/// Whether the ids of a dimension follow from those of others, so that log entries need not contain them.
pub(crate) const fn is_derived(dimension: Dimension) -> bool {
    match rule(dimension) {
        Rule::PlaceOfSystem(_) | Rule::PartyOf { .. } => true,
        Rule::Place(_) | Rule::Party { .. } => false,
    }
}

/// What filters and the index need from a killmail.
#[must_use]
pub fn facts(killmail: &Killmail) -> Facts {
    let zkb = killmail.zkb.as_ref();
    let flag = |get: fn(&Zkb) -> Option<bool>| zkb.and_then(get).unwrap_or(false);
    let mut facts = Facts {
        killmail_id: killmail.killmail_id,
        time: killmail.time,
        time_implausible: killmail.time_implausible,
        attacker_count: u32::try_from(killmail.attackers.len()).unwrap_or(u32::MAX),
        labels: zkb.and_then(|z| z.labels.clone()).unwrap_or_default(),
        npc: flag(|z| z.npc),
        solo: flag(|z| z.solo),
        awox: flag(|z| z.awox),
        total_value: zkb.and_then(|z| z.total_value),
        ..Facts::default()
    };
    for dimension in Dimension::ALL {
        match rule(dimension) {
            Rule::Place(id) => facts.places = facts.places.with(dimension, id(killmail)),
            Rule::Party { victim, attacker } => {
                let attackers = || killmail.attackers.iter();
                let final_blow = attackers().filter(|attacker| attacker.final_blow);
                facts.victim.set(dimension, victim(&killmail.victim).into_iter().collect());
                facts.attackers.set(dimension, attackers().filter_map(attacker).collect());
                facts.final_blow.set(dimension, final_blow.filter_map(attacker).collect());
            }
            Rule::PlaceOfSystem(_) | Rule::PartyOf { .. } => {}
        }
    }
    derive(&mut facts);
    facts
}

/// Fills in what follows from the other ids: the system's constellation and region, the ships' groups.
pub(crate) fn derive(facts: &mut Facts) {
    let system = universe::system(facts.system());
    for dimension in Dimension::ALL {
        match rule(dimension) {
            Rule::PlaceOfSystem(id) => {
                facts.places = facts.places.with(dimension, system.map_or(0, id));
            }
            Rule::PartyOf { other, id } => {
                for columns in [&mut facts.victim, &mut facts.attackers, &mut facts.final_blow] {
                    let ids = columns.ids(other).iter().filter_map(|other| id(*other)).collect();
                    columns.set(dimension, ids);
                }
            }
            Rule::Place(_) | Rule::Party { .. } => {}
        }
    }
}
