//! What a subscriber asks for: reads the body of a request to create or change a subscription. The first checks, their
//! order and their texts are those of WandererKills.
//!
//! Must not know: how a subscription is stored or delivered.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::domain::subscription::Subscription;
use crate::webhook::message::Format;
use crate::webhook::message::discord::discord_options::DiscordOptions;
use crate::webhook::target::callback_url::CallbackUrl;
use crate::wire::query;
use crate::wire::query::limits::Limits;

/// Members of a request, as JSON.
pub type Members = Map<String, Value>;

/// WandererKills' limits.
const SYSTEMS_MAX: usize = 100;
const CHARACTERS_MAX: usize = 1_000;
const NO_IDS: &str = "At least one system_id or character_id is required";
/// The longest name of a subscriber as JSON, bytes. Fixed: an id or a name is far shorter.
const SUBSCRIBER_BYTES_MAX: usize = 1_000;

enum_with_all! {
    /// What happens to a killmail on which the plugin fails.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum OnFault {
        /// The subscription is paused before it.
        #[default]
        Pause,
        /// It is not delivered.
        Skip,
        /// It is delivered without annotations.
        Pass,
    }
}

impl OnFault {
    /// Its word in requests and answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Skip => "skip",
            Self::Pass => "pass",
        }
    }
}

/// A request, read.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose subscription it is; any JSON value.
    pub subscriber: Value,
    /// Where killmails are sent.
    pub callback: CallbackUrl,
    /// Which killmails.
    pub subscription: Subscription,
    /// What happens where the plugin fails.
    pub on_fault: OnFault,
    /// How messages are written.
    pub format: Format,
    /// Options of Discord's messages.
    pub discord: DiscordOptions,
}

/// Reads a request, and tidies its two lists of WandererKills.
///
/// # Errors
/// What is wrong first.
pub fn read(members: &mut Members, limits: Limits) -> Result<Request, String> {
    let subscriber = required(members, "subscriber_id")?;
    let url = required(members, "callback_url")?;
    let callback = CallbackUrl::parse(url.as_str().unwrap_or_default()).map_err(|error| error.to_string())?;
    let systems = tidy_ids(members, "system_ids");
    let characters = tidy_ids(members, "character_ids");
    for (name, ids) in [("system_ids", &systems), ("character_ids", &characters)] {
        if ids.first().is_some_and(|id| *id <= 0) {
            return Err(format!("{name} must be an array of positive integers"));
        }
    }
    // Other lists of ids, which WandererKills does not have, are as good.
    if systems.is_empty() && characters.is_empty() && !has_other_ids(members) {
        return Err(NO_IDS.to_owned());
    }
    for (name, ids, max) in
        [("system_ids", &systems, SYSTEMS_MAX), ("character_ids", &characters, CHARACTERS_MAX)]
    {
        if ids.len() > max {
            return Err(format!("Maximum {max} {name} allowed per subscription"));
        }
    }
    if subscriber.to_string().len() > SUBSCRIBER_BYTES_MAX {
        return Err(format!("subscriber_id is longer than {SUBSCRIBER_BYTES_MAX} bytes"));
    }
    let mut rest = members.clone();
    let mut take = |name: &str| rest.remove(name).filter(|value| !value.is_null());
    take("subscriber_id");
    take("callback_url");
    let on_fault = word(take("on_fault"), "on_fault", &OnFault::ALL.map(|one| (one.word(), one)))?;
    let format = word(take("format"), "format", &Format::ALL.map(|one| (one.word(), one)))?;
    let discord = match take("discord") {
        None => DiscordOptions::default(),
        Some(_) if format != Format::Discord => {
            return Err("discord requires \"format\": \"discord\"".to_owned());
        }
        Some(options) => serde_json::from_value(options).map_err(|error| format!("discord: {error}"))?,
    };
    let rest = Value::Object(rest).to_string();
    let subscription = query::read_webhook(rest.as_bytes(), limits).map_err(|error| error.message)?;
    // A list may be empty.
    if !subscription.filter.has_ids() {
        return Err(NO_IDS.to_owned());
    }
    Ok(Request { subscriber, callback, subscription, on_fault, format, discord })
}

fn required(members: &Members, name: &str) -> Result<Value, String> {
    let value = members.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""));
    value.cloned().ok_or_else(|| format!("{name} is required"))
}

