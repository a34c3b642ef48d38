//! Killmails in the forms they come from upstream: ESI's body, zKillboard's block, R2Z2's numbered document.
//! Read by `wire/read/package`, they give the same killmail again; so one killstream can stand where
//! zKillboard's feed stood.
//!
//! Must not know: who asks; our own names beside ESI's.

use bytes::Bytes;
use serde_json::json;

use crate::domain::entry::Entry;
use crate::domain::hash::{self, COMPUTED};
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::zkb::Zkb;
use crate::wire::killmail::{finite, write_items, write_position, write_unreadable};
use crate::wire::text::Text;
use crate::wire::{keys, time};

/// The document of an entry under the number of its file, as R2Z2 publishes it; `None` without a hash, which
/// R2Z2's always have. `updated` is the older file this one tells of. A hash no source gave is marked, so
/// that who reads on takes it for what it is.
#[must_use]
pub fn document(entry: &Entry, number: u64, updated: Option<u64>) -> Option<Bytes> {
    let killmail = &entry.killmail;
    let hash = hash::of(killmail)?;
    let mut out = room(killmail);
    out.open(b'{');
    out.field("killmail_id", &killmail.killmail_id);
    out.field("hash", &hash.text);
    out.known("hash_source", hash.computed.then_some(COMPUTED).as_ref());
    out.key("esi");
    write_body(&mut out, killmail);
    out.key("zkb");
    write_zkb(&mut out, killmail.zkb.as_ref(), &hash.text);
    out.field("uploaded_at", &uploaded_at(entry));
    out.field("sequence_id", &number);
    out.known("sequence_updated", updated.as_ref());
    out.close(b'}');
    Some(out.done())
}

/// The document of a number that holds no killmail and never will: the placeholder R2Z2 publishes, so that
/// readers go on at once. `sequence_empty` tells those who know the word that nothing is missing here,
/// either.
#[must_use]
pub fn placeholder(number: u64) -> Bytes {
    let nothing = json!({
        "killmail_id": null, "hash": null, "esi": null, "zkb": { "href": "https://esi.evetech.net/killmails///" }, "sequence_id": number,
        "sequence_empty": true,
    });
    Bytes::from(nothing.to_string())
}

/// The body as ESI gives it, unknown fields included.
#[must_use]
pub fn body(killmail: &Killmail) -> Bytes {
    let mut out = room(killmail);
    write_body(&mut out, killmail);
    out.done()
}

/// When its source published it. One that does not say it said it by how old the killmail was.
fn uploaded_at(entry: &Entry) -> i64 {
    entry.uploaded_at.unwrap_or_else(|| entry.killmail.time.saturating_add(i64::from(entry.age_secs)))
}

fn room(killmail: &Killmail) -> Text {
    let items = killmail.victim.items.as_ref().map_or(0, Vec::len);
    Text::with_capacity(900 + 230 * killmail.attackers.len() + 96 * items)
}

fn write_body(out: &mut Text, killmail: &Killmail) {
    out.open(b'{');
    out.key("attackers");
    out.open(b'[');
    killmail.attackers.iter().for_each(|attacker| write_attacker(out, attacker));
    out.close(b']');
    out.field("killmail_id", &killmail.killmail_id);
    out.field("killmail_time", &time::iso_seconds(killmail.time));
    out.known("moon_id", killmail.moon_id.as_ref());
    out.field("solar_system_id", &killmail.solar_system_id);
    write_victim(out, &killmail.victim);
    out.known("war_id", killmail.war_id.as_ref());
    out.fields(&killmail.extra, keys::KILLMAIL);
    write_unreadable(out, &killmail.unreadable);
    out.close(b'}');
}

fn write_victim(out: &mut Text, victim: &Victim) {
    out.key("victim");
    out.open(b'{');
    out.known("alliance_id", victim.alliance_id.as_ref());
    out.known("character_id", victim.character_id.as_ref());
    out.known("corporation_id", victim.corporation_id.as_ref());
    out.field("damage_taken", &victim.damage_taken);
    out.known("faction_id", victim.faction_id.as_ref());
    if let Some(items) = &victim.items {
        write_items(out, items);
    }
    write_position(out, victim.position.as_ref(), &victim.extra);
    out.known("ship_type_id", victim.ship_type_id.as_ref());
    out.fields(&victim.extra, keys::VICTIM);
    write_unreadable(out, &victim.unreadable);
    out.close(b'}');
}

fn write_attacker(out: &mut Text, attacker: &Attacker) {
    out.open(b'{');
    out.known("alliance_id", attacker.alliance_id.as_ref());
    out.known("character_id", attacker.character_id.as_ref());
    out.known("corporation_id", attacker.corporation_id.as_ref());
    out.field("damage_done", &attacker.damage_done);
    out.known("faction_id", attacker.faction_id.as_ref());
    out.field("final_blow", &attacker.final_blow);
    out.field("security_status", &finite(attacker.security_status));
    out.known("ship_type_id", attacker.ship_type_id.as_ref());
    out.known("weapon_type_id", attacker.weapon_type_id.as_ref());
    out.fields(&attacker.extra, keys::ATTACKER);
    write_unreadable(out, &attacker.unreadable);
    out.close(b'}');
}

/// The block as it came, with the hash, which readers of the feed look for there.
fn write_zkb(out: &mut Text, zkb: Option<&Zkb>, hash: &str) {
    out.open(b'{');
    let Some(zkb) = zkb else {
        out.field("hash", hash);
        return out.close(b'}');
    };
    let isk = |value: Option<f64>| value.filter(|value| value.is_finite());
    out.known("locationID", zkb.location_id.as_ref());
    out.field("hash", zkb.hash.as_deref().unwrap_or(hash));
    out.known("fittedValue", isk(zkb.fitted_value).as_ref());
    out.known("droppedValue", isk(zkb.dropped_value).as_ref());
    out.known("destroyedValue", isk(zkb.destroyed_value).as_ref());
    out.known("totalValue", isk(zkb.total_value).as_ref());
    out.known("points", zkb.points.as_ref());
    out.known("npc", zkb.npc.as_ref());
    out.known("solo", zkb.solo.as_ref());
    out.known("awox", zkb.awox.as_ref());
    out.known("labels", zkb.labels.as_ref());
    out.known("attackerCount", zkb.attacker_count.as_ref());
    out.known("href", zkb.href.as_ref());
    out.fields(&zkb.extra, keys::ZKB);
    write_unreadable(out, &zkb.unreadable);
    out.close(b'}');
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
