//! The members of a killmail by name: which there are, which of them are known, and which could not be read.
//!
//! Names are those of the game and of zKillboard.
//!
//! Must not know: how members are read or written.

use serde_json::Value;

use crate::domain::killmail::{Attacker, Item, Killmail, Victim};
use crate::domain::unreadable::Unreadable;
use crate::domain::zkb::Zkb;

/// A part of a killmail that has members of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The killmail itself.
    Killmail,
    /// The victim.
    Victim,
    /// One of the attackers.
    Attacker,
    /// One of the items, however deep.
    Item,
    /// zKillboard's block.
    Zkb,
}

/// Whether a member is known; `None`: there is none of this name. Of those that always have a value it cannot
/// be told, so they are not.
#[must_use]
pub fn of_killmail(killmail: &Killmail, name: &str) -> Option<bool> {
    Some(match name {
        "moon_id" => killmail.moon_id.is_some(),
        "war_id" => killmail.war_id.is_some(),
        "killmail_hash" => killmail.hash.is_some(),
        "zkb" => killmail.zkb.is_some(),
        "attackers" => false,
        // What stands around a body, or is only ours to say.
        "hash" | "uploaded_at" | "sequence_id" | "sequence_updated" | "provenance" => false,
        _ => return None,
    })
}

/// Whether a member of the victim is known, as [`of_killmail`].
#[must_use]
pub fn of_victim(victim: &Victim, name: &str) -> Option<bool> {
    Some(match name {
        "character_id" => victim.character_id.is_some(),
        "corporation_id" => victim.corporation_id.is_some(),
        "alliance_id" => victim.alliance_id.is_some(),
        "faction_id" => victim.faction_id.is_some(),
        "ship_type_id" => victim.ship_type_id.is_some(),
        "position" => victim.position.is_some(),
        "items" => victim.items.is_some(),
        "damage_taken" => false,
        _ => return None,
    })
}

/// Whether a member of an attacker is known, as [`of_killmail`].
#[must_use]
pub fn of_attacker(attacker: &Attacker, name: &str) -> Option<bool> {
    Some(match name {
        "character_id" => attacker.character_id.is_some(),
        "corporation_id" => attacker.corporation_id.is_some(),
        "alliance_id" => attacker.alliance_id.is_some(),
        "faction_id" => attacker.faction_id.is_some(),
        "ship_type_id" => attacker.ship_type_id.is_some(),
        "weapon_type_id" => attacker.weapon_type_id.is_some(),
        "damage_done" | "final_blow" | "security_status" => false,
        _ => return None,
    })
}

/// Whether a member of an item is known, as [`of_killmail`].
#[must_use]
pub fn of_item(item: &Item, name: &str) -> Option<bool> {
    Some(match name {
        "item_type_id" => item.item_type_id != 0,
        "quantity_dropped" => item.quantity_dropped.is_some(),
        "quantity_destroyed" => item.quantity_destroyed.is_some(),
        "items" => item.items.is_some(),
        "flag" | "singleton" => false,
        _ => return None,
    })
}

/// Whether a member of zKillboard's block is known, as [`of_killmail`].
#[must_use]
pub fn of_zkb(zkb: &Zkb, name: &str) -> Option<bool> {
    Some(match name {
        "locationID" => zkb.location_id.is_some(),
        // The hash beside the block stands in for one that cannot be read.
        "hash" | "absent" => false,
        "fittedValue" => zkb.fitted_value.is_some(),
        "droppedValue" => zkb.dropped_value.is_some(),
        "destroyedValue" => zkb.destroyed_value.is_some(),
        "totalValue" => zkb.total_value.is_some(),
        "points" => zkb.points.is_some(),
        "npc" => zkb.npc.is_some(),
        "solo" => zkb.solo.is_some(),
        "awox" => zkb.awox.is_some(),
        "labels" => zkb.labels.is_some(),
        "attackerCount" => zkb.attacker_count.is_some(),
        "href" => zkb.href.is_some(),
        _ => return None,
    })
}

/// Whether anything of a killmail could not be read.
#[must_use]
pub fn any_unreadable(killmail: &Killmail) -> bool {
    let items = killmail.victim.items.as_deref().unwrap_or_default();
    !killmail.unreadable.is_empty()
        || !killmail.victim.unreadable.is_empty()
        || killmail.zkb.as_ref().is_some_and(|zkb| !zkb.unreadable.is_empty())
        || killmail.attackers.iter().any(|attacker| !attacker.unreadable.is_empty())
        || items.iter().any(any_unreadable_item)
}

fn any_unreadable_item(item: &Item) -> bool {
    !item.unreadable.is_empty() || item.items.iter().flatten().any(any_unreadable_item)
}

/// Tells every member that could not be read: the part it is of, its name (`None`: one that we do not know),
/// its raw JSON.
pub fn each_unreadable(killmail: &Killmail, tell: &mut dyn FnMut(Part, Option<&str>, &Value)) {
    let mut each = |part, unreadable: &Unreadable, named: &dyn Fn(&str) -> bool| {
        unreadable.iter().for_each(|(name, raw)| tell(part, Some(name).filter(|name| named(name)), raw));
    };
    each(Part::Killmail, &killmail.unreadable, &|name| of_killmail(killmail, name).is_some());
    each(Part::Victim, &killmail.victim.unreadable, &|name| of_victim(&killmail.victim, name).is_some());
    for attacker in &killmail.attackers {
        each(Part::Attacker, &attacker.unreadable, &|name| of_attacker(attacker, name).is_some());
    }
    if let Some(zkb) = &killmail.zkb {
        each(Part::Zkb, &zkb.unreadable, &|name| of_zkb(zkb, name).is_some());
    }
    killmail.victim.items.iter().flatten().for_each(|item| each_unreadable_of(item, tell));
}

fn each_unreadable_of(item: &Item, tell: &mut dyn FnMut(Part, Option<&str>, &Value)) {
    for (name, raw) in item.unreadable.iter() {
        tell(Part::Item, Some(name).filter(|name| of_item(item, name).is_some()), raw);
    }
    item.items.iter().flatten().for_each(|inside| each_unreadable_of(inside, tell));
}
