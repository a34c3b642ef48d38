//! The two streams: the events of a reader become server-sent events. Nothing is queued for a client: the
//! body asks the reader for its next event when the client has taken the last one.
//!
//! Must not know: which killmails a reader delivers.

pub(crate) mod batch_cache;
pub(crate) mod sse;
pub(crate) mod stream_config;
pub(crate) mod stream_limits;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::clock::{DAY_SECS, now_secs};
use crate::domain::skip::DELIVERY;
use crate::domain::verdict::{Failure, Fault};
use crate::feed::event::Event;
use crate::feed::filters::EchoLease;
use crate::feed::reader::Reader;
use crate::feed::registry::{Client, Transport};
use crate::feed::start::{BatchForm, Start};
use crate::http::answer::error::Error;
use crate::http::answer::lazy_body::{LazyBody, StepResult};
use crate::http::request::address;
use crate::http::request::connections::ClientPaced;
use crate::http::request::parameters::{Pairs, QueryBody};
use crate::http::state::HttpState;
use crate::http::stream::batch_cache::{BatchFormat, OutgoingLine, split_batch};
use crate::http::stream::sse::Chunks;
use crate::http::stream::stream_limits::{StreamKind, StreamLease};
use crate::plugins::plugin_quota::EvaluatorPermit;
use crate::wire::event;
use crate::wire::killmail::delivered_json;
use crate::wire::query::limits::Limits;
use crate::wire::query::{self, ParsedQuery};

/// `GET|POST /api/v1/kills/stream` and `/sse`.
pub async fn basic(State(state): State<Arc<HttpState>>, request: Request) -> Result<Response, Error> {
    open(state, StreamKind::Basic, request).await
}

/// `GET|POST /api/v1/kills/stream/enhanced`.
pub async fn enhanced(State(state): State<Arc<HttpState>>, request: Request) -> Result<Response, Error> {
    open(state, StreamKind::Enhanced, request).await
}

async fn open(state: Arc<HttpState>, kind: StreamKind, request: Request) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let mut query = read_query(Request::from_parts(parts.clone(), body), state.query_limits).await?;
    if parts.method == Method::HEAD {
        return Ok(event_stream(Body::empty()));
    }
    let address = address::client_address(&parts, &state.config.trusted_proxies);
    let lease = state.streams.acquire(&state.config.sse, kind, address)?;
    let plugin_hold = state.hold_plugin(&parts, &query.subscription).map_err(Error::stream_plugin_quota)?;
    let format = batch_format(kind, &query, state.feed.config().batch_bytes);
    if kind == StreamKind::Basic {
        // A basic stream does not send the filters back.
        query.filters = Bytes::new();
    }
    let echo =
        state.feed.filters().lease_echo(query.filters.len()).map_err(|full| Error::stream(full.into()))?;
    let start = Start {
        preload_since: preload_since(query.preload_days),
        batches: batch_form(format),
        last_event_id: last_event_id(&parts.headers, &query),
    };
    let reader = Reader::open(state.feed.clone(), std::mem::take(&mut query.subscription), start)
        .await
        .map_err(Error::stream)?;
    reader.set_client(Client { through: Transport::Sse, subscriber: None, address, connected_at_ms: None });
    let mut first = Chunks::default();
    first.retry(state.config.sse.retry_ms);
    let rights = Rights { _stream: lease, _plugin: plugin_hold };
    let body = StreamBody::new(state, format, reader, Opening { query, echo }, rights);
    Ok(event_stream(Body::from_stream(LazyBody::new(first, body, StreamBody::step))))
}

async fn read_query(request: Request, limits: Limits) -> Result<ParsedQuery, Error> {
    let query = if request.method() == Method::POST {
        let body = QueryBody::from_request(request, &()).await.map_err(Error::in_stream_envelope)?;
        body.read(query::read_stream_body, limits).await?
    } else {
        query::read_stream_query(&Pairs::from_uri(request.uri())?.0, limits)
    };
    query.map_err(Error::stream_parameter)
}

/// A browser that reconnects sends the header with the same URL as the first time, so the header is newer.
fn last_event_id(headers: &HeaderMap, query: &ParsedQuery) -> Option<String> {
    let header =
        headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    header.filter(|id| !id.is_empty()).or_else(|| query.last_event_id.clone())
}

