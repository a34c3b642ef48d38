//! The subscriptions that are open now, on every transport: the list and its totals.
//!
//! Must not know: how a subscription is opened or closed.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;

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

/// `GET /api/v1/subscriptions`: oldest first. Addresses and the messages of plugin faults are shown only with
/// a token of the scope `subscriptions`.
pub async fn list(State(state): State<Arc<HttpState>>, parts: Parts) -> Result<Response, Error> {
    let trusted = state.tokens.authorize(&parts, Scope::Subscriptions).is_ok();
    let feed = Arc::clone(&state.feed);
    let readers = tasks::blocking("subscriptions", move || {
        let mut readers = feed.registry().readers();
        readers
            .sort_by(|a, b| (a.opened_at_ms, &a.subscription_id).cmp(&(b.opened_at_ms, &b.subscription_id)));
        readers
    });
    let readers = readers.await.map_err(Error::failed)?;
    let (epoch, head) = (state.feed.epoch(), state.feed.head());
    let begin = format!(r#"{{"data":{{"count":{},"subscriptions":["#, readers.len());
    let all = readers.into_iter().enumerate().flat_map(move |(at, reader)| {
        let before = Part::Text(Bytes::from_static(if at == 0 { b"" } else { b"," }));
        std::iter::once(before).chain(subscription_parts(&reader, epoch, head, trusted))
    });
    Listing::new(&state.feed, &state.store).text(begin).lazy(all).text("]}}").respond().await
}

/// A subscription in JSON, with its ids after everything else. The lists may be long, so they are shared and
/// written later.
fn subscription_parts(reader: &OpenReader, epoch: Epoch, head: Seq, trusted: bool) -> Vec<Part> {
    let ReaderState { subscription, updated_at_ms, through, subscriber, address, connected_at_ms } =
        reader.state();
    let Progress { place, delivered } = reader.progress();
    let mut members = json!({
        "id": reader.subscription_id,
        "subscriber_id": subscriber.as_deref().unwrap_or(&reader.subscription_id),
        "type": through.word(),
        "callback_url": null,
        "created_at": iso_micros(reader.opened_at_ms),
        "updated_at": iso_micros(updated_at_ms),
        "connected_at": iso_micros(connected_at_ms),
        "address": address.filter(|_| trusted),
        "place": EventId { epoch, place }.to_string(),
        "behind": head.0.saturating_sub(place.head().0),
        "delivered": delivered,
    });
    if let Some(LastFault { plugin, failure, killmail_id, at }) = reader.last_fault() {
        // It may quote the configuration of another caller.
        let message = trusted.then_some(&*failure.message);
        let (fault, at) = (failure.fault.word(), iso_seconds(at));
        members["last_fault"] = json!({ "plugin": plugin, "fault": fault, "message": message, "killmail_id": killmail_id, "at": at });
    }
    let mut text = text::json(&members);
    // The closing brace follows after the lists.
    text.pop();
    let mut parts = vec![Part::Text(text.into())];
    for (at, dimension) in Dimension::ALL.into_iter().enumerate() {
        let before = if at == 0 { "" } else { "]" };
        parts.push(Part::Text(format!(r#"{before},"{}":["#, dimension.parameter()).into()));
        parts.extend(subscription.filter.ids(dimension).map(|ids| Part::Ids { ids: ids.clone(), next: 0 }));
    }
    parts.push(Part::Text(Bytes::from_static(b"]}")));
    parts
}

/// `GET /api/v1/subscriptions/stats`: a system or character counts once, however many subscriptions name it.
pub async fn stats(State(state): State<Arc<HttpState>>) -> Result<Json, Error> {
    let body = tasks::blocking("subscription-stats", move || {
        let readers = state.feed.registry().readers();
        let (mut systems, mut characters) = (HashSet::new(), HashSet::new());
        let (mut sse, mut sockets, mut bytes) = (0, 0, state.feed.wakeups().bytes());
        for reader in &readers {
            let now = reader.state();
            match now.through {
                Transport::Sse => sse += 1,
                Transport::Websocket => sockets += 1,
            }
            bytes += size_of::<OpenReader>();
            for listed in &now.subscription.filter.dimensions {
                let ids = listed.ids.as_slice();
                bytes += size_of_val(ids);
                match listed.dimension {
                    Dimension::System => systems.extend(ids.iter().copied()),
                    Dimension::Character => characters.extend(ids.iter().copied()),
                    _ => {}
                }
            }
        }
        json!({ "data": {
            "total_subscriptions": readers.len(),
            "websocket_subscriptions": sockets,
            "webhook_subscriptions": 0,
            "sse_subscriptions": sse,
            "total_systems": systems.len(),
            "total_characters": characters.len(),
            "memory_usage": bytes,
        } })
    });
    // As in the older service, without a timestamp.
    Ok(Json::bare(&body.await.map_err(Error::failed)?))
}
