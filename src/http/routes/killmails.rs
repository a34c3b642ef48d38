//! Killmails by id and by filter: history.
//!
//! Must not know: how filters are spelled, how killmails are found.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use crate::domain::filter::IdsIn;
use crate::domain::id::{EventId, Place, Seq};
use crate::domain::subscription::Subscription;
use crate::feed::event::Delivered;
use crate::feed::filters::FilterLease;
use crate::feed::history::{Faults, Found, Lookup};
use crate::http::answer::error::Error;
use crate::http::answer::listing::Listing;
use crate::http::answer::success::{Json, JsonWriter, json_of};
use crate::http::request::parameters::{Pairs, Question, Segment, positive};
use crate::http::routes::kills::check_format;
use crate::http::state::HttpState;
use crate::tasks;
use crate::wire::query::filter_echo::FilterEcho;
use crate::wire::query::{self, ParsedQuery};
use crate::wire::{text, time};

/// A filter of more ids counts against the limit of all filters while its answer is on its way.
const FEW_IDS: usize = 1000;

/// `GET /api/v1/killmail/{id}`. Recent ones are in memory and answered without leaving this thread.
pub async fn one(
    State(door): State<Arc<HttpState>>,
    Segment(id): Segment,
    pairs: Pairs,
) -> Result<Json, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
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
            tasks::blocking("killmail", move || store.killmail(id))
                .await
                .map_err(Error::failed)?
                .map_err(Error::failed)?
        }
    };
    let kept = Delivered { entry: entry.ok_or(Error::Killmail)?, annotations: Vec::new() };
    Ok(Json(StatusCode::OK, JsonWriter::default().enveloped(|text| text.push(json_of(&kept))).done()))
}

/// `GET /api/v1/killmails`.
pub async fn list(
    State(door): State<Arc<HttpState>>,
    parts: Parts,
    Pairs(pairs): Pairs,
) -> Result<Response, Error> {
    answer(
        &door,
        &parts,
        query::read_history_query(&pairs, door.query_limits()).map_err(Error::history_parameter)?,
    )
    .await
}

/// `POST /api/v1/killmails/search`.
pub async fn search(
    State(door): State<Arc<HttpState>>,
    parts: Parts,
    body: Question,
) -> Result<Response, Error> {
    answer(
        &door,
        &parts,
        body.read(query::read_history_body, door.query_limits()).await?.map_err(Error::history_parameter)?,
    )
    .await
}

/// `GET /api/v1/killmails/count`.
pub async fn count(State(door): State<Arc<HttpState>>, Pairs(pairs): Pairs) -> Result<Response, Error> {
    counted(&door, query::read_count_query(&pairs, door.query_limits()).map_err(Error::history_parameter)?)
        .await
}

/// `POST /api/v1/killmails/count`.
pub async fn count_search(State(door): State<Arc<HttpState>>, body: Question) -> Result<Response, Error> {
    counted(
        &door,
        body.read(query::read_count_body, door.query_limits()).await?.map_err(Error::history_parameter)?,
    )
    .await
}

async fn counted(door: &HttpState, asked: ParsedQuery) -> Result<Response, Error> {
    let (held, subscription) = hold(door, asked.subscription)?;
    let count = door.feed.count(Arc::clone(&subscription), door.feed.head()).await.map_err(Error::history)?;
    let mut listing = Listing::new(&door.feed).holding(held);
    listing.text(format!(r#"{{"data":{{"count":{count},"filter":"#));
    tell(&mut listing, &subscription);
    listing.text(format!(r#"}},"timestamp":"{}"}}"#, time::iso_micros_now())).answer().await
}

async fn answer(door: &HttpState, parts: &Parts, asked: ParsedQuery) -> Result<Response, Error> {
    let _hold = door.judge(parts, &asked.subscription).map_err(Error::history_judges)?;
    let place = door.judged_request(parts, &asked.subscription).map_err(Error::history_judges)?;
    let (head, after) = match &asked.cursor {
        Some(text) => cursor(door, text)?,
        None => (door.feed.head(), None),
    };
    let (order, limit, (held, subscription)) = (asked.order, asked.limit, hold(door, asked.subscription)?);
    let found =
        door.feed.lookup(Lookup { subscription: Arc::clone(&subscription), order, after, head, limit }).await;
    // What is left costs no plugin anything.
    drop(place);
    page(door, head, (held, &subscription), found.map_err(Error::history)?).await
}

/// Takes a filter with many ids into use until its answer is taken: it is told in it.
fn hold(
    door: &HttpState,
    mut subscription: Subscription,
) -> Result<(Option<FilterLease>, Arc<Subscription>), Error> {
    let ids: usize =
        subscription.filter.dimensions.iter().map(|dimension| dimension.ids.as_slice().len()).sum();
    let held = (ids > FEW_IDS).then(|| door.feed.filters().register_request(&mut subscription)).transpose();
    Ok((held.map_err(|full| Error::history(full.into()))?, Arc::new(subscription)))
}

async fn page(
    door: &HttpState,
    head: Seq,
    (held, asked): (Option<FilterLease>, &Subscription),
    found: Found,
) -> Result<Response, Error> {
    let next = found
        .next
        .map(|after| EventId { epoch: door.feed.epoch(), place: Place::Preload { head, after } }.to_string());
    let mut behind = JsonWriter::default();
    behind.push(r#","count":"#).value(found.chosen.len());
    behind.push(r#","next_cursor":"#).value(next).push(r#","complete":"#).value(found.complete);
    if let Some(Faults { counts, example }) = found.faults {
        behind.push(r#","faults":"#).push(text::json(&counts));
        if let Some(example) = example {
            behind.push(r#","fault_example":"#).value(example);
        }
    }
    let mut listing = Listing::new(&door.feed).holding(held);
    listing
        .text(r#"{"data":{"killmails":"#)
        .killmails(found.chosen)
        .text(behind.push(r#","filter":"#).done());
    tell(&mut listing, asked);
    listing.text(format!(r#"}},"timestamp":"{}"}}"#, time::iso_micros_now())).answer().await
}

/// Tells the filter as it was read: as [`Told`] does, but with long lists in portions.
fn tell(listing: &mut Listing, asked: &Subscription) {
    let mut rest = asked.clone();
    listing.text("{");
    for IdsIn { kind, ids } in std::mem::take(&mut rest.filter.dimensions) {
        listing.text(format!(r#""{kind}_ids":["#)).ids(&ids).text("],");
    }
    listing.text(text::json(&FilterEcho::new(&rest)).split_off(1));
}

/// A cursor names the head of the first page and the killmail id last sent. It is spelled like an event id
/// and as opaque.
fn cursor(door: &HttpState, text: &str) -> Result<(Seq, Option<u32>), Error> {
    let refuse = |why: &str| Error::parameter("cursor", format!("cursor {why}"));
    let id: EventId = text.parse().map_err(|_| refuse("is not one of ours"))?;
    match id.place {
        _ if id.epoch != door.feed.epoch() => Err(refuse("belongs to another store")),
        Place::Preload { head, after } if head <= door.feed.head() => Ok((head, Some(after))),
        _ => Err(refuse("is not one of ours")),
    }
}
