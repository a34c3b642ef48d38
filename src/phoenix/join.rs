//! What a join asks for: the topic, the payload, the preload.
//!
//! Must not know: refs, frames, what is open already.

use serde_json::{Map, Value};

use crate::domain::filter::Filter;
use crate::domain::subscription::Subscription;
use crate::domain::term::Dimension;
use crate::phoenix::config::Config;
use crate::phoenix::ids::{self, Ids};
use crate::wire::query;
use crate::wire::query::limits::Limits;
use crate::wire::query::parameters::Parameters;

/// The names of systems in a payload.
pub const SYSTEMS: &[&str] = &["systems", "system_ids"];
/// The names of characters in a payload.
pub const CHARACTERS: &[&str] = &["character_ids", "characters"];
/// A preload that is asked for, bytes.
const PRELOAD_MAX_BYTES: usize = 4 << 10;
/// Names in it without an effect that are told, and how much of each.
const IDLE_MAX: usize = 32;
const NAME_CHARS: usize = 60;

/// The topic everyone joins.
pub const LOBBY: &str = "killmails:lobby";

/// Upstream's answer to a topic that is none of its own.
pub const UNMATCHED: &str = "unmatched topic";
/// Upstream's answer to other topics of killmails.
pub const CRASHED: &str = "join crashed";

/// A topic that can be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// What the payload asks for.
    Lobby,
    /// The same, and every killmail with this.
    Of(Dimension, u32),
    /// Every killmail.
    All,
}

impl Topic {
    /// Reads a topic's name.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn read(name: &str) -> Result<Self, String> {
        let Some(what) = name.strip_prefix("killmails:") else { return Err(UNMATCHED.to_owned()) };
        let of = |kind, id: &str| ids::of_topic(kind, id).map(|id| Self::Of(kind, id));
        match what.split_once(':') {
            None if what == "lobby" => Ok(Self::Lobby),
            None if what == "all" => Ok(Self::All),
            Some(("system", id)) => of(Dimension::System, id),
            Some(("character", id)) => of(Dimension::Character, id),
            _ => Err(CRASHED.to_owned()),
        }
    }
}

/// What of the past a client wants to see, for each system or character: upstream's names and bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreloadRequest {
    /// Newest killmails of each, 1 to 200.
    pub limit: usize,
    /// Not older than so many hours, 1 to 168.
    pub since_hours: u32,
    /// Killmails of one push at most, and of one interval at least, 1 to 100; none: the server's pace.
    pub batch: Option<usize>,
    /// The interval in which so many killmails go out, milliseconds, 0 to 10,000; none: the server's pace.
    pub interval_ms: Option<u64>,
    /// Whether other ids than systems are looked for as well.
    pub every_kind: bool,
}

impl PreloadRequest {
    /// What upstream always did.
    pub const UNASKED: Self =
        Self { limit: 5, since_hours: 24, batch: None, interval_ms: None, every_kind: false };

    /// Reads `preload`; `Ok(None)` is a plain no, an absent one is for the caller to decide.
    #[must_use]
    pub fn read(value: Option<&Value>) -> Asked {
        let empty = Map::new();
        let object = match value {
            Some(Value::Bool(false)) => return Asked::No,
            Some(Value::Bool(true)) => &empty,
            Some(Value::Object(object)) => object,
            _ => return Asked::Nothing,
        };
        if object.get("enabled") == Some(&Value::Bool(false)) {
            return Asked::No;
        }
        let number = |name: &str, least: u32, most: u32| {
            let given = object.get(name).and_then(Value::as_f64)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to what fits"
            )]
            let clamped = given.clamp(least.into(), most.into()) as u32;
            Some(clamped)
        };
        Asked::Yes(Self {
            limit: number("limit_per_system", 1, 200).map_or(Self::UNASKED.limit, |limit| limit as usize),
            since_hours: number("since_hours", 1, 168).unwrap_or(Self::UNASKED.since_hours),
            batch: number("delivery_batch_size", 1, 100).map(|size| size as usize),
            interval_ms: number("delivery_interval_ms", 0, 10_000).map(u64::from),
            every_kind: true,
        })
    }
}

