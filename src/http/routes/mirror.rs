//! The mirror: publishes the log in the format of R2Z2, so that any R2Z2 client, also another killstream, can
//! follow this server.
//!
//! Files have their own numbers (`store/mirror/file_numbers`), and `sequence.json` is exactly the newest. A
//! request may wait (`?wait=` seconds) for a file that does not exist yet. Day files are written while the
//! client reads.
//!
//! Must not know: how documents are encoded, or how entries are stored.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit, watch};
use tokio::time::Instant;

use crate::clock::DAY_SECS;
use crate::domain::filter::Filter;
use crate::domain::hash;
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::http::answer::error::Error;
use crate::http::answer::lazy_body::{LazyBody, StepResult};
use crate::http::request::parameters::{Pairs, PathSegment, parse_positive};
use crate::http::routes::mirror_state::DayCounts;
use crate::http::state::HttpState;
use crate::http::stream::sse::Chunks;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::query::{HistoryQuery, Hit, Order};
use crate::tasks;
use crate::wire::{text, time, upstream};

/// Killmails of a day read from disk at once.
const PAGE: usize = 64;

/// `GET /ephemeral/sequence.json`: exactly the newest number, or 1 while there is none, since that will be
/// the first. Waits while the client has it already (`If-None-Match`).
pub async fn sequence(
    State(state): State<Arc<HttpState>>,
    pairs: Pairs,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let mut long_poll = LongPoll::from_query(&state, &pairs)?;
    loop {
        let newest = state.store.newest_file();
        let tag = format!("W/\"{}-{newest}\"", state.feed.epoch());
        let response =
            with_etag(&headers, &tag, || Bytes::from(format!("{{\"sequence\":{}}}", newest.max(1))));
        if response.status() != StatusCode::NOT_MODIFIED || !long_poll.wait().await {
            return Ok(response);
        }
    }
}

/// `GET /ephemeral/{n}.json`: the file with this number. Every number up to the newest exists; one whose
/// killmail was lost is a placeholder.
pub async fn numbered_file(
    State(state): State<Arc<HttpState>>,
    PathSegment(name): PathSegment,
    pairs: Pairs,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let number = name.strip_suffix(".json").and_then(parse_positive).ok_or(Error::PathNotFound)?;
    let mut long_poll = LongPoll::from_query(&state, &pairs)?;
    loop {
        if number <= state.store.newest_file() {
            let (rev, text) = read_file(&state, number).await?;
            return Ok(with_etag(&headers, &format!("W/\"{}-{number}.{rev}\"", state.feed.epoch()), || text));
        }
        if !long_poll.wait().await {
            return Err(Error::PathNotFound);
        }
    }
}

/// The revision and the document of an existing file. It is a placeholder if there is no killmail: the number
/// was lost with damage, or it was given to a span or a killmail without a hash before files had their own
/// numbers.
async fn read_file(state: &Arc<HttpState>, number: u64) -> Result<(u64, Bytes), Error> {
    let state = Arc::clone(state);
    let read = tasks::blocking("mirror file", move || {
        let store = &state.store;
        let entry = store.entry_of_file(number).map(|seq| store.entry(seq)).transpose()?.flatten();
        let notice = store.revision_notice(number)?;
        let document = entry.as_ref().and_then(|entry| upstream::document(entry, number, notice));
        Ok((entry.map_or(0, |entry| entry.rev), document.unwrap_or_else(|| upstream::placeholder(number))))
    });
    read.await.map_err(Error::failed)?.map_err(|error: StoreError| Error::failed(error))
}

/// `GET /history/totals.json`: the number of killmails of each day.
pub async fn totals(State(state): State<Arc<HttpState>>, headers: HeaderMap) -> Result<Response, Error> {
    let head = state.feed.head();
    let tag = format!("W/\"{}-{head}\"", state.feed.epoch());
    let text = tasks::blocking("mirror totals", move || {
        let mut counts = state.mirror.day_counts.lock();
        let DayCounts { upto, days } = &mut *counts;
        state.store.count_days(days, *upto, head);
        *upto = head.max(*upto);
        let lines: Vec<String> =
            days.iter().map(|(day, count)| format!("\"{}\":{count}", time::compact_day(*day))).collect();
        Bytes::from(format!("{{{}}}", lines.join(",")))
    });
    let text = text.await.map_err(Error::failed)?;
    Ok(with_etag(&headers, &tag, || text))
}

/// `GET /history/{day}.json`: killmail ids and hashes of a day.
pub async fn hashes(
    state: State<Arc<HttpState>>,
    name: PathSegment,
    headers: HeaderMap,
) -> Result<Response, Error> {
    day_file(state, name, headers, DayContent::Hashes).await
}

/// `GET /history/raw/{day}.json`: killmail ids and bodies of a day.
pub async fn bodies(
    state: State<Arc<HttpState>>,
    name: PathSegment,
    headers: HeaderMap,
) -> Result<Response, Error> {
    day_file(state, name, headers, DayContent::Bodies).await
}

#[derive(Debug, Clone, Copy)]
enum DayContent {
    Hashes,
    Bodies,
}

