//! The names our canonical form gives meaning to, level by level. A field a source sends beyond these stays
//! under its own name where it stood; one of these is never written twice.
//!
//! Must not know: how the form is read or written.

use crate::domain::killmail::Extra;
use crate::domain::unreadable::Unreadable;
use crate::wire::read::node::Node;

/// Top level.
pub const KILLMAIL: &[&str] = &[
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
    // A client takes a killmail with one of these for another format and drops or misreads it.
    "killID",
    "victim_char_id",
];

/// A document that has all of these is a killmail in our own form.
pub const OURS: &[&str] = &[
    "killmail_id",
    "kill_time",
    "killmail_time",
    "system_id",
    "solar_system_id",
    "attacker_count",
    "total_value",
];

/// `victim`.
pub const VICTIM: &[&str] = &[
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

/// Each of `attackers`.
pub const ATTACKER: &[&str] = &[
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

/// Each item.
pub const ITEM: &[&str] =
    &["item_type_id", "flag", "singleton", "quantity_dropped", "quantity_destroyed", "items", "unreadable"];

/// `victim.position`.
pub const POSITION: &[&str] = &["x", "y", "z"];

/// `zkb`.
pub const ZKB: &[&str] = &[
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

/// The key of what a killmail carries inside `position` beyond `x`, `y`, `z`: kept among the victim's unknown
/// fields.
pub const POSITION_REST: &str = "position";

/// Keeps a field we have no name for, but for the nulls in it; one that holds what no parser takes is among
/// the unreadable.
pub fn keep(extra: &mut Extra, unreadable: &mut Unreadable, name: &str, value: Node<'_>) {
    if value.has_unread() {
        unreadable.insert(name, value.raw());
    } else if let Some(value) = value.without_nulls() {
        extra.insert(name.to_owned(), value);
    }
}