/// The names a preload has.
const WISHES: [&str; 5] =
    ["enabled", "limit_per_system", "since_hours", "delivery_batch_size", "delivery_interval_ms"];

/// What of a preload has no effect: names nobody knows, and values that are not what they should be.
#[must_use]
pub fn without_effect(preload: Option<&Value>) -> Vec<String> {
    let works = |name: &str, value: &Value| match name {
        _ if value.is_null() => true,
        "enabled" => value.is_boolean(),
        known => value.is_number() && WISHES.contains(&known),
    };
    match preload {
        None | Some(Value::Bool(_) | Value::Null) => Vec::new(),
        Some(Value::Object(object)) => {
            let idle = object.iter().filter(|(name, value)| !works(name, value));
            idle.map(|(name, _)| format!("preload.{}", name.chars().take(NAME_CHARS).collect::<String>()))
                .take(IDLE_MAX)
                .collect()
        }
        Some(_) => vec!["preload".to_owned()],
    }
}

/// Whether a preload was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody said.
    Nothing,
    /// No.
    No,
    /// Yes, like this.
    Yes(PreloadRequest),
}

impl Asked {
    /// The wish, where `unasked` is what an absent one means.
    #[must_use]
    pub const fn or(self, unasked: Option<PreloadRequest>) -> Option<PreloadRequest> {
        match self {
            Self::Nothing => unasked,
            Self::No => None,
            Self::Yes(wish) => Some(wish),
        }
    }
}

/// What a join asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Everything it wants; see [`wanted`].
    pub subscription: Subscription,
    /// The systems, in the order given.
    pub systems: Vec<u32>,
    /// The characters, in the order given.
    pub characters: Vec<u32>,
    /// What of the past.
    pub preload: Option<PreloadRequest>,
    /// The event id to go on after.
    pub resume_from: Option<String>,
    /// Names of the payload that have no effect.
    pub ignored: Vec<String>,
}

impl Join {
    /// Reads a payload for a topic.
    ///
    /// # Errors
    /// Why it is refused, in upstream's words where it has some.
    pub fn read(
        topic: Topic,
        payload: &Parameters<'_>,
        config: &Config,
        limits: Limits,
    ) -> Result<Self, String> {
        let mut systems = list(Dimension::System, payload, SYSTEMS, config.systems_max)?;
        let mut characters = list(Dimension::Character, payload, CHARACTERS, config.characters_max)?;
        match topic {
            Topic::Of(Dimension::System, id) if !systems.contains(&id) => systems.push(id),
            Topic::Of(Dimension::Character, id) if !characters.contains(&id) => characters.push(id),
            _ => {}
        }
        let resume_from = payload.raw_text("resume_from").map(str::to_owned);
        let unasked = Some(PreloadRequest::UNASKED).filter(|_| resume_from.is_none());
        let given = preload_of(payload)?;
        let preload = PreloadRequest::read(given.as_ref()).or(unasked);
        let mut asked = query::read_join(payload, limits).map_err(|error| invalid(&error))?;
        asked.ignored.extend(without_effect(given.as_ref()));
        let mut subscription = asked.subscription;
        if topic == Topic::All {
            subscription.filter.dimensions.clear();
            (systems, characters) = (Vec::new(), Vec::new());
        } else {
            subscription.filter.set_ids(Dimension::System, systems.clone());
            subscription.filter.set_ids(Dimension::Character, characters.clone());
            subscription.filter = wanted(subscription.filter);
        }
        Ok(Self { subscription, systems, characters, preload, resume_from, ignored: asked.ignored })
    }
}

/// A channel that names nothing gets nothing, where a stream would get everything.
#[must_use]
pub fn wanted(mut filter: Filter) -> Filter {
    filter.each = if filter.has_ids() { Vec::new() } else { Filter::nothing().each };
    filter
}

