//! Generates any number of realistic made-up killmails, for benches, examples and tests.
//!
//! Attackers, items, systems, characters, hours, battles, late killmails and revisions are distributed as in
//! a real week of 83,228 killmails (2021-11-27 to 12-03). The same recipe gives the same killmails on every
//! machine.
//!
//! Must not know: where they go.

use std::collections::BTreeMap;

use crate::domain::killmail::{Killmail, Position, Victim};
use crate::sample::appraise::{appraise, appraise_again};
use crate::sample::clock::{Moment, Moments};
use crate::sample::fight::Attackers;
use crate::sample::loot;
use crate::sample::participants::{Character, Participants};
use crate::sample::rng::Dice;

/// Share of victims without a character: structures, deployables.
const UNMANNED: f64 = 0.018;
/// Share of victims drawn from everyone; the others are preferably not in an alliance.
const FROM_ALL: f64 = 0.745;
/// Killmails that nobody submits use up ids: the probability that the next id belongs to the next killmail.
const SUBMITTED: f64 = 0.58;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Determines everything random.
    pub seed: u64,
    /// The number of killmails, without revisions.
    pub killmails: u64,
    /// The earliest killmail time, unix seconds.
    pub from: i64,
    /// The days over which they are distributed.
    pub days: f64,
    /// The first id.
    pub first_id: u32,
    /// The number of characters.
    pub characters: usize,
    /// Share that is published 1 to 72 hours after it happened.
    pub late: f64,
    /// Share that is published a second time with another zkb block.
    pub revised: f64,
}

impl Default for Recipe {
    /// A day from 2026-11-01 at 14,400 killmails.
    fn default() -> Self {
        Self {
            seed: 1,
            killmails: 14_400,
            from: 1_793_491_200,
            days: 1.0,
            first_id: 137_000_001,
            characters: 40_000,
            late: 0.05,
            revised: 0.005,
        }
    }
}

/// A made-up killmail as a source would deliver it.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The killmail, including its zkb block.
    pub killmail: Killmail,
    /// When the source published it, unix seconds; never before it happened.
    pub uploaded_at: i64,
    /// Whether it was delivered before, with another zkb block.
    pub revision: bool,
}

impl Recipe {
    /// Generates them in the order of `uploaded_at`.
    #[must_use]
    pub fn generate(self) -> Generator {
        let until = self.from + (self.days * 86_400.0) as i64;
        Generator {
            participants: Participants::new(self.seed, self.characters),
            dice: Dice::new(self.seed),
            moments: Moments::new(self.seed, self.from, self.days, self.killmails),
            attackers: Attackers::default(),
            next_id: self.first_id,
            until,
            battle_systems: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next_order: 0,
            recipe: self,
        }
    }
}

/// Generates killmails lazily, a few hundred thousand a second.
#[derive(Debug)]
pub struct Generator {
    recipe: Recipe,
    participants: Participants,
    dice: Dice,
    moments: Moments,
    attackers: Attackers,
    next_id: u32,
    until: i64,
    /// The system of each battle.
    battle_systems: BTreeMap<u32, u32>,
    /// What happened but is not published yet, by publication time and order.
    waiting: BTreeMap<(i64, u64), Made>,
    next_order: u64,
}

impl Iterator for Generator {
    type Item = Made;

    fn next(&mut self) -> Option<Made> {
        loop {
            let Some(moment) = self.moments.next() else {
                return self.waiting.pop_first().map(|(_, made)| made);
            };
            self.make(moment);
            // Whatever happens later is published later.
            if self.waiting.first_key_value().is_some_and(|((uploaded_at, _), _)| *uploaded_at <= moment.time)
            {
                return self.waiting.pop_first().map(|(_, made)| made);
            }
        }
    }
}

impl Generator {
    /// The characters, the most active first.
    #[must_use]
    pub fn characters(&self) -> &[Character] {
        self.participants.characters()
    }

