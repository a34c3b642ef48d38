//! A killmail read from JSON, for the stage.

use serde_json::Value;

use super::Stage;
use crate::{Kind, Role, Summary, Term, Traits};

#[derive(Debug)]
pub(super) struct Record {
    pub id: u64,
    pub time: i64,
    pub system: u32,
    pub json: Value,
    victim: Participant,
    attackers: Vec<Participant>,
}

#[derive(Debug)]
pub(super) struct Participant {
    json: Value,
    is_victim: bool,
}

impl Record {
    pub fn read(json: &Value) -> Self {
        let attackers = json["attackers"].as_array().cloned().unwrap_or_default();
        Self {
            id: json["killmail_id"].as_u64().unwrap_or(0),
            time: json["killmail_time"].as_str().and_then(unix_seconds).unwrap_or(0),
            system: number(&json["solar_system_id"]),
            victim: Participant { json: json["victim"].clone(), is_victim: true },
            attackers: attackers.into_iter().map(|json| Participant { json, is_victim: false }).collect(),
            json: json.clone(),
        }
    }

    pub fn summary(&self, stage: &Stage) -> Summary {
        let blow = self.participants(Role::FinalBlow).into_iter().next();
        let blow = |of| blow.map_or(0, |participant| participant.id(stage, of));
        let victim = |of| self.victim.id(stage, of);
        Summary {
            id: self.id,
            time: self.time,
            system: self.system,
            region: self.place(stage, Kind::Region),
            victim_character: victim(Kind::Character),
            victim_corporation: victim(Kind::Corporation),
            victim_alliance: victim(Kind::Alliance),
            victim_ship: victim(Kind::Ship),
            victim_ship_group: victim(Kind::ShipGroup),
            final_blow_character: blow(Kind::Character),
            final_blow_corporation: blow(Kind::Corporation),
            final_blow_alliance: blow(Kind::Alliance),
            attacker_count: self.attackers.len() as u32,
            points: number(&self.zkb()["points"]),
            total_value: self.isk("totalValue"),
            traits: self.traits(stage),
        }
    }

    pub fn isk(&self, field: &str) -> f64 {
        self.zkb()[field].as_f64().unwrap_or(0.0)
    }

    pub fn labels(&self) -> Vec<String> {
        let labels = self.zkb()["labels"].as_array().map_or(&[][..], Vec::as_slice);
        labels.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// With `any` the victim is first.
    pub fn participants(&self, role: Role) -> Vec<&Participant> {
        let victim = matches!(role, Role::Any | Role::Victim).then_some(&self.victim);
        let attackers = self.attackers.iter().filter(|attacker| match role {
            Role::Any | Role::Attacker => true,
            Role::FinalBlow => attacker.is_final_blow(),
            Role::Victim => false,
        });
        victim.into_iter().chain(attackers).collect()
    }

    pub fn column(&self, stage: &Stage, of: Kind, role: Role) -> Vec<u32> {
        match of {
            Kind::System | Kind::Constellation | Kind::Region => vec![self.place(stage, of)],
            _ => self.participants(role).into_iter().map(|participant| participant.id(stage, of)).collect(),
        }
    }

    pub fn matches(&self, stage: &Stage, term: &Term) -> bool {
        self.involves(stage, term.of, term.role, &term.ids)
    }

    pub fn involves(&self, stage: &Stage, of: Kind, role: Role, ids: &[u32]) -> bool {
        self.column(stage, of, role).iter().any(|id| *id != 0 && ids.contains(id))
    }

    fn zkb(&self) -> &Value {
        &self.json["zkb"]
    }

    fn place(&self, stage: &Stage, of: Kind) -> u32 {
        let (constellation, region, _) = stage.systems.get(&self.system).copied().unwrap_or_default();
        match of {
            Kind::Constellation => constellation,
            Kind::Region => region,
            _ => self.system,
        }
    }

    fn traits(&self, stage: &Stage) -> Traits {
        let mut traits = Traits::empty();
        traits.set(Traits::NPC, self.zkb()["npc"] == true);
        traits.set(Traits::SOLO, self.zkb()["solo"] == true);
        traits.set(Traits::AWOX, self.zkb()["awox"] == true);
        traits.set(Traits::GANKED, self.labels().iter().any(|label| label == "ganked"));
        traits.set(Traits::ABYSSAL, (12_000_000..13_000_000).contains(&self.place(stage, Kind::Region)));
        traits
    }
}

impl Participant {
    pub fn id(&self, stage: &Stage, of: Kind) -> u32 {
        match of {
            Kind::Character => self.number("character_id"),
            Kind::Corporation => self.number("corporation_id"),
            Kind::Alliance => self.number("alliance_id"),
            Kind::Faction => self.number("faction_id"),
            Kind::Ship => self.number("ship_type_id"),
            Kind::ShipGroup => stage.types.get(&self.number("ship_type_id")).map_or(0, |(group, _)| *group),
            Kind::Weapon if self.is_victim => 0,
            Kind::Weapon => self.number("weapon_type_id"),
            Kind::System | Kind::Constellation | Kind::Region => 0,
        }
    }

    pub fn number(&self, field: &str) -> u32 {
        number(&self.json[field])
    }

    pub fn security(&self) -> f32 {
        self.json["security_status"].as_f64().unwrap_or(0.0) as f32
    }

    pub fn is_final_blow(&self) -> bool {
        self.json["final_blow"] == true
    }
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// `2021-11-27T12:34:56Z` in unix seconds.
fn unix_seconds(text: &str) -> Option<i64> {
    let field = |range| text.get(range).and_then(|digits: &str| digits.parse::<i64>().ok());
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    // Years start in March, so that the leap day is the last day of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1;
    Some(((days - 719_468) * 24 + hour) * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::unix_seconds;

    #[test]
    fn times_are_unix_seconds() {
        assert_eq!(unix_seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_seconds("2024-02-29T23:59:59Z"), Some(1_709_251_199));
        assert_eq!(unix_seconds("2021-12-01T00:00:00Z"), Some(1_638_316_800));
        assert_eq!(unix_seconds("yesterday"), None);
    }
}