async fn day_file(
    State(state): State<Arc<HttpState>>,
    PathSegment(name): PathSegment,
    headers: HeaderMap,
    content: DayContent,
) -> Result<Response, Error> {
    let day = name.strip_suffix(".json").and_then(time::parse_day).ok_or(Error::PathNotFound)?;
    let (store, rev, head) = (Arc::clone(&state.store), state.store.revision(), state.feed.head());
    let found = tasks::blocking("mirror day", move || {
        let filter =
            Filter { since: Some(day * DAY_SECS), until: Some((day + 1) * DAY_SECS), ..Filter::default() };
        let query = HistoryQuery {
            filter: &filter,
            interest: None,
            order: Order::Oldest,
            after: None,
            below: None,
            head,
            limit: usize::MAX,
        };
        store.select(&query)
    });
    let hits = found.await.map_err(Error::failed)?.map_err(Error::failed)?;
    let newest = hits.iter().map(|hit| hit.seq).max().ok_or(Error::PathNotFound)?;
    let tag = format!("W/\"{}-{}-{newest}-{rev}\"", state.feed.epoch(), hits.len());
    if client_has(&headers, &tag) {
        return Ok(with_etag(&headers, &tag, Bytes::new));
    }
    let limit = state.config.mirror.days_max;
    let busy = || Error::Busy {
        message: format!("{limit} day files are being sent already (mirror.days_max)"),
        limit: limit as u64,
    };
    let permit = Arc::clone(&state.mirror.days).try_acquire_owned().map_err(|_| busy())?;
    let store = Arc::clone(&state.store);
    let day = DayBody { store, hits, next: 0, content, begun: false, _permit: permit };
    let mut response = with_etag(&headers, &tag, Bytes::new);
    *response.body_mut() = Body::from_stream(LazyBody::new(Chunks::default(), day, DayBody::step));
    Ok(response)
}

/// The rest of a day file.
struct DayBody {
    store: Arc<Store>,
    hits: Vec<Hit>,
    /// Index of the next hit.
    next: usize,
    content: DayContent,
    begun: bool,
    _permit: OwnedSemaphorePermit,
}

impl DayBody {
    async fn step(mut self) -> StepResult<Self> {
        if self.next > self.hits.len() {
            return Ok(None);
        }
        let mut chunks = Chunks::default();
        if self.next == self.hits.len() {
            chunks.push(Bytes::from_static(if self.begun { b"}" } else { b"{}" }));
            self.next += 1;
            return Ok(Some((self, chunks)));
        }
        let page: Vec<Hit> = self.hits[self.next..].iter().take(PAGE).copied().collect();
        self.next += page.len();
        let (store, content) = (Arc::clone(&self.store), self.content);
        let texts = tasks::blocking("mirror day", move || {
            let entries = store.entries(&page)?;
            Ok(entries.iter().filter_map(|entry| day_member(&entry.killmail, content)).collect::<Vec<_>>())
        });
        let texts = texts.await.map_err(io::Error::other)?.map_err(|error: StoreError| {
            tracing::error!(%error, "a day file of the mirror ends early: {error}");
            io::Error::other(error)
        })?;
        for (id, text) in texts {
            let before = if self.begun { "," } else { "{" };
            self.begun = true;
            chunks.push(Bytes::from(format!("{before}\"{id}\":")));
            chunks.push(text);
        }
        Ok(Some((self, chunks)))
    }
}

/// A killmail as a member of a day file, with its id as the key; `None` for one without a hash in a file of
/// hashes.
fn day_member(killmail: &Killmail, content: DayContent) -> Option<(u32, Bytes)> {
    let text = match content {
        DayContent::Hashes => Bytes::from(text::json(&hash::resolve(killmail)?.text)),
        DayContent::Bodies => upstream::body(killmail),
    };
    Some((killmail.killmail_id, text))
}

/// A response with an `ETag`, or 304 if the client has it.
fn with_etag(headers: &HeaderMap, tag: &str, body: impl FnOnce() -> Bytes) -> Response {
    let etag = HeaderValue::try_from(tag).map(|tag| (ETAG, tag));
    let mut response = if client_has(headers, tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "application/json")], body()).into_response()
    };
    response.headers_mut().extend(etag);
    response
}

/// Whether `If-None-Match` names this tag.
fn client_has(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.map(str::trim).any(|known| known == "*" || opaque(known) == opaque(tag))
}

/// How long a request may still wait for new entries in the log.
struct LongPoll<'a> {
    state: &'a HttpState,
    until: Option<Instant>,
    head: watch::Receiver<Seq>,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> LongPoll<'a> {
    /// Reads the `wait` parameter; it is capped at the limit.
    fn from_query(state: &'a HttpState, pairs: &Pairs) -> Result<Self, Error> {
        let wait = pairs.get("wait").unwrap_or("0");
        let wait = wait
            .parse::<u64>()
            .map_err(|_| Error::parameter("wait", "wait must be a whole number of seconds"))?;
        let secs = wait.min(state.config.mirror.wait_max_secs);
        let until = (secs > 0).then(|| Instant::now() + Duration::from_secs(secs));
        Ok(Self { state, until, head: state.feed.moved(), permit: None })
    }

    /// Waits for new entries; false if the time is over, too many requests wait, or the server stops.
    async fn wait(&mut self) -> bool {
        let Some(until) = self.until else { return false };
        if self.permit.is_none() {
            let Ok(permit) = self.state.mirror.waiting.try_acquire() else { return false };
            self.permit = Some(permit);
        }
        let mut closing = self.state.feed.closing();
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => false,
            moved = tokio::time::timeout_at(until, self.head.changed()) => matches!(moved, Ok(Ok(()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_recognized_in_every_form() {
        let sent =
            |text: &'static str| HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(text))]);
        for known in ["W/\"a-1\"", "\"a-1\"", "\"x\", W/\"a-1\"", "*"] {
            assert!(client_has(&sent(known), "W/\"a-1\""), "{known}");
        }
        assert!(!client_has(&sent("W/\"a-2\""), "W/\"a-1\""));
        assert!(!client_has(&HeaderMap::new(), "W/\"a-1\""));
    }
}
