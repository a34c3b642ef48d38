//! The optional parts of a killmail's body by their names in our JSON: `war_id`, `victim.items`,
//! `attackers.0.character_id`.
//!
//! Must not know: what the names are used for.

use std::collections::BTreeSet;

use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Victim};
use crate::domain::provenance::is_reserved;

/// Names of the parts that are present.
#[must_use]
pub(crate) fn list_present(killmail: &Killmail) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let top = [("moon_id", killmail.moon_id.is_some()), ("war_id", killmail.war_id.is_some())];
    names.extend(top.into_iter().filter(|(_, present)| *present).map(|(name, _)| name.to_owned()));
    names.extend(killmail.extra.keys().filter(|name| !is_reserved(name)).cloned());
    add_victim(&mut names, &killmail.victim);
    for (at, attacker) in killmail.attackers.iter().enumerate() {
        add_attacker(&mut names, &format!("attackers.{at}."), attacker);
    }
    names
}

/// Names of the parts that are present now and were not before. A new list counts as one part.
#[must_use]
pub(crate) fn list_gained(before: &BTreeSet<String>, killmail: &Killmail) -> Vec<String> {
    let now = list_present(killmail);
    let new: BTreeSet<&str> = now.difference(before).map(String::as_str).collect();
    let is_inside = |name: &str| name.match_indices('.').any(|(at, _)| new.contains(&name[..at]));
    new.iter().filter(|name| !is_inside(name)).map(|name| (*name).to_owned()).collect()
}

pub(crate) fn clear(killmail: &mut Killmail, name: &str) {
    if let Some(rest) = name.strip_prefix("victim.") {
        return clear_victim(&mut killmail.victim, rest);
    }
    if let Some((at, rest)) = name.strip_prefix("attackers.").and_then(split_index) {
        return killmail
            .attackers
            .get_mut(at)
            .into_iter()
            .for_each(|attacker| clear_attacker(attacker, rest));
    }
    match name {
        "moon_id" => killmail.moon_id = None,
        "war_id" => killmail.war_id = None,
        _ => drop(killmail.extra.remove(name)),
    }
}

fn add_victim(names: &mut BTreeSet<String>, victim: &Victim) {
    let parts = [
        ("character_id", victim.character_id.is_some()),
        ("corporation_id", victim.corporation_id.is_some()),
        ("alliance_id", victim.alliance_id.is_some()),
        ("faction_id", victim.faction_id.is_some()),
        ("ship_type_id", victim.ship_type_id.is_some()),
        ("position", victim.position.is_some()),
    ];
    add(names, "victim.", &parts, &victim.extra);
    add_items(names, "victim.", victim.items.as_deref());
}

fn add_attacker(names: &mut BTreeSet<String>, prefix: &str, attacker: &Attacker) {
    let parts = [
        ("character_id", attacker.character_id.is_some()),
        ("corporation_id", attacker.corporation_id.is_some()),
        ("alliance_id", attacker.alliance_id.is_some()),
        ("faction_id", attacker.faction_id.is_some()),
        ("ship_type_id", attacker.ship_type_id.is_some()),
        ("weapon_type_id", attacker.weapon_type_id.is_some()),
    ];
    add(names, prefix, &parts, &attacker.extra);
}

fn add_items(names: &mut BTreeSet<String>, prefix: &str, items: Option<&[Item]>) {
    let Some(list) = items else { return };
    names.insert(format!("{prefix}items"));
    for (at, item) in list.iter().enumerate() {
        let prefix = format!("{prefix}items.{at}.");
        let parts = [
            ("quantity_dropped", item.quantity_dropped.is_some()),
            ("quantity_destroyed", item.quantity_destroyed.is_some()),
        ];
        add(names, &prefix, &parts, &item.extra);
        add_items(names, &prefix, item.items.as_deref());
    }
}

fn add(names: &mut BTreeSet<String>, prefix: &str, parts: &[(&str, bool)], extra: &Extra) {
    let names_present = parts.iter().filter(|(_, present)| *present).map(|(name, _)| *name);
    names.extend(names_present.chain(extra.keys().map(String::as_str)).map(|name| format!("{prefix}{name}")));
}

fn clear_victim(victim: &mut Victim, name: &str) {
    match name {
        "character_id" => victim.character_id = None,
        "corporation_id" => victim.corporation_id = None,
        "alliance_id" => victim.alliance_id = None,
        "faction_id" => victim.faction_id = None,
        "ship_type_id" => victim.ship_type_id = None,
        "position" => {
            victim.position = None;
            // Further fields of the position are kept under the same name.
            victim.extra.remove(name);
        }
        _ => clear_item_list(&mut victim.items, &mut victim.extra, name),
    }
}

fn clear_attacker(attacker: &mut Attacker, name: &str) {
    match name {
        "character_id" => attacker.character_id = None,
        "corporation_id" => attacker.corporation_id = None,
        "alliance_id" => attacker.alliance_id = None,
        "faction_id" => attacker.faction_id = None,
        "ship_type_id" => attacker.ship_type_id = None,
        "weapon_type_id" => attacker.weapon_type_id = None,
        _ => drop(attacker.extra.remove(name)),
    }
}

/// Removes a list of items, a part of one of them, or an unknown field beside the list.
fn clear_item_list(list: &mut Option<Vec<Item>>, extra: &mut Extra, name: &str) {
    if name == "items" {
        *list = None;
    } else if let Some((at, rest)) = name.strip_prefix("items.").and_then(split_index) {
        if let Some(item) = list.as_mut().and_then(|list| list.get_mut(at)) {
            match rest {
                "quantity_dropped" => item.quantity_dropped = None,
                "quantity_destroyed" => item.quantity_destroyed = None,
                _ => clear_item_list(&mut item.items, &mut item.extra, rest),
            }
        }
    } else {
        extra.remove(name);
    }
}

fn split_index(name: &str) -> Option<(usize, &str)> {
    let (at, rest) = name.split_once('.')?;
    Some((at.parse().ok()?, rest))
}
