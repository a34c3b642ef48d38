//! History: killmails by id and by filter.
//!
//! Must not know: how filters are spelled, or how killmails are found.

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
use crate::http::answer::success::{Json, JsonWriter};
use crate::http::request::parameters::{Pairs, PathSegment, QueryBody, parse_positive};
use crate::http::routes::kills::check_format;
use crate::http::state::HttpState;
use crate::tasks;
use crate::wire::killmail::delivered_json;
use crate::wire::query::filter_echo::FilterEcho;
use crate::wire::query::{self, ParsedQuery};
use crate::wire::{text, time};

/// A filter with more ids counts against the limit of all filters while its response is written.
const FEW_IDS: usize = 1000;

/// `GET /api/v1/killmail/{id}`. A recent one is in memory and needs no other thread.
pub async fn by_id(
    State(state): State<Arc<HttpState>>,
    PathSegment(id): PathSegment,
    pairs: Pairs,
) -> Result<Json, Error> {
    check_format(&pairs).map_err(|message| Error::parameter("format", message))?;
    let id = parse_positive(&id).ok_or(Error::KillmailId)?;
    let id = u32::try_from(id).map_err(|_| Error::KillmailNotFound)?;
    let store = &state.store;
    let entry = match store.recent(id) {
        Some(entry) => {
            state.killmail_hits.fetch_add(1, Ordering::Relaxed);
            Some(entry)
        }
        None => {
            state.killmail_misses.fetch_add(1, Ordering::Relaxed);
            let store = Arc::clone(store);
            tasks::blocking("killmail", move || store.killmail(id))
                .await
                .map_err(Error::failed)?
                .map_err(Error::failed)?
        }
    };
    let kept = Delivered { entry: entry.ok_or(Error::KillmailNotFound)?, annotations: Vec::new() };
    Ok(Json(
        StatusCode::OK,
        JsonWriter::default().enveloped(|text| text.push(delivered_json(&kept))).finish(),
    ))
}

/// `GET /api/v1/killmails`.
pub async fn list(
    State(state): State<Arc<HttpState>>,
    parts: Parts,
    Pairs(pairs): Pairs,
) -> Result<Response, Error> {
    let query = query::read_history_query(&pairs, state.query_limits).map_err(Error::history_parameter)?;
    respond_page(&state, &parts, query).await
}

/// `POST /api/v1/killmails/search`.
pub async fn search(
    State(state): State<Arc<HttpState>>,
    parts: Parts,
    body: QueryBody,
) -> Result<Response, Error> {
    let query = body.read(query::read_history_body, state.query_limits).await?;
    respond_page(&state, &parts, query.map_err(Error::history_parameter)?).await
}

/// `GET /api/v1/killmails/count`.
pub async fn count(State(state): State<Arc<HttpState>>, Pairs(pairs): Pairs) -> Result<Response, Error> {
    let query = query::read_count_query(&pairs, state.query_limits).map_err(Error::history_parameter)?;
    respond_count(&state, query).await
}

/// `POST /api/v1/killmails/count`.
pub async fn count_search(State(state): State<Arc<HttpState>>, body: QueryBody) -> Result<Response, Error> {
    let query = body.read(query::read_count_body, state.query_limits).await?;
    respond_count(&state, query.map_err(Error::history_parameter)?).await
}