fn batch_format(kind: StreamKind, query: &ParsedQuery, batch_bytes: u64) -> BatchFormat {
    let line_max_bytes = query.batch_max_bytes.map_or(batch_bytes, u64::from);
    BatchFormat { kind, key: query.batch_key, line_max_bytes }
}

/// How the reader makes batches. A basic stream has one line per killmail, so batches only set its pace.
const fn batch_form(format: BatchFormat) -> BatchForm {
    match format.kind {
        StreamKind::Basic => BatchForm { max_bytes: None, copies: 1, frame_bytes: 0 },
        StreamKind::Enhanced => BatchForm {
            max_bytes: Some(format.line_max_bytes),
            copies: format.key.copies(),
            frame_bytes: event::BATCH_FRAME_BYTES,
        },
    }
}

fn preload_since(days: u32) -> Option<i64> {
    (days > 0).then(|| now_secs() - i64::from(days) * DAY_SECS)
}

fn event_stream(body: Body) -> Response {
    let mut response = body.into_response();
    response.extensions_mut().insert(ClientPaced);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The content of the first event, `connected`.
struct Opening {
    query: ParsedQuery,
    echo: EchoLease,
}

/// Places in the quotas, held as long as the stream is open.
struct Rights {
    _stream: StreamLease,
    _plugin: Option<EvaluatorPermit>,
}

/// The body of one stream: its reader, and what was sent so far.
struct StreamBody {
    state: Arc<HttpState>,
    format: BatchFormat,
    reader: Reader,
    query: ParsedQuery,
    /// Counts the filters in `connected` against the limit of all filters, until the client has taken them.
    echo: Option<EchoLease>,
    /// When the next ping or heartbeat is due.
    keepalive_at: Instant,
    /// Whether a killmail was sent since the last heartbeat.
    sent_killmail: bool,
    /// When each kind of plugin fault was sent last.
    faults: Vec<(Fault, Instant)>,
    /// The lines of the batch that is being sent.
    batch: VecDeque<OutgoingLine>,
    /// Lines of batches beyond the planned ones.
    extra_lines: u64,
    _rights: Rights,
}

impl StreamBody {
    fn new(
        state: Arc<HttpState>,
        format: BatchFormat,
        reader: Reader,
        Opening { query, echo }: Opening,
        rights: Rights,
    ) -> Self {
        let mut body = Self {
            state,
            format,
            reader,
            query,
            echo: Some(echo),
            keepalive_at: Instant::now(),
            sent_killmail: false,
            faults: Vec::new(),
            batch: VecDeque::new(),
            extra_lines: 0,
            _rights: rights,
        };
        body.restart_keepalive();
        body
    }

    fn restart_keepalive(&mut self) {
        let sse = &self.state.config.sse;
        let wait_ms = if self.format.kind == StreamKind::Basic { sse.ping_ms } else { sse.heartbeat_ms };
        self.keepalive_at = Instant::now() + Duration::from_millis(wait_ms.max(1));
    }

    /// The ping of a basic stream is delayed by every block; the heartbeat of an enhanced one is not.
    fn delay_ping(&mut self) {
        if self.format.kind == StreamKind::Basic {
            self.restart_keepalive();
        }
    }

    /// Waits for the next event and writes it; `None` at the end of the stream.
    async fn step(mut self) -> StepResult<Self> {
        if self.query.filters.is_empty() {
            // The client has taken `connected`: a step runs only after that.
            self.echo = None;
        }
        let mut chunks = Chunks::default();
        while chunks.is_empty() {
            if let Some(line) = self.batch.front_mut() {
                if !line.write_next(&self.state.store, &mut chunks).await.map_err(io::Error::other)? {
                    self.batch.pop_front();
                    if self.batch.is_empty() {
                        // Frees the capacity: a stream may stay live for years.
                        self.batch = VecDeque::new();
                    }
                }
                self.delay_ping();
                continue;
            }
            if self.format.kind == StreamKind::Enhanced && Instant::now() >= self.keepalive_at {
                self.write_keepalive(&mut chunks);
                continue;
            }
            match timeout_at(self.keepalive_at, self.reader.next()).await {
                Ok(Some(event)) => self.write_event(event, &mut chunks),
                Ok(None) => return Ok(None),
                Err(_) => self.write_keepalive(&mut chunks),
            }
        }
        Ok(Some((self, chunks)))
    }

    fn write_keepalive(&mut self, chunks: &mut Chunks) {
        let id = self.reader.id();
        match self.format.kind {
            StreamKind::Basic => chunks.comment("ping", &id),
            // Some clients take three heartbeats without data for the end of history.
            StreamKind::Enhanced if self.reader.in_preload() && !self.sent_killmail => {}
            StreamKind::Enhanced => {
                chunks.event(Some("heartbeat"), Some(&id), &event::heartbeat(self.reader.in_preload()))
            }
        }
        self.sent_killmail = false;
        self.restart_keepalive();
    }

    fn write_event(&mut self, event: Event, chunks: &mut Chunks) {
        let basic = self.format.kind == StreamKind::Basic;
        match event {
            Event::Opened { id } if basic => {
                chunks.comments(&event::connected_comments(&self.query, self.reader.is_preparing()), &id)
            }
            Event::Opened { id } => {
                let preparing = self.reader.is_preparing();
                chunks.event(
                    Some("connected"),
                    Some(&id),
                    &event::connected(self.reader.subscription_id(), &self.query, preparing),
                );
                // Needed only once; a long list would stay in memory as long as the stream is open.
                self.query.filters = Bytes::new();
            }
            Event::Gap(gap) => chunks.event(
                Some("gap"),
                Some(&gap.resumed_at),
                &event::gap(gap.reason.word(), &gap.requested, &gap.resumed_at),
            ),
            Event::Batch(batch) => {
                self.sent_killmail |= !batch.kept.is_empty();
                let cache_bytes = self.state.config.sse.batch_cache_bytes;
                let (extra_lines, cache) = (&mut self.extra_lines, &self.state.batch_cache);
                self.batch = split_batch(batch, self.format, extra_lines, cache, cache_bytes);
            }
            Event::Preloaded { id, .. } if basic => chunks.comment("transition", &id),
            Event::Preloaded { total, id } => {
                chunks.event(Some("transition"), Some(&id), &event::transition(total))
            }
            Event::Killmail { kept, id } => {
                let (killmail_id, subscription) =
                    (kept.entry.facts.killmail_id, self.reader.subscription_id());
                let span = tracing::debug_span!(target: DELIVERY, "delivery", killmail.id = killmail_id, event.id = %id);
                let _entered = span.entered();
                tracing::debug!(target: DELIVERY, { killmail.id = killmail_id, subscription.id = subscription }, "sent");
                chunks.event((!basic).then_some("killmail"), Some(&id), &delivered_json(&kept));
                self.sent_killmail = true;
            }
            Event::Backfilled { span, id } => {
                chunks.event(Some("gap"), Some(&id), &event::backfilled(&span, &id))
            }
            Event::Fault { plugin, failure, entry, .. } => {
                self.write_fault(&plugin, &failure, entry.facts.killmail_id, chunks)
            }
            Event::Ended { reason, message } => {
                chunks.event(Some("error"), None, &event::error(reason, &message))
            }
            Event::Closing if basic => chunks.comment("closing", &self.reader.id()),
            Event::Closing => {
                chunks.event(Some("error"), None, &event::error("closing", "the server is stopping"))
            }
        }
        if !self.batch.is_empty() || !chunks.is_empty() {
            self.delay_ping();
            self.state.stream_events.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_fault(&mut self, plugin: &str, failure: &Failure, killmail_id: u32, chunks: &mut Chunks) {
        let now = Instant::now();
        let pause = Duration::from_millis(self.state.config.sse.fault_pause_ms);
        let last = self.faults.iter_mut().find(|(word, _)| *word == failure.fault);
        if self.format.kind == StreamKind::Basic || last.as_ref().is_some_and(|(_, at)| now < *at + pause) {
            return;
        }
        match last {
            Some((_, at)) => *at = now,
            None => self.faults.push((failure.fault, now)),
        }
        chunks.event(Some("error"), None, &event::plugin_fault(plugin, failure, killmail_id));
    }
}
