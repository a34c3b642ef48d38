//! The names that have a meaning in our canonical JSON, for each level. Other fields that a source sends keep
//! their name and place. None of these names is written twice.
//!
//! Must not know: how the JSON is read or written.

use crate::domain::killmail::Extra;
use crate::domain::unreadable::UnreadableMembers;
use crate::wire::read::node::Node;

/// Names at the top level.
pub(crate) const KILLMAIL: &[&str] = &[
    "killmail_id",
    "kill_time",
    "killmail_time",
    "system_id",
    "solar_system_id",
    "solar_system_name",
    "killmail_hash",
    "hash_source",
    "war_id",
    "moon_id",
    "victim",
    "attackers",
    "zkb",
    "attacker_count",
    "total_value",
    "npc",
    "provenance",
    "enriched",
    "time_implausible",
    "unreadable",
    // Clients take a killmail with one of these for another format, and drop or misread it.
    "killID",
    "victim_char_id",
];

/// A document that has all of these is a killmail in our own format.
pub(crate) const OURS: &[&str] = &[
    "killmail_id",
    "kill_time",
    "killmail_time",
    "system_id",
    "solar_system_id",
    "attacker_count",
    "total_value",
];

/// Names in `victim`.
pub(crate) const VICTIM: &[&str] = &[
    "character_id",
    "corporation_id",
    "alliance_id",
    "faction_id",
    "ship_type_id",
    "ship_name",
    "damage_taken",
    "position",
    "items",
    "unreadable",
];

/// Names in each element of `attackers`.
pub(crate) const ATTACKER: &[&str] = &[
    "character_id",
    "corporation_id",
    "alliance_id",
    "faction_id",
    "ship_type_id",
    "ship_name",
    "weapon_type_id",
    "weapon_name",
    "damage_done",
    "final_blow",
    "security_status",
    "unreadable",
];

/// Names in each item.
pub(crate) const ITEM: &[&str] =
    &["item_type_id", "flag", "singleton", "quantity_dropped", "quantity_destroyed", "items", "unreadable"];

/// Names in `victim.position`.
pub(crate) const POSITION: &[&str] = &["x", "y", "z"];

/// Names in `zkb`.
pub(crate) const ZKB: &[&str] = &[
    "locationID",
    "location_id",
    "hash",
    "fittedValue",
    "fitted_value",
    "droppedValue",
    "dropped_value",
    "destroyedValue",
    "destroyed_value",
    "totalValue",
    "total_value",
    "points",
    "npc",
    "solo",
    "awox",
    "labels",
    "attackerCount",
    "href",
    "absent",
    "unreadable",
];

/// Key among the victim's unknown fields of what `position` has beside `x`, `y` and `z`.
pub(crate) const POSITION_REST: &str = "position";

/// Keeps a field of unknown name without the nulls in it. A field that is not valid JSON goes to
/// `unreadable`.
pub(crate) fn keep_unknown(
    extra: &mut Extra,
    unreadable: &mut UnreadableMembers,
    name: &str,
    value: Node<'_>,
) {
    if value.has_unread() {
        unreadable.insert(name, value.into_raw());
    } else if let Some(value) = value.without_nulls() {
        extra.insert(name.to_owned(), value);
    }
}
