//! zKillboard's block as it comes in: any member may be null or missing, and PHP writes an empty object as a list and a list with
//! holes as an object.
//!
//! Must not know: which document the block stood in.

use crate::domain::zkb::Zkb;
use crate::wire::keys::{self, keep};
use crate::wire::node::{Fields, Node};
use crate::wire::number::{flag, float, text, whole};
use crate::wire::reason::{Flaw, Reason};

const INVALID: Reason = Reason::InvalidZkb;

/// Reads the block; `None` for null and for an empty one.
///
/// # Errors
/// A member has a value it cannot have.
pub fn read(value: Node<'_>) -> Result<Option<Zkb>, Box<Flaw>> {
    let members = match value {
        Node::Null => return Ok(None),
        Node::List(list) if list.is_empty() => return Ok(None),
        Node::Object(members) => members,
        other => return Err(Flaw::new(INVALID, format!("zkb is no object: {}", other.shown()))),
    };
    let mut zkb = Zkb::default();
    let mut snake = Zkb::default();
    let mut absent = None;
    for (name, value) in members.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "absent" => absent = Some(value),
            "labels" => zkb.labels = Some(labels(value)?),
            "location_id" | "fitted_value" | "dropped_value" | "destroyed_value" | "total_value" => member(&mut snake, &name, value)?,
            _ => member(&mut zkb, &name, value)?,
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

fn member(zkb: &mut Zkb, name: &str, value: Node<'_>) -> Result<(), Box<Flaw>> {
    match name {
        "locationID" | "location_id" => zkb.location_id = Some(whole(&value, name, INVALID)?),
        "hash" => zkb.hash = Some(text(value, name, INVALID)?),
        "fittedValue" | "fitted_value" => zkb.fitted_value = Some(float(&value, name, INVALID)?),
        "droppedValue" | "dropped_value" => zkb.dropped_value = Some(float(&value, name, INVALID)?),
        "destroyedValue" | "destroyed_value" => zkb.destroyed_value = Some(float(&value, name, INVALID)?),
        "totalValue" | "total_value" => zkb.total_value = Some(float(&value, name, INVALID)?),
        "points" => zkb.points = Some(whole(&value, name, INVALID)?),
        "npc" => zkb.npc = Some(flag(&value, name, INVALID)?),
        "solo" => zkb.solo = Some(flag(&value, name, INVALID)?),
        "awox" => zkb.awox = Some(flag(&value, name, INVALID)?),
        "attackerCount" => zkb.attacker_count = Some(whole(&value, name, INVALID)?),
        "href" => zkb.href = Some(text(value, name, INVALID)?),
        known if keys::ZKB.contains(&known) => {}
        _ => keep(&mut zkb.extra, name, value),
    }
    Ok(())
}

fn labels(value: Node<'_>) -> Result<Vec<String>, Box<Flaw>> {
    let labels: Vec<Node<'_>> = match value {
        Node::List(labels) => labels,
        Node::Object(labels) => numbered(labels),
        other => return Err(Flaw::new(INVALID, format!("labels is no list: {}", other.shown()))),
    };
    labels.into_iter().filter(|label| *label != Node::Null).map(|label| text(label, "a label", INVALID)).collect()
}

/// The values of an object in the order of its numeric keys.
fn numbered(map: Fields<'_>) -> Vec<Node<'_>> {
    let mut pairs: Vec<(u64, Node<'_>)> = map.0.into_iter().map(|(key, value)| (key.parse().unwrap_or(u64::MAX), value)).collect();
    pairs.sort_by_key(|(at, _)| *at);
    pairs.into_iter().map(|(_, value)| value).collect()
}

/// Our own form names the members that stand there without having been said.
fn forget(zkb: &mut Zkb, absent: Option<&Node<'_>>) {
    let Some(Node::List(names)) = absent else { return };
    for name in names.iter().filter_map(Node::text) {
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
