//! What each connection subscribes to. The plan is the same on every machine.
//!
//! Must not know: how clients subscribe.

use std::collections::HashMap;

use killstream::domain::killmail::Killmail;
use killstream::sample::rng::Dice;
use killstream::universe;

use crate::Transport;

const SYSTEMS_MAX: f64 = 1_000.0;
const WIDE_CHARACTERS: u32 = 50_000;
/// Almost a third of the generated characters are among the eight million ids after this one, so every wide connection
/// wants some of them.
const FIRST_CHARACTER: u32 = 90_000_000;
const STRIDE: u32 = 150;

/// What one connection subscribes to.
#[derive(Debug, Default)]
pub struct Subscription {
    /// Systems, in order.
    pub systems: Vec<u32>,
    /// Characters, in order.
    pub characters: Vec<u32>,
}

/// The subscriptions of all connections.
#[derive(Debug)]
pub struct Plan {
    /// The transport of all connections.
    pub transport: Transport,
    subscriptions: Vec<Subscription>,
    by_system: HashMap<u32, Vec<u32>>,
    wide: Vec<u32>,
}

impl Plan {
    /// A plan for this many connections, the first `wide` of which subscribe to characters.
    pub fn new(transport: Transport, connections: usize, wide: usize) -> Self {
        let mut dice = Dice::new(7);
        let systems: Vec<u32> = universe::systems().map(|system| system.id).collect();
        let (mut subscriptions, mut by_system) =
            (Vec::with_capacity(connections), HashMap::<u32, Vec<u32>>::new());
        for n in 0..connections {
            let subscription = if n < wide {
                let first = FIRST_CHARACTER + n as u32;
                Subscription {
                    characters: (0..WIDE_CHARACTERS).map(|k| first + k * STRIDE).collect(),
                    ..Subscription::default()
                }
            } else {
                let count = SYSTEMS_MAX.powf(dice.fraction()).round() as usize;
                let mut wanted: Vec<u32> =
                    (0..count).map(|_| systems[dice.below(systems.len() as u32) as usize]).collect();
                wanted.sort_unstable();
                wanted.dedup();
                Subscription { systems: wanted, ..Subscription::default() }
            };
            for system in &subscription.systems {
                by_system.entry(*system).or_default().push(n as u32);
            }
            subscriptions.push(subscription);
        }
        let wide = (0..wide.min(connections) as u32).collect();
        Self { transport, subscriptions, by_system, wide }
    }

    /// Number of connections.
    pub const fn connections(&self) -> usize {
        self.subscriptions.len()
    }

    /// Number of connections that subscribe to characters.
    pub const fn wide(&self) -> usize {
        self.wide.len()
    }

    /// What a connection subscribes to.
    pub fn subscription(&self, connection: usize) -> &Subscription {
        &self.subscriptions[connection]
    }

    /// Mean number of systems of a connection.
    pub fn systems_mean(&self) -> f64 {
        self.subscriptions.iter().map(|one| one.systems.len()).sum::<usize>() as f64
            / self.subscriptions.len() as f64
    }

    /// Mean number of ids of a connection.
    pub fn ids_mean(&self) -> f64 {
        self.subscriptions.iter().map(|one| one.systems.len() + one.characters.len()).sum::<usize>() as f64
            / self.subscriptions.len() as f64
    }

    /// The connections that want a killmail.
    pub fn wanted_by(&self, killmail: &Killmail) -> Vec<u32> {
        let mut all = self.by_system.get(&killmail.solar_system_id).cloned().unwrap_or_default();
        let attackers = killmail.attackers.iter().filter_map(|attacker| attacker.character_id);
        let characters: Vec<u32> = attackers.chain(killmail.victim.character_id).collect();
        let wants = |wide: &&u32| {
            let wanted = &self.subscriptions[**wide as usize].characters;
            characters.iter().any(|character| wanted.binary_search(character).is_ok())
        };
        all.extend(self.wide.iter().filter(wants));
        all
    }
}
