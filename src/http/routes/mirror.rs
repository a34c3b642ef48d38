//! The mirror: our log as R2Z2 publishes zKillboard's, so that whoever follows R2Z2 can follow us, another
//! killstream too.
//!
//! Files have a count of their own (`store/mirror/file_numbers`), the pointer is exactly the newest. A
//! request may wait (`?wait=` seconds) for what is not there yet. Histories are poured while they are read.
//!
//! Must not know: how documents are written, how entries are kept.

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
use crate::feed::Feed;
use crate::http::answer::error::Error;
use crate::http::answer::lazy_body::{LazyBody, Next};
use crate::http::request::parameters::{Pairs, Segment, positive};
use crate::http::state::HttpState;
use crate::http::stream::sse::Out;
use crate::store::query::{HistoryQuery, Hit, Order};
use crate::wire::{text, time, upstream};
use crate::{store, tasks};

/// Killmails read from disk at once for a day.
const PAGE: usize = 64;

/// `GET /ephemeral/sequence.json`: the newest number, exactly; 1 while there is none, since that is the one
/// to ask for then. Waits while the caller has it already (`If-None-Match`).
pub async fn sequence(
    State(door): State<Arc<HttpState>>,
    pairs: Pairs,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let mut patience = LongPoll::of(&door, &pairs)?;
    loop {
        let newest = door.feed.store().newest_file();
        let tag = format!("W/\"{}-{newest}\"", door.feed.epoch());
        let answer = tagged(&headers, &tag, || Bytes::from(format!("{{\"sequence\":{}}}", newest.max(1))));
        if answer.status() != StatusCode::NOT_MODIFIED || !patience.wait().await {
            return Ok(answer);
        }
    }
}

/// `GET /ephemeral/{n}.json`: the file with this number. Up to the newest one each is there; what lost its
/// killmail is a placeholder.
pub async fn numbered(
    State(door): State<Arc<HttpState>>,
    Segment(name): Segment,
    pairs: Pairs,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let number = name.strip_suffix(".json").and_then(positive).ok_or(Error::Path)?;
    let mut patience = LongPoll::of(&door, &pairs)?;
    loop {
        if number <= door.feed.store().newest_file() {
            let (rev, text) = file(&door, number).await?;
            return Ok(tagged(&headers, &format!("W/\"{}-{number}.{rev}\"", door.feed.epoch()), || text));
        }
        if !patience.wait().await {
            return Err(Error::Path);
        }
    }
}

/// The revision and the document of a file that is out. Where there is no killmail it is a placeholder: a
/// number lost with damage, and one given before files had a count of their own to a span or a killmail
/// without a hash.
async fn file(door: &Arc<HttpState>, number: u64) -> Result<(u64, Bytes), Error> {
    let door = Arc::clone(door);
    let read = tasks::blocking("mirror file", move || {
        let store = door.feed.store();
        let entry = store.entry_of_file(number).map(|seq| store.entry(seq)).transpose()?.flatten();
        let told = store.told_by(number)?;
        let document = entry.as_ref().and_then(|entry| upstream::document(entry, number, told));
        Ok((entry.map_or(0, |entry| entry.rev), document.unwrap_or_else(|| upstream::placeholder(number))))
    });
    read.await.map_err(Error::failed)?.map_err(|error: store::error::StoreError| Error::failed(error))
}

/// `GET /history/totals.json`: killmails of each day.
pub async fn totals(State(door): State<Arc<HttpState>>, headers: HeaderMap) -> Result<Response, Error> {
    let head = door.feed.head();
    let tag = format!("W/\"{}-{head}\"", door.feed.epoch());
    let counted = Arc::clone(&door);
    let text = tasks::blocking("mirror totals", move || {
        let mut counted_lock = counted.mirror.counted.lock();
        let (upto, days) = &mut *counted_lock;
        counted.feed.store().count_days(days, *upto, head);
        *upto = head.max(*upto);
        let lines: Vec<String> =
            days.iter().map(|(day, count)| format!("\"{}\":{count}", time::compact_day(*day))).collect();
        Bytes::from(format!("{{{}}}", lines.join(",")))
    });
    let text = text.await.map_err(Error::failed)?;
    Ok(tagged(&headers, &tag, || text))
}

/// `GET /history/{day}.json`: killmail ids and hashes of a day.
pub async fn hashes(
    state: State<Arc<HttpState>>,
    name: Segment,
    headers: HeaderMap,
) -> Result<Response, Error> {
    day(state, name, headers, Kind::Hashes).await
}

/// `GET /history/raw/{day}.json`: killmail ids and bodies of a day.
pub async fn bodies(
    state: State<Arc<HttpState>>,
    name: Segment,
    headers: HeaderMap,
) -> Result<Response, Error> {
    day(state, name, headers, Kind::Bodies).await
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Hashes,
    Bodies,
}

