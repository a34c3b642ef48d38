//! A killmail: one loss, as the game reports it, plus what zKillboard adds.
//!
//! Field names are ESI's (<https://developers.eveonline.com/api-explorer>,
//! `GetKillmailsKillmailIdKillmailHash`). `None` means that the source did not give the field, or not in a
//! readable form. Fields of unknown names are kept in `extra` and unreadable values in `unreadable` of the
//! part they belong to.
//!
//! Must not know: in which formats killmails arrive or leave.

use serde_json::{Map, Value};

use crate::domain::provenance::Provenance;
use crate::domain::unreadable::UnreadableMembers;
use crate::domain::zkb::Zkb;

/// Fields of unknown names, kept as the source sent them.
pub type Extra = Map<String, Value>;

/// One loss of a ship or structure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Killmail {
    /// CCP's number, roughly ascending with time. Never 0.
    pub killmail_id: u32,
    /// When it happened, unix seconds UTC.
    pub time: i64,
    /// The solar system it happened in. Never 0.
    pub solar_system_id: u32,
    /// The moon it happened at; only in old killmails of starbases.
    pub moon_id: Option<u64>,
    /// The war it belongs to.
    pub war_id: Option<u64>,
    /// The hash that ESI requires: 40 hex digits.
    pub hash: Option<String>,
    /// Who lost which ship.
    pub victim: Victim,
    /// The attackers, in the order of the source. Some old killmails have none.
    pub attackers: Vec<Attacker>,
    /// zKillboard's block: values, points, labels.
    pub zkb: Option<Zkb>,
    /// Whether `time` is implausible, judged by the time of arrival; not part of any source's data.
    pub time_implausible: bool,
    /// Top-level fields of unknown names.
    pub extra: Extra,
    /// Values that could not be read; under `attackers`, the list elements that are not objects.
    pub unreadable: UnreadableMembers,
    /// Which parts came from a source of lower rank.
    pub provenance: Provenance,
}

/// The party that lost a ship or structure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Victim {
    /// Absent for structures and some NPCs.
    pub character_id: Option<u32>,
    /// Corporation.
    pub corporation_id: Option<u32>,
    /// Alliance.
    pub alliance_id: Option<u32>,
    /// Faction (NPC or militia).
    pub faction_id: Option<u32>,
    /// Type of the lost ship or structure.
    pub ship_type_id: Option<u32>,
    /// Damage taken, hit points.
    pub damage_taken: i64,
    /// Where it happened.
    pub position: Option<Position>,
    /// What was fitted or carried. An empty list is not the same as no list.
    pub items: Option<Vec<Item>>,
    /// Fields of unknown names.
    pub extra: Extra,
    /// Values that could not be read.
    pub unreadable: UnreadableMembers,
}

/// One of the attackers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attacker {
    /// Absent for NPCs.
    pub character_id: Option<u32>,
    /// Corporation.
    pub corporation_id: Option<u32>,
    /// Alliance.
    pub alliance_id: Option<u32>,
    /// Faction.
    pub faction_id: Option<u32>,
    /// Type of the attacker's ship.
    pub ship_type_id: Option<u32>,
    /// Type of the weapon; often the ship's type again.
    pub weapon_type_id: Option<u32>,
    /// Damage done, hit points.
    pub damage_done: i64,
    /// Whether this attacker had the final blow.
    pub final_blow: bool,
    /// CCP's security status, about -10 to 10.
    pub security_status: f64,
    /// Fields of unknown names.
    pub extra: Extra,
    /// Values that could not be read.
    pub unreadable: UnreadableMembers,
}

/// A point in space, metres from the system's star.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Position {
    /// Eastward.
    pub x: f64,
    /// Upward.
    pub y: f64,
    /// Northward.
    pub z: f64,
}

/// A stack of items that was fitted or carried.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Item {
    /// Type of the item; 0 if unknown.
    pub item_type_id: u64,
    /// The slot or hold it was in: ESI's inventory flag.
    pub flag: i64,
    /// ESI's field; 2 marks a blueprint copy.
    pub singleton: i64,
    /// How many dropped.
    pub quantity_dropped: Option<u64>,
    /// How many were destroyed.
    pub quantity_destroyed: Option<u64>,
    /// Contents, if it is a container.
    pub items: Option<Vec<Item>>,
    /// Fields of unknown names.
    pub extra: Extra,
    /// Values that could not be read.
    pub unreadable: UnreadableMembers,
}
