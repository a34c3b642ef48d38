//! Generated killmails for tests, and the JSON forms they arrive in.
//!
//! Must not know: how the server parses or encodes; the forms are written here independently.

use killstream::domain::killmail::{Attacker, Item, Killmail, Position, Victim};
use killstream::domain::zkb::Zkb;
use serde_json::{Map, Value, json};

use crate::support::dice::Dice;

/// Solar systems that exist: Jita, Perimeter, Amarr, Rens, Tama, a null-sec system, a wormhole system.
pub const SYSTEMS: [u32; 7] =
    [30_000_142, 30_000_144, 30_002_187, 30_002_510, 30_002_813, 30_004_759, 31_000_005];
/// Ships that exist: Rifter, Caracal, Vexor, Machariel, Capsule, Sabre, Rorqual.
pub const SHIPS: [u32; 7] = [587, 621, 626, 17_738, 670, 22_456, 28_352];
/// Weapons that exist.
pub const WEAPONS: [u32; 4] = [2488, 2873, 3074, 27_387];

/// Builds a killmail step by step, with plausible defaults.
#[derive(Debug, Clone)]
pub struct Build(pub Killmail);

/// Starts a killmail: in Jita, now, one victim, one attacker with the final blow, 1,000,000 ISK.
pub fn killmail(id: u32) -> Build {
    let attacker = Attacker {
        character_id: Some(90_000_002),
        corporation_id: Some(98_000_002),
        alliance_id: Some(99_000_002),
        ship_type_id: Some(22_456),
        weapon_type_id: Some(2873),
        damage_done: 1200,
        final_blow: true,
        security_status: -1.5,
        ..Attacker::default()
    };
    let victim = Victim {
        character_id: Some(90_000_001),
        corporation_id: Some(98_000_001),
        ship_type_id: Some(587),
        damage_taken: 1200,
        position: Some(Position { x: -188_477_636_371.79, y: 12.5, z: 527_828_299_029.0 }),
        items: Some(Vec::new()),
        ..Victim::default()
    };
    let hash = format!("{id:040x}");
    let zkb = Zkb {
        hash: Some(hash.clone()),
        labels: Some(vec!["pvp".to_owned(), "loc:highsec".to_owned()]),
        ..Zkb::default()
    };
    let killmail = Killmail {
        killmail_id: id,
        time: began(),
        solar_system_id: SYSTEMS[0],
        hash: Some(hash),
        victim,
        attackers: vec![attacker],
        zkb: Some(zkb),
        ..Killmail::default()
    };
    Build(killmail).value(1_000_000.0)
}

impl Build {
    /// Unix seconds.
    pub fn time(mut self, time: i64) -> Self {
        self.0.time = time;
        self
    }

    /// Sets the time to this many seconds before the tests began.
    pub fn ago(self, secs: i64) -> Self {
        self.time(began() - secs)
    }

    pub fn system(mut self, system: u32) -> Self {
        self.0.solar_system_id = system;
        self
    }

    /// The victim's character.
    pub fn victim(mut self, character: u32) -> Self {
        self.0.victim.character_id = Some(character);
        self
    }

    /// Makes the victim a structure, without a character.
    pub fn structure(mut self) -> Self {
        self.0.victim.character_id = None;
        self.0.victim.ship_type_id = Some(35_832);
        self
    }

    /// Replaces the attackers; the first has the final blow.
    pub fn attackers(mut self, characters: &[u32]) -> Self {
        let model = self.0.attackers[0].clone();
        let one = |(n, id): (usize, &u32)| Attacker {
            character_id: Some(*id),
            final_blow: n == 0,
            ..model.clone()
        };
        self.0.attackers = characters.iter().enumerate().map(one).collect();
        self
    }

    /// Total ISK value.
    pub fn value(mut self, isk: f64) -> Self {
        let zkb = self.0.zkb.get_or_insert_default();
        zkb.total_value = Some(isk);
        zkb.fitted_value = Some(isk / 2.0);
        zkb.dropped_value = Some(isk / 4.0);
        zkb.destroyed_value = Some(isk - isk / 4.0);
        zkb.points = Some(3);
        (zkb.npc, zkb.solo, zkb.awox) = (Some(false), Some(true), Some(false));
        self
    }

