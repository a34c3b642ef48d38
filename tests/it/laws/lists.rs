//! The lists of a channel client according to the server's answers, and what a preload may deliver because of
//! them.
//!
//! Must not know: how the server keeps its lists.

use std::collections::{BTreeMap, HashSet};

use killstream::domain::killmail::Killmail;
use serde_json::Value;

use crate::support::killmail::{Build, SYSTEMS, killmail};

/// The victim of some killmails.
pub const PILOT: u32 = 95_000_001;

/// The killmail of an id. Systems alternate, and the pilot is the victim of every third one.
pub fn made(id: u32) -> Build {
    let built = killmail(id).system(system_of(id));
    if id.is_multiple_of(3) { built.victim(PILOT) } else { built }
}

/// The system of the killmail of an id.
pub fn system_of(id: u32) -> u32 {
    SYSTEMS[id as usize % 4]
}

/// The lists of each joined topic.
#[derive(Debug, Default)]
pub struct Lists(BTreeMap<String, Listed>);

#[derive(Debug, Default)]
struct Listed {
    systems: HashSet<u64>,
    characters: HashSet<u64>,
    /// Systems with killmails in a preload that have not been counted since.
    uncounted: HashSet<u32>,
}

fn ids(list: &Value) -> Option<HashSet<u64>> {
    Some(list.as_array()?.iter().filter_map(Value::as_u64).collect())
}

impl Lists {
    /// Updates the lists from a frame of the server.
    pub fn update(&mut self, frame: &Value) {
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

    /// Whether the lists of a topic include a killmail.
    pub fn wants(&self, topic: &str, killmail: &Killmail) -> bool {
        let Some(Listed { systems, characters, .. }) = self.0.get(topic) else { return false };
        let pilot = killmail.victim.character_id.map(u64::from);
        topic == "killmails:all"
            || systems.contains(&killmail.solar_system_id.into())
            || pilot.is_some_and(|pilot| characters.contains(&pilot))
    }

    /// Records that a preload delivered killmails of a system in the lists.
    pub fn preloaded(&mut self, topic: &str, system: u32) {
        self.0.get_mut(topic).unwrap().uncounted.insert(system);
    }

    /// Whether the count of a system after a preload is due. It is due once.
    pub fn counted(&mut self, topic: &str, system: u32) -> bool {
        self.0.get_mut(topic).unwrap().uncounted.remove(&system)
    }
}
