//! The body of a killmail as it comes in: ESI's form, also after a trip through a database (nulls, floats for integers) and in our own
//! spelling. Unknown fields stay where they stood.
//!
//! Must not know: the envelope around the body.

use serde_json::Value;

use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Position, Victim};
use crate::domain::zkb::Zkb;
use crate::wire::keys::{self, keep};
use crate::wire::node::{Fields, Node};
use crate::wire::number::{flag, float, id, text, whole};
use crate::wire::reason::{Flaw, Reason};
use crate::wire::time;
use crate::wire::zkb;

/// Items in items in items: ESI has one level inside, ships in a carrier's bay never more. Each level costs stack wherever killmails are
/// walked.
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
/// What is wrong with it, in the order: missing fields, ids, victim, attackers, time; other known fields first.
pub fn read(fields: Fields<'_>) -> Result<Killmail, Box<Flaw>> {
    let mut killmail = Killmail::default();
    let mut parts = Parts::default();
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
            "moon_id" => killmail.moon_id = Some(whole(&value, &name, Reason::InvalidField)?),
            "war_id" => killmail.war_id = Some(whole(&value, &name, Reason::InvalidField)?),
            "killmail_hash" => killmail.hash = Some(text(value, &name, Reason::InvalidField)?),
            "zkb" => killmail.zkb = zkb::read(value)?,
            known if keys::KILLMAIL.contains(&known) => {}
            _ => keep(&mut killmail.extra, &name, value),
        }
    }
    read_parts(&mut killmail, parts)?;
    settle_hash(&mut killmail);
    Ok(killmail)
}

fn read_parts(killmail: &mut Killmail, parts: Parts<'_>) -> Result<(), Box<Flaw>> {
    let there = [
        ("killmail_id", parts.killmail_id.is_some()),
        ("solar_system_id", parts.system.is_some()),
        ("victim", parts.victim.is_some()),
        ("attackers", parts.attackers.is_some()),
    ];
    let missing: Vec<&str> = there.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect();
    let Parts { killmail_id: Some(number), system: Some(system), victim: Some(victim), attackers: Some(attackers), time: when } = parts
    else {
        return Err(Flaw::new(Reason::MissingFields, format!("Missing required fields: {}", missing.join(", "))));
    };
    killmail.killmail_id = named(&number, "killmail_id", Reason::InvalidKillmailId)?;
    killmail.solar_system_id = named(&system, "solar_system_id", Reason::InvalidSystemId)?;
    killmail.victim = read_victim(victim)?;
    killmail.attackers = read_attackers(attackers)?;
    killmail.time = read_time(when)?;
    Ok(())
}

/// An id that must name something.
///
/// # Errors
/// No whole number over 0, or over 32 bits.
pub fn named(value: &Node<'_>, field: &str, reason: Reason) -> Result<u32, Box<Flaw>> {
    match id(value, field, reason)? {
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
    if zkb.hash.is_none() {
        zkb.hash.clone_from(&killmail.hash);
    }
    if *zkb == (Zkb { hash: killmail.hash.clone(), ..Zkb::default() }) {
        killmail.zkb = None;
    }
}

/// Takes up what an envelope knows of the killmail beyond its body: the hash, zKillboard's block, unknown fields.
pub fn take_up(killmail: &mut Killmail, hash: Option<String>, zkb: Option<Zkb>, extra: Extra) {
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
}

fn read_time(value: Option<Node<'_>>) -> Result<i64, Box<Flaw>> {
    match value {
        None => Err(Flaw::new(Reason::MissingTime, "killmail_time is missing")),
        Some(Node::Text(text)) => {
            let wrong = || Flaw::new(Reason::InvalidTimeFormat, format!("killmail_time is no time: {}", Node::Text(text.clone()).shown()));
            // What could not be written again as it came is no time of a killmail.
            time::parse(&text).filter(|secs| time::is_writable(*secs)).ok_or_else(wrong)
        }
        Some(other) => Err(Flaw::new(Reason::InvalidTimeType, format!("killmail_time is no text: {}", other.shown()))),
    }
}

fn read_victim(value: Node<'_>) -> Result<Victim, Box<Flaw>> {
    const INVALID: Reason = Reason::InvalidVictim;
    let Node::Object(fields) = value else {
        return Err(Flaw::new(INVALID, format!("victim is no object: {}", value.shown())));
    };
    let mut victim = Victim::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "character_id" => victim.character_id = Some(id(&value, "victim.character_id", INVALID)?),
            "corporation_id" => victim.corporation_id = Some(id(&value, "victim.corporation_id", INVALID)?),
            "alliance_id" => victim.alliance_id = Some(id(&value, "victim.alliance_id", INVALID)?),
            "faction_id" => victim.faction_id = Some(id(&value, "victim.faction_id", INVALID)?),
            "ship_type_id" => victim.ship_type_id = Some(id(&value, "victim.ship_type_id", INVALID)?),
            "damage_taken" => victim.damage_taken = whole(&value, "victim.damage_taken", INVALID)?,
            "position" => read_position(&mut victim, value)?,
            "items" => victim.items = Some(read_items(value, 1)?),
            known if keys::VICTIM.contains(&known) => {}
            _ => keep(&mut victim.extra, &name, value),
        }
    }
    if victim.character_id.is_none() && victim.ship_type_id.is_none() {
        return Err(Flaw::new(INVALID, "victim has neither character_id nor ship_type_id"));
    }
    Ok(victim)
}

