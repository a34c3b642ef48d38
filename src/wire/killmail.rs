//! The canonical JSON of a killmail, the same for every transport: the names of ESI and zKillboard, and those
//! that clients of WandererKills read.
//!
//! Time, system and ISK values have both spellings. There are no nulls: what the source did not give is left
//! out, except for the members of `zkb` that clients rely on, which are then listed in `zkb.absent`.
//! Unreadable members are left out as well; their raw JSON, with its nulls, is in `unreadable` of the part
//! they belong to.
//!
//! Must not know: the client, or what plugins add (annotations are inserted as JSON).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::domain::entry::Entry;
use crate::domain::hash::{self, COMPUTED};
use crate::domain::killmail::{Attacker, Extra, Item, Killmail, Position, Victim};
use crate::domain::unreadable::UnreadableMembers;
use crate::domain::zkb::Zkb;
use crate::feed::event::Delivered;
use crate::universe;
use crate::wire::text::{JsonBuffer, escapes_bytes};
use crate::wire::{keys, time};

static ENCODINGS: AtomicU64 = AtomicU64::new(0);

/// Number of killmails encoded since the program started.
#[must_use]
pub fn encodings() -> u64 {
    ENCODINGS.load(Ordering::Relaxed)
}

/// The JSON of an entry. It is encoded on first use and shared afterwards.
#[must_use]
pub fn json(entry: &Entry) -> Bytes {
    entry.json.get_or_init(|| encode(&entry.killmail)).clone()
}

/// The JSON of a killmail as a subscription gets it, with the annotations of its plugin.
#[must_use]
pub fn delivered_json(kept: &Delivered) -> Bytes {
    with_annotations(&json(&kept.entry), &kept.annotations)
}

/// Encodes a killmail as canonical JSON.
#[must_use]
pub fn encode(killmail: &Killmail) -> Bytes {
    ENCODINGS.fetch_add(1, Ordering::Relaxed);
    let items = killmail.victim.items.as_ref().map_or(0, Vec::len);
    let mut out = JsonBuffer::with_capacity(1_200 + 260 * killmail.attackers.len() + 96 * items);
    write_killmail(&mut out, killmail);
    out.done()
}

/// Adds annotations of plugins to an encoded killmail: `"enriched":{"<plugin>":{..}}`. Each annotation is an
/// encoded JSON object.
#[must_use]
pub fn with_annotations(json: &Bytes, annotations: &[(String, Arc<str>)]) -> Bytes {
    let Some(open) = json.strip_suffix(b"}").filter(|_| !annotations.is_empty()) else { return json.clone() };
    let mut out = JsonBuffer::with_capacity(json.len() + annotations_bytes(annotations));
    out.raw(open);
    out.key("enriched");
    out.open(b'{');
    for (name, annotation) in annotations {
        out.key(name);
        out.raw(annotation.as_bytes());
    }
    out.close(b'}');
    out.close(b'}');
    out.done()
}

/// Upper bound for the bytes that [`with_annotations`] adds.
#[must_use]
pub fn annotations_bytes(annotations: &[(String, Arc<str>)]) -> usize {
    let bytes =
        |(name, json): &(String, Arc<str>)| name.len() + json.len() + escapes_bytes(json.as_bytes()) + 8;
    if annotations.is_empty() { 0 } else { 16 + annotations.iter().map(bytes).sum::<usize>() }
}

fn write_killmail(out: &mut JsonBuffer, killmail: &Killmail) {
    let time = time::iso_seconds(killmail.time);
    let zkb = killmail.zkb.as_ref();
    let hash = hash::resolve(killmail);
    out.open(b'{');
    out.field("killmail_id", &killmail.killmail_id);
    out.field("kill_time", &time);
    out.field("killmail_time", &time);
    out.field_if_some("time_implausible", Some(&true).filter(|_| killmail.time_implausible));
    out.field("system_id", &killmail.solar_system_id);
    out.field("solar_system_id", &killmail.solar_system_id);
    out.field_if_some(
        "solar_system_name",
        universe::system(killmail.solar_system_id).map(|system| system.name).as_ref(),
    );
    if let Some(hash) = &hash {
        out.field("killmail_hash", &hash.text);
        out.field_if_some("hash_source", hash.computed.then_some(COMPUTED).as_ref());
    }
    out.field_if_some("war_id", killmail.war_id.as_ref());
    out.field_if_some("moon_id", killmail.moon_id.as_ref());
    write_victim(out, &killmail.victim);
    out.key("attackers");
    out.open(b'[');
    killmail.attackers.iter().for_each(|attacker| write_attacker(out, attacker));
    out.close(b']');
    write_zkb(out, zkb, hash.as_ref().map(|hash| &*hash.text));
    out.field("attacker_count", &killmail.attackers.len());
    out.field("total_value", &zkb.and_then(|z| z.total_value).filter(|v| v.is_finite()).unwrap_or(0.0));
    out.field("npc", &zkb.and_then(|z| z.npc).unwrap_or(false));
    if !killmail.provenance.is_empty() {
        out.field("provenance", &killmail.provenance.by_source());
    }
    out.fields(&killmail.extra, keys::KILLMAIL);
    write_unreadable(out, &killmail.unreadable);
    out.close(b'}');
}

fn write_victim(out: &mut JsonBuffer, victim: &Victim) {
    out.key("victim");
    out.open(b'{');
    out.field_if_some("character_id", victim.character_id.as_ref());
    out.field_if_some("corporation_id", victim.corporation_id.as_ref());
    out.field_if_some("alliance_id", victim.alliance_id.as_ref());
    out.field_if_some("faction_id", victim.faction_id.as_ref());
    write_type(out, "ship_type_id", "ship_name", victim.ship_type_id);
    out.field("damage_taken", &victim.damage_taken);
    write_position(out, victim.position.as_ref(), &victim.extra);
    if let Some(items) = &victim.items {
        write_items(out, items);
    }
    out.fields(&victim.extra, keys::VICTIM);
    write_unreadable(out, &victim.unreadable);
    out.close(b'}');
}

