//! The body of a killmail as it comes in: ESI's form, also after a trip through a database (nulls, floats or
//! texts for integers) and in our own spelling. Unknown fields stay where they stood.
//!
//! Only what no killmail can do without refuses it: id, time, system, a victim, a list of attackers. What
//! else cannot be read is unknown.
//!
//! Must not know: the envelope around the body.

use serde_json::Value;

use crate::domain::hash::COMPUTED;
use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Position, Victim};
use crate::domain::merge::members;
use crate::domain::provenance::Provenance;
use crate::domain::unreadable::Unreadable;
use crate::domain::zkb::Zkb;
use crate::wire::keys::{self, keep};
use crate::wire::read::member::{count, id, member, number, take_unreadable, text, yes_or_no};
use crate::wire::read::node::{Fields, Node};
use crate::wire::read::number::essential_id;
use crate::wire::read::reason::{Flaw, Reason};
use crate::wire::read::zkb;
use crate::wire::time;

/// Items in items in items: ESI has one level inside, ships in a carrier's bay never more. Each level costs
/// stack wherever killmails are walked.
pub const ITEM_LEVELS_MAX: usize = 16;

/// The parts every killmail has, set aside until they are read in the order in which their flaws are told.
#[derive(Default)]
struct Parts<'a> {
    killmail_id: Option<Node<'a>>,
    system: Option<Node<'a>>,
    victim: Option<Node<'a>>,
    attackers: Option<Node<'a>>,
    time: Option<Node<'a>>,
}

/// Reads a body, with the zkb block if it carries one.
///
/// # Errors
/// What of the parts every killmail has is missing or wrong, in the order: missing fields, ids, victim,
/// attackers, time.
pub fn read(fields: Fields<'_>) -> Result<Killmail, Box<Flaw>> {
    let mut killmail = Killmail::default();
    let mut unreadable = Unreadable::default();
    let mut parts = Parts::default();
    let mut told = None;
    let mut computed = false;
    let is_ours = keys::OURS.iter().all(|name| fields.has(name));
    for (name, value) in fields.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "killmail_id" => parts.killmail_id = Some(value),
            "solar_system_id" => parts.system = Some(value),
            "system_id" => drop(parts.system.get_or_insert(value)),
            "killmail_time" => parts.time = Some(value),
            "kill_time" => drop(parts.time.get_or_insert(value)),
            "victim" => parts.victim = Some(value),
            "attackers" => parts.attackers = Some(value),
            // A place has 64 bits, as locations have.
            "moon_id" => killmail.moon_id = count(&value, "moon_id", &mut unreadable).filter(|id| *id != 0),
            "war_id" => killmail.war_id = id(&value, "war_id", &mut unreadable).map(u64::from),
            "killmail_hash" => killmail.hash = text(&value, "killmail_hash", &mut unreadable),
            "hash_source" => computed = value.text() == Some(COMPUTED),
            "provenance" if is_ours => killmail.provenance = provenance(&value),
            "provenance" => unreadable.insert("provenance", value.raw()),
            "zkb" => killmail.zkb = zkb::read(value, is_ours, &mut unreadable),
            "unreadable" => told = Some(value),
            known if keys::KILLMAIL.contains(&known) => {}
            _ => keep(&mut killmail.extra, &mut unreadable, &name, value),
        }
    }
    read_parts(&mut killmail, parts, &mut unreadable)?;
    if computed {
        forget_hash(&mut killmail.hash, killmail.zkb.as_mut());
    }
    settle_hash(&mut killmail);
    take_unreadable(told.as_ref(), &mut unreadable, |name| {
        members::of_killmail(&killmail, name) == Some(true)
    });
    killmail.unreadable = unreadable;
    Ok(killmail)
}

/// A hash that was only computed is computed again where it is wanted.
pub fn forget_hash(hash: &mut Option<String>, zkb: Option<&mut Zkb>) {
    let computed = hash.take();
    if let Some(zkb) = zkb
        && zkb.hash == computed
    {
        zkb.hash = None;
    }
}

/// What our own form says of where parts are from: lists of parts by source.
fn provenance(value: &Node<'_>) -> Provenance {
    let Node::Object(sources) = value else { return Provenance::default() };
    let parts = sources.0.iter().flat_map(|(source, parts)| {
        let Node::List(parts) = parts else { return Vec::new() };
        parts.iter().filter_map(Node::text).map(|part| (part.to_owned(), source.to_string())).collect()
    });
    parts.collect()
}

