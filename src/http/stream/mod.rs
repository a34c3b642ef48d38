//! The two streams: what a reader hands over becomes server-sent events. Nothing is queued for a client: the
//! body asks the reader for its next event when the last one was taken.
//!
//! Must not know: which killmails a reader hands over.

pub mod batch_cache;
pub mod sse;
pub mod stream_limits;

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
use crate::http::answer::lazy_body::{LazyBody, Next};
use crate::http::answer::success::json_of;
use crate::http::request::address;
use crate::http::request::connections::OwnPace;
use crate::http::request::parameters::{Pairs, Question};
use crate::http::state::HttpState;
use crate::http::stream::batch_cache::{Form, Sending, lines_of};
use crate::http::stream::sse::Out;
use crate::http::stream::stream_limits::{Slot, StreamKind};
use crate::plugins::plugin_quota::EvaluatorPermit;
use crate::wire::event;
use crate::wire::query::limits::Limits;
use crate::wire::query::{self, ParsedQuery};

/// `GET|POST /api/v1/kills/stream` and `/sse`.
pub async fn basic(State(door): State<Arc<HttpState>>, request: Request) -> Result<Response, Error> {
    open(door, StreamKind::Basic, request).await
}

/// `GET|POST /api/v1/kills/stream/enhanced`.
pub async fn enhanced(State(door): State<Arc<HttpState>>, request: Request) -> Result<Response, Error> {
    open(door, StreamKind::Enhanced, request).await
}

async fn open(door: Arc<HttpState>, kind: StreamKind, request: Request) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let mut asked = asked(Request::from_parts(parts.clone(), body), door.query_limits()).await?;
    if parts.method == Method::HEAD {
        return Ok(answer(Body::empty()));
    }
    let address = address::of(&parts, &door.config.trusted_proxies);
    let slot = door.slots.take(&door.config.sse, kind, address)?;
    let hold = door.judge(&parts, &asked.subscription).map_err(Error::stream_judges)?;
    let form = form(kind, &asked, door.feed.config().batch_bytes);
    if kind == StreamKind::Basic {
        // A basic stream does not tell it.
        asked.filters = Bytes::new();
    }
    let echo =
        door.feed.filters().lease_echo(asked.filters.len()).map_err(|full| Error::stream(full.into()))?;
    let start = Start {
        preload_since: preload_since(asked.preload_days),
        batches: batches(form),
        last_event_id: last_event_id(&parts.headers, &asked),
    };
    let reader = Reader::open(door.feed.clone(), std::mem::take(&mut asked.subscription), start)
        .await
        .map_err(Error::stream)?;
    reader.set_client(Client { through: Transport::Sse, subscriber: None, address, connected_at_ms: None });
    let mut first = Out::default();
    first.retry(door.config.sse.retry_ms);
    let talk = StreamBody::new(door, form, reader, (asked, echo), (slot, hold));
    Ok(answer(Body::from_stream(LazyBody::new(first, talk, StreamBody::step))))
}

async fn asked(request: Request, limits: Limits) -> Result<ParsedQuery, Error> {
    let asked = if request.method() == Method::POST {
        let question = Question::from_request(request, &()).await.map_err(Error::of_stream)?;
        question.read(query::read_stream_body, limits).await?
    } else {
        query::read_stream_query(&Pairs::of(request.uri())?.0, limits)
    };
    asked.map_err(Error::stream_parameter)
}

/// The header is what a browser sends by itself when it comes back; it knows better than the address it was
/// first given.
fn last_event_id(headers: &HeaderMap, asked: &ParsedQuery) -> Option<String> {
    let header =
        headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    header.filter(|id| !id.is_empty()).or_else(|| asked.last_event_id.clone())
}

fn form(kind: StreamKind, asked: &ParsedQuery, batch_bytes: u64) -> Form {
    let line_max_bytes = asked.batch_max_bytes.map_or(batch_bytes, u64::from);
    Form { kind, key: asked.batch_key, line_max_bytes }
}

/// A basic stream has no batches, a line is one killmail: they only set the pace.
const fn batches(form: Form) -> BatchForm {
    match form.kind {
        StreamKind::Basic => BatchForm { max_bytes: None, copies: 1, frame_bytes: 0 },
        StreamKind::Enhanced => BatchForm {
            max_bytes: Some(form.line_max_bytes),
            copies: form.key.copies(),
            frame_bytes: event::BATCH_FRAME_BYTES,
        },
    }
}

fn preload_since(days: u32) -> Option<i64> {
    (days > 0).then(|| now_secs() - i64::from(days) * DAY_SECS)
}