/// Only the integers of a list count, each once, ascending. They replace the member.
fn tidy_ids(members: &mut Members, name: &str) -> Vec<i64> {
    let given = members.remove(name);
    let given = given.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let ids: BTreeSet<i64> = given.iter().filter_map(Value::as_i64).collect();
    if !ids.is_empty() {
        members.insert(name.to_owned(), ids.iter().copied().map(Value::from).collect());
    }
    ids.into_iter().collect()
}

fn has_other_ids(members: &Members) -> bool {
    let is_list = |name: &&str| members.get(*name).is_some_and(|ids| !matches!(ids, Value::Null));
    query::DIMENSIONS.iter().any(is_list)
}

fn word<T: Copy + Default>(given: Option<Value>, name: &str, words: &[(&str, T)]) -> Result<T, String> {
    let Some(given) = given else { return Ok(T::default()) };
    let found = words.iter().find(|(word, _)| Some(*word) == given.as_str());
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    found.map(|(_, value)| *value).ok_or_else(|| format!("{name} must be one of {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits { plugin_config_bytes: 8 << 10 };

    fn read_json(value: Value) -> Result<Request, String> {
        let Value::Object(mut members) = value else { panic!("{value}") };
        read(&mut members, LIMITS)
    }

    #[test]
    fn the_first_failing_check_answers_with_the_text_of_the_older_service() {
        let many = |count: i64| (1..=count).collect::<Vec<i64>>();
        for (body, expected) in [
            (json!({}), "subscriber_id is required"),
            (json!({ "subscriber_id": "", "callback_url": "x" }), "subscriber_id is required"),
            (json!({ "subscriber_id": 7 }), "callback_url is required"),
            (
                json!({ "subscriber_id": 7, "callback_url": "ftp://x" }),
                "callback_url must be a valid HTTP/HTTPS URL",
            ),
            (
                json!({ "subscriber_id": 7, "callback_url": "http://x.example", "system_ids": [0], "character_ids": [0] }),
                "system_ids must be an array of positive integers",
            ),
            (
                json!({ "subscriber_id": 7, "callback_url": "http://x.example", "character_ids": [-1, 5] }),
                "character_ids must be an array of positive integers",
            ),
            (
                json!({ "subscriber_id": 7, "callback_url": "http://x.example", "system_ids": "1", "character_ids": ["1"] }),
                "At least one system_id or character_id is required",
            ),
            (json!({ "subscriber_id": 7, "callback_url": "http://x.example", "region_ids": [] }), NO_IDS),
            (
                json!({ "subscriber_id": 7, "callback_url": "http://x.example", "system_ids": many(101) }),
                "Maximum 100 system_ids allowed per subscription",
            ),
            (
                json!({ "subscriber_id": 7, "callback_url": "http://x.example", "character_ids": many(1001) }),
                "Maximum 1000 character_ids allowed per subscription",
            ),
            (
                json!({ "subscriber_id": 7, "callback_url": "http://x.example", "system_ids": [1], "on_fault": "dlq" }),
                "on_fault must be one of pause, skip, pass",
            ),
            (
                json!({ "subscriber_id": 7, "callback_url": "http://x.example", "system_ids": [1], "batch": {} }),
                "Unknown parameter: batch",
            ),
        ] {
            assert_eq!(read_json(body.clone()).unwrap_err(), expected, "{body}");
        }
    }

    #[test]
    fn lists_are_tidied() {
        let request = read_json(json!({
            "subscriber_id": 7, "callback_url": "http://x.example", "system_ids": [5, 3, "4", 3.5, null, 3], "character_ids": {},
        }));
        let filter = request.unwrap().subscription.filter;
        assert_eq!(filter.dimensions.len(), 1);
        assert_eq!(filter.dimensions[0].ids.as_slice(), [3, 5]);
    }

    #[test]
    fn every_filter_of_history_is_accepted() {
        let request = read_json(json!({
            "subscriber_id": "me", "callback_url": "https://x.example/a", "region_ids": [10_000_002], "min_value": 1e9,
            "max_age_secs": 0, "plugins": [{ "name": "gatecamp" }], "on_fault": "pass", "format": "discord",
            "discord": { "mention": "@here" },
        }));
        let request = request.unwrap();
        assert_eq!((request.on_fault, request.format), (OnFault::Pass, Format::Discord));
        assert_eq!(request.subscription.max_age_secs, 0);
        assert!(request.subscription.plugin.is_some());
    }
}