async fn respond_count(state: &HttpState, query: ParsedQuery) -> Result<Response, Error> {
    let Filtered { hold, subscription } = hold_filter(state, query.subscription)?;
    let count =
        state.feed.count(Arc::clone(&subscription), state.feed.head()).await.map_err(Error::history)?;
    let mut listing = Listing::new(&state.feed, &state.store).with_filter(hold);
    listing.text(format!(r#"{{"data":{{"count":{count},"filter":"#));
    write_filter(&mut listing, &subscription);
    listing.text(format!(r#"}},"timestamp":"{}"}}"#, time::iso_micros_now())).respond().await
}

async fn respond_page(state: &HttpState, parts: &Parts, query: ParsedQuery) -> Result<Response, Error> {
    let _plugin_hold = state.hold_plugin(parts, &query.subscription).map_err(Error::history_plugin_quota)?;
    let judged_request =
        state.admit_judged_request(parts, &query.subscription).map_err(Error::history_plugin_quota)?;
    let (head, after) = match &query.cursor {
        Some(text) => parse_cursor(state, text)?,
        None => (state.feed.head(), None),
    };
    let (order, limit) = (query.order, query.limit);
    let filtered = hold_filter(state, query.subscription)?;
    let subscription = Arc::clone(&filtered.subscription);
    let found = state.feed.lookup(Lookup { subscription, order, after, head, limit }).await;
    // No plugin is called from here on.
    drop(judged_request);
    write_page(state, head, filtered, found.map_err(Error::history)?).await
}

/// A filter in use, with its place in the limit of all filters.
struct Filtered {
    hold: Option<FilterLease>,
    subscription: Arc<Subscription>,
}

/// Counts a filter with many ids against the limit until its response is written: the response repeats the
/// filter.
fn hold_filter(state: &HttpState, mut subscription: Subscription) -> Result<Filtered, Error> {
    let ids: usize =
        subscription.filter.dimensions.iter().map(|dimension| dimension.ids.as_slice().len()).sum();
    let hold = (ids > FEW_IDS).then(|| state.feed.filters().register_request(&mut subscription)).transpose();
    let hold = hold.map_err(|full| Error::history(full.into()))?;
    Ok(Filtered { hold, subscription: Arc::new(subscription) })
}

async fn write_page(
    state: &HttpState,
    head: Seq,
    Filtered { hold, subscription }: Filtered,
    found: Found,
) -> Result<Response, Error> {
    let next = found.next.map(|after| {
        EventId { epoch: state.feed.epoch(), place: Place::Preload { head, after } }.to_string()
    });
    let mut rest = JsonWriter::default();
    rest.push(r#","count":"#).value(found.chosen.len());
    rest.push(r#","next_cursor":"#).value(next).push(r#","complete":"#).value(found.complete);
    if let Some(Faults { counts, example }) = found.faults {
        rest.push(r#","faults":"#).push(text::json(&counts));
        if let Some(example) = example {
            rest.push(r#","fault_example":"#).value(example);
        }
    }
    let mut listing = Listing::new(&state.feed, &state.store).with_filter(hold);
    listing
        .text(r#"{"data":{"killmails":"#)
        .killmails(found.chosen)
        .text(rest.push(r#","filter":"#).finish());
    write_filter(&mut listing, &subscription);
    listing.text(format!(r#"}},"timestamp":"{}"}}"#, time::iso_micros_now())).respond().await
}

/// Writes the filter as it was read: the JSON of [`FilterEcho`], but with long lists in portions.
fn write_filter(listing: &mut Listing, subscription: &Subscription) {
    let mut rest = subscription.clone();
    listing.text("{");
    for IdsIn { dimension, ids } in std::mem::take(&mut rest.filter.dimensions) {
        listing.text(format!(r#""{}":["#, dimension.parameter())).ids(&ids).text("],");
    }
    listing.text(text::json(&FilterEcho::new(&rest)).split_off(1));
}

/// Reads a cursor: the head of the first page and the last killmail id. It is written like an event id, and
/// opaque like one.
fn parse_cursor(state: &HttpState, text: &str) -> Result<(Seq, Option<u32>), Error> {
    let invalid = |why: &str| Error::parameter("cursor", format!("cursor {why}"));
    let id: EventId = text.parse().map_err(|_| invalid("is not valid"))?;
    match id.place {
        _ if id.epoch != state.feed.epoch() => Err(invalid("belongs to another store")),
        Place::Preload { head, after } if head <= state.feed.head() => Ok((head, Some(after))),
        _ => Err(invalid("is not valid")),
    }
}
