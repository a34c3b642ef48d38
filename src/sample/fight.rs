//! The attackers of one made-up killmail: how many, who together with whom, their damage, the final blow.
//!
//! Must not know: what was lost.

use crate::domain::killmail::Attacker;
use crate::sample::participants::{Character, Participants};
use crate::sample::rng::{Counts, Dice};

/// The number of attackers if players are among them. Together with the NPC-only killmails, 45 % have one
/// attacker, 1.3 % have more than 50, and the maximum is 603.
const PLAYERS: Counts = Counts(&[
    (0.370, 1, 1),
    (0.595, 2, 2),
    (0.797, 3, 5),
    (0.895, 6, 10),
    (0.9600, 11, 25),
    (0.9847, 26, 50),
    (0.9941, 51, 100),
    (0.99918, 101, 250),
    (1.0, 251, 603),
]);
const NPCS: Counts = Counts(&[(0.88, 1, 1), (0.96, 2, 2), (1.0, 3, 8)]);
/// Share of killmails without a player among the attackers.
const NPC_ONLY: f64 = 0.152;
/// Share of killmails by players on which an NPC or a structure is listed as well.
const NPC_JOINS: f64 = 0.15;
/// Share of attackers who belong to the fleet of the first one.
const IN_FLEET: f64 = 0.8;

/// Draws attackers. Its buffers are reused from killmail to killmail.
#[derive(Debug, Default)]
pub struct Attackers {
    /// Indexes of the players among the participants.
    players: Vec<u32>,
    damage: Vec<i64>,
}

impl Attackers {
    /// The attackers by descending damage, and the damage they did together. No character occurs twice, and
    /// `victim` does not occur.
    pub fn draw(
        &mut self,
        participants: &Participants,
        victim: u32,
        in_battle: bool,
        dice: &mut Dice,
    ) -> (Vec<Attacker>, i64) {
        let npc_only = !in_battle && dice.chance(NPC_ONLY);
        let (count, npcs) = if npc_only {
            let npcs = NPCS.draw(dice);
            (npcs, npcs)
        } else {
            let count = PLAYERS.draw(dice);
            (count, u32::from(count > 1 && dice.chance(NPC_JOINS)))
        };
        self.draw_players(participants, victim, count - npcs, dice);
        let total = self.split_damage(count as usize, dice);
        let npc_from = if npc_only { 0 } else { count - npcs };
        let mut attackers: Vec<Attacker> = Vec::with_capacity(count as usize);
        for (n, damage) in self.damage.iter().enumerate() {
            attackers.push(match self.players.get(n) {
                Some(player) if (n as u32) < npc_from => {
                    player_attacker(participants, participants.character(*player), *damage, dice)
                }
                _ => npc_attacker(participants, *damage, dice),
            });
        }
        let blow = if count == 1 || dice.chance(0.49) { 0 } else { 1 + dice.below(count - 1) as usize };
        attackers[blow].final_blow = true;
        (attackers, total)
    }

    fn draw_players(&mut self, participants: &Participants, victim: u32, players: u32, dice: &mut Dice) {
        self.players.clear();
        let mut tries = 0;
        while self.players.len() < players as usize && tries < players * 8 + 20 {
            tries += 1;
            let next = match self.players.first() {
                // Once the whole fleet is present, others join it.
                Some(leader) if tries < players * 3 && dice.chance(IN_FLEET) => {
                    participants.fleet_mate(*leader, dice)
                }
                _ => participants.draw_character(dice),
            };
            if next != victim && !self.players.contains(&next) {
                self.players.push(next);
            }
        }
    }

    /// Splits some damage among this many, descending; about a quarter did none. Returns the sum.
    fn split_damage(&mut self, count: usize, dice: &mut Dice) -> i64 {
        let total = if dice.chance(0.0096) { 0.0 } else { 10_f64.powf(3.3 + 0.7 * dice.normal()).max(40.0) };
        self.damage.clear();
        let idle = if count > 1 { 0.29 } else { 0.0 };
        let mut weights = 0.0;
        for n in 0..count {
            let weight = if n > 0 && dice.chance(idle) { 0.0 } else { 0.02 + dice.fraction().powi(3) };
            weights += weight;
            self.damage.push((weight * 1e6) as i64);
        }
        for damage in &mut self.damage {
            *damage = (*damage as f64 / 1e6 / weights * total) as i64;
        }
        self.damage.sort_unstable_by(|a, b| b.cmp(a));
        self.damage.iter().sum()
    }
}

const fn id_or_none(id: u32) -> Option<u32> {
    if id == 0 { None } else { Some(id) }
}

fn player_attacker(
    participants: &Participants,
    who: &Character,
    damage_done: i64,
    dice: &mut Dice,
) -> Attacker {
    let ship = dice.chance(0.99).then(|| participants.ships_flown.draw(dice));
    let weapon = match dice.throw() % 1000 {
        0..336 => ship,
        336..960 => Some(participants.weapons.draw(dice)),
        _ => None,
    };
    Attacker {
        character_id: Some(who.id),
        corporation_id: id_or_none(who.corporation),
        alliance_id: id_or_none(who.alliance),
        faction_id: id_or_none(who.faction),
        ship_type_id: ship,
        weapon_type_id: weapon,
        damage_done,
        final_blow: false,
        security_status: f64::from(who.security) / 10.0,
        ..Attacker::default()
    }
}

fn npc_attacker(participants: &Participants, damage_done: i64, dice: &mut Dice) -> Attacker {
    Attacker {
        corporation_id: dice.chance(0.53).then(|| 1_000_002 + dice.below(280)),
        faction_id: dice.chance(0.3).then(|| 500_001 + dice.below(24)),
        ship_type_id: Some(dice.pick(&participants.npc_ships)),
        weapon_type_id: dice.chance(0.5).then(|| participants.weapons.draw(dice)),
        damage_done,
        ..Attacker::default()
    }
}
