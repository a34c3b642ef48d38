//! What made-up killmails are drawn from: characters with their corporations and alliances, systems, hulls,
//! weapons, modules; each as often as in reality.
//!
//! The tables are from a real week (2021-11-27 to 12-03, EVE Ref): rank, and occurrences per ten thousand.
//!
//! Must not know: how a killmail is composed of them.

use crate::sample::rng::{AliasTable, Dice, power_law_weights};
use crate::universe;

const CHARACTERS: &[(f64, f64)] = &[
    (1.0, 13.75),
    (10.0, 6.05),
    (100.0, 3.97),
    (400.0, 2.45),
    (1000.0, 1.64),
    (4000.0, 0.64),
    (10_000.0, 0.24),
    (20_000.0, 0.08),
    (40_000.0, 0.035),
];
const SYSTEMS: &[(f64, f64)] = &[
    (1.0, 220.0),
    (2.0, 135.0),
    (5.0, 98.0),
    (20.0, 61.0),
    (50.0, 22.5),
    (100.0, 14.6),
    (400.0, 4.55),
    (1000.0, 1.92),
    (4000.0, 0.24),
    (5300.0, 0.1),
];
const CORPORATIONS: &[(f64, f64)] =
    &[(1.0, 278.0), (5.0, 125.0), (20.0, 41.0), (100.0, 17.7), (400.0, 6.0), (1000.0, 1.71), (4385.0, 0.05)];
const ALLIANCES: &[(f64, f64)] = &[
    (1.0, 700.0),
    (2.0, 600.0),
    (5.0, 400.0),
    (10.0, 121.0),
    (50.0, 30.0),
    (100.0, 12.2),
    (400.0, 0.54),
    (653.0, 0.05),
];
const FLOWN: &[(f64, f64)] =
    &[(1.0, 300.0), (5.0, 175.0), (20.0, 90.0), (50.0, 44.0), (100.0, 20.6), (200.0, 4.9), (400.0, 0.72)];
const LOST: &[(f64, f64)] = &[
    (1.0, 236.0),
    (5.0, 200.0),
    (10.0, 130.0),
    (20.0, 84.0),
    (50.0, 40.0),
    (100.0, 20.0),
    (200.0, 6.7),
    (400.0, 0.3),
];
const WEAPONS: &[(f64, f64)] =
    &[(1.0, 595.0), (5.0, 317.0), (20.0, 86.0), (50.0, 41.0), (100.0, 17.0), (400.0, 1.7), (1165.0, 0.03)];
const MODULES: &[(f64, f64)] = &[(1.0, 300.0), (10.0, 130.0), (100.0, 30.0), (1000.0, 2.0), (6000.0, 0.05)];

/// The busiest systems of that week, Jita among them.
const BUSIEST: [u32; 5] = [30_002_813, 30_001_046, 30_002_874, 30_001_445, 30_000_142];
const MILITIAS: [u32; 4] = [500_001, 500_002, 500_003, 500_004];
const SHIP: u32 = 6;
const CAPSULE_GROUP: u32 = 29;
/// Energy, projectile and hybrid weapons.
const TURRETS: [u32; 3] = [53, 55, 74];

/// A character and what it belongs to; 0 means none.
#[derive(Debug, Clone, Copy)]
pub struct Character {
    pub id: u32,
    pub corporation: u32,
    pub alliance: u32,
    /// Faction id of the militia.
    pub faction: u32,
    /// Security status in tenths.
    pub security: i8,
}

/// Characters who fly together, each drawn in proportion to its activity.
#[derive(Debug, Default)]
struct Fleet {
    members: Vec<u32>,
    cumulative: Vec<f64>,
}

impl Fleet {
    fn draw(&self, dice: &mut Dice) -> Option<u32> {
        let drawn = dice.fraction() * self.cumulative.last()?;
        self.members.get(self.cumulative.partition_point(|upto| *upto <= drawn)).copied()
    }
}

/// Ids drawn by rank.
#[derive(Debug)]
pub struct Ranked {
    ids: Vec<u32>,
    table: AliasTable,
}

impl Ranked {
    fn new(ids: Vec<u32>, points: &[(f64, f64)]) -> Self {
        Self { table: AliasTable::new(&power_law_weights(points, ids.len())), ids }
    }

