//! zKillboard's block as it comes in: any member may be null or missing or of another type, and PHP writes an
//! empty object as a list and a list with holes as an object.
//!
//! Must not know: which document the block stood in.

use std::mem;

use crate::domain::merge::members;
use crate::domain::unreadable::Unreadable;
use crate::domain::zkb::Zkb;
use crate::wire::keys::{self, keep};
use crate::wire::read::member::{count, member, number, take_unreadable, text, yes_or_no};
use crate::wire::read::node::{Fields, Node};

/// Reads the block; `None` for null and for an empty one. One that is no object is kept as the member `zkb`
/// that cannot be read. What the member `absent` says counts only in a document of ours.
pub fn read(value: Node<'_>, is_ours: bool, around: &mut Unreadable) -> Option<Zkb> {
    let members = match value {
        Node::Null => return None,
        Node::List(list) if list.is_empty() => return None,
        Node::Object(members) => members,
        other => {
            around.insert("zkb", other.raw());
            return None;
        }
    };
    around.remove("zkb");
    let mut zkb = Zkb::default();
    let mut snake = Zkb::default();
    let (mut absent, mut told) = (None, None);
    for (name, value) in members.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "absent" if is_ours => absent = Some(value),
            "absent" => zkb.unreadable.insert("absent", value.raw()),
            "unreadable" => told = Some(value),
            "location_id" => take(&mut snake, "locationID", value),
            "fitted_value" => take(&mut snake, "fittedValue", value),
            "dropped_value" => take(&mut snake, "droppedValue", value),
            "destroyed_value" => take(&mut snake, "destroyedValue", value),
            "total_value" => take(&mut snake, "totalValue", value),
            _ => take(&mut zkb, &name, value),
        }
    }
    zkb.location_id = zkb.location_id.or(snake.location_id);
    zkb.fitted_value = zkb.fitted_value.or(snake.fitted_value);
    zkb.dropped_value = zkb.dropped_value.or(snake.dropped_value);
    zkb.destroyed_value = zkb.destroyed_value.or(snake.destroyed_value);
    zkb.total_value = zkb.total_value.or(snake.total_value);
    forget(&mut zkb, absent.as_ref());
    let mut unreadable = mem::take(&mut zkb.unreadable);
    unreadable.add(&snake.unreadable);
    take_unreadable(told.as_ref(), &mut unreadable, |name| members::of_zkb(&zkb, name) == Some(true));
    zkb.unreadable = unreadable;
    (zkb != Zkb::default()).then_some(zkb)
}

fn take(zkb: &mut Zkb, name: &str, value: Node<'_>) {
    let Zkb { unreadable, .. } = zkb;
    match name {
        "locationID" => zkb.location_id = count(&value, name, unreadable),
        "hash" => zkb.hash = text(&value, name, unreadable),
        "fittedValue" => zkb.fitted_value = number(&value, name, unreadable),
        "droppedValue" => zkb.dropped_value = number(&value, name, unreadable),
        "destroyedValue" => zkb.destroyed_value = number(&value, name, unreadable),
        "totalValue" => zkb.total_value = number(&value, name, unreadable),
        "points" => zkb.points = count(&value, name, unreadable),
        "npc" => zkb.npc = yes_or_no(&value, name, unreadable),
        "solo" => zkb.solo = yes_or_no(&value, name, unreadable),
        "awox" => zkb.awox = yes_or_no(&value, name, unreadable),
        "labels" => zkb.labels = member(&value, name, unreadable, labels),
        "attackerCount" => zkb.attacker_count = count(&value, name, unreadable),
        "href" => zkb.href = text(&value, name, unreadable),
        known if keys::ZKB.contains(&known) => {}
        _ => keep(&mut zkb.extra, unreadable, name, value),
    }
}

/// A list of texts, nulls aside; `None`: it is no list, or holds something else.
fn labels(value: &Node<'_>) -> Option<Vec<String>> {
    let labels: Vec<&Node<'_>> = match value {
        Node::List(labels) => labels.iter().collect(),
        Node::Object(labels) => numbered(labels),
        _ => return None,
    };
    labels
        .into_iter()
        .filter(|label| **label != Node::Null)
        .map(|label| label.text().map(str::to_owned))
        .collect()
}

/// The values of an object in the order of its numeric keys.
fn numbered<'a, 'v>(fields: &'v Fields<'a>) -> Vec<&'v Node<'a>> {
    let mut pairs: Vec<(u64, &Node<'a>)> =
        fields.0.iter().map(|(key, value)| (key.parse().unwrap_or(u64::MAX), value)).collect();
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
