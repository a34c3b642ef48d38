//! Serializes made-up killmails as R2Z2 publishes them, for fake feeds.
//!
//! Must not know: who reads them.

use serde_json::{Map, Value, json};

use crate::domain::killmail::{Attacker, Item, Killmail, Victim};
use crate::domain::zkb::Zkb;

/// The document of one sequence number: `killmail_id`, `hash`, `esi`, `zkb`, `uploaded_at` (unix seconds),
/// `sequence_id`.
#[must_use]
pub fn r2z2(killmail: &Killmail, uploaded_at: i64, sequence: u64) -> String {
    let document = json!({
        "killmail_id": killmail.killmail_id,
        "hash": killmail.hash,
        "esi": esi(killmail),
        "zkb": killmail.zkb.as_ref().map(zkb),
        "uploaded_at": uploaded_at,
        "sequence_id": sequence,
    });
    without_nulls(document).to_string()
}

/// The killmail as ESI returns it.
#[must_use]
pub fn esi(killmail: &Killmail) -> Value {
    without_nulls(json!({
        "killmail_id": killmail.killmail_id,
        "killmail_time": jiff::Timestamp::from_second(killmail.time).unwrap_or_default().to_string(),
        "solar_system_id": killmail.solar_system_id,
        "moon_id": killmail.moon_id,
        "war_id": killmail.war_id,
        "victim": victim(&killmail.victim),
        "attackers": killmail.attackers.iter().map(attacker).collect::<Vec<_>>(),
    }))
}

fn victim(v: &Victim) -> Value {
    json!({
        "character_id": v.character_id, "corporation_id": v.corporation_id, "alliance_id": v.alliance_id,
        "faction_id": v.faction_id, "ship_type_id": v.ship_type_id, "damage_taken": v.damage_taken,
        "position": v.position.map(|p| json!({ "x": p.x, "y": p.y, "z": p.z })),
        "items": v.items.as_deref().map(items),
    })
}

fn attacker(a: &Attacker) -> Value {
    json!({
        "character_id": a.character_id, "corporation_id": a.corporation_id, "alliance_id": a.alliance_id,
        "faction_id": a.faction_id, "ship_type_id": a.ship_type_id, "weapon_type_id": a.weapon_type_id,
        "damage_done": a.damage_done, "final_blow": a.final_blow, "security_status": a.security_status,
    })
}

fn items(list: &[Item]) -> Value {
    list.iter().map(item).collect()
}

fn item(i: &Item) -> Value {
    json!({
        "item_type_id": i.item_type_id, "flag": i.flag, "singleton": i.singleton, "quantity_dropped": i.quantity_dropped,
        "quantity_destroyed": i.quantity_destroyed, "items": i.items.as_deref().map(items),
    })
}

fn zkb(zkb: &Zkb) -> Value {
    let mut block = json!({
        "locationID": zkb.location_id, "hash": zkb.hash, "fittedValue": zkb.fitted_value, "droppedValue": zkb.dropped_value,
        "destroyedValue": zkb.destroyed_value, "totalValue": zkb.total_value, "points": zkb.points, "npc": zkb.npc,
        "solo": zkb.solo, "awox": zkb.awox, "labels": zkb.labels, "attackerCount": zkb.attacker_count, "href": zkb.href,
    });
    if let Some(members) = block.as_object_mut() {
        members.extend(zkb.extra.clone());
    }
    block
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect::<Map<_, _>>())
        }
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