fn answer(body: Body) -> Response {
    let mut response = body.into_response();
    response.extensions_mut().insert(OwnPace);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One connection: the reader, and what it was told so far.
struct StreamBody {
    door: Arc<HttpState>,
    form: Form,
    reader: Reader,
    asked: ParsedQuery,
    /// What `connected` holds of the limit of all filters until the client has it.
    echo: Option<EchoLease>,
    /// When it is time for a ping or a heartbeat.
    due: Instant,
    /// Whether a killmail was sent since the last heartbeat.
    sent: bool,
    /// When each fault word was told last.
    faults: Vec<(Fault, Instant)>,
    /// The batch now on its way, in lines.
    sending: VecDeque<Sending>,
    /// Lines of batches beyond those planned.
    beyond: u64,
    _rights: (Slot, Option<EvaluatorPermit>),
}

impl StreamBody {
    fn new(
        door: Arc<HttpState>,
        form: Form,
        reader: Reader,
        (asked, echo): (ParsedQuery, EchoLease),
        rights: (Slot, Option<EvaluatorPermit>),
    ) -> Self {
        let echo = Some(echo);
        let (due, sending) = (Instant::now(), VecDeque::new());
        let mut talk = Self {
            door,
            form,
            reader,
            asked,
            echo,
            due,
            sent: false,
            faults: Vec::new(),
            sending,
            beyond: 0,
            _rights: rights,
        };
        talk.wind();
        talk
    }

    fn wind(&mut self) {
        let sse = &self.door.config.sse;
        let wait_ms = if self.form.kind == StreamKind::Basic { sse.ping_ms } else { sse.heartbeat_ms };
        self.due = Instant::now() + Duration::from_millis(wait_ms.max(1));
    }

    /// The basic stream's wait begins anew with every block, the heartbeat of the enhanced one does not.
    fn wind_basic(&mut self) {
        if self.form.kind == StreamKind::Basic {
            self.wind();
        }
    }

    /// Waits until there is something to say; `None` when there is nothing ever again.
    async fn step(mut self) -> Next<Self> {
        if self.asked.filters.is_empty() {
            // What was told before is taken, or this step would not be made yet.
            self.echo = None;
        }
        let mut out = Out::default();
        while out.is_empty() {
            if let Some(sending) = self.sending.front_mut() {
                if !sending.fill(self.door.feed.store(), &mut out).await.map_err(io::Error::other)? {
                    self.sending.pop_front();
                    if self.sending.is_empty() {
                        // Back to nothing at all, for the years of live that follow.
                        self.sending = VecDeque::new();
                    }
                }
                self.wind_basic();
                continue;
            }
            if self.form.kind == StreamKind::Enhanced && Instant::now() >= self.due {
                self.beat(&mut out);
                continue;
            }
            match timeout_at(self.due, self.reader.next()).await {
                Ok(Some(event)) => self.tell(event, &mut out),
                Ok(None) => return Ok(None),
                Err(_) => self.beat(&mut out),
            }
        }
        Ok(Some((self, out)))
    }

    fn beat(&mut self, out: &mut Out) {
        let id = self.reader.id();
        match self.form.kind {
            StreamKind::Basic => out.comment("ping", &id),
            // Three heartbeats without data make a client believe that history has ended.
            StreamKind::Enhanced if self.reader.in_preload() && !self.sent => {}
            StreamKind::Enhanced => {
                out.event(Some("heartbeat"), Some(&id), &event::heartbeat(self.reader.in_preload()))
            }
        }
        self.sent = false;
        self.wind();
    }

    fn tell(&mut self, event: Event, out: &mut Out) {
        let basic = self.form.kind == StreamKind::Basic;
        match event {
            Event::Opened { id } if basic => {
                out.comments(&event::connected_comments(&self.asked, self.reader.is_preparing()), &id)
            }
            Event::Opened { id } => {
                let preparing = self.reader.is_preparing();
                out.event(
                    Some("connected"),
                    Some(&id),
                    &event::connected(self.reader.subscription_id(), &self.asked, preparing),
                );
                // It is told once, and a long list would be kept as long as the stream is open.
                self.asked.filters = Bytes::new();
            }
            Event::Gap(gap) => out.event(
                Some("gap"),
                Some(&gap.resumed_at),
                &event::gap(gap.reason.word(), &gap.requested, &gap.resumed_at),
            ),
            Event::Batch(batch) => {
                self.sent |= !batch.kept.is_empty();
                let parked_bytes = self.door.config.sse.batch_cache_bytes;
                self.sending = lines_of(batch, self.form, &mut self.beyond, &self.door.parking, parked_bytes);
            }
            Event::Preloaded { id, .. } if basic => out.comment("transition", &id),
            Event::Preloaded { total, id } => {
                out.event(Some("transition"), Some(&id), &event::transition(total))
            }
            Event::Killmail { kept, id } => {
                let (killmail_id, subscription) =
                    (kept.entry.facts.killmail_id, self.reader.subscription_id());
                let span = tracing::debug_span!(target: DELIVERY, "delivery", killmail.id = killmail_id, event.id = %id);
                let _entered = span.entered();
                tracing::debug!(target: DELIVERY, { killmail.id = killmail_id, subscription.id = subscription }, "sent");
                out.event((!basic).then_some("killmail"), Some(&id), &json_of(&kept));
                self.sent = true;
            }
            Event::Backfilled { span, id } => {
                out.event(Some("gap"), Some(&id), &event::backfilled(&span, &id))
            }
            Event::Fault { plugin, failure, killmail_id } => {
                self.tell_fault(&plugin, &failure, killmail_id, out)
            }
            Event::Ended { reason, message } => {
                out.event(Some("error"), None, &event::error(reason, &message))
            }
            Event::Closing if basic => out.comment("closing", &self.reader.id()),
            Event::Closing => {
                out.event(Some("error"), None, &event::error("closing", "the server is stopping"))
            }
        }
        if !self.sending.is_empty() || !out.is_empty() {
            self.wind_basic();
            self.door.events.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell_fault(&mut self, plugin: &str, failure: &Failure, killmail_id: u32, out: &mut Out) {
        let now = Instant::now();
        let pause = Duration::from_millis(self.door.config.sse.fault_pause_ms);
        let told = self.faults.iter_mut().find(|(word, _)| *word == failure.fault);
        if self.form.kind == StreamKind::Basic || told.as_ref().is_some_and(|(_, at)| now < *at + pause) {
            return;
        }
        match told {
            Some((_, at)) => *at = now,
            None => self.faults.push((failure.fault, now)),
        }
        out.event(Some("error"), None, &event::plugin_fault(plugin, failure, killmail_id));
    }
}
