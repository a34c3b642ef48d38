//! Parsing a join: the topic, the payload and the preload.
//!
//! Must not know: refs, frames, open channels.

use serde_json::{Map, Value};

use crate::domain::filter::Filter;
use crate::domain::subscription::Subscription;
use crate::domain::term::Dimension;
use crate::phoenix::config::Config;
use crate::phoenix::ids::{self, Ids};
use crate::wire::query;
use crate::wire::query::limits::Limits;
use crate::wire::query::parameters::{ParameterError, Parameters};

/// The names of systems in a payload.
pub const SYSTEMS: &[&str] = &["systems", "system_ids"];
/// The names of characters in a payload.
pub const CHARACTERS: &[&str] = &["character_ids", "characters"];
/// Longest preload object, bytes.
const PRELOAD_MAX_BYTES: usize = 4 << 10;
/// Ignored members that are reported back, and the characters of each.
const IDLE_MAX: usize = 32;
const NAME_CHARS: usize = 60;

/// The topic most clients join.
pub const LOBBY: &str = "killmails:lobby";

/// Upstream's reply to unknown topics of killmails.
pub const CRASHED: &str = "join crashed";

/// Why a join is refused, in upstream's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Upstream does not serve such topics. Its reply carries no join ref.
    #[error("unmatched topic")]
    Unmatched,
    #[error("{0}")]
    Refused(String),
}

impl From<String> for JoinError {
    fn from(text: String) -> Self {
        Self::Refused(text)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Killmails the payload selects.
    Lobby,
    /// The same, and every killmail with this id.
    Id(Dimension, u32),
    All,
}

impl Topic {
    /// Parses a topic.
    ///
    /// # Errors
    /// The topic does not exist, or its id is invalid.
    pub fn read(name: &str) -> Result<Self, JoinError> {
        let Some(what) = name.strip_prefix("killmails:") else { return Err(JoinError::Unmatched) };
        let with_id = |dimension, id: &str| Ok(Self::Id(dimension, ids::of_topic(dimension, id)?));
        match what.split_once(':') {
            None if what == "lobby" => Ok(Self::Lobby),
            None if what == "all" => Ok(Self::All),
            Some(("system", id)) => with_id(Dimension::System, id),
            Some(("character", id)) => with_id(Dimension::Character, id),
            _ => Err(CRASHED.to_owned().into()),
        }
    }
}

/// A preload, per system or character, with upstream's names and bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreloadRequest {
    /// Newest killmails per id, 1 to 200.
    pub limit: usize,
    /// Age limit, hours, 1 to 168.
    pub since_hours: u32,
    /// Killmails per interval and at most per push, 1 to 100; `None`: the server's pace.
    pub batch: Option<usize>,
    /// Length of the interval, milliseconds, 0 to 10,000; `None`: the server's pace.
    pub interval_ms: Option<u64>,
    /// Whether ids other than systems are preloaded as well.
    pub every_kind: bool,
}

impl PreloadRequest {
    /// What upstream sends without being asked.
    pub const DEFAULT: Self =
        Self { limit: 5, since_hours: 24, batch: None, interval_ms: None, every_kind: false };

