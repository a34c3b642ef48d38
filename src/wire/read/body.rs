//! Reads the body of a killmail: ESI's format, also as it comes out of databases (nulls, floats or strings
//! for integers), and our own. Unknown fields keep their place.
//!
//! A killmail is refused only for what every killmail must have: id, time, system, a victim, a list of
//! attackers. Anything else that cannot be read counts as unknown.
//!
//! Must not know: the envelope around the body.

use serde_json::Value;

use crate::domain::hash::COMPUTED;
use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Position, Victim};
use crate::domain::merge::members;
use crate::domain::provenance::Provenance;
use crate::domain::unreadable::UnreadableMembers;
use crate::domain::zkb::Zkb;
use crate::wire::keys::{self, keep_unknown};
use crate::wire::read::member::{count, flag, id, member, number, restore_unreadable, text};
use crate::wire::read::node::{Fields, Node};
use crate::wire::read::number::essential_id;
use crate::wire::read::reason::{ReadError, Reason};
use crate::wire::read::zkb;
use crate::wire::time;

/// How deep items may be nested. ESI nests one level, also for ships in a carrier's bay. Each level costs
/// stack wherever a killmail is walked recursively.
pub(crate) const ITEM_LEVELS_MAX: usize = 16;

/// The required parts, set aside to be read in the order in which their errors are reported.
#[derive(Default)]
struct Parts<'a> {
    killmail_id: Option<Node<'a>>,
    system: Option<Node<'a>>,
    victim: Option<Node<'a>>,
    attackers: Option<Node<'a>>,
    time: Option<Node<'a>>,
}

/// Reads a body, with zKillboard's block if it has one.
///
/// # Errors
/// A required part is missing or invalid. Reported in this order: missing fields, ids, victim, attackers,
/// time.
pub(crate) fn read(fields: Fields<'_>) -> Result<Killmail, Box<ReadError>> {
    let mut killmail = Killmail::default();
    let mut unreadable = UnreadableMembers::default();
    let mut parts = Parts::default();
    let mut listed = None;
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
            // Moons have 64-bit ids, as locations do.
            "moon_id" => killmail.moon_id = count(&value, "moon_id", &mut unreadable).filter(|id| *id != 0),
            "war_id" => killmail.war_id = id(&value, "war_id", &mut unreadable).map(u64::from),
            "killmail_hash" => killmail.hash = text(&value, "killmail_hash", &mut unreadable),
            "hash_source" => computed = value.text() == Some(COMPUTED),
            "provenance" if is_ours => killmail.provenance = read_provenance(&value),
            "provenance" => unreadable.insert("provenance", value.into_raw()),
            "zkb" => killmail.zkb = zkb::read(value, is_ours, &mut unreadable),
            "unreadable" => listed = Some(value),
            known if keys::KILLMAIL.contains(&known) => {}
            _ => keep_unknown(&mut killmail.extra, &mut unreadable, &name, value),
        }
    }
    read_parts(&mut killmail, parts, &mut unreadable)?;
    if computed {
        forget_hash(&mut killmail.hash, killmail.zkb.as_mut());
    }
    share_hash(&mut killmail);
    restore_unreadable(listed.as_ref(), &mut unreadable, |name| {
        members::killmail_has(&killmail, name) == Some(true)
    });
    killmail.unreadable = unreadable;
    Ok(killmail)
}

/// Removes a computed hash: it is computed again when it is needed.
pub(crate) fn forget_hash(hash: &mut Option<String>, zkb: Option<&mut Zkb>) {
    let computed = hash.take();
    if let Some(zkb) = zkb
        && zkb.hash == computed
    {
        zkb.hash = None;
    }
}

/// Reads `provenance` of our own format: lists of parts by source.
fn read_provenance(value: &Node<'_>) -> Provenance {
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
    unreadable: &mut UnreadableMembers,
) -> Result<(), Box<ReadError>> {
    let present = [
        ("killmail_id", parts.killmail_id.is_some()),
        ("solar_system_id", parts.system.is_some()),
        ("victim", parts.victim.is_some()),
        ("attackers", parts.attackers.is_some()),
    ];
    let missing: Vec<&'static str> =
        present.into_iter().filter(|(_, present)| !present).map(|(name, _)| name).collect();
    let Parts {
        killmail_id: Some(number),
        system: Some(system),
        victim: Some(victim),
        attackers: Some(attackers),
        time,
    } = parts
    else {
        let message = format!("Missing required fields: {}", missing.join(", "));
        let error = ReadError::new(Reason::MissingFields, message);
        return Err(match missing.first() {
            Some(field) => error.about(field),
            None => error,
        });
    };
    killmail.killmail_id = read_nonzero_id(&number, "killmail_id", Reason::InvalidKillmailId)
        .map_err(|error| error.about("killmail_id"))?;
    killmail.solar_system_id = read_nonzero_id(&system, "solar_system_id", Reason::InvalidSystemId)
        .map_err(|error| error.about("solar_system_id"))?;
    killmail.victim = read_victim(victim).map_err(|error| error.about("victim"))?;
    killmail.attackers = read_attackers(attackers, unreadable).map_err(|error| error.about("attackers"))?;
    killmail.time = read_time(time).map_err(|error| error.about("killmail_time"))?;
    Ok(())
}

