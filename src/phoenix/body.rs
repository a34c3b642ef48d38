//! The payloads of answers and pushes, as upstream's clients read them. Killmails come encoded and are passed on as they are.
//!
//! Must not know: refs, when anything is sent.

use bytes::Bytes;

use crate::domain::id::EventId;
use crate::feed::event::Gap;
use crate::wire::text::Text;
use crate::wire::time::iso_micros;

/// `{}`.
pub const EMPTY: &[u8] = b"{}";

/// Why something is refused.
#[must_use]
pub fn reason(text: &str) -> Bytes {
    one("reason", text)
}

/// Nothing had to be done.
#[must_use]
pub fn message(text: &str) -> Bytes {
    one("message", text)
}

fn one(name: &str, text: &str) -> Bytes {
    let mut out = Text::default();
    out.open(b'{');
    out.field(name, text);
    out.close(b'}');
    out.done()
}

/// Where a join goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    /// It asked for nothing.
    No,
    /// It has no place yet and wants to know where it begins.
    Begun(EventId),
    /// Where it asked for.
    From(EventId),
    /// Elsewhere.
    Gap(Gap),
}

/// The answer to a join.
#[must_use]
pub fn joined(subscription_id: &str, systems: &[u32], characters: &[u32], resumed: &Resumed) -> Bytes {
    let mut out = Text::with_capacity(128 + 11 * (systems.len() + characters.len()));
    out.open(b'{');
    out.field("subscription_id", subscription_id);
    out.field("subscribed_systems", systems);
    out.field("subscribed_characters", characters);
    out.field("status", "connected");
    match resumed {
        Resumed::No => {}
        Resumed::Begun(id) => out.field("event_id", &id.to_string()),
        Resumed::From(id) => out.field("resumed_from", &id.to_string()),
        Resumed::Gap(Gap { reason, requested, resumed_at }) => {
            out.key("gap");
            out.open(b'{');
            out.field("reason", reason.word());
            out.field("requested", requested);
            out.field("resumed_at", &resumed_at.to_string());
            out.close(b'}');
        }
    }
    out.close(b'}');
    out.done()
}

/// The lists after a change; either may be left out.
#[must_use]
pub fn subscribed(systems: Option<&[u32]>, characters: Option<&[u32]>) -> Bytes {
    let mut out = Text::default();
    out.open(b'{');
    out.known("subscribed_systems", systems.as_ref());
    out.known("subscribed_characters", characters.as_ref());
    out.close(b'}');
    out.done()
}

/// The answer to `get_status`.
#[must_use]
pub fn status(subscription_id: &str, systems: &[u32], characters: &[u32], (user_id, connected_at_ms): (&str, i64)) -> Bytes {
    let mut out = Text::default();
    out.open(b'{');
    out.field("subscription_id", subscription_id);
    out.field("subscribed_systems", systems);
    out.field("subscribed_characters", characters);
    out.field("connected_at", &iso_micros(connected_at_ms));
    out.field("user_id", user_id);
    out.close(b'}');
    out.done()
}

/// What stands before the killmails of a `killmail_update`.
#[must_use]
pub fn update_head(system: u32) -> Bytes {
    Bytes::from(format!(r#"{{"system_id":{system},"killmails":["#))
}

/// What stands behind them. Live ones say where the client stands after them.
#[must_use]
pub fn update_tail(now_ms: i64, event_id: Option<&EventId>) -> Bytes {
    let now = iso_micros(now_ms);
    Bytes::from(match event_id {
        Some(id) => format!(r#"],"timestamp":"{now}","preload":false,"event_id":"{id}"}}"#),
        None => format!(r#"],"timestamp":"{now}","preload":true}}"#),
    })
}

/// `preload_complete`.
#[must_use]
pub fn preload_complete(total_kills: u64, systems_processed: u64, errors: &[String]) -> Bytes {
    let mut out = Text::default();
    out.open(b'{');
    out.field("total_kills", &total_kills);
    out.field("systems_processed", &systems_processed);
    out.field("errors", errors);
    out.close(b'}');
    out.done()
}

/// `kill_count_update`: the killmails of the last 24 hours.
#[must_use]
pub fn count(system: u32, count: u64, now_ms: i64) -> Bytes {
    let mut out = Text::default();
    out.open(b'{');
    out.field("system_id", &system);
    out.field("count", &count);
    out.field("timestamp", &iso_micros(now_ms));
    out.close(b'}');
    out.done()
}

/// `phx_error`: the channel is over.
#[must_use]
pub fn ended(word: &str, text: &str) -> Bytes {
    let mut out = Text::default();
    out.open(b'{');
    out.field("reason", word);
    out.field("message", text);
    out.close(b'}');
    out.done()
}
