//! The facts of a killmail: its own ids, and those that follow from static EVE data (constellation, region,
//! ship groups).
//!
//! Must not know: how facts are stored or queried.

use crate::domain::facts::{Columns, Facts};
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::zkb::Zkb;
use crate::universe;

/// What filters and the index need from a killmail.
#[must_use]
pub fn facts(killmail: &Killmail) -> Facts {
    let zkb = killmail.zkb.as_ref();
    let flag = |get: fn(&Zkb) -> Option<bool>| zkb.and_then(get).unwrap_or(false);
    let mut facts = Facts {
        killmail_id: killmail.killmail_id,
        time: killmail.time,
        time_implausible: killmail.time_implausible,
        system: killmail.solar_system_id,
        victim: victim_columns(&killmail.victim),
        attackers: attacker_columns(killmail.attackers.iter()),
        final_blow: attacker_columns(killmail.attackers.iter().filter(|a| a.final_blow)),
        attacker_count: u32::try_from(killmail.attackers.len()).unwrap_or(u32::MAX),
        labels: zkb.and_then(|z| z.labels.clone()).unwrap_or_default(),
        npc: flag(|z| z.npc),
        solo: flag(|z| z.solo),
        awox: flag(|z| z.awox),
        total_value: zkb.and_then(|z| z.total_value),
        ..Facts::default()
    };
    derive(&mut facts);
    facts
}

/// Fills in what follows from the other ids: the system's constellation and region, the ships' groups.
pub(crate) fn derive(facts: &mut Facts) {
    if let Some(system) = universe::system(facts.system) {
        facts.constellation = system.constellation_id;
        facts.region = system.region_id;
    }
    for columns in [&mut facts.victim, &mut facts.attackers, &mut facts.final_blow] {
        columns.ship_groups = columns
            .ship_types
            .iter()
            .filter_map(|id| universe::group_of(*id))
            .filter(|id| *id != 0)
            .collect();
        columns.ship_groups.sort_unstable();
        columns.ship_groups.dedup();
        columns.ship_groups.shrink_to_fit();
    }
}

fn victim_columns(victim: &Victim) -> Columns {
    let list = |id: Option<u32>| id.into_iter().collect::<Vec<_>>();
    let mut columns = Columns {
        characters: list(victim.character_id),
        corporations: list(victim.corporation_id),
        alliances: list(victim.alliance_id),
        factions: list(victim.faction_id),
        ship_types: list(victim.ship_type_id),
        ..Columns::default()
    };
    columns.tidy();
    columns
}

fn attacker_columns<'a>(attackers: impl Iterator<Item = &'a Attacker>) -> Columns {
    let mut columns = Columns::default();
    for attacker in attackers {
        columns.characters.extend(attacker.character_id);
        columns.corporations.extend(attacker.corporation_id);
        columns.alliances.extend(attacker.alliance_id);
        columns.factions.extend(attacker.faction_id);
        columns.ship_types.extend(attacker.ship_type_id);
        columns.weapon_types.extend(attacker.weapon_type_id);
    }
    columns.tidy();
    columns
}