/// Reads a required id.
///
/// # Errors
/// It is not a positive integer of 32 bits.
pub(crate) fn read_nonzero_id(value: &Node<'_>, field: &str, reason: Reason) -> Result<u32, Box<ReadError>> {
    match essential_id(value, field, reason)? {
        0 => Err(ReadError::new(reason, format!("{field} is 0"))),
        id => Ok(id),
    }
}

/// Copies the hash between body and block, and drops a block that has nothing else.
fn share_hash(killmail: &mut Killmail) {
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

/// Adds what an envelope has beside the body: the hash, zKillboard's block, unknown and unreadable fields.
pub(crate) fn add_envelope(
    killmail: &mut Killmail,
    hash: Option<String>,
    zkb: Option<Zkb>,
    extra: Extra,
    unreadable: &UnreadableMembers,
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
    share_hash(killmail);
    killmail.unreadable.add(unreadable);
}

fn read_time(value: Option<Node<'_>>) -> Result<i64, Box<ReadError>> {
    match value {
        None => Err(ReadError::new(Reason::MissingTime, "killmail_time is missing")),
        Some(Node::Text(text)) => {
            let invalid = || {
                ReadError::new(
                    Reason::InvalidTimeFormat,
                    format!("killmail_time is not a time: {}", Node::Text(text.clone()).describe()),
                )
            };
            // A time that cannot be written again as it came is not the time of a killmail.
            time::parse(&text).filter(|secs| time::is_writable(*secs)).ok_or_else(invalid)
        }
        Some(other) => Err(ReadError::new(
            Reason::InvalidTimeType,
            format!("killmail_time is not a string: {}", other.describe()),
        )),
    }
}

fn read_victim(value: Node<'_>) -> Result<Victim, Box<ReadError>> {
    let Node::Object(fields) = value else {
        return Err(ReadError::new(
            Reason::InvalidVictim,
            format!("victim is not an object: {}", value.describe()),
        ));
    };
    let mut victim = Victim::default();
    let mut unreadable = UnreadableMembers::default();
    let mut listed = None;
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
            "unreadable" => listed = Some(value),
            known if keys::VICTIM.contains(&known) => {}
            _ => keep_unknown(&mut victim.extra, &mut unreadable, &name, value),
        }
    }
    restore_unreadable(listed.as_ref(), &mut unreadable, |name| {
        members::victim_has(&victim, name) == Some(true)
    });
    victim.unreadable = unreadable;
    Ok(victim)
}

/// A position without all three axes is kept among the unknown fields. One with an axis that is not a number
/// is unreadable.
fn read_position(victim: &mut Victim, value: Node<'_>, unreadable: &mut UnreadableMembers) {
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
    let Node::Object(mut fields) = value else { return unreadable.insert("position", value.into_raw()) };
    if broken {
        return unreadable.insert("position", Node::Object(fields).into_raw());
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

/// Reads the attackers. Elements that are not objects are kept as unreadable, including nulls between them.
fn read_attackers(
    value: Node<'_>,
    unreadable: &mut UnreadableMembers,
) -> Result<Vec<Attacker>, Box<ReadError>> {
    let Node::List(list) = value else {
        return Err(ReadError::new(
            Reason::InvalidAttackers,
            format!("attackers is not a list: {}", value.describe()),
        ));
    };
    let mut attackers = Vec::with_capacity(list.len());
    let mut others = Vec::new();
    for element in list {
        match element {
            Node::Object(fields) => attackers.push(read_attacker(fields)),
            other => others.push(other),
        }
    }
    if others.iter().any(|other| *other != Node::Null) {
        unreadable.insert("attackers", Node::List(others).into_raw());
    }
    Ok(attackers)
}

fn read_attacker(fields: Fields<'_>) -> Attacker {
    let mut attacker = Attacker::default();
    let mut unreadable = UnreadableMembers::default();
    let mut listed = None;
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
                attacker.final_blow = flag(&value, "final_blow", &mut unreadable).unwrap_or(false)
            }
            "security_status" => {
                attacker.security_status = number(&value, "security_status", &mut unreadable).unwrap_or(0.0)
            }
            "unreadable" => listed = Some(value),
            known if keys::ATTACKER.contains(&known) => {}
            _ => keep_unknown(&mut attacker.extra, &mut unreadable, &name, value),
        }
    }
    restore_unreadable(listed.as_ref(), &mut unreadable, |name| {
        members::attacker_has(&attacker, name) == Some(true)
    });
    attacker.unreadable = unreadable;
    attacker
}

/// Reads a list of items; `None` if it is not a list, has an element that is not an item, or is nested too
/// deep.
fn read_items(value: &Node<'_>, level: usize) -> Option<Vec<Item>> {
    let Node::List(list) = value else { return None };
    let items = list.iter().filter(|item| **item != Node::Null);
    if level > ITEM_LEVELS_MAX { None } else { items.map(|item| read_item(item, level)).collect() }
}

fn read_item(value: &Node<'_>, level: usize) -> Option<Item> {
    let Node::Object(fields) = value else { return None };
    let mut item = Item::default();
    let mut unreadable = UnreadableMembers::default();
    let mut listed = None;
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
            "unreadable" => listed = Some(value),
            _ => keep_unknown(&mut item.extra, &mut unreadable, name, value.clone()),
        }
    }
    restore_unreadable(listed, &mut unreadable, |name| members::item_has(&item, name) == Some(true));
    item.unreadable = unreadable;
    Some(item)
}
