//! Who reads now, over every door: the list and its sums.
//!
//! Must not know: how a subscription is made or ended.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::domain::id::{Epoch, EventId, Seq};
use crate::domain::term::Kind;
use crate::feed::registry::{Line, Now, Progress, Through};
use crate::http::Door;
use crate::http::answer::Json;
use crate::http::auth::Scope;
use crate::http::error::Error;
use crate::tasks;
use crate::wire::text;
use crate::wire::time::iso_micros;

/// `GET /api/v1/subscriptions`: oldest first. Where from is told only to those with the right token.
pub async fn list(State(door): State<Arc<Door>>, parts: Parts) -> Result<Json, Error> {
    let trusted = door.keys.check(&parts, Scope::Subscriptions).is_ok();
    let body = tasks::blocking("subscriptions", move || {
        let mut lines = door.feed.registry().lines();
        lines.sort_by(|a, b| (a.opened_at_ms, &a.subscription_id).cmp(&(b.opened_at_ms, &b.subscription_id)));
        let log = (door.feed.epoch(), door.feed.head());
        let subscriptions: Vec<Value> = lines.iter().map(|line| told(line, log, trusted)).collect();
        json!({ "data": { "count": subscriptions.len(), "subscriptions": subscriptions } })
    });
    Ok(answer(&body.await.map_err(Error::failed)?))
}

fn told(line: &Line, (epoch, head): (Epoch, Seq), trusted: bool) -> Value {
    let Now { subscription, updated_at_ms, through, subscriber, address, connected_at_ms } = line.now();
    let Progress { place, delivered } = line.progress();
    let ids = |kind| subscription.filter.ids(kind).map(|ids| ids.as_slice().to_vec()).unwrap_or_default();
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
    for kind in Kind::ALL {
        told[format!("{}_ids", kind.word())] = json!(ids(kind));
    }
    told
}

/// `GET /api/v1/subscriptions/stats`: systems and characters are counted once, whoever names them.
pub async fn stats(State(door): State<Arc<Door>>) -> Result<Json, Error> {
    let body = tasks::blocking("subscription-stats", move || {
        let lines = door.feed.registry().lines();
        let (mut systems, mut characters) = (HashSet::new(), HashSet::new());
        let (mut sse, mut sockets, mut bytes) = (0, 0, door.feed.bell().bytes());
        for line in &lines {
            let now = line.now();
            match now.through {
                Through::Sse => sse += 1,
                Through::Websocket => sockets += 1,
            }
            bytes += size_of::<Line>();
            for dimension in &now.subscription.filter.dimensions {
                let ids = dimension.ids.as_slice();
                bytes += size_of_val(ids);
                match dimension.kind {
                    Kind::System => systems.extend(ids.iter().copied()),
                    Kind::Character => characters.extend(ids.iter().copied()),
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
