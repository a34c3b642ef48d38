//! What a channel client subscribes to, as the server's answers told it, and what a preload may therefore
//! bring.
//!
//! Must not know: how the server keeps its lists.

use std::collections::{BTreeMap, HashSet};

use killstream::domain::killmail::Killmail;
use serde_json::Value;

use crate::support::killmail::{Build, SYSTEMS, killmail};

/// The character of some of the killmails.
pub const PILOT: u32 = 95_000_001;

/// The killmail of an id: systems take turns, and the pilot is in every third.
pub fn made(id: u32) -> Build {
    let built = killmail(id).system(system_of(id));
    if id.is_multiple_of(3) { built.victim(PILOT) } else { built }
}

/// Its system.
pub fn system_of(id: u32) -> u32 {
    SYSTEMS[id as usize % 4]
}

/// The lists of each topic that is joined.
#[derive(Debug, Default)]
pub struct Lists(BTreeMap<String, Listed>);

#[derive(Debug, Default)]
struct Listed {
    systems: HashSet<u64>,
    characters: HashSet<u64>,
    /// Systems that had something of a preload and were not counted since.
    uncounted: HashSet<u32>,
}

fn ids(list: &Value) -> Option<HashSet<u64>> {
    Some(list.as_array()?.iter().filter_map(Value::as_u64).collect())
}

impl Lists {
    /// Reads what a frame says of them.
    pub fn hear(&mut self, frame: &Value) {
        let (topic, event, payload) = match frame {
            Value::Array(parts) => (&parts[2], &parts[3], &parts[4]),
            frame => (&frame["topic"], &frame["event"], &frame["payload"]),
        };
        let response = &payload["response"];
        if event != "phx_reply" || payload["status"] != "ok" {
            return;
        }
        let topic = topic.as_str().unwrap();
        if response["status"] == "connected" {
            self.0.insert(topic.to_owned(), Listed::default());
        }
        let Some(listed) = self.0.get_mut(topic) else { return };
        if let Some(systems) = ids(&response["subscribed_systems"]) {
            let gone = listed.systems.difference(&systems).copied().collect::<HashSet<_>>();
            listed.uncounted.retain(|system| !gone.contains(&u64::from(*system)));
            listed.systems = systems;
        }
        if let Some(characters) = ids(&response["subscribed_characters"]) {
            listed.characters = characters;
        }
    }

    /// Whether the client wants a killmail on a topic.
    pub fn wants(&self, topic: &str, killmail: &Killmail) -> bool {
        let Some(Listed { systems, characters, .. }) = self.0.get(topic) else { return false };
        let pilot = killmail.victim.character_id.map(u64::from);
        topic == "killmails:all"
            || systems.contains(&killmail.solar_system_id.into())
            || pilot.is_some_and(|pilot| characters.contains(&pilot))
    }

    /// A preload brought something of a system that is wanted.
    pub fn preloaded(&mut self, topic: &str, system: u32) {
        self.0.get_mut(topic).unwrap().uncounted.insert(system);
    }

    /// Whether a preload's count of a system has to be told; it is told once.
    pub fn counted(&mut self, topic: &str, system: u32) -> bool {
        self.0.get_mut(topic).unwrap().uncounted.remove(&system)
    }
}
