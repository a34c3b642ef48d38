//! Writes killmails in upstream formats: ESI's body, zKillboard's block, R2Z2's numbered document. Reading
//! them with `wire/read/package` gives the same killmail again, so that one killstream can replace
//! zKillboard's feed for another.
//!
//! Must not know: the client; our own names beside ESI's.

use bytes::Bytes;
use serde_json::json;

use crate::domain::entry::Entry;
use crate::domain::hash::{self, COMPUTED};
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::zkb::Zkb;
use crate::wire::killmail::{finite, write_items, write_position, write_unreadable};
use crate::wire::text::JsonBuffer;
use crate::wire::{keys, time};

/// The document of an entry as R2Z2 publishes it under `number`; `None` without a hash, which R2Z2's
/// documents always have. `updated` is the number of an older document that was rewritten. A computed hash is
/// marked as such.
#[must_use]
pub fn document(entry: &Entry, number: u64, updated: Option<u64>) -> Option<Bytes> {
    let killmail = &entry.killmail;
    let hash = hash::resolve(killmail)?;
    let mut out = buffer_for(killmail);
    out.open(b'{');
    out.field("killmail_id", &killmail.killmail_id);
    out.field("hash", &hash.text);
    out.field_if_some("hash_source", hash.computed.then_some(COMPUTED).as_ref());
    out.key("esi");
    write_body(&mut out, killmail);
    out.key("zkb");
    write_zkb(&mut out, killmail.zkb.as_ref(), &hash.text);
    out.field("uploaded_at", &uploaded_at(entry));
    out.field("sequence_id", &number);
    out.field_if_some("sequence_updated", updated.as_ref());
    out.close(b'}');
    Some(out.done())
}

/// The document of a number without a killmail: the placeholder that R2Z2 publishes, so that readers continue
/// at once. `sequence_empty` tells readers that know it that no killmail is missing.
#[must_use]
pub fn placeholder(number: u64) -> Bytes {
    let nothing = json!({
        "killmail_id": null, "hash": null, "esi": null, "zkb": { "href": "https://esi.evetech.net/killmails///" }, "sequence_id": number,
        "sequence_empty": true,
    });
    Bytes::from(nothing.to_string())
}

/// The body as ESI returns it, with unknown fields.
#[must_use]
pub fn body(killmail: &Killmail) -> Bytes {
    let mut out = buffer_for(killmail);
    write_body(&mut out, killmail);
    out.done()
}

/// When the source published the killmail. If that is unknown, it follows from the killmail's age on arrival.
fn uploaded_at(entry: &Entry) -> i64 {
    entry.uploaded_at.unwrap_or_else(|| entry.killmail.time.saturating_add(i64::from(entry.age_secs)))
}

fn buffer_for(killmail: &Killmail) -> JsonBuffer {
    let items = killmail.victim.items.as_ref().map_or(0, Vec::len);
    JsonBuffer::with_capacity(900 + 230 * killmail.attackers.len() + 96 * items)
}

fn write_body(out: &mut JsonBuffer, killmail: &Killmail) {
    out.open(b'{');
    out.key("attackers");
    out.open(b'[');
    killmail.attackers.iter().for_each(|attacker| write_attacker(out, attacker));
    out.close(b']');
    out.field("killmail_id", &killmail.killmail_id);
    out.field("killmail_time", &time::iso_seconds(killmail.time));
    out.field_if_some("moon_id", killmail.moon_id.as_ref());
    out.field("solar_system_id", &killmail.solar_system_id);
    write_victim(out, &killmail.victim);
    out.field_if_some("war_id", killmail.war_id.as_ref());
    out.fields(&killmail.extra, keys::KILLMAIL);
    write_unreadable(out, &killmail.unreadable);
    out.close(b'}');
}

fn write_victim(out: &mut JsonBuffer, victim: &Victim) {
    out.key("victim");
    out.open(b'{');
    out.field_if_some("alliance_id", victim.alliance_id.as_ref());
    out.field_if_some("character_id", victim.character_id.as_ref());
    out.field_if_some("corporation_id", victim.corporation_id.as_ref());
    out.field("damage_taken", &victim.damage_taken);
    out.field_if_some("faction_id", victim.faction_id.as_ref());
    if let Some(items) = &victim.items {
        write_items(out, items);
    }
    write_position(out, victim.position.as_ref(), &victim.extra);
    out.field_if_some("ship_type_id", victim.ship_type_id.as_ref());
    out.fields(&victim.extra, keys::VICTIM);
    write_unreadable(out, &victim.unreadable);
    out.close(b'}');
}

fn write_attacker(out: &mut JsonBuffer, attacker: &Attacker) {
    out.open(b'{');
    out.field_if_some("alliance_id", attacker.alliance_id.as_ref());
    out.field_if_some("character_id", attacker.character_id.as_ref());
    out.field_if_some("corporation_id", attacker.corporation_id.as_ref());
    out.field("damage_done", &attacker.damage_done);
    out.field_if_some("faction_id", attacker.faction_id.as_ref());
    out.field("final_blow", &attacker.final_blow);
    out.field("security_status", &finite(attacker.security_status));
    out.field_if_some("ship_type_id", attacker.ship_type_id.as_ref());
    out.field_if_some("weapon_type_id", attacker.weapon_type_id.as_ref());
    out.fields(&attacker.extra, keys::ATTACKER);
    write_unreadable(out, &attacker.unreadable);
    out.close(b'}');
}

/// Writes the block as it came, with the hash, which readers of the feed expect there.
fn write_zkb(out: &mut JsonBuffer, zkb: Option<&Zkb>, hash: &str) {
    out.open(b'{');
    let Some(zkb) = zkb else {
        out.field("hash", hash);
        return out.close(b'}');
    };
    let isk = |value: Option<f64>| value.filter(|value| value.is_finite());
    out.field_if_some("locationID", zkb.location_id.as_ref());
    out.field("hash", zkb.hash.as_deref().unwrap_or(hash));
    out.field_if_some("fittedValue", isk(zkb.fitted_value).as_ref());
    out.field_if_some("droppedValue", isk(zkb.dropped_value).as_ref());
    out.field_if_some("destroyedValue", isk(zkb.destroyed_value).as_ref());
    out.field_if_some("totalValue", isk(zkb.total_value).as_ref());
    out.field_if_some("points", zkb.points.as_ref());
    out.field_if_some("npc", zkb.npc.as_ref());
    out.field_if_some("solo", zkb.solo.as_ref());
    out.field_if_some("awox", zkb.awox.as_ref());
    out.field_if_some("labels", zkb.labels.as_ref());
    out.field_if_some("attackerCount", zkb.attacker_count.as_ref());
    out.field_if_some("href", zkb.href.as_ref());
    out.fields(&zkb.extra, keys::ZKB);
    write_unreadable(out, &zkb.unreadable);
    out.close(b'}');
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