fn read_position(victim: &mut Victim, value: Node<'_>) -> Result<(), Box<Flaw>> {
    let Node::Object(mut fields) = value else {
        return Err(Flaw::new(Reason::InvalidVictim, format!("victim.position is no object: {}", value.shown())));
    };
    let axis = |name: &str| match fields.get(name) {
        None | Some(Node::Null) => Ok(None),
        Some(value) => float(value, &format!("victim.position.{name}"), Reason::InvalidVictim).map(Some),
    };
    if let (Some(x), Some(y), Some(z)) = (axis("x")?, axis("y")?, axis("z")?) {
        victim.position = Some(Position { x, y, z });
        fields.0.retain(|(name, _)| !keys::POSITION.contains(&name.as_ref()));
    }
    let rest = fields.without_nulls();
    if !rest.is_empty() {
        victim.extra.insert(keys::POSITION_REST.to_owned(), Value::Object(rest));
    }
    Ok(())
}

fn read_attackers(value: Node<'_>) -> Result<Vec<Attacker>, Box<Flaw>> {
    match value {
        Node::List(list) if !list.is_empty() => list.into_iter().map(read_attacker).collect(),
        Node::List(_) => Err(Flaw::new(Reason::InvalidAttackers, "attackers is empty")),
        other => Err(Flaw::new(Reason::InvalidAttackers, format!("attackers is no list: {}", other.shown()))),
    }
}

fn read_attacker(value: Node<'_>) -> Result<Attacker, Box<Flaw>> {
    const INVALID: Reason = Reason::InvalidAttackers;
    let Node::Object(fields) = value else {
        return Err(Flaw::new(INVALID, format!("an attacker is no object: {}", value.shown())));
    };
    let mut attacker = Attacker::default();
    for (name, value) in fields.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "character_id" => attacker.character_id = Some(id(&value, "an attacker's character_id", INVALID)?),
            "corporation_id" => attacker.corporation_id = Some(id(&value, "an attacker's corporation_id", INVALID)?),
            "alliance_id" => attacker.alliance_id = Some(id(&value, "an attacker's alliance_id", INVALID)?),
            "faction_id" => attacker.faction_id = Some(id(&value, "an attacker's faction_id", INVALID)?),
            "ship_type_id" => attacker.ship_type_id = Some(id(&value, "an attacker's ship_type_id", INVALID)?),
            "weapon_type_id" => attacker.weapon_type_id = Some(id(&value, "an attacker's weapon_type_id", INVALID)?),
            "damage_done" => attacker.damage_done = whole(&value, "an attacker's damage_done", INVALID)?,
            "final_blow" => attacker.final_blow = flag(&value, "an attacker's final_blow", INVALID)?,
            "security_status" => attacker.security_status = float(&value, "an attacker's security_status", INVALID)?,
            known if keys::ATTACKER.contains(&known) => {}
            _ => keep(&mut attacker.extra, &name, value),
        }
    }
    Ok(attacker)
}

fn read_items(value: Node<'_>, level: usize) -> Result<Vec<Item>, Box<Flaw>> {
    if level > ITEM_LEVELS_MAX {
        return Err(Flaw::new(Reason::ItemsTooDeep, format!("items inside items, more than {ITEM_LEVELS_MAX} levels")));
    }
    match value {
        Node::List(list) => list.into_iter().map(|item| read_item(item, level)).collect(),
        other => Err(Flaw::new(Reason::InvalidItems, format!("items is no list: {}", other.shown()))),
    }
}

fn read_item(value: Node<'_>, level: usize) -> Result<Item, Box<Flaw>> {
    const INVALID: Reason = Reason::InvalidItems;
    let Node::Object(fields) = value else {
        return Err(Flaw::new(INVALID, format!("an item is no object: {}", value.shown())));
    };
    let mut item = Item::default();
    let mut typed = false;
    for (name, value) in fields.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "item_type_id" => {
                item.item_type_id = whole(&value, "an item's item_type_id", INVALID)?;
                typed = true;
            }
            "flag" => item.flag = whole(&value, "an item's flag", INVALID)?,
            "singleton" => item.singleton = whole(&value, "an item's singleton", INVALID)?,
            "quantity_dropped" => item.quantity_dropped = Some(whole(&value, "an item's quantity_dropped", INVALID)?),
            "quantity_destroyed" => item.quantity_destroyed = Some(whole(&value, "an item's quantity_destroyed", INVALID)?),
            "items" => item.items = Some(read_items(value, level + 1)?),
            _ => keep(&mut item.extra, &name, value),
        }
    }
    if typed { Ok(item) } else { Err(Flaw::new(INVALID, "an item has no item_type_id")) }
}