    pub fn draw(&self, dice: &mut Dice) -> u32 {
        self.ids[self.table.draw(dice)]
    }
}

/// Everyone and everything that can occur.
#[derive(Debug)]
pub struct Participants {
    characters: Vec<Character>,
    activity: AliasTable,
    fleets: Vec<Fleet>,
    /// The fleet of each character.
    fleet_of: Vec<u32>,
    pub systems: Ranked,
    /// Ships of attackers.
    pub ships_flown: Ranked,
    /// Ships of victims, without capsules.
    pub ships_lost: Ranked,
    /// Weapons of attackers.
    pub weapons: Ranked,
    /// Items that are fitted or carried.
    pub modules: Ranked,
    pub implants: Vec<u32>,
    /// Structures and deployables.
    pub structures: Vec<u32>,
    pub npc_ships: Vec<u32>,
}

impl Participants {
    /// With this many characters.
    #[must_use]
    pub fn new(seed: u64, characters: usize) -> Self {
        let mut dice = Dice::new(seed ^ 0x6361_7374_0000_0001);
        let characters = draw_characters(&mut dice, characters.max(10));
        let weights = power_law_weights(CHARACTERS, characters.len());
        let (fleets, fleet_of) = fleets(&characters, &weights);
        let of_category = |categories: &[u32]| types_where(|_, category| categories.contains(&category));
        let mut hulls = types_where(|group, category| category == SHIP && group != CAPSULE_GROUP);
        shuffle(&mut dice, &mut hulls);
        hulls.truncate(412);
        let mut flown = hulls.clone();
        shuffle(&mut dice, &mut flown);
        let mut weapons =
            types_where(|group, category| category == 18 || TURRETS.contains(&group) || category == 8);
        shuffle(&mut dice, &mut weapons);
        weapons.truncate(1165);
        let mut modules = of_category(&[7, 8, 18]);
        shuffle(&mut dice, &mut modules);
        modules.truncate(6000);
        Self {
            activity: AliasTable::new(&weights),
            characters,
            fleets,
            fleet_of,
            systems: Ranked::new(systems(&mut dice), SYSTEMS),
            ships_flown: Ranked::new(flown, FLOWN),
            ships_lost: Ranked::new(hulls, LOST),
            weapons: Ranked::new(weapons, WEAPONS),
            modules: Ranked::new(modules, MODULES),
            implants: of_category(&[20]),
            structures: of_category(&[22, 65]),
            npc_ships: of_category(&[11]),
        }
    }

    /// Draws the index of a character, active ones more often.
    pub fn draw_character(&self, dice: &mut Dice) -> u32 {
        self.activity.draw(dice) as u32
    }

    /// Draws a character of the same fleet: of the same alliance, or else of the same corporation.
    pub fn fleet_mate(&self, of: u32, dice: &mut Dice) -> u32 {
        self.fleets[self.fleet_of[of as usize] as usize].draw(dice).unwrap_or(of)
    }

    /// The character with this index.
    #[must_use]
    pub fn character(&self, index: u32) -> &Character {
        &self.characters[index as usize]
    }

    /// Every character, the most active first.
    #[must_use]
    pub fn characters(&self) -> &[Character] {
        &self.characters
    }
}

fn types_where(wanted: impl Fn(u32, u32) -> bool) -> Vec<u32> {
    let fits = |id: &u32| {
        let group = universe::group_of(*id);
        group.is_some_and(|group| {
            universe::category_of_group(group).is_some_and(|category| wanted(group, category))
        })
    };
    universe::types().map(|(id, _)| id).filter(fits).collect()
}

