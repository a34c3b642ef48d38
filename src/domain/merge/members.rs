//! The members of a killmail by name: which exist, which are known, and which could not be read.
//!
//! Names are those of ESI and of zKillboard.
//!
//! Must not know: how members are parsed or written.

use serde_json::Value;

use crate::domain::killmail::{Attacker, Item, Killmail, Victim};
use crate::domain::unreadable::UnreadableMembers;
use crate::domain::zkb::Zkb;

/// A part of a killmail that has members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The killmail itself.
    Killmail,
    Victim,
    Attacker,
    /// One of the items, at any depth.
    Item,
    /// zKillboard's block.
    Zkb,
}

/// Whether a member of the killmail is known; `None` if there is no member of this name. Members that cannot
/// be absent count as unknown, since a default looks like a value.
#[must_use]
pub(crate) fn killmail_has(killmail: &Killmail, name: &str) -> Option<bool> {
    Some(match name {
        "moon_id" => killmail.moon_id.is_some(),
        "war_id" => killmail.war_id.is_some(),
        "killmail_hash" => killmail.hash.is_some(),
        "zkb" => killmail.zkb.is_some(),
        "attackers" => false,
        // Members of an envelope, and those that only we write.
        "hash" | "uploaded_at" | "sequence_id" | "sequence_updated" | "provenance" => false,
        _ => return None,
    })
}

/// Whether a member of the victim is known, as [`killmail_has`].
#[must_use]
pub(crate) fn victim_has(victim: &Victim, name: &str) -> Option<bool> {
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

/// Whether a member of an attacker is known, as [`killmail_has`].
#[must_use]
pub(crate) fn attacker_has(attacker: &Attacker, name: &str) -> Option<bool> {
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

/// Whether a member of an item is known, as [`killmail_has`].
#[must_use]
pub(crate) fn item_has(item: &Item, name: &str) -> Option<bool> {
    Some(match name {
        "item_type_id" => item.item_type_id != 0,
        "quantity_dropped" => item.quantity_dropped.is_some(),
        "quantity_destroyed" => item.quantity_destroyed.is_some(),
        "items" => item.items.is_some(),
        "flag" | "singleton" => false,
        _ => return None,
    })
}

/// Whether a member of zKillboard's block is known, as [`killmail_has`].
#[must_use]
pub(crate) fn zkb_has(zkb: &Zkb, name: &str) -> Option<bool> {
    Some(match name {
        "locationID" => zkb.location_id.is_some(),
        // An unreadable hash is replaced by the one beside the block.
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

/// Whether any member of a killmail could not be read.
#[must_use]
pub(crate) fn any_unreadable(killmail: &Killmail) -> bool {
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

/// Calls `visit` for every unreadable member with its part, its name (`None` if we do not know the name) and
/// its raw JSON.
pub(crate) fn each_unreadable(killmail: &Killmail, visit: &mut dyn FnMut(Part, Option<&str>, &Value)) {
    let mut each = |part, unreadable: &UnreadableMembers, named: &dyn Fn(&str) -> bool| {
        unreadable.iter().for_each(|(name, raw)| visit(part, Some(name).filter(|name| named(name)), raw));
    };
    each(Part::Killmail, &killmail.unreadable, &|name| killmail_has(killmail, name).is_some());
    each(Part::Victim, &killmail.victim.unreadable, &|name| victim_has(&killmail.victim, name).is_some());
    for attacker in &killmail.attackers {
        each(Part::Attacker, &attacker.unreadable, &|name| attacker_has(attacker, name).is_some());
    }
    if let Some(zkb) = &killmail.zkb {
        each(Part::Zkb, &zkb.unreadable, &|name| zkb_has(zkb, name).is_some());
    }
    killmail.victim.items.iter().flatten().for_each(|item| each_unreadable_in_item(item, visit));
}

fn each_unreadable_in_item(item: &Item, visit: &mut dyn FnMut(Part, Option<&str>, &Value)) {
    for (name, raw) in item.unreadable.iter() {
        visit(Part::Item, Some(name).filter(|name| item_has(item, name).is_some()), raw);
    }
    item.items.iter().flatten().for_each(|inside| each_unreadable_in_item(inside, visit));
}