async fn day(
    State(door): State<Arc<HttpState>>,
    Segment(name): Segment,
    headers: HeaderMap,
    kind: Kind,
) -> Result<Response, Error> {
    let day = name.strip_suffix(".json").and_then(time::parse_day).ok_or(Error::Path)?;
    let (feed, rev) = (Arc::clone(&door.feed), door.feed.store().revision());
    let found = tasks::blocking("mirror day", move || {
        let filter =
            Filter { since: Some(day * DAY_SECS), until: Some((day + 1) * DAY_SECS), ..Filter::default() };
        let query = HistoryQuery {
            filter: &filter,
            interest: None,
            order: Order::Oldest,
            after: None,
            below: None,
            head: feed.head(),
            limit: usize::MAX,
        };
        feed.store().select(&query)
    });
    let hits = found.await.map_err(Error::failed)?.map_err(Error::failed)?;
    let newest = hits.iter().map(|hit| hit.seq).max().ok_or(Error::Path)?;
    let tag = format!("W/\"{}-{}-{newest}-{rev}\"", door.feed.epoch(), hits.len());
    if has(&headers, &tag) {
        return Ok(tagged(&headers, &tag, Bytes::new));
    }
    let limit = door.config.mirror.days_max;
    let busy = || Error::Busy {
        message: format!("{limit} histories are being sent (mirror.days_max)"),
        limit: limit as u64,
    };
    let permit = Arc::clone(&door.mirror.days).try_acquire_owned().map_err(|_| busy())?;
    let way = Way { feed: Arc::clone(&door.feed), hits, at: 0, kind, begun: false, _permit: permit };
    let mut response = tagged(&headers, &tag, Bytes::new);
    *response.body_mut() = Body::from_stream(LazyBody::new(Out::default(), way, Way::step));
    Ok(response)
}

/// A day on its way.
struct Way {
    feed: Arc<Feed>,
    hits: Vec<Hit>,
    at: usize,
    kind: Kind,
    begun: bool,
    _permit: OwnedSemaphorePermit,
}

impl Way {
    async fn step(mut self) -> Next<Self> {
        if self.at > self.hits.len() {
            return Ok(None);
        }
        let mut out = Out::default();
        if self.at == self.hits.len() {
            out.piece(Bytes::from_static(if self.begun { b"}" } else { b"{}" }));
            self.at += 1;
            return Ok(Some((self, out)));
        }
        let page: Vec<Hit> = self.hits[self.at..].iter().take(PAGE).copied().collect();
        self.at += page.len();
        let (feed, kind) = (Arc::clone(&self.feed), self.kind);
        let texts = tasks::blocking("mirror day", move || {
            let entries = feed.store().entries(&page)?;
            Ok(entries.iter().filter_map(|entry| line(&entry.killmail, kind)).collect::<Vec<_>>())
        });
        let texts = texts.await.map_err(io::Error::other)?.map_err(|error: store::error::StoreError| {
            tracing::error!(%error, "a history of the mirror ends early: {error}");
            io::Error::other(error)
        })?;
        for (id, text) in texts {
            let before = if self.begun { "," } else { "{" };
            self.begun = true;
            out.piece(Bytes::from(format!("{before}\"{id}\":")));
            out.piece(text);
        }
        Ok(Some((self, out)))
    }
}

/// A killmail in its day, under its id; none where there is no hash to name.
fn line(killmail: &Killmail, kind: Kind) -> Option<(u32, Bytes)> {
    let text = match kind {
        Kind::Hashes => Bytes::from(text::json(&hash::resolve(killmail)?.text)),
        Kind::Bodies => upstream::body(killmail),
    };
    Some((killmail.killmail_id, text))
}

/// The answer with its tag, or that the caller has it.
fn tagged(headers: &HeaderMap, tag: &str, body: impl FnOnce() -> Bytes) -> Response {
    let tagged = HeaderValue::try_from(tag).map(|tag| (ETAG, tag));
    let mut response = if has(headers, tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "application/json")], body()).into_response()
    };
    response.headers_mut().extend(tagged);
    response
}

/// Whether the caller has what this tag stands for.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    known.map(str::trim).any(|known| known == "*" || strong(known) == strong(tag))
}

/// How long a request may still wait for the log to move.
struct LongPoll<'a> {
    door: &'a HttpState,
    until: Option<Instant>,
    moved: watch::Receiver<Seq>,
    slot: Option<SemaphorePermit<'a>>,
}

impl<'a> LongPoll<'a> {
    /// As long as the request asks for, within the limit.
    fn of(door: &'a HttpState, pairs: &Pairs) -> Result<Self, Error> {
        let asked = pairs.get("wait").unwrap_or("0");
        let asked = asked.parse::<u64>().map_err(|_| Error::parameter("wait", "must be whole seconds"))?;
        let secs = asked.min(door.config.mirror.wait_max_secs);
        let until = (secs > 0).then(|| Instant::now() + Duration::from_secs(secs));
        Ok(Self { door, until, moved: door.feed.moved(), slot: None })
    }

    /// Waits until the log has moved; false when there is no more waiting.
    async fn wait(&mut self) -> bool {
        let Some(until) = self.until else { return false };
        if self.slot.is_none() {
            let Ok(slot) = self.door.mirror.waiting.try_acquire() else { return false };
            self.slot = Some(slot);
        }
        let mut closing = self.door.feed.closing();
        tokio::select! {
            _ = closing.wait_for(|closing| *closing) => false,
            moved = tokio::time::timeout_at(until, self.moved.changed()) => matches!(moved, Ok(Ok(()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_in_whatever_form_it_comes_back() {
        let sent =
            |text: &'static str| HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(text))]);
        for known in ["W/\"a-1\"", "\"a-1\"", "\"x\", W/\"a-1\"", "*"] {
            assert!(has(&sent(known), "W/\"a-1\""), "{known}");
        }
        assert!(!has(&sent("W/\"a-2\""), "W/\"a-1\""));
        assert!(!has(&HeaderMap::new(), "W/\"a-1\""));
    }
}