    fn make(&mut self, moment: Moment) {
        let killmail = self.killmail(moment);
        let dice = &mut self.dice;
        let late = dice.chance(self.recipe.late);
        let delay = if late {
            (3_700.0 * 70.0_f64.powf(dice.fraction())) as i64
        } else {
            5 + i64::from(dice.below(240))
        };
        let uploaded_at = (moment.time + delay).min(self.until.max(moment.time));
        if dice.chance(self.recipe.revised) {
            let mut killmail = killmail.clone();
            if let Some(zkb) = &mut killmail.zkb {
                appraise_again(zkb, dice);
            }
            let again = uploaded_at + 60 + i64::from(dice.below(86_400));
            self.schedule(Made { killmail, uploaded_at: again, revision: true });
        }
        self.schedule(Made { killmail, uploaded_at, revision: false });
    }

    fn schedule(&mut self, made: Made) {
        self.next_order += 1;
        self.waiting.insert((made.uploaded_at, self.next_order), made);
    }

    fn killmail(&mut self, moment: Moment) -> Killmail {
        let dice = &mut self.dice;
        let killmail_id = self.next_id;
        self.next_id += 1;
        while !dice.chance(SUBMITTED) {
            self.next_id += 1;
        }
        let solar_system_id = match moment.battle {
            Some(battle) => {
                *self.battle_systems.entry(battle).or_insert_with(|| self.participants.systems.draw(dice))
            }
            None => self.participants.systems.draw(dice),
        };
        let lost = draw_victim(&self.participants, dice);
        let (attackers, damage) =
            self.attackers.draw(&self.participants, lost.unwrap_or(u32::MAX), moment.battle.is_some(), dice);
        let unreported = if damage > 0 && dice.chance(0.007) { 1 + i64::from(dice.below(300)) } else { 0 };
        let mut killmail = Killmail {
            killmail_id,
            time: moment.time,
            solar_system_id,
            moon_id: dice.chance(0.0023).then(|| 40_000_000 + u64::from(dice.below(400_000))),
            war_id: dice.chance(0.014).then(|| 600_000 + u64::from(dice.below(100_000))),
            hash: Some(hex(dice)),
            victim: victim(&self.participants, lost, damage + unreported, dice),
            attackers,
            ..Killmail::default()
        };
        killmail.zkb = Some(appraise(&killmail, dice));
        killmail
    }
}

/// Draws the index of the victim's character; `None` for a structure.
fn draw_victim(participants: &Participants, dice: &mut Dice) -> Option<u32> {
    if dice.chance(UNMANNED) {
        return None;
    }
    let index = participants.draw_character(dice);
    if dice.chance(FROM_ALL) {
        return Some(index);
    }
    (0..40)
        .map(|_| participants.draw_character(dice))
        .find(|index| participants.character(*index).alliance == 0)
        .or(Some(index))
}

fn victim(participants: &Participants, lost: Option<u32>, damage_taken: i64, dice: &mut Dice) -> Victim {
    let some = |id: u32| (id != 0).then_some(id);
    let ship = match lost {
        Some(_) => loot::hull(participants, dice),
        None => dice.pick(&participants.structures),
    };
    let owner = participants.character(lost.unwrap_or_else(|| participants.draw_character(dice)));
    let mut axis = |reach: f64| (dice.normal() * reach * 100.0).round() / 100.0;
    let position = Some(Position { x: axis(1e12), y: axis(1e11), z: axis(1e12) });
    Victim {
        character_id: lost.map(|_| owner.id),
        corporation_id: some(owner.corporation),
        alliance_id: some(owner.alliance),
        faction_id: some(owner.faction),
        ship_type_id: Some(ship),
        damage_taken,
        position,
        items: Some(if lost.is_some() { loot::items(participants, ship, dice) } else { Vec::new() }),
        ..Victim::default()
    }
}

fn hex(dice: &mut Dice) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hash = String::with_capacity(40);
    for _ in 0..4 {
        let mut throw = dice.throw();
        for _ in 0..10 {
            hash.push(char::from(DIGITS[(throw & 15) as usize]));
            throw >>= 4;
        }
    }
    hash
}

#[cfg(test)]
mod tests;
