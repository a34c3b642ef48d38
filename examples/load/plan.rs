//! Who wants what. The same plan on every machine.
//!
//! Must not know: how it is asked for.

use std::collections::HashMap;

use killstream::domain::killmail::Killmail;
use killstream::sample::rng::Dice;
use killstream::universe;

use crate::Transport;

const SYSTEMS_MAX: f64 = 1_000.0;
const WIDE_CHARACTERS: u32 = 50_000;
/// Almost a third of the made-up characters stand in the eight million behind this one: every wide connection
/// wants some of them.
const FIRST_CHARACTER: u32 = 90_000_000;
const STRIDE: u32 = 150;

/// One connection's wishes.
#[derive(Debug, Default)]
pub struct Wish {
    /// Systems, in order.
    pub systems: Vec<u32>,
    /// Characters, in order.
    pub characters: Vec<u32>,
}

/// Everyone's wishes.
#[derive(Debug)]
pub struct Plan {
    /// The transport of all connections.
    pub transport: Transport,
    wishes: Vec<Wish>,
    by_system: HashMap<u32, Vec<u32>>,
    wide: Vec<u32>,
}

impl Plan {
    /// For so many connections, the first `wide` of which want characters.
    pub fn new(transport: Transport, connections: usize, wide: usize) -> Self {
        let mut dice = Dice::new(7);
        let systems: Vec<u32> = universe::systems().map(|system| system.id).collect();
        let (mut wishes, mut by_system) = (Vec::with_capacity(connections), HashMap::<u32, Vec<u32>>::new());
        for n in 0..connections {
            let wish = if n < wide {
                let first = FIRST_CHARACTER + n as u32;
                Wish {
                    characters: (0..WIDE_CHARACTERS).map(|k| first + k * STRIDE).collect(),
                    ..Wish::default()
                }
            } else {
                let count = SYSTEMS_MAX.powf(dice.fraction()).round() as usize;
                let mut wanted: Vec<u32> =
                    (0..count).map(|_| systems[dice.below(systems.len() as u32) as usize]).collect();
                wanted.sort_unstable();
                wanted.dedup();
                Wish { systems: wanted, ..Wish::default() }
            };
            for system in &wish.systems {
                by_system.entry(*system).or_default().push(n as u32);
            }
            wishes.push(wish);
        }
        let wide = (0..wide.min(connections) as u32).collect();
        Self { transport, wishes, by_system, wide }
    }

    /// Connections in all.
    pub const fn connections(&self) -> usize {
        self.wishes.len()
    }

    /// Connections that want characters.
    pub const fn wide(&self) -> usize {
        self.wide.len()
    }

    /// What a connection wants.
    pub fn wish(&self, connection: usize) -> &Wish {
        &self.wishes[connection]
    }

    /// Systems of a connection, on average.
    pub fn systems_mean(&self) -> f64 {
        self.wishes.iter().map(|wish| wish.systems.len()).sum::<usize>() as f64 / self.wishes.len() as f64
    }

    /// Ids of a connection, on average.
    pub fn ids_mean(&self) -> f64 {
        self.wishes.iter().map(|wish| wish.systems.len() + wish.characters.len()).sum::<usize>() as f64
            / self.wishes.len() as f64
    }

    /// The connections that want a killmail.
    pub fn wanted_by(&self, killmail: &Killmail) -> Vec<u32> {
        let mut all = self.by_system.get(&killmail.solar_system_id).cloned().unwrap_or_default();
        let attackers = killmail.attackers.iter().filter_map(|attacker| attacker.character_id);
        let characters: Vec<u32> = attackers.chain(killmail.victim.character_id).collect();
        let wants = |wide: &&u32| {
            let wanted = &self.wishes[**wide as usize].characters;
            characters.iter().any(|character| wanted.binary_search(character).is_ok())
        };
        all.extend(self.wide.iter().filter(wants));
        all
    }
}
