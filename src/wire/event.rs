//! The JSON bodies of stream events, as clients of WandererKills read them. Killmails come in already
//! encoded.
//!
//! Must not know: how events are framed, or when they are sent.

use std::fmt::Display;

use bytes::Bytes;

use crate::domain::span::Span;
use crate::domain::verdict::Failure;
use crate::wire::query::ParsedQuery;
use crate::wire::text::{self, JsonBuffer};
use crate::wire::time::{iso_micros_now, iso_seconds};

/// Why a preload was not sent.
const PRELOAD_SKIPPED: &str = "needs an id list";

/// `connected`: the stream as it was understood.
#[must_use]
pub fn connected(subscription_id: &str, query: &ParsedQuery, preparing: bool) -> Bytes {
    let mut out = JsonBuffer::with_capacity(256);
    out.open(b'{');
    out.field("status", "connected");
    out.key("filters");
    out.raw(&query.filters);
    out.field("subscription_id", subscription_id);
    if query.skips_preload {
        out.key("preload");
        out.open(b'{');
        out.field("skipped", PRELOAD_SKIPPED);
        out.close(b'}');
    }
    if !query.ignored.is_empty() {
        out.field("ignored", &query.ignored);
    }
    if preparing {
        out.field("preparing", &true);
    }
    finish_with_time(out)
}

/// The same as comments, for a stream without named events.
#[must_use]
pub fn connected_comments(query: &ParsedQuery, preparing: bool) -> Vec<String> {
    let preload = query.skips_preload.then(|| format!("preload skipped: {PRELOAD_SKIPPED}"));
    // As JSON, so that a name cannot end the line.
    let ignored = (!query.ignored.is_empty())
        .then(|| format!("ignored: {}", String::from_utf8_lossy(&text::json(&query.ignored))));
    let preparing = preparing.then(|| "preparing: killmails follow once the plugin is ready".to_owned());
    ["connected".to_owned()].into_iter().chain(preload).chain(ignored).chain(preparing).collect()
}

/// The middle of a `batch` event, see [`BatchKey::head`](crate::wire::batch_key::BatchKey::head).
pub const BATCH_KILLMAILS: &[u8] = b"],\"killmails\":[";

/// Upper bound for the bytes of a batch's line beside its killmails, including the name of the SSE field.
pub const BATCH_FRAME_BYTES: u64 = 160;

/// The end of a `batch` event. `last` is left out unless it is true.
#[must_use]
pub fn batch_tail(count: usize, number: u64, total: u64, last: bool) -> Bytes {
    let last = if last { ",\"last\":true" } else { "" };
    Bytes::from(format!("],\"count\":{count},\"batch_number\":{number},\"total_batches\":{total}{last}}}"))
}

/// `transition`: the preload is complete, live killmails follow.
#[must_use]
pub fn transition(total_historical: u64) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("status", "historical_complete");
    out.field("total_historical", &total_historical);
    finish_with_time(out)
}

/// `heartbeat`, with the mode the stream is in.
#[must_use]
pub fn heartbeat(in_preload: bool) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("mode", if in_preload { "historical" } else { "realtime" });
    finish_with_time(out)
}

/// `error`: a word for programs and a sentence for people.
#[must_use]
pub fn error(word: &str, message: &str) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("type", word);
    out.field("message", message);
    finish_with_time(out)
}

/// `error`: a plugin failed on a killmail, so that this stream does not get it.
#[must_use]
pub fn plugin_fault(plugin: &str, failure: &Failure, killmail_id: u32) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("type", "plugin_fault");
    out.field("message", &format!("plugin {plugin} failed on killmail {killmail_id}: {failure}"));
    out.field("plugin", plugin);
    out.field("fault", failure.fault.word());
    out.field("killmail_id", &killmail_id);
    finish_with_time(out)
}

/// `gap`: the stream continues at another position than the client requested.
#[must_use]
pub fn gap(reason: &str, requested: &str, resumed_at: &impl Display) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("reason", reason);
    out.field("requested", requested);
    out.field("resumed_at", &resumed_at.to_string());
    finish_with_time(out)
}

/// `gap` for a span: killmails were added from archives after the stream had passed them. History finds them
/// with `from` and `to` as `since` and `until`. Nothing was requested, so `requested` and `resumed_at` are
/// both the position of the span.
#[must_use]
pub fn backfilled(span: &Span, resumed_at: &impl Display) -> Bytes {
    let mut out = JsonBuffer::default();
    out.open(b'{');
    out.field("reason", "backfilled");
    out.field("requested", &resumed_at.to_string());
    out.field("resumed_at", &resumed_at.to_string());
    out.field("from", &iso_seconds(span.from));
    out.field("to", &iso_seconds(span.to));
    out.field("killmails", &span.killmails);
    finish_with_time(out)
}

fn finish_with_time(mut out: JsonBuffer) -> Bytes {
    out.field("timestamp", &iso_micros_now());
    out.close(b'}');
    out.done()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::verdict::Fault;
    use crate::wire::batch_key::BatchKey;
    use crate::wire::query;
    use crate::wire::query::limits::Limits;

    fn read(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    fn batch(killmails: &[Bytes], tail: &[u8]) -> Bytes {
        let list = killmails.join(&b","[..]);
        Bytes::from([BatchKey::Both.head(), &list, BATCH_KILLMAILS, &list, tail].concat())
    }

    #[test]
    fn the_frame_of_a_batch_is_within_its_bound() {
        let longest = "data: ".len()
            + BatchKey::Killmails.head().len()
            + BATCH_KILLMAILS.len()
            + batch_tail(usize::MAX, u64::MAX, u64::MAX, true).len();
        assert!(longest as u64 <= BATCH_FRAME_BYTES, "{longest}");
    }

    #[test]
    fn bodies_match_the_snapshot() {
        let pairs =
            [("system_ids", "30000142"), ("preload_days", "7"), ("role", "victim"), ("labels", "pvp,npc")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let asked = query::read_stream_query(&pairs, Limits { plugin_config_bytes: 8 << 10 }).unwrap();
        let killmails =
            [Bytes::from_static(b"{\"killmail_id\":1}"), Bytes::from_static(b"{\"killmail_id\":2}")];
        let bodies = [
            connected("AbC", &asked, false),
            batch(&killmails, &batch_tail(2, 2, 2, true)),
            batch(&[], &batch_tail(0, 1, 1, false)),
            transition(2),
            heartbeat(true),
            heartbeat(false),
            error("closing", "the server is \"stopping\""),
            plugin_fault("gatecamp", &Failure::new(Fault::Trap, "it said last: ValueError"), 7),
            gap("ahead", "x\ny", &"00-1"),
            backfilled(&Span { from: 3, to: 9, killmails: 2 }, &"00-1"),
        ];
        let mut bodies: Vec<Value> = bodies.iter().map(|body| read(body)).collect();
        for moment in bodies.iter_mut().filter_map(|body| body.get_mut("timestamp")) {
            assert!(
                moment.as_str().is_some_and(|text| text.len() == 27 && text.ends_with('Z')),
                "microseconds: {moment}"
            );
            *moment = Value::from("then");
        }
        insta::assert_json_snapshot!("bodies", bodies);
    }
}