fn read_parts(
    killmail: &mut Killmail,
    parts: Parts<'_>,
    unreadable: &mut Unreadable,
) -> Result<(), Box<Flaw>> {
    let there = [
        ("killmail_id", parts.killmail_id.is_some()),
        ("solar_system_id", parts.system.is_some()),
        ("victim", parts.victim.is_some()),
        ("attackers", parts.attackers.is_some()),
    ];
    let missing: Vec<&'static str> =
        there.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect();
    let Parts {
        killmail_id: Some(number),
        system: Some(system),
        victim: Some(victim),
        attackers: Some(attackers),
        time: when,
    } = parts
    else {
        let message = format!("Missing required fields: {}", missing.join(", "));
        let flaw = Flaw::new(Reason::MissingFields, message);
        return Err(match missing.first() {
            Some(field) => flaw.about(field),
            None => flaw,
        });
    };
    killmail.killmail_id =
        named(&number, "killmail_id", Reason::InvalidKillmailId).map_err(|flaw| flaw.about("killmail_id"))?;
    killmail.solar_system_id = named(&system, "solar_system_id", Reason::InvalidSystemId)
        .map_err(|flaw| flaw.about("solar_system_id"))?;
    killmail.victim = read_victim(victim).map_err(|flaw| flaw.about("victim"))?;
    killmail.attackers = read_attackers(attackers, unreadable).map_err(|flaw| flaw.about("attackers"))?;
    killmail.time = read_time(when).map_err(|flaw| flaw.about("killmail_time"))?;
    Ok(())
}

/// An id that must name something.
///
/// # Errors
/// No whole number over 0, or over 32 bits.
pub fn named(value: &Node<'_>, field: &str, reason: Reason) -> Result<u32, Box<Flaw>> {
    match essential_id(value, field, reason)? {
        0 => Err(Flaw::new(reason, format!("{field} is 0"))),
        id => Ok(id),
    }
}

/// One hash serves body and block; a block that says nothing else is none.
fn settle_hash(killmail: &mut Killmail) {
    let Some(zkb) = &mut killmail.zkb else { return };
    if killmail.hash.is_none() {
        killmail.hash.clone_from(&zkb.hash);
    }
    if zkb.hash.is_none() && killmail.hash.is_some() {
        zkb.hash.clone_from(&killmail.hash);
    }
    if *zkb == (Zkb { hash: killmail.hash.clone(), ..Zkb::default() }) {
        killmail.zkb = None;
    }
}

/// Takes up what an envelope knows of the killmail beyond its body: the hash, zKillboard's block, unknown
/// fields, those that cannot be read.
pub fn take_up(
    killmail: &mut Killmail,
    hash: Option<String>,
    zkb: Option<Zkb>,
    extra: Extra,
    unreadable: &Unreadable,
) {
    if killmail.hash.is_none() {
        killmail.hash = hash;
    }
    if zkb.is_some() {
        killmail.zkb = zkb;
    }
    for (name, value) in extra {
        killmail.extra.entry(name).or_insert(value);
    }
    settle_hash(killmail);
    killmail.unreadable.add(unreadable);
}

fn read_time(value: Option<Node<'_>>) -> Result<i64, Box<Flaw>> {
    match value {
        None => Err(Flaw::new(Reason::MissingTime, "killmail_time is missing")),
        Some(Node::Text(text)) => {
            let wrong = || {
                Flaw::new(
                    Reason::InvalidTimeFormat,
                    format!("killmail_time is no time: {}", Node::Text(text.clone()).shown()),
                )
            };
            // What could not be written again as it came is no time of a killmail.
            time::parse(&text).filter(|secs| time::is_writable(*secs)).ok_or_else(wrong)
        }
        Some(other) => {
            Err(Flaw::new(Reason::InvalidTimeType, format!("killmail_time is no text: {}", other.shown())))
        }
    }
}

fn read_victim(value: Node<'_>) -> Result<Victim, Box<Flaw>> {
    let Node::Object(fields) = value else {
        return Err(Flaw::new(Reason::InvalidVictim, format!("victim is no object: {}", value.shown())));
    };
    let mut victim = Victim::default();
    let mut unreadable = Unreadable::default();
    let mut told = None;
    for (name, value) in fields.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "character_id" => victim.character_id = id(&value, "character_id", &mut unreadable),
            "corporation_id" => victim.corporation_id = id(&value, "corporation_id", &mut unreadable),
            "alliance_id" => victim.alliance_id = id(&value, "alliance_id", &mut unreadable),
            "faction_id" => victim.faction_id = id(&value, "faction_id", &mut unreadable),
            "ship_type_id" => victim.ship_type_id = id(&value, "ship_type_id", &mut unreadable),
            "damage_taken" => {
                victim.damage_taken = count(&value, "damage_taken", &mut unreadable).unwrap_or(0)
            }
            "position" => read_position(&mut victim, value, &mut unreadable),
            "items" => victim.items = member(&value, "items", &mut unreadable, |items| read_items(items, 1)),
            "unreadable" => told = Some(value),
            known if keys::VICTIM.contains(&known) => {}
            _ => keep(&mut victim.extra, &mut unreadable, &name, value),
        }
    }
    take_unreadable(told.as_ref(), &mut unreadable, |name| members::of_victim(&victim, name) == Some(true));
    victim.unreadable = unreadable;
    Ok(victim)
}