/// The ids of the lists of these names together; what is no list counts as an empty one.
fn list(kind: Dimension, payload: &Parameters<'_>, names: &[&str], max: usize) -> Result<Vec<u32>, String> {
    let mut ids = Ids::new(kind, max);
    for name in names {
        payload.elements(name, |value| ids.push(value));
    }
    ids.done()
}

/// The preload that a payload asks for.
///
/// # Errors
/// It is too long to be one.
pub fn wish(payload: &Parameters<'_>) -> Result<Asked, String> {
    preload_of(payload).map(|preload| PreloadRequest::read(preload.as_ref()))
}

fn preload_of(payload: &Parameters<'_>) -> Result<Option<Value>, String> {
    match (payload.raw_json("preload"), payload.raw_text("preload")) {
        (Some(_), _) => payload.json("preload", PRELOAD_MAX_BYTES).map_err(|error| invalid(&error)),
        (None, text) => Ok(text.map(Value::from)),
    }
}

fn invalid(error: &query::Error) -> String {
    format!("[validation:invalid_{}] {error}", error.field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn join(topic: &str, payload: Value) -> Result<Join, String> {
        let payload = payload.to_string();
        Join::read(
            Topic::read(topic)?,
            &Parameters::from_object(payload.as_bytes(), query::KNOWN_IN_JOINS).unwrap(),
            &Config::default(),
            Limits { plugin_config_bytes: 8 << 10 },
        )
    }

    #[test]
    fn topics_are_told_apart() {
        assert_eq!(Topic::read("killmails:system:30000142"), Ok(Topic::Of(Dimension::System, 30_000_142)));
        assert_eq!(Topic::read("killmails:all"), Ok(Topic::All));
        for (topic, text) in [
            ("killmails:other", CRASHED),
            ("killmails:", CRASHED),
            ("foo:bar", UNMATCHED),
            ("phoenix", UNMATCHED),
            ("killmails:system:x", "[validation:non_integer_system_ids] System IDs must be integers"),
            ("killmails:character:5", "[validation:invalid_character_ids] Invalid character IDs"),
        ] {
            assert_eq!(Topic::read(topic).unwrap_err(), text);
        }
    }

    #[test]
    fn an_empty_join_wants_nothing_and_all_wants_everything() {
        for payload in [
            json!({}),
            json!({ "systems": null, "character_ids": "x", "min_value": 5 }),
            json!({ "systems": [] }),
        ] {
            let join = join(LOBBY, payload).unwrap();
            assert_eq!(join.subscription.filter.each, Filter::nothing().each);
        }
        let all = join("killmails:all", json!({ "systems": [1], "min_value": 5 })).unwrap();
        assert_eq!(
            (all.subscription.filter.has_ids(), all.subscription.filter.min_value, all.systems.len()),
            (false, Some(5.0), 0)
        );
        assert!(all.subscription.filter.each.is_empty());
    }

    #[test]
    fn aliases_and_other_filters_are_understood() {
        let payload = json!({ "systems": [2, 1], "system_ids": [3], "characters": [90_000_001], "region_ids": [10], "client_identifier": 1 });
        let join = join("killmails:system:9", payload).unwrap();
        assert_eq!((&join.systems[..], &join.characters[..]), (&[2, 1, 3, 9][..], &[90_000_001][..]));
        assert!(
            join.subscription.filter.ids(Dimension::Region).is_some()
                && join.subscription.filter.each.is_empty()
        );
    }

    #[test]
    fn what_looks_like_a_dimension_is_refused_and_what_has_no_effect_is_told() {
        let ignored = |payload: Value| join(LOBBY, payload).map(|join| join.ignored);
        let known = json!({
            "systems": [1], "system_ids": [2], "characters": [], "character_ids": [], "preload": true, "resume_from": null, "role": "any",
            "max_age_secs": 5, "format": "canonical",
        });
        assert_eq!(ignored(known), Ok(Vec::new()));
        let told = Ok(vec!["nosuch".to_owned()]);
        assert_eq!(
            ignored(json!({ "systems": [1], "client_identifier": "wanderer_app", "nosuch": 1 })),
            told
        );
        let idle = |preload: Value| ignored(json!({ "systems": [1], "preload": preload }));
        assert_eq!(
            idle(json!({ "limit_per_system": "x", "foo": 1 })),
            Ok(vec!["preload.foo".to_owned(), "preload.limit_per_system".to_owned()])
        );
        assert_eq!(
            idle(
                json!({ "enabled": true, "limit_per_system": 5, "since_hours": 2.5, "delivery_batch_size": null })
            ),
            Ok(Vec::new())
        );
        assert_eq!(
            (idle(json!("yes")), idle(json!(false))),
            (Ok(vec!["preload".to_owned()]), Ok(Vec::new()))
        );
        for (name, meant) in [
            ("sytems", "systems"),
            ("charactrs", "characters"),
            ("system_id", "system_ids"),
            ("charater_ids", "character_ids"),
            ("aliance_ids", "alliance_ids"),
        ] {
            let refused = join(LOBBY, json!({ name: [1] })).unwrap_err();
            assert_eq!(
                refused,
                format!("[validation:invalid_{name}] Unknown parameter: {name}; did you mean {meant}?")
            );
        }
        let refused = join(LOBBY, json!({ "format": "nonsense" })).unwrap_err();
        assert_eq!(refused, "[validation:invalid_format] Invalid format: 'nonsense' is not one of canonical");
    }

    #[test]
    fn wrong_filters_are_refused_by_name() {
        let refused = join(LOBBY, json!({ "systems": [1], "min_value": -1 })).unwrap_err();
        assert_eq!(refused, "[validation:invalid_min_value] min_value must be non-negative, got -1.0");
    }

    #[test]
    fn preloads_are_clamped() {
        let wish = |value: Value| PreloadRequest::read(Some(&value));
        let missing = PreloadRequest { every_kind: true, ..PreloadRequest::UNASKED };
        for value in [json!(true), json!({}), json!({ "enabled": true, "limit_per_system": "x", "more": 1 })]
        {
            assert_eq!(wish(value), Asked::Yes(missing));
        }
        assert_eq!(
            (wish(json!(false)), wish(json!({ "enabled": false, "since_hours": 3 }))),
            (Asked::No, Asked::No)
        );
        assert_eq!((wish(json!(null)), wish(json!(5))), (Asked::Nothing, Asked::Nothing));
        let most = json!({ "limit_per_system": 1e9, "since_hours": 999, "delivery_batch_size": 101, "delivery_interval_ms": 10_001 });
        let clamped = PreloadRequest {
            limit: 200,
            since_hours: 168,
            batch: Some(100),
            interval_ms: Some(10_000),
            every_kind: true,
        };
        assert_eq!(wish(most), Asked::Yes(clamped));
        let least = json!({ "limit_per_system": 0, "since_hours": -3, "delivery_batch_size": 0, "delivery_interval_ms": -1 });
        let clamped = PreloadRequest {
            limit: 1,
            since_hours: 1,
            batch: Some(1),
            interval_ms: Some(0),
            every_kind: true,
        };
        assert_eq!(wish(least), Asked::Yes(clamped));
    }

    #[test]
    fn a_resumed_join_preloads_only_when_told() {
        let preload = |payload: Value| join(LOBBY, payload).unwrap().preload;
        assert_eq!(preload(json!({ "systems": [1] })), Some(PreloadRequest::UNASKED));
        assert_eq!(preload(json!({ "systems": [1], "resume_from": null })), Some(PreloadRequest::UNASKED));
        assert_eq!(preload(json!({ "systems": [1], "resume_from": "x" })), None);
        assert!(
            preload(json!({ "systems": [1], "resume_from": "x", "preload": { "enabled": true } })).is_some()
        );
        assert_eq!(preload(json!({ "systems": [1], "preload": { "enabled": false } })), None);
    }
}
