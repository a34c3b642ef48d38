//! The subscriptions that are open now, on every transport: the list and its totals.
//!
//! Must not know: how a subscription is opened or closed.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::filter::Filter;
use crate::domain::id::{Epoch, EventId, Seq};
use crate::domain::term::Dimension;
use crate::feed::registry::{LastFault, OpenReader, Progress, ReaderState, Transport};
use crate::http::answer::error::Error;
use crate::http::answer::listing::{Listing, Part};
use crate::http::answer::success::Json;
use crate::http::request::api_tokens::Scope;
use crate::http::routes::webhooks;
use crate::http::state::HttpState;
use crate::tasks;
use crate::webhook::hook::Hook;
use crate::webhook::webhooks::Webhooks;
use crate::wire::text;
use crate::wire::time::{iso_micros, iso_seconds};

/// `GET /api/v1/subscriptions`: oldest first. Addresses and the messages of plugin faults are shown only with
/// a token of the scope `subscriptions`.
pub async fn list(State(state): State<Arc<HttpState>>, parts: Parts) -> Result<Response, Error> {
    let trusted = state.tokens.authorize(&parts, Scope::Subscriptions).is_ok();
    let (feed, webhooks) = (Arc::clone(&state.feed), Arc::clone(&state.webhooks));
    let listed = tasks::blocking("subscriptions", move || {
        let mut readers = feed.registry().readers();
        // A webhook has a reader only now and then, and is listed by itself.
        readers.retain(|reader| reader.state().through != Transport::Webhook);
        readers
            .sort_by(|a, b| (a.opened_at_ms, &a.subscription_id).cmp(&(b.opened_at_ms, &b.subscription_id)));
        (readers, webhooks.list())
    });
    let (readers, hooks) = listed.await.map_err(Error::failed)?;
    let (epoch, head) = (state.feed.epoch(), state.feed.head());
    let begin = format!(r#"{{"data":{{"count":{},"subscriptions":["#, readers.len() + hooks.len());
    let webhooks = Arc::clone(&state.webhooks);
    let readers = readers.into_iter().map(move |reader| subscription_parts(&reader, epoch, head, trusted));
    let hooks = hooks.into_iter().map(move |hook| webhook_parts(&webhooks, &hook, head, trusted));
    let all = readers.chain(hooks).enumerate().flat_map(|(at, parts)| {
        let before = Part::Text(Bytes::from_static(if at == 0 { b"" } else { b"," }));
        std::iter::once(before).chain(parts)
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
    with_ids(&members, &subscription.filter)
}

/// A webhook in the list.
fn webhook_parts(webhooks: &Webhooks, hook: &Hook, head: Seq, trusted: bool) -> Vec<Part> {
    let (definition, address) = (hook.definition(), hook.definition().stored.address);
    let mut members = webhooks::summary_json(webhooks, hook, head, trusted);
    (members["connected_at"], members["address"]) = (Value::Null, json!(address.filter(|_| trusted)));
    with_ids(&members, &definition.request.subscription.filter)
}

/// A subscription with the ids of its filter.
fn with_ids(members: &Value, filter: &Filter) -> Vec<Part> {
    let mut text = text::json(members);
    // The closing brace follows after the lists.
    text.pop();
    let mut parts = vec![Part::Text(text.into())];
    for (at, dimension) in Dimension::ALL.into_iter().enumerate() {
        let before = if at == 0 { "" } else { "]" };
        parts.push(Part::Text(format!(r#"{before},"{}":["#, dimension.parameter()).into()));
        parts.extend(filter.ids(dimension).map(|ids| Part::Ids { ids: ids.clone(), next: 0 }));
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
                Transport::Webhook => continue,
            }
            bytes += size_of::<OpenReader>();
            count_ids(&now.subscription.filter, &mut systems, &mut characters, &mut bytes);
        }
        let hooks = state.webhooks.list();
        for hook in &hooks {
            bytes += size_of::<Hook>();
            let definition = hook.definition();
            count_ids(&definition.request.subscription.filter, &mut systems, &mut characters, &mut bytes);
        }
        json!({ "data": {
            "total_subscriptions": sse + sockets + hooks.len(),
            "websocket_subscriptions": sockets,
            "webhook_subscriptions": hooks.len(),
            "sse_subscriptions": sse,
            "total_systems": systems.len(),
            "total_characters": characters.len(),
            "memory_usage": bytes,
        } })
    });
    // As in the older service, without a timestamp.
    Ok(Json::bare(&body.await.map_err(Error::failed)?))
}

fn count_ids(filter: &Filter, systems: &mut HashSet<u32>, characters: &mut HashSet<u32>, bytes: &mut usize) {
    for listed in &filter.dimensions {
        let ids = listed.ids.as_slice();
        *bytes += size_of_val(ids);
        match listed.dimension {
            Dimension::System => systems.extend(ids.iter().copied()),
            Dimension::Character => characters.extend(ids.iter().copied()),
            _ => {}
        }
    }
}