/// Systems from the busiest on, with the real shares of known space, wormholes and abyssal pockets.
fn systems(dice: &mut Dice) -> Vec<u32> {
    let mut all: Vec<u32> =
        universe::systems().map(|system| system.id).filter(|id| !BUSIEST.contains(id)).collect();
    shuffle(dice, &mut all);
    let mut abyssal: Vec<u32> =
        all.iter().copied().filter(|id| (32_000_000..33_000_000).contains(id)).collect();
    let mut wormholes: Vec<u32> =
        all.iter().copied().filter(|id| (31_000_000..32_000_000).contains(id)).collect();
    let mut known: Vec<u32> = all.iter().copied().filter(|id| *id < 31_000_000).collect();
    let mut ranked = BUSIEST.to_vec();
    while ranked.len() < 5300 {
        let throw = if ranked.len() < 300 { 0.03 + 0.97 * dice.fraction() } else { dice.fraction() };
        let next = match throw {
            t if t < 0.06 => abyssal.pop(),
            t if t < 0.35 => wormholes.pop(),
            _ => known.pop(),
        };
        ranked.extend(next.or_else(|| known.pop()).or_else(|| wormholes.pop()));
    }
    ranked
}

/// Draws an id from ranges of `(share, from, below)`, as ids were assigned over the years.
fn id_in(dice: &mut Dice, ranges: &[(f64, u32, u32)]) -> u32 {
    let mut share = dice.fraction();
    for (part, from, below) in ranges {
        if share < *part {
            return from + dice.below(below - from);
        }
        share -= part;
    }
    ranges[0].1 + dice.below(ranges[0].2 - ranges[0].1)
}

fn distinct(dice: &mut Dice, count: usize, ranges: &[(f64, u32, u32)]) -> Vec<u32> {
    let mut taken = hashbrown::HashSet::with_capacity(count);
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let id = id_in(dice, ranges);
        if taken.insert(id) {
            ids.push(id);
        }
    }
    ids
}

fn draw_characters(dice: &mut Dice, count: usize) -> Vec<Character> {
    let ids = distinct(
        dice,
        count,
        &[
            (0.42, 2_112_000_000, 2_124_000_000),
            (0.30, 90_000_000, 98_000_000),
            (0.278, 100_000_000, 2_099_000_000),
            (0.002, 3_000_000, 3_020_000),
        ],
    );
    let corporations = distinct(
        dice,
        4385,
        &[(0.74, 98_000_000, 98_780_000), (0.215, 100_000_000, 2_090_000_000), (0.045, 1_000_002, 1_000_300)],
    );
    let alliances =
        distinct(dice, 653, &[(0.64, 99_000_000, 99_013_000), (0.36, 100_000_000, 2_090_000_000)]);
    let alliance_of = AliasTable::new(&power_law_weights(ALLIANCES, alliances.len()));
    let homes: Vec<(u32, u32, u32)> = corporations
        .into_iter()
        .map(|corporation| {
            let allied = corporation >= 2_000_000 && dice.chance(0.95);
            let alliance = if allied { alliances[alliance_of.draw(dice)] } else { 0 };
            let faction = if dice.chance(0.055) { dice.pick(&MILITIAS) } else { 0 };
            (corporation, alliance, faction)
        })
        .collect();
    let home_of = AliasTable::new(&power_law_weights(CORPORATIONS, homes.len()));
    ids.into_iter()
        .map(|id| {
            let (corporation, alliance, faction) = homes[home_of.draw(dice)];
            let security = (dice.normal() * 35.0) as i8;
            Character { id, corporation, alliance, faction, security: security.clamp(-100, 50) }
        })
        .collect()
}

fn fleets(characters: &[Character], weights: &[f64]) -> (Vec<Fleet>, Vec<u32>) {
    let mut fleets: Vec<Fleet> = Vec::new();
    let mut by_home: hashbrown::HashMap<u32, u32> = hashbrown::HashMap::new();
    let mut fleet_of = Vec::with_capacity(characters.len());
    for (place, character) in characters.iter().enumerate() {
        let home = if character.alliance == 0 { character.corporation } else { character.alliance };
        let fleet = *by_home.entry(home).or_insert_with(|| {
            fleets.push(Fleet::default());
            fleets.len() as u32 - 1
        });
        let Fleet { members, cumulative } = &mut fleets[fleet as usize];
        members.push(place as u32);
        cumulative.push(cumulative.last().copied().unwrap_or_default() + weights[place]);
        fleet_of.push(fleet);
    }
    (fleets, fleet_of)
}

fn shuffle(dice: &mut Dice, ids: &mut [u32]) {
    for end in (1..ids.len()).rev() {
        ids.swap(end, dice.below(end as u32 + 1) as usize);
    }
}