    #[must_use]
    pub fn read(value: Option<&Value>) -> Preload {
        let empty = Map::new();
        let object = match value {
            Some(Value::Bool(false)) => return Preload::No,
            Some(Value::Bool(true)) => &empty,
            Some(Value::Object(object)) => object,
            _ => return Preload::Absent,
        };
        if object.get("enabled") == Some(&Value::Bool(false)) {
            return Preload::No;
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
        Preload::Yes(Self {
            limit: number("limit_per_system", 1, 200).map_or(Self::DEFAULT.limit, |limit| limit as usize),
            since_hours: number("since_hours", 1, 168).unwrap_or(Self::DEFAULT.since_hours),
            batch: number("delivery_batch_size", 1, 100).map(|size| size as usize),
            interval_ms: number("delivery_interval_ms", 0, 10_000).map(u64::from),
            every_kind: true,
        })
    }
}

const PRELOAD_MEMBERS: [&str; 5] =
    ["enabled", "limit_per_system", "since_hours", "delivery_batch_size", "delivery_interval_ms"];

/// The members of a preload without effect: unknown names, and values of the wrong type.
#[must_use]
pub fn without_effect(preload: Option<&Value>) -> Vec<String> {
    let works = |name: &str, value: &Value| match name {
        _ if value.is_null() => true,
        "enabled" => value.is_boolean(),
        known => value.is_number() && PRELOAD_MEMBERS.contains(&known),
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

/// The preload in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preload {
    /// The payload does not mention one.
    Absent,
    /// None is wanted.
    No,
    /// This one is wanted.
    Yes(PreloadRequest),
}

impl Preload {
    /// The requested preload, or `default` if the payload does not mention one.
    #[must_use]
    pub const fn unwrap_or(self, default: Option<PreloadRequest>) -> Option<PreloadRequest> {
        match self {
            Self::Absent => default,
            Self::No => None,
            Self::Yes(request) => Some(request),
        }
    }
}

/// A parsed join.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Its subscription; see [`channel_filter`].
    pub subscription: Subscription,
    /// The systems, in the order given.
    pub systems: Vec<u32>,
    /// The characters, in the order given.
    pub characters: Vec<u32>,
    pub preload: Option<PreloadRequest>,
    /// The event id to resume after.
    pub resume_from: Option<String>,
    /// Members of the payload without effect.
    pub ignored: Vec<String>,
}

impl Join {
    /// Parses the payload of a join to a topic.
    ///
    /// # Errors
    /// Why it is refused, with upstream's text where it has one.
    pub fn read(
        topic: Topic,
        payload: &Parameters<'_>,
        config: &Config,
        limits: Limits,
    ) -> Result<Self, String> {
        let mut systems = list(Dimension::System, payload, SYSTEMS, config.systems_max)?;
        let mut characters = list(Dimension::Character, payload, CHARACTERS, config.characters_max)?;
        match topic {
            Topic::Id(Dimension::System, id) if !systems.contains(&id) => systems.push(id),
            Topic::Id(Dimension::Character, id) if !characters.contains(&id) => characters.push(id),
            _ => {}
        }
        let resume_from = payload.raw_text("resume_from").map(str::to_owned);
        let default = Some(PreloadRequest::DEFAULT).filter(|_| resume_from.is_none());
        let given = preload_of(payload)?;
        let preload = PreloadRequest::read(given.as_ref()).unwrap_or(default);
        let mut asked = query::read_join(payload, limits).map_err(|error| invalid(&error))?;
        asked.ignored.extend(without_effect(given.as_ref()));
        let mut subscription = asked.subscription;
        if topic == Topic::All {
            subscription.filter.dimensions.clear();
            (systems, characters) = (Vec::new(), Vec::new());
        } else {
            subscription.filter.set_ids(Dimension::System, systems.clone());
            subscription.filter.set_ids(Dimension::Character, characters.clone());
            subscription.filter = channel_filter(subscription.filter);
        }
        Ok(Self { subscription, systems, characters, preload, resume_from, ignored: asked.ignored })
    }
}

/// The filter of a channel: without ids it matches nothing, where a stream's would match everything.
#[must_use]
pub fn channel_filter(mut filter: Filter) -> Filter {
    filter.each = if filter.has_ids() { Vec::new() } else { Filter::nothing().each };
    filter
}

/// The ids of the lists under these names together. Anything but a list counts as empty.
fn list(
    dimension: Dimension,
    payload: &Parameters<'_>,
    names: &[&str],
    max: usize,
) -> Result<Vec<u32>, String> {
    let mut ids = Ids::new(dimension, max);
    for name in names {
        payload.elements(name, |value| ids.push(value));
    }
    ids.done()
}

/// Parses the preload of a payload.
///
/// # Errors
/// It is longer than a preload can be.
pub fn requested_preload(payload: &Parameters<'_>) -> Result<Preload, String> {
    preload_of(payload).map(|preload| PreloadRequest::read(preload.as_ref()))
}

fn preload_of(payload: &Parameters<'_>) -> Result<Option<Value>, String> {
    match (payload.raw_json("preload"), payload.raw_text("preload")) {
        (Some(_), _) => payload.json("preload", PRELOAD_MAX_BYTES).map_err(|error| invalid(&error)),
        (None, text) => Ok(text.map(Value::from)),
    }
}

fn invalid(error: &ParameterError) -> String {
    format!("[validation:invalid_{}] {error}", error.field)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::query::request_form::CHANNEL_JOIN;

    fn join(topic: &str, payload: Value) -> Result<Join, String> {
        let payload = payload.to_string();
        Join::read(
            Topic::read(topic).map_err(|error| error.to_string())?,
            &Parameters::from_object(payload.as_bytes(), CHANNEL_JOIN.known_names).unwrap(),
            &Config::default(),
            Limits { plugin_config_bytes: 8 << 10 },
        )
    }

    #[test]
    fn topics_are_told_apart() {
        assert_eq!(Topic::read("killmails:system:30000142"), Ok(Topic::Id(Dimension::System, 30_000_142)));
        assert_eq!(Topic::read("killmails:all"), Ok(Topic::All));
        for (topic, text) in [
            ("killmails:other", CRASHED),
            ("killmails:", CRASHED),
            ("foo:bar", "unmatched topic"),
            ("phoenix", "unmatched topic"),
            ("killmails:system:x", "[validation:non_integer_system_ids] System IDs must be integers"),
            ("killmails:character:5", "[validation:invalid_character_ids] Invalid character IDs"),
        ] {
            assert_eq!(Topic::read(topic).unwrap_err().to_string(), text);
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
        let missing = PreloadRequest { every_kind: true, ..PreloadRequest::DEFAULT };
        for value in [json!(true), json!({}), json!({ "enabled": true, "limit_per_system": "x", "more": 1 })]
        {
            assert_eq!(wish(value), Preload::Yes(missing));
        }
        assert_eq!(
            (wish(json!(false)), wish(json!({ "enabled": false, "since_hours": 3 }))),
            (Preload::No, Preload::No)
        );
        assert_eq!((wish(json!(null)), wish(json!(5))), (Preload::Absent, Preload::Absent));
        let most = json!({ "limit_per_system": 1e9, "since_hours": 999, "delivery_batch_size": 101, "delivery_interval_ms": 10_001 });
        let clamped = PreloadRequest {
            limit: 200,
            since_hours: 168,
            batch: Some(100),
            interval_ms: Some(10_000),
            every_kind: true,
        };
        assert_eq!(wish(most), Preload::Yes(clamped));
        let least = json!({ "limit_per_system": 0, "since_hours": -3, "delivery_batch_size": 0, "delivery_interval_ms": -1 });
        let clamped = PreloadRequest {
            limit: 1,
            since_hours: 1,
            batch: Some(1),
            interval_ms: Some(0),
            every_kind: true,
        };
        assert_eq!(wish(least), Preload::Yes(clamped));
    }

    #[test]
    fn a_resumed_join_preloads_only_when_told() {
        let preload = |payload: Value| join(LOBBY, payload).unwrap().preload;
        assert_eq!(preload(json!({ "systems": [1] })), Some(PreloadRequest::DEFAULT));
        assert_eq!(preload(json!({ "systems": [1], "resume_from": null })), Some(PreloadRequest::DEFAULT));
        assert_eq!(preload(json!({ "systems": [1], "resume_from": "x" })), None);
        assert!(
            preload(json!({ "systems": [1], "resume_from": "x", "preload": { "enabled": true } })).is_some()
        );
        assert_eq!(preload(json!({ "systems": [1], "preload": { "enabled": false } })), None);
    }
}