fn write_type(out: &mut JsonBuffer, id_key: &str, name_key: &str, id: Option<u32>) {
    if let Some(id) = id {
        out.field(id_key, &id);
        out.field_if_some(name_key, universe::type_name(id).as_ref());
    }
}

/// Writes the position and its unknown fields, which is where an incomplete position is kept. ESI's format
/// and ours are the same here.
pub fn write_position(out: &mut JsonBuffer, position: Option<&Position>, extra: &Extra) {
    let unknown = extra.get(keys::POSITION_REST).and_then(|unknown| unknown.as_object());
    if position.is_none() && unknown.is_none() {
        return;
    }
    out.key("position");
    out.open(b'{');
    if let Some(Position { x, y, z }) = position {
        out.field("x", &finite(*x));
        out.field("y", &finite(*y));
        out.field("z", &finite(*z));
    }
    if let Some(unknown) = unknown {
        out.fields(unknown, if position.is_some() { keys::POSITION } else { &[] });
    }
    out.close(b'}');
}

fn write_attacker(out: &mut JsonBuffer, attacker: &Attacker) {
    out.open(b'{');
    out.field_if_some("character_id", attacker.character_id.as_ref());
    out.field_if_some("corporation_id", attacker.corporation_id.as_ref());
    out.field_if_some("alliance_id", attacker.alliance_id.as_ref());
    out.field_if_some("faction_id", attacker.faction_id.as_ref());
    write_type(out, "ship_type_id", "ship_name", attacker.ship_type_id);
    write_type(out, "weapon_type_id", "weapon_name", attacker.weapon_type_id);
    out.field("damage_done", &attacker.damage_done);
    out.field("final_blow", &attacker.final_blow);
    out.field("security_status", &finite(attacker.security_status));
    out.fields(&attacker.extra, keys::ATTACKER);
    write_unreadable(out, &attacker.unreadable);
    out.close(b'}');
}

/// Writes items. ESI's format and ours are the same here.
pub fn write_items(out: &mut JsonBuffer, items: &[Item]) {
    out.key("items");
    out.open(b'[');
    for item in items {
        out.open(b'{');
        out.field_if_some("item_type_id", Some(&item.item_type_id).filter(|id| **id != 0));
        out.field("flag", &item.flag);
        out.field("singleton", &item.singleton);
        out.field_if_some("quantity_dropped", item.quantity_dropped.as_ref());
        out.field_if_some("quantity_destroyed", item.quantity_destroyed.as_ref());
        if let Some(inside) = &item.items {
            write_items(out, inside);
        }
        out.fields(&item.extra, keys::ITEM);
        write_unreadable(out, &item.unreadable);
        out.close(b'}');
    }
    out.close(b']');
}

fn write_zkb(out: &mut JsonBuffer, zkb: Option<&Zkb>, hash: Option<&str>) {
    let nothing = Zkb::default();
    let zkb = zkb.unwrap_or(&nothing);
    out.key("zkb");
    out.open(b'{');
    out.field_if_some("hash", zkb.hash.as_deref().or(hash).as_ref());
    out.field_if_some("locationID", zkb.location_id.as_ref());
    out.field_if_some("location_id", zkb.location_id.as_ref());
    write_value(out, "fittedValue", "fitted_value", zkb.fitted_value);
    write_value(out, "droppedValue", "dropped_value", zkb.dropped_value);
    write_value(out, "destroyedValue", "destroyed_value", zkb.destroyed_value);
    write_value(out, "totalValue", "total_value", Some(zkb.total_value.map_or(0.0, finite)));
    out.field("points", &zkb.points.unwrap_or(0));
    out.field("npc", &zkb.npc.unwrap_or(false));
    out.field("solo", &zkb.solo.unwrap_or(false));
    out.field("awox", &zkb.awox.unwrap_or(false));
    out.field("labels", zkb.labels.as_deref().unwrap_or_default());
    out.field_if_some("attackerCount", zkb.attacker_count.as_ref());
    out.field_if_some("href", zkb.href.as_ref());
    out.fields(&zkb.extra, keys::ZKB);
    write_absent(out, zkb);
    write_unreadable(out, &zkb.unreadable);
    out.close(b'}');
}

fn write_value(out: &mut JsonBuffer, camel: &str, snake: &str, value: Option<f64>) {
    if let Some(value) = value.filter(|v| v.is_finite()) {
        out.field(camel, &value);
        out.field(snake, &value);
    }
}

/// Lists the members that were written only because clients need them.
fn write_absent(out: &mut JsonBuffer, zkb: &Zkb) {
    let given = [
        ("totalValue", zkb.total_value.is_some()),
        ("points", zkb.points.is_some()),
        ("npc", zkb.npc.is_some()),
        ("solo", zkb.solo.is_some()),
        ("awox", zkb.awox.is_some()),
        ("labels", zkb.labels.is_some()),
    ];
    let absent: Vec<_> = given.iter().filter(|(_, given)| !given).map(|(name, _)| *name).collect();
    if !absent.is_empty() {
        out.field("absent", &absent);
    }
}

/// Writes unreadable members as they came. ESI's format and ours are the same here.
pub fn write_unreadable(out: &mut JsonBuffer, unreadable: &UnreadableMembers) {
    out.field_if_some("unreadable", unreadable.members());
}

/// Replaces a number that is not finite, which JSON cannot express, by 0. No source can send one.
#[must_use]
pub const fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

#[cfg(test)]
#[path = "killmail_tests.rs"]
mod tests;
