//! Random steps of a channel connection: messages of the client, and events of its readers.
//!
//! Must not know: what the server should answer.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::killmail::SYSTEMS;

pub const TOPICS: [&str; 5] =
    ["killmails:lobby", "killmails:all", "killmails:system:30000142", "killmails:other", "room:lobby"];
pub const EVENTS: [&str; 7] = [
    "subscribe_systems",
    "unsubscribe_systems",
    "subscribe_characters",
    "unsubscribe_characters",
    "update_subscriptions",
    "get_status",
    "nonsense",
];

/// One step. Numbers pick a topic, reader or payload, modulo the number there are.
#[derive(Debug, Clone)]
pub enum Step {
    Heartbeat {
        object: bool,
    },
    Join {
        topic: usize,
        payload: usize,
        object: bool,
        join_ref: bool,
        number: bool,
    },
    Leave {
        topic: usize,
        current: bool,
    },
    Event {
        topic: usize,
        event: usize,
        payload: usize,
        join_ref: Option<bool>,
        object: bool,
    },
    InvalidFrame(usize),
    /// A pending reader has been opened, or refused.
    Open {
        pick: usize,
        good: bool,
    },
    Live {
        pick: usize,
        id: u32,
    },
    Portion {
        pick: usize,
        ids: Vec<u32>,
    },
    /// The count of a system, which a preload may have delivered.
    Count {
        pick: usize,
        system: usize,
    },
    End(usize),
    Tick,
}

pub fn step() -> impl Strategy<Value = Step> {
    let pick = any::<usize>;
    let topic = || prop_oneof![4 => Just(0_usize), 1 => 1..TOPICS.len()];
    prop_oneof![
        2 => any::<bool>().prop_map(|object| Step::Heartbeat { object }),
        4 => (topic(), pick(), prop::bool::weighted(0.3), any::<bool>(), prop::bool::weighted(0.3))
            .prop_map(|(topic, payload, object, join_ref, number)| Step::Join { topic, payload, object, join_ref, number }),
        1 => (topic(), any::<bool>()).prop_map(|(topic, current)| Step::Leave { topic, current }),
        5 => (topic(), pick(), pick(), prop::option::weighted(0.7, prop::bool::weighted(0.8)), prop::bool::weighted(0.2))
            .prop_map(|(topic, event, payload, join_ref, object)| Step::Event { topic, event, payload, join_ref, object }),
        1 => pick().prop_map(Step::InvalidFrame),
        5 => (pick(), prop::bool::weighted(0.8)).prop_map(|(pick, good)| Step::Open { pick, good }),
        3 => (pick(), 1..12_u32).prop_map(|(pick, id)| Step::Live { pick, id }),
        3 => (pick(), vec(1..24_u32, 0..5)).prop_map(|(pick, ids)| Step::Portion { pick, ids }),
        2 => (pick(), 0..4_usize).prop_map(|(pick, system)| Step::Count { pick, system }),
        1 => pick().prop_map(Step::End),
        1 => Just(Step::Tick),
    ]
}

pub fn join_payload(pick: usize) -> (Value, bool) {
    let payloads = [
        (json!({}), true),
        (json!({ "systems": [SYSTEMS[0], SYSTEMS[1]], "preload": true }), true),
        (json!({ "systems": [SYSTEMS[0]], "character_ids": [95_000_001], "resume_from": "x" }), true),
        (json!(null), true),
        (json!({ "systems": ["x"] }), false),
        (json!({ "character_ids": [5] }), false),
        (json!({ "min_value": -5 }), false),
        (json!([1]), false),
    ];
    // Most are valid, since a session of refusals proves little.
    payloads[if pick.is_multiple_of(3) { pick / 3 % payloads.len() } else { pick / 3 % 4 }].clone()
}

pub fn event_payload(pick: usize) -> Value {
    let payloads = [
        json!({ "systems": [SYSTEMS[1], SYSTEMS[2]] }),
        json!({ "systems": [SYSTEMS[0]], "character_ids": [95_000_001], "preload": { "limit_per_system": 3 } }),
        json!({ "character_ids": [95_000_001, 95_000_002] }),
        json!({ "add_systems": [SYSTEMS[3]], "remove_systems": [SYSTEMS[0]] }),
        json!({ "systems": "x", "add_systems": 5 }),
        json!({ "systems": [0], "character_ids": ["x"] }),
        json!(5),
        json!(null),
    ];
    payloads[pick % payloads.len()].clone()
}
