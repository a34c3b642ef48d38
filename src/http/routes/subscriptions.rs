//! Who reads now, over every door: the list and its sums.
//!
//! Must not know: how a subscription is made or ended.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::id::{Epoch, EventId, Seq};
use crate::domain::term::Dimension;
use crate::feed::registry::{LastFault, OpenReader, Progress, ReaderState, Transport};
use crate::http::answer::error::Error;
use crate::http::answer::listing::{Listing, Part};
use crate::http::answer::success::Json;
use crate::http::request::api_tokens::Scope;
use crate::http::state::HttpState;
use crate::tasks;
use crate::wire::text;
use crate::wire::time::{iso_micros, iso_seconds};

/// `GET /api/v1/subscriptions`: oldest first. Where from, and what a guest said of its last fault, is told
/// only to those with the right token.
pub async fn list(State(door): State<Arc<HttpState>>, parts: Parts) -> Result<Response, Error> {
    let trusted = door.keys.check(&parts, Scope::Subscriptions).is_ok();
    let feed = Arc::clone(&door.feed);
    let lines = tasks::blocking("subscriptions", move || {
        let mut lines = feed.registry().readers();
        lines.sort_by(|a, b| (a.opened_at_ms, &a.subscription_id).cmp(&(b.opened_at_ms, &b.subscription_id)));
        lines
    });
    let lines = lines.await.map_err(Error::failed)?;
    let log = (door.feed.epoch(), door.feed.head());
    let begin = format!(r#"{{"data":{{"count":{},"subscriptions":["#, lines.len());
    let all = lines.into_iter().enumerate().flat_map(move |(at, line)| told(at == 0, &line, log, trusted));
    Listing::new(&door.feed).text(begin).each(all).text("]}}").answer().await
}

/// A subscription in JSON, its ids behind everything else. Lists are long, so they are shared and not written
/// here.
fn told(is_first: bool, line: &OpenReader, (epoch, head): (Epoch, Seq), trusted: bool) -> Vec<Part> {
    let ReaderState { subscription, updated_at_ms, through, subscriber, address, connected_at_ms } =
        line.state();
    let Progress { place, delivered } = line.progress();
    let mut told = json!({
        "id": line.subscription_id,
        "subscriber_id": subscriber.as_deref().unwrap_or(&line.subscription_id),
        "type": through.word(),
        "callback_url": null,
        "created_at": iso_micros(line.opened_at_ms),
        "updated_at": iso_micros(updated_at_ms),
        "connected_at": iso_micros(connected_at_ms),
        "address": address.filter(|_| trusted),
        "place": EventId { epoch, place }.to_string(),
        "behind": head.0.saturating_sub(place.head().0),
        "delivered": delivered,
    });
    if let Some(LastFault { plugin, failure, killmail_id, at }) = line.last_fault() {
        // It may quote the configuration.
        let message = trusted.then_some(&*failure.message);
        let (fault, at) = (failure.fault.word(), iso_seconds(at));
        told["last_fault"] = json!({ "plugin": plugin, "fault": fault, "message": message, "killmail_id": killmail_id, "at": at });
    }
    let mut members = text::json(&told);
    // The end of the object comes behind its lists.
    members.pop();
    let mut parts =
        vec![Part::Text(Bytes::from_static(if is_first { b"" } else { b"," })), Part::Text(members.into())];
    for (at, kind) in Dimension::ALL.into_iter().enumerate() {
        let before = if at == 0 { "" } else { "]" };
        parts.push(Part::Text(format!(r#"{before},"{}_ids":["#, kind.word()).into()));
        parts.extend(subscription.filter.ids(kind).map(|ids| Part::Ids(ids.clone(), 0)));
    }
    parts.push(Part::Text(Bytes::from_static(b"]}")));
    parts
}

/// `GET /api/v1/subscriptions/stats`: systems and characters are counted once, whoever names them.
pub async fn stats(State(door): State<Arc<HttpState>>) -> Result<Json, Error> {
    let body = tasks::blocking("subscription-stats", move || {
        let lines = door.feed.registry().readers();
        let (mut systems, mut characters) = (HashSet::new(), HashSet::new());
        let (mut sse, mut sockets, mut bytes) = (0, 0, door.feed.wakeups().bytes());
        for line in &lines {
            let now = line.state();
            match now.through {
                Transport::Sse => sse += 1,
                Transport::Websocket => sockets += 1,
            }
            bytes += size_of::<OpenReader>();
            for dimension in &now.subscription.filter.dimensions {
                let ids = dimension.ids.as_slice();
                bytes += size_of_val(ids);
                match dimension.kind {
                    Dimension::System => systems.extend(ids.iter().copied()),
                    Dimension::Character => characters.extend(ids.iter().copied()),
                    _ => {}
                }
            }
        }
        json!({ "data": {
            "total_subscriptions": lines.len(),
            "websocket_subscriptions": sockets,
            "webhook_subscriptions": 0,
            "sse_subscriptions": sse,
            "total_systems": systems.len(),
            "total_characters": characters.len(),
            "memory_usage": bytes,
        } })
    });
    Ok(answer(&body.await.map_err(Error::failed)?))
}

/// These two have upstream's plain envelope.
fn answer(body: &Value) -> Json {
    Json(StatusCode::OK, Bytes::from(text::json(body)))
}
