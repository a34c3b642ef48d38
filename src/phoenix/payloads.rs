//! The payloads of replies and pushes, as upstream's clients read them. Killmails are already encoded.
//!
//! Must not know: refs, when anything is sent.

use bytes::Bytes;

use crate::domain::id::EventId;
use crate::domain::subscription::Subscription;
use crate::domain::term::Dimension;
use crate::feed::event::Gap;
use crate::wire::count::write_count;
use crate::wire::query::filter_echo::FilterEcho;
use crate::wire::text::JsonBuffer;
use crate::wire::time::iso_micros;

pub const EMPTY: &[u8] = b"{}";

/// The payload of a refusal.
#[must_use]
pub fn reason(text: &str) -> Bytes {
    object_with("reason", text)
}

/// The payload of a request that changed nothing.
#[must_use]
pub fn message(text: &str) -> Bytes {
    object_with("message", text)
}

fn object_with(name: &str, text: &str) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field(name, text);
    out.close(b'}');
    out.done()
}

/// Where a join resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    /// It did not ask to resume.
    No,
    /// Where it asked to.
    From(EventId),
    Gap(Gap),
}

/// A successful join.
#[derive(Debug, Clone, Copy)]
pub struct Joined<'a> {
    /// The name of its subscription.
    pub subscription_id: &'a str,
    /// The systems, in the order given.
    pub systems: &'a [u32],
    /// The characters, in the order given.
    pub characters: &'a [u32],
    /// Where the channel starts: the place to resume at until a later event id arrives.
    pub event_id: EventId,
    /// How that relates to the request.
    pub resumed: &'a Resumed,
    pub subscription: &'a Subscription,
    /// Members of the payload without effect.
    pub ignored: &'a [String],
    /// Whether its plugin is still being prepared.
    pub preparing: bool,
}

/// The reply to a join. Where it would be longer than `bytes_max`, its filter leaves out systems and characters, which
/// have lists of their own.
#[must_use]
pub fn joined(joined: &Joined<'_>, bytes_max: u64) -> Bytes {
    let Joined { subscription_id, systems, characters, event_id, resumed, subscription, ignored, preparing } =
        *joined;
    let lists = 11 * (systems.len() + characters.len());
    let mut out = JsonBuffer::with_capacity(512 + 2 * lists);
    out.open(b'{');
    out.field("subscription_id", subscription_id);
    out.field("subscribed_systems", systems);
    out.field("subscribed_characters", characters);
    out.field("status", "connected");
    out.field("event_id", &event_id.to_string());
    match resumed {
        Resumed::No => {}
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
    if 2 * lists as u64 > bytes_max {
        let mut filter = subscription.filter.clone();
        filter
            .dimensions
            .retain(|listed| !matches!(listed.dimension, Dimension::System | Dimension::Character));
        out.field("filter", &FilterEcho { filter: &filter, ..FilterEcho::new(subscription) });
    } else {
        out.field("filter", &FilterEcho::new(subscription));
    }
    if !ignored.is_empty() {
        out.field("ignored", ignored);
    }
    if preparing {
        out.field("preparing", &true);
    }
    out.close(b'}');
    out.done()
}

/// The lists after a change; either may be omitted.
#[must_use]
pub fn subscribed(systems: Option<&[u32]>, characters: Option<&[u32]>) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field_if_some("subscribed_systems", systems.as_ref());
    out.field_if_some("subscribed_characters", characters.as_ref());
    out.close(b'}');
    out.done()
}

/// The reply to `get_status`.
#[must_use]
pub fn status(
    subscription_id: &str,
    systems: &[u32],
    characters: &[u32],
    (user_id, connected_at_ms): (&str, i64),
) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("subscription_id", subscription_id);
    out.field("subscribed_systems", systems);
    out.field("subscribed_characters", characters);
    out.field("connected_at", &iso_micros(connected_at_ms));
    out.field("user_id", user_id);
    out.close(b'}');
    out.done()
}

/// The start of a `killmail_update`, before its killmails.
#[must_use]
pub fn update_head(system: u32) -> Bytes {
    Bytes::from(format!(r#"{{"system_id":{system},"killmails":["#))
}

/// The end of a `killmail_update`, after its killmails. Live ones carry the event id.
#[must_use]
pub fn update_tail(now_ms: i64, event_id: Option<&EventId>) -> Bytes {
    let now = iso_micros(now_ms);
    Bytes::from(match event_id {
        Some(id) => format!(r#"],"timestamp":"{now}","preload":false,"event_id":"{id}"}}"#),
        None => format!(r#"],"timestamp":"{now}","preload":true}}"#),
    })
}

#[must_use]
pub fn preload_complete(total_kills: u64, systems_processed: u64, errors: &[String]) -> Bytes {
    let mut out = JsonBuffer::default();
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
    let mut out = JsonBuffer::default();
    out.open(b'{');
    write_count(&mut out, system, count, now_ms);
    out.close(b'}');
    out.done()
}

/// `phx_error`: the channel has ended.
#[must_use]
pub fn ended(word: &str, text: &str) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("reason", word);
    out.field("message", text);
    out.close(b'}');
    out.done()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::id::{Epoch, Place, Seq};

    #[test]
    fn a_long_answer_leaves_what_stands_twice_out_of_its_filter() {
        let systems: Vec<u32> = (30_000_001..30_000_101).collect();
        let mut subscription = Subscription::default();
        subscription.filter.set_ids(Dimension::System, systems.clone());
        subscription.filter.set_ids(Dimension::Alliance, vec![99_000_001]);
        let event_id = EventId { epoch: Epoch(7), place: Place::Live(Seq(5)) };
        let (subscription_id, resumed, ignored) = ("x", &Resumed::No, &["nosuch".to_owned()][..]);
        let whole = Joined {
            subscription_id,
            systems: &systems,
            characters: &[],
            event_id,
            resumed,
            subscription: &subscription,
            ignored,
            preparing: false,
        };
        let told = |bytes_max| serde_json::from_slice::<Value>(&joined(&whole, bytes_max)).unwrap();
        let long = told(100_000);
        assert_eq!(
            (&long["filter"]["system_ids"], &long["subscribed_systems"]),
            (&json!(systems), &json!(systems))
        );
        assert_eq!((&long["event_id"], &long["ignored"]), (&json!("0000000000000007-5"), &json!(["nosuch"])));
        let short = told(1_000);
        assert_eq!(
            (&short["filter"], &short["subscribed_systems"]),
            (&json!({ "alliance_ids": [99_000_001], "match": "any" }), &json!(systems))
        );
    }
}