    pub fn labels(mut self, labels: &[&str]) -> Self {
        self.0.zkb.get_or_insert_default().labels = Some(labels.iter().map(|l| (*l).to_owned()).collect());
        self
    }

    /// Removes the zkb block.
    pub fn without_zkb(mut self) -> Self {
        self.0.zkb = None;
        self
    }

    /// Any other change.
    pub fn with(mut self, change: impl FnOnce(&mut Killmail)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn build(self) -> Killmail {
        self.0
    }

    /// As R2Z2 publishes it, without the sequence fields, which the fake upstream adds.
    pub fn r2z2(self) -> Value {
        r2z2(&self.0)
    }

    pub fn esi(self) -> Value {
        esi(&self.0)
    }
}

/// A random, realistic killmail: a few or many attackers, some NPCs, nested items, values of different magnitudes.
pub fn random(dice: &mut Dice, id: u32, time: i64) -> Killmail {
    let many = if dice.one_in(20) { 60 } else { 6 };
    let attackers = 1 + usize::try_from(dice.below(many)).unwrap();
    let blow = usize::try_from(dice.below(attackers as u64)).unwrap();
    let party = |dice: &mut Dice, from: u32| from + u32::try_from(dice.below(5000)).unwrap();
    let mut killmail = killmail(id)
        .time(time)
        .system(dice.pick(&SYSTEMS))
        .value(10_f64.powf(4.0 + 6.0 * dice.fraction()).round())
        .build();
    killmail.victim.character_id = (!dice.one_in(10)).then(|| party(dice, 90_000_000));
    killmail.victim.alliance_id = dice.one_in(2).then(|| party(dice, 99_000_000));
    killmail.victim.ship_type_id = Some(dice.pick(&SHIPS));
    killmail.victim.items = Some((0..dice.below(12)).map(|_| item(dice)).collect());
    killmail.attackers = (0..attackers)
        .map(|n| Attacker {
            character_id: (!dice.one_in(6)).then(|| party(dice, 90_000_000)),
            corporation_id: Some(party(dice, 98_000_000)),
            alliance_id: dice.one_in(2).then(|| party(dice, 99_000_000)),
            faction_id: dice.one_in(9).then_some(500_010),
            ship_type_id: Some(dice.pick(&SHIPS)),
            weapon_type_id: (!dice.one_in(8)).then(|| dice.pick(&WEAPONS)),
            damage_done: i64::try_from(dice.below(20_000)).unwrap(),
            final_blow: n == blow,
            security_status: (dice.fraction() * 150.0).round() / 10.0 - 10.0,
            ..Attacker::default()
        })
        .collect();
    killmail
}

/// A killmail like the largest real one: 3,753 attackers, about 668 kB of JSON.
pub fn giant(dice: &mut Dice, id: u32, time: i64) -> Killmail {
    let mut killmail = random(dice, id, time);
    let model = killmail.attackers[0].clone();
    killmail.attackers = (0..3753_u32)
        .map(|n| Attacker {
            character_id: Some(95_000_000 + n * 7),
            corporation_id: Some(98_500_000 + u32::try_from(dice.below(400)).unwrap()),
            alliance_id: Some(99_005_000 + u32::try_from(dice.below(40)).unwrap()),
            damage_done: i64::try_from(dice.below(100_000)).unwrap(),
            final_blow: n == 0,
            ..model.clone()
        })
        .collect();
    killmail
}

fn item(dice: &mut Dice) -> Item {
    let nested = dice
        .one_in(15)
        .then(|| vec![Item { item_type_id: 34, flag: 5, quantity_dropped: Some(7), ..Item::default() }]);
    let dropped = dice.one_in(2);
    let quantity = Some(1 + dice.below(1_000_000));
    Item {
        item_type_id: u64::from(dice.pick(&WEAPONS)),
        flag: i64::try_from(dice.below(130)).unwrap(),
        quantity_dropped: quantity.filter(|_| dropped),
        quantity_destroyed: quantity.filter(|_| !dropped),
        items: nested,
        ..Item::default()
    }
}

/// When the tests began, unix seconds. Using it makes the same call build the same killmail at any later time.
pub fn began() -> i64 {
    static BEGAN: std::sync::LazyLock<i64> = std::sync::LazyLock::new(now);
    *BEGAN
}

/// The current time, unix seconds.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Unix seconds as ESI writes them.
pub fn esi_time(time: i64) -> String {
    jiff::Timestamp::from_second(time).unwrap().to_string()
}

/// The killmail as ESI gives it.
pub fn esi(killmail: &Killmail) -> Value {
    let victim = &killmail.victim;
    let position = victim.position.map(|p| json!({ "x": p.x, "y": p.y, "z": p.z }));
    let mut out = json!({
        "killmail_id": killmail.killmail_id,
        "killmail_time": esi_time(killmail.time),
        "solar_system_id": killmail.solar_system_id,
        "moon_id": killmail.moon_id,
        "war_id": killmail.war_id,
        "victim": {
            "character_id": victim.character_id, "corporation_id": victim.corporation_id, "alliance_id": victim.alliance_id,
            "faction_id": victim.faction_id, "ship_type_id": victim.ship_type_id, "damage_taken": victim.damage_taken,
            "position": position, "items": victim.items.as_ref().map(|items| items.iter().map(item_json).collect::<Vec<_>>()),
        },
        "attackers": killmail.attackers.iter().map(attacker_json).collect::<Vec<_>>(),
    });
    let object = out.as_object_mut().unwrap();
    object.extend(killmail.extra.clone());
    object["victim"].as_object_mut().unwrap().extend(victim.extra.clone());
    without_nulls(out)
}

fn attacker_json(a: &Attacker) -> Value {
    let mut out = json!({
        "character_id": a.character_id, "corporation_id": a.corporation_id, "alliance_id": a.alliance_id, "faction_id": a.faction_id,
        "ship_type_id": a.ship_type_id, "weapon_type_id": a.weapon_type_id, "damage_done": a.damage_done,
        "final_blow": a.final_blow, "security_status": a.security_status,
    });
    out.as_object_mut().unwrap().extend(a.extra.clone());
    out
}

fn item_json(i: &Item) -> Value {
    let mut out = json!({
        "item_type_id": i.item_type_id, "flag": i.flag, "singleton": i.singleton, "quantity_dropped": i.quantity_dropped,
        "quantity_destroyed": i.quantity_destroyed, "items": i.items.as_ref().map(|items| items.iter().map(item_json).collect::<Vec<_>>()),
    });
    out.as_object_mut().unwrap().extend(i.extra.clone());
    out
}

/// The zkb block, in zKillboard's camelCase.
pub fn zkb(zkb: &Zkb) -> Value {
    let mut out = json!({
        "locationID": zkb.location_id, "hash": zkb.hash, "fittedValue": zkb.fitted_value, "droppedValue": zkb.dropped_value,
        "destroyedValue": zkb.destroyed_value, "totalValue": zkb.total_value, "points": zkb.points, "npc": zkb.npc, "solo": zkb.solo,
        "awox": zkb.awox, "labels": zkb.labels, "attackerCount": zkb.attacker_count, "href": zkb.href,
    });
    out.as_object_mut().unwrap().extend(zkb.extra.clone());
    without_nulls(out)
}

/// The killmail as an R2Z2 document, without its sequence numbers.
pub fn r2z2(killmail: &Killmail) -> Value {
    let mut out = Map::new();
    out.insert("killmail_id".to_owned(), json!(killmail.killmail_id));
    out.insert("hash".to_owned(), json!(killmail.hash));
    out.insert("esi".to_owned(), esi(killmail));
    if let Some(block) = &killmail.zkb {
        out.insert("zkb".to_owned(), zkb(block));
    }
    Value::Object(out)
}

/// Removes all null members, at any depth.
pub fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
