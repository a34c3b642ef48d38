//! Reads zKillboard's block. Any member may be null, missing or of another type, and PHP writes an empty
//! object as a list and a list with missing indices as an object.
//!
//! Must not know: which document contained the block.

use std::mem;

use crate::domain::merge::members;
use crate::domain::unreadable::UnreadableMembers;
use crate::domain::zkb::Zkb;
use crate::wire::keys::{self, keep_unknown};
use crate::wire::read::member::{count, flag, member, number, restore_unreadable, text};
use crate::wire::read::node::{Fields, Node};

/// Reads the block; `None` if it is null or empty. If it is not an object, it is kept as the unreadable
/// member `zkb`. The member `absent` only counts in a document of our own format.
pub(crate) fn read(value: Node<'_>, is_ours: bool, outer: &mut UnreadableMembers) -> Option<Zkb> {
    let members = match value {
        Node::Null => return None,
        Node::List(list) if list.is_empty() => return None,
        Node::Object(members) => members,
        other => {
            outer.insert("zkb", other.into_raw());
            return None;
        }
    };
    outer.remove("zkb");
    let mut zkb = Zkb::default();
    let mut snake = Zkb::default();
    let (mut absent, mut listed) = (None, None);
    for (name, value) in members.0 {
        match name.as_ref() {
            _ if value == Node::Null => {}
            "absent" if is_ours => absent = Some(value),
            "absent" => zkb.unreadable.insert("absent", value.into_raw()),
            "unreadable" => listed = Some(value),
            "location_id" => read_member(&mut snake, "locationID", value),
            "fitted_value" => read_member(&mut snake, "fittedValue", value),
            "dropped_value" => read_member(&mut snake, "droppedValue", value),
            "destroyed_value" => read_member(&mut snake, "destroyedValue", value),
            "total_value" => read_member(&mut snake, "totalValue", value),
            _ => read_member(&mut zkb, &name, value),
        }
    }
    zkb.location_id = zkb.location_id.or(snake.location_id);
    zkb.fitted_value = zkb.fitted_value.or(snake.fitted_value);
    zkb.dropped_value = zkb.dropped_value.or(snake.dropped_value);
    zkb.destroyed_value = zkb.destroyed_value.or(snake.destroyed_value);
    zkb.total_value = zkb.total_value.or(snake.total_value);
    remove_absent(&mut zkb, absent.as_ref());
    let mut unreadable = mem::take(&mut zkb.unreadable);
    unreadable.add(&snake.unreadable);
    restore_unreadable(listed.as_ref(), &mut unreadable, |name| members::zkb_has(&zkb, name) == Some(true));
    zkb.unreadable = unreadable;
    (zkb != Zkb::default()).then_some(zkb)
}

fn read_member(zkb: &mut Zkb, name: &str, value: Node<'_>) {
    let Zkb { unreadable, .. } = zkb;
    match name {
        "locationID" => zkb.location_id = count(&value, name, unreadable),
        "hash" => zkb.hash = text(&value, name, unreadable),
        "fittedValue" => zkb.fitted_value = number(&value, name, unreadable),
        "droppedValue" => zkb.dropped_value = number(&value, name, unreadable),
        "destroyedValue" => zkb.destroyed_value = number(&value, name, unreadable),
        "totalValue" => zkb.total_value = number(&value, name, unreadable),
        "points" => zkb.points = count(&value, name, unreadable),
        "npc" => zkb.npc = flag(&value, name, unreadable),
        "solo" => zkb.solo = flag(&value, name, unreadable),
        "awox" => zkb.awox = flag(&value, name, unreadable),
        "labels" => zkb.labels = member(&value, name, unreadable, read_labels),
        "attackerCount" => zkb.attacker_count = count(&value, name, unreadable),
        "href" => zkb.href = text(&value, name, unreadable),
        known if keys::ZKB.contains(&known) => {}
        _ => keep_unknown(&mut zkb.extra, unreadable, name, value),
    }
}

/// Reads a list of strings without its nulls; `None` if it is not a list or has other elements.
fn read_labels(value: &Node<'_>) -> Option<Vec<String>> {
    let labels: Vec<&Node<'_>> = match value {
        Node::List(labels) => labels.iter().collect(),
        Node::Object(labels) => in_order_of_keys(labels),
        _ => return None,
    };
    labels
        .into_iter()
        .filter(|label| **label != Node::Null)
        .map(|label| label.text().map(str::to_owned))
        .collect()
}

/// The values of an object in the order of its numeric keys.
fn in_order_of_keys<'a, 'v>(fields: &'v Fields<'a>) -> Vec<&'v Node<'a>> {
    let mut pairs: Vec<(u64, &Node<'a>)> =
        fields.0.iter().map(|(key, value)| (key.parse().unwrap_or(u64::MAX), value)).collect();
    pairs.sort_by_key(|(at, _)| *at);
    pairs.into_iter().map(|(_, value)| value).collect()
}

/// Removes the members that our own format lists as absent: it writes a default for them.
fn remove_absent(zkb: &mut Zkb, absent: Option<&Node<'_>>) {
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
