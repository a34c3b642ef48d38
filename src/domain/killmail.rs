//! A killmail: one loss, as the game reports it, plus what zKillboard adds.
//!
//! Field names are ESI's (<https://developers.eveonline.com/api-explorer>,
//! `GetKillmailsKillmailIdKillmailHash`). `None` means the source did not say, or nothing that can be read;
//! what a source says under a name we do not know is kept in `extra`, what cannot be read in `unreadable`,
//! both where it stood.
//!
//! Must not know: which forms killmails arrive or leave in.

use serde_json::{Map, Value};

use crate::domain::provenance::Provenance;
use crate::domain::unreadable::Unreadable;
use crate::domain::zkb::Zkb;

/// Fields a source sent that we have no name for, kept as they were.
pub type Extra = Map<String, Value>;

/// One loss.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Killmail {
    /// CCP's number; grows with time. Never 0.
    pub killmail_id: u32,
    /// When it happened, unix seconds UTC.
    pub time: i64,
    /// The solar system it happened in. Never 0.
    pub solar_system_id: u32,
    /// The moon it happened at (old starbase mails).
    pub moon_id: Option<u64>,
    /// The war it belongs to.
    pub war_id: Option<u64>,
    /// ESI's key to the killmail: 40 hex digits.
    pub hash: Option<String>,
    /// Who lost what.
    pub victim: Victim,
    /// Who did it, in the order of the source; some old losses name nobody.
    pub attackers: Vec<Attacker>,
    /// What zKillboard adds: values, points, labels.
    pub zkb: Option<Zkb>,
    /// Whether it cannot have happened at `time`: fixed by when it came, no part of what any source says.
    pub time_implausible: bool,
    /// Unknown top-level fields.
    pub extra: Extra,
    /// Fields that cannot be read; of `attackers` the ones that are no objects.
    pub unreadable: Unreadable,
    /// What of all this is from a source of the lower rank.
    pub provenance: Provenance,
}

/// The one who lost a ship or structure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Victim {
    /// Absent for structures and some NPCs.
    pub character_id: Option<u32>,
    /// The corporation.
    pub corporation_id: Option<u32>,
    /// The alliance.
    pub alliance_id: Option<u32>,
    /// The faction (NPC or militia).
    pub faction_id: Option<u32>,
    /// What was lost.
    pub ship_type_id: Option<u32>,
    /// Damage taken, hit points.
    pub damage_taken: i64,
    /// Where, in metres from the system's star.
    pub position: Option<Position>,
    /// What it carried; an empty list is not the same as none.
    pub items: Option<Vec<Item>>,
    /// Unknown fields.
    pub extra: Extra,
    /// Fields that cannot be read.
    pub unreadable: Unreadable,
}

/// One of those who did it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attacker {
    /// Absent for NPCs.
    pub character_id: Option<u32>,
    /// The corporation.
    pub corporation_id: Option<u32>,
    /// The alliance.
    pub alliance_id: Option<u32>,
    /// The faction.
    pub faction_id: Option<u32>,
    /// What the attacker flew.
    pub ship_type_id: Option<u32>,
    /// What the attacker shot with; often the ship again.
    pub weapon_type_id: Option<u32>,
    /// Damage done, hit points.
    pub damage_done: i64,
    /// Whether this attacker had the final blow.
    pub final_blow: bool,
    /// CCP's security status, about -10 to 10.
    pub security_status: f64,
    /// Unknown fields.
    pub extra: Extra,
    /// Fields that cannot be read.
    pub unreadable: Unreadable,
}

/// A point in space, metres from the system's star.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Position {
    /// East.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// North.
    pub z: f64,
}

/// A stack of things that was fitted or carried.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Item {
    /// What it is; 0 where that is unknown.
    pub item_type_id: u64,
    /// Where it was (slot or hold), ESI's inventory flag.
    pub flag: i64,
    /// 2 marks a blueprint copy.
    pub singleton: i64,
    /// How many survived.
    pub quantity_dropped: Option<u64>,
    /// How many did not.
    pub quantity_destroyed: Option<u64>,
    /// What was inside (containers).
    pub items: Option<Vec<Item>>,
    /// Unknown fields.
    pub extra: Extra,
    /// Fields that cannot be read.
    pub unreadable: Unreadable,
}
