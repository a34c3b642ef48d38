//! Killmails by id and by filter: history.
//!
//! Must not know: how filters are spelled, how killmails are found.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::json;

use crate::domain::id::{EventId, Place, Seq};
use crate::domain::subscription::Subscription;
use crate::feed::event::Kept;
use crate::feed::lookup::{Found, Lookup};
use crate::http::Door;
use crate::http::answer::{Json, Text, json_of};
use crate::http::error::Error;
use crate::http::request::{Pairs, Question, Segment, positive};
use crate::tasks;
use crate::wire::query::{self, Asked};
use crate::wire::text;
use crate::wire::told::Told;

/// `GET /api/v1/killmail/{id}`. Recent ones are in memory and answered without leaving this thread.
pub async fn one(State(door): State<Arc<Door>>, Segment(id): Segment) -> Result<Json, Error> {
    let id = positive(&id).ok_or(Error::KillmailId)?;
    let id = u32::try_from(id).map_err(|_| Error::Killmail)?;
    let store = door.feed.store();
    let entry = match store.recent(id) {
        Some(entry) => {
            door.hits.fetch_add(1, Ordering::Relaxed);
            Some(entry)
        }
        None => {
            door.misses.fetch_add(1, Ordering::Relaxed);
            let store = Arc::clone(store);
            tasks::blocking("killmail", move || store.killmail(id)).await.map_err(Error::failed)?.map_err(Error::failed)?
        }
    };
    let kept = Kept { entry: entry.ok_or(Error::Killmail)?, annotations: Vec::new() };
    Ok(Json(StatusCode::OK, Text::default().enveloped(|text| text.push(json_of(&kept))).done()))
}

/// `GET /api/v1/killmails`.
pub async fn list(State(door): State<Arc<Door>>, parts: Parts, Pairs(pairs): Pairs) -> Result<Json, Error> {
    answer(&door, &parts, query::history_pairs(&pairs).map_err(Error::history_parameter)?).await
}

/// `POST /api/v1/killmails/search`.
pub async fn search(State(door): State<Arc<Door>>, parts: Parts, body: Question) -> Result<Json, Error> {
    answer(&door, &parts, body.read(query::history_body).await?.map_err(Error::history_parameter)?).await
}

/// `GET /api/v1/killmails/count`.
pub async fn count(State(door): State<Arc<Door>>, Pairs(pairs): Pairs) -> Result<Json, Error> {
    counted(&door, query::count_pairs(&pairs).map_err(Error::history_parameter)?).await
}

/// `POST /api/v1/killmails/count`.
pub async fn count_search(State(door): State<Arc<Door>>, body: Question) -> Result<Json, Error> {
    counted(&door, body.read(query::count_body).await?.map_err(Error::history_parameter)?).await
}

async fn counted(door: &Door, asked: Asked) -> Result<Json, Error> {
    let subscription = Arc::new(asked.subscription);
    let count = door.feed.count(Arc::clone(&subscription), door.feed.head()).await.map_err(Error::history)?;
    Ok(Json::data(&json!({ "count": count, "filter": Told::of(&subscription) })))
}

async fn answer(door: &Door, parts: &Parts, asked: Asked) -> Result<Json, Error> {
    let _hold = door.judge(parts, &asked.subscription).map_err(Error::history_judges)?;
    let (head, after) = match &asked.cursor {
        Some(text) => cursor(door, text)?,
        None => (door.feed.head(), None),
    };
    let (order, limit, subscription) = (asked.order, asked.limit, Arc::new(asked.subscription));
    let found = door.feed.lookup(Lookup { subscription: Arc::clone(&subscription), order, after, head, limit }).await;
    Ok(page(door, head, &subscription, &found.map_err(Error::history)?))
}

fn page(door: &Door, head: Seq, subscription: &Subscription, found: &Found) -> Json {
    let next = found.next.map(|after| EventId { epoch: door.feed.epoch(), place: Place::Preload { head, after } }.to_string());
    let mut text = Text::default();
    text.enveloped(|text| {
        text.push(r#"{"killmails":"#).killmails(&found.killmails).push(r#","count":"#).value(found.killmails.len());
        text.push(r#","next_cursor":"#).value(next).push(r#","complete":"#).value(found.complete);
        text.push(r#","filter":"#).push(text::json(&Told::of(subscription))).push("}")
    });
    Json(StatusCode::OK, text.done())
}

/// A cursor names the head of the first page and the killmail id last sent. It is spelled like an event id and as opaque.
fn cursor(door: &Door, text: &str) -> Result<(Seq, Option<u32>), Error> {
    let refuse = |why: &str| Error::parameter("cursor", format!("cursor {why}"));
    let id: EventId = text.parse().map_err(|_| refuse("is not one of ours"))?;
    match id.place {
        _ if id.epoch != door.feed.epoch() => Err(refuse("belongs to another store")),
        Place::Preload { head, after } if head <= door.feed.head() => Ok((head, Some(after))),
        _ => Err(refuse("is not one of ours")),
    }
}
