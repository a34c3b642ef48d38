//! Types for a whole killmail, without names.

use serde::Deserialize;

#[derive(Deserialize)]
#[expect(dead_code, reason = "read as a kit would read it, for guests that look at other fields")]
pub struct Whole {
    killmail_id: u32,
    killmail_time: String,
    solar_system_id: u32,
    killmail_hash: Option<String>,
    war_id: Option<u32>,
    moon_id: Option<u32>,
    victim: Victim,
    attackers: Vec<Attacker>,
    zkb: Zkb,
    #[serde(default)]
    pub total_value: f64,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "as above")]
struct Victim {
    character_id: Option<u32>,
    corporation_id: Option<u32>,
    alliance_id: Option<u32>,
    faction_id: Option<u32>,
    ship_type_id: Option<u32>,
    damage_taken: i64,
    position: Option<Position>,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "as above")]
struct Position {
    x: f64,
    y: f64,
    z: f64,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "as above")]
struct Item {
    item_type_id: u64,
    flag: i64,
    singleton: i64,
    quantity_dropped: Option<u64>,
    quantity_destroyed: Option<u64>,
    #[serde(default)]
    items: Vec<Self>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "as above")]
struct Attacker {
    character_id: Option<u32>,
    corporation_id: Option<u32>,
    alliance_id: Option<u32>,
    faction_id: Option<u32>,
    ship_type_id: Option<u32>,
    weapon_type_id: Option<u32>,
    damage_done: i64,
    final_blow: bool,
    security_status: f64,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "as above")]
struct Zkb {
    hash: Option<String>,
    location_id: Option<u64>,
    fitted_value: Option<f64>,
    dropped_value: Option<f64>,
    destroyed_value: Option<f64>,
    total_value: f64,
    points: i64,
    npc: bool,
    solo: bool,
    awox: bool,
    labels: Vec<String>,
}

impl Whole {
    /// Whether one of these ids, ascending, is among the attackers.
    pub fn attacked(&self, characters: &[u32]) -> bool {
        self.attackers.iter().filter_map(|attacker| attacker.character_id).any(|id| characters.binary_search(&id).is_ok())
    }
}
