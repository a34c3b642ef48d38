//! zKillboard's block as it comes in: any member may be null or missing, and PHP writes an empty object as a list and a list with
//! holes as an object.
//!
//! Must not know: which document the block stood in.

use serde_json::{Map, Value};

use crate::domain::zkb::Zkb;
use crate::wire::keys;
use crate::wire::number::{flag, float, shown, text, whole};
use crate::wire::reason::{Flaw, Reason};

const INVALID: Reason = Reason::InvalidZkb;

/// Reads the block; `None` for null and for an empty one.
///
/// # Errors
/// A member has a value it cannot have.
pub fn read(value: Value) -> Result<Option<Zkb>, Box<Flaw>> {
    let members = match value {
        Value::Null => return Ok(None),
        Value::Array(list) if list.is_empty() => return Ok(None),
        Value::Object(members) => members,
        other => return Err(Flaw::new(INVALID, format!("zkb is no object: {}", shown(&other)))),
    };
    let mut zkb = Zkb::default();
    let mut snake = Zkb::default();
    let mut absent = None;
    for (name, value) in members {
        match name.as_str() {
            _ if value.is_null() => {}
            "absent" => absent = Some(value),
            "labels" => zkb.labels = Some(labels(value)?),
            "location_id" | "fitted_value" | "dropped_value" | "destroyed_value" | "total_value" => member(&mut snake, name, value)?,
            _ => member(&mut zkb, name, value)?,
        }
    }
    zkb.location_id = zkb.location_id.or(snake.location_id);
    zkb.fitted_value = zkb.fitted_value.or(snake.fitted_value);
    zkb.dropped_value = zkb.dropped_value.or(snake.dropped_value);
    zkb.destroyed_value = zkb.destroyed_value.or(snake.destroyed_value);
    zkb.total_value = zkb.total_value.or(snake.total_value);
    forget(&mut zkb, absent.as_ref());
    Ok((zkb != Zkb::default()).then_some(zkb))
}

fn member(zkb: &mut Zkb, name: String, value: Value) -> Result<(), Box<Flaw>> {
    match name.as_str() {
        "locationID" | "location_id" => zkb.location_id = Some(whole(&value, &name, INVALID)?),
        "hash" => zkb.hash = Some(text(value, &name, INVALID)?),
        "fittedValue" | "fitted_value" => zkb.fitted_value = Some(float(&value, &name, INVALID)?),
        "droppedValue" | "dropped_value" => zkb.dropped_value = Some(float(&value, &name, INVALID)?),
        "destroyedValue" | "destroyed_value" => zkb.destroyed_value = Some(float(&value, &name, INVALID)?),
        "totalValue" | "total_value" => zkb.total_value = Some(float(&value, &name, INVALID)?),
        "points" => zkb.points = Some(whole(&value, &name, INVALID)?),
        "npc" => zkb.npc = Some(flag(&value, &name, INVALID)?),
        "solo" => zkb.solo = Some(flag(&value, &name, INVALID)?),
        "awox" => zkb.awox = Some(flag(&value, &name, INVALID)?),
        "attackerCount" => zkb.attacker_count = Some(whole(&value, &name, INVALID)?),
        "href" => zkb.href = Some(text(value, &name, INVALID)?),
        known if keys::ZKB.contains(&known) => {}
        _ => drop(zkb.extra.insert(name, value)),
    }
    Ok(())
}

fn labels(value: Value) -> Result<Vec<String>, Box<Flaw>> {
    let labels: Vec<Value> = match value {
        Value::Array(labels) => labels,
        Value::Object(labels) => numbered(labels),
        other => return Err(Flaw::new(INVALID, format!("labels is no list: {}", shown(&other)))),
    };
    labels.into_iter().filter(|label| !label.is_null()).map(|label| text(label, "a label", INVALID)).collect()
}

/// The values of an object in the order of its numeric keys.
fn numbered(map: Map<String, Value>) -> Vec<Value> {
    let mut pairs: Vec<(u64, Value)> = map.into_iter().map(|(key, value)| (key.parse().unwrap_or(u64::MAX), value)).collect();
    pairs.sort_by_key(|(at, _)| *at);
    pairs.into_iter().map(|(_, value)| value).collect()
}

/// Our own form names the members that stand there without having been said.
fn forget(zkb: &mut Zkb, absent: Option<&Value>) {
    for name in absent.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        match name {
            "totalValue" => zkb.total_value = None,
            "points" => zkb.points = None,
            "npc" => zkb.npc = None,
            "solo" => zkb.solo = None,
            "awox" => zkb.awox = None,
            "labels" => zkb.labels = None,
            _ => {}
        }
    }
}