/// A position that lacks an axis is kept as unknown fields are; one with an axis that is no number cannot be
/// read.
fn read_position(victim: &mut Victim, value: Node<'_>, unreadable: &mut Unreadable) {
    (victim.position, _) = (None, victim.extra.remove(keys::POSITION_REST));
    let axis = |name: &str| {
        if let Node::Object(fields) = &value {
            fields.get(name).filter(|axis| **axis != Node::Null)
        } else {
            None
        }
    };
    let axes = ["x", "y", "z"].map(axis);
    let values = axes.map(|axis| axis.and_then(Node::float));
    let broken = axes.iter().zip(&values).any(|(axis, value)| axis.is_some() && value.is_none());
    let Node::Object(mut fields) = value else { return unreadable.insert("position", value.raw()) };
    if broken {
        return unreadable.insert("position", Node::Object(fields).raw());
    }
    unreadable.remove("position");
    if let [Some(x), Some(y), Some(z)] = values {
        victim.position = Some(Position { x, y, z });
        fields.0.retain(|(name, _)| !keys::POSITION.contains(&name.as_ref()));
    }
    let rest = fields.without_nulls();
    if !rest.is_empty() {
        victim.extra.insert(keys::POSITION_REST.to_owned(), Value::Object(rest));
    }
}

/// The attackers; what is no attacker among them is kept apart, with the nulls between.
fn read_attackers(value: Node<'_>, unreadable: &mut Unreadable) -> Result<Vec<Attacker>, Box<Flaw>> {
    let Node::List(list) = value else {
        return Err(Flaw::new(Reason::InvalidAttackers, format!("attackers is no list: {}", value.shown())));
    };
    let mut attackers = Vec::with_capacity(list.len());
    let mut others = Vec::new();
    for one in list {
        match one {
            Node::Object(fields) => attackers.push(read_attacker(fields)),
            other => others.push(other),
        }
    }
    if others.iter().any(|other| *other != Node::Null) {
        unreadable.insert("attackers", Node::List(others).raw());
    }
    Ok(attackers)
}

fn read_attacker(fields: Fields<'_>) -> Attacker {
    let mut attacker = Attacker::default();
    let mut unreadable = Unreadable::default();
    let mut told = None;
    for (name, value) in fields.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "character_id" => attacker.character_id = id(&value, "character_id", &mut unreadable),
            "corporation_id" => attacker.corporation_id = id(&value, "corporation_id", &mut unreadable),
            "alliance_id" => attacker.alliance_id = id(&value, "alliance_id", &mut unreadable),
            "faction_id" => attacker.faction_id = id(&value, "faction_id", &mut unreadable),
            "ship_type_id" => attacker.ship_type_id = id(&value, "ship_type_id", &mut unreadable),
            "weapon_type_id" => attacker.weapon_type_id = id(&value, "weapon_type_id", &mut unreadable),
            "damage_done" => {
                attacker.damage_done = count(&value, "damage_done", &mut unreadable).unwrap_or(0)
            }
            "final_blow" => {
                attacker.final_blow = yes_or_no(&value, "final_blow", &mut unreadable).unwrap_or(false)
            }
            "security_status" => {
                attacker.security_status = number(&value, "security_status", &mut unreadable).unwrap_or(0.0)
            }
            "unreadable" => told = Some(value),
            known if keys::ATTACKER.contains(&known) => {}
            _ => keep(&mut attacker.extra, &mut unreadable, &name, value),
        }
    }
    take_unreadable(told.as_ref(), &mut unreadable, |name| {
        members::of_attacker(&attacker, name) == Some(true)
    });
    attacker.unreadable = unreadable;
    attacker
}

/// A list of items; `None`: it is none, holds something that is no item, or is nested too deep.
fn read_items(value: &Node<'_>, level: usize) -> Option<Vec<Item>> {
    let Node::List(list) = value else { return None };
    let items = list.iter().filter(|item| **item != Node::Null);
    if level > ITEM_LEVELS_MAX { None } else { items.map(|item| read_item(item, level)).collect() }
}

fn read_item(value: &Node<'_>, level: usize) -> Option<Item> {
    let Node::Object(fields) = value else { return None };
    let mut item = Item::default();
    let mut unreadable = Unreadable::default();
    let mut told = None;
    for (name, value) in &fields.0 {
        match name.as_ref() {
            _ if *value == Node::Null => {}
            "item_type_id" => item.item_type_id = count(value, "item_type_id", &mut unreadable).unwrap_or(0),
            "flag" => item.flag = count(value, "flag", &mut unreadable).unwrap_or(0),
            "singleton" => item.singleton = count(value, "singleton", &mut unreadable).unwrap_or(0),
            "quantity_dropped" => item.quantity_dropped = count(value, "quantity_dropped", &mut unreadable),
            "quantity_destroyed" => {
                item.quantity_destroyed = count(value, "quantity_destroyed", &mut unreadable)
            }
            "items" => {
                item.items = member(value, "items", &mut unreadable, |items| read_items(items, level + 1))
            }
            "unreadable" => told = Some(value),
            _ => keep(&mut item.extra, &mut unreadable, name, value.clone()),
        }
    }
    take_unreadable(told, &mut unreadable, |name| members::of_item(&item, name) == Some(true));
    item.unreadable = unreadable;
    Some(item)
}
