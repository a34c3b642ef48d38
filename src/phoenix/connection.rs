//! One connection: a loop between its socket, its session and the readers of its channels.
//!
//! Reading from and writing to the client never wait for a reader. A reader is asked for its next event once
//! everything before has been written.
//!
//! Must not know: what events mean, or how frames look.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug_span;
use yawc::close::CloseCode;

use crate::clock::{DAY_SECS, now_ms, now_secs};
use crate::domain::skip::DELIVERY;
use crate::domain::term::Term;
use crate::feed::event::Event;
use crate::feed::newest::Newest;
use crate::feed::reader::Reader;
use crate::feed::registry::{Client, Transport};
use crate::feed::start::Start;
use crate::feed::{self, newest_preload};
use crate::phoenix::effect::{Effect, Open};
use crate::phoenix::frame::{Malformed, Message, decode, decode_binary};
use crate::phoenix::join::PreloadRequest;
use crate::phoenix::open_channel::{self, ChannelEvent, OpenChannel};
use crate::phoenix::session::{Opened, Session};
use crate::phoenix::socket::{Socket, SocketEvent};
use crate::phoenix::{Caller, ChannelState};
use crate::quota::Lease;
use crate::tasks;
use crate::wire::event as wire_event;

type Opening = BoxFuture<'static, Result<Box<OpenChannel>, feed::error::FeedError>>;

pub struct Connection {
    state: Arc<ChannelState>,
    socket: Socket,
    session: Session,
    effects: Vec<Effect>,
    opening: Vec<(u64, Opening)>,
    channels: Vec<OpenChannel>,
    closing: watch::Receiver<bool>,
    heard: Instant,
    /// Deadline of the first message; `None` once it came.
    first_by: Option<Instant>,
    ping_at: Instant,
    caller: Caller,
    _lease: Lease<IpAddr>,
}

/// What happened first.
enum Happened {
    Socket(SocketEvent),
    Opened(u64, Result<Box<OpenChannel>, feed::error::FeedError>),
    Due,
    Event(u64, ChannelEvent),
}

/// Why a connection ends.
enum End {
    /// The client closed it, or is gone.
    ByClient,
    /// The server closes it.
    ByServer(CloseCode, &'static str),
    /// The client violated the protocol.
    Violation(CloseCode),
}

impl Connection {
    /// Creates a connection on an open socket.
    #[must_use]
    pub fn new(
        state: Arc<ChannelState>,
        socket: Socket,
        session: Session,
        (lease, caller): (Lease<IpAddr>, Caller),
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + state.config.ping();
        let first_by = Some(now + state.config.first_message());
        let closing = state.feed.closing();
        let (effects, opening, channels) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            state,
            socket,
            session,
            effects,
            opening,
            channels,
            closing,
            heard: now,
            first_by,
            ping_at,
            caller,
            _lease: lease,
        }
    }

    /// Runs until one side closes the connection.
    pub async fn run(mut self) {
        let end = self.run_loop().await;
        let Self { state, socket, channels, opening, .. } = self;
        // A connection that is being closed is no longer listed as a subscription.
        drop((channels, opening));
        let within = state.config.goodbye();
        match end {
            End::ByClient => socket.finish(within).await,
            End::ByServer(code, reason) => socket.close(code, reason, within).await,
            End::Violation(code) => {
                let reason = if code == CloseCode::Size {
                    format!("over {} bytes", state.config.frame_max_bytes)
                } else {
                    String::new()
                };
                socket.reject(code, &reason, within).await;
            }
        }
    }

    async fn run_loop(&mut self) -> End {
        loop {
            self.perform();
            let free = self.socket.is_free();
            let due = self.next_deadline();
            let happened = tokio::select! {
                biased;
                () = stopped(&mut self.closing) => return End::ByServer(CloseCode::Restart, "the server is stopping"),
                event = self.socket.next() => Happened::Socket(event),
                (key, opened) = opened(&mut self.opening) => Happened::Opened(key, opened),
                () = sleep_until(due) => Happened::Due,
                (key, event) = open_channel::next_event(&mut self.channels), if free => Happened::Event(key, event),
            };
            let end = match happened {
                Happened::Socket(event) => self.socket_event(event).await,
                Happened::Opened(key, opened) => {
                    self.opened(key, opened);
                    None
                }
                Happened::Due => self.tick(),
                Happened::Event(key, event) => {
                    self.channel_event(key, event);
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn socket_event(&mut self, event: SocketEvent) -> Option<End> {
        if !matches!(event, SocketEvent::Drained) {
            self.heard = Instant::now();
        }
        if matches!(event, SocketEvent::Text(_) | SocketEvent::Binary(_)) {
            self.first_by = None;
        }
        match event {
            SocketEvent::Text(bytes) if std::str::from_utf8(&bytes).is_err() => {
                return Some(End::Violation(CloseCode::Invalid));
            }
            SocketEvent::Text(bytes) => {
                return self
                    .receive(bytes, |bytes| {
                        std::str::from_utf8(bytes).map_or(Err(Malformed::NoFrame), decode)
                    })
                    .await;
            }
            SocketEvent::Binary(bytes) => return self.receive(bytes, decode_binary).await,
            SocketEvent::Alive | SocketEvent::Drained => {}
            SocketEvent::Ended => return Some(End::ByClient),
            SocketEvent::Violation(code) => return Some(End::Violation(code)),
        }
        None
    }

    /// Handles a message of the client. A long one is parsed off the event loop, together with the session.
    async fn receive(
        &mut self,
        bytes: Bytes,
        decode: fn(&[u8]) -> Result<Message, Malformed>,
    ) -> Option<End> {
        let (mut session, mut effects) = (self.session.take(), std::mem::take(&mut self.effects));
        let heard = tasks::parse("message", bytes.len(), move || {
            match decode(&bytes) {
                Ok(message) => session.message(message, &mut effects),
                Err(why) => session.malformed(&why, &mut effects),
            }
            (session, effects)
        });
        match heard.await {
            Ok(both) => (self.session, self.effects) = both,
            Err(_) => return Some(End::Violation(CloseCode::Error)),
        }
        None
    }

    fn next_deadline(&self) -> Instant {
        let wait_ms = u64::try_from(self.session.next_tick_ms() - now_ms()).unwrap_or(0);
        let tick = Instant::now() + Duration::from_millis(wait_ms);
        let due = tick.min(self.ping_at).min(self.heard + self.state.config.idle());
        self.first_by.map_or(due, |first_by| due.min(first_by))
    }

    fn tick(&mut self) -> Option<End> {
        let now = Instant::now();
        if now >= self.heard + self.state.config.idle() {
            return Some(End::ByServer(CloseCode::Normal, "idle timeout"));
        }
        if self.first_by.is_some_and(|first_by| now >= first_by) {
            return Some(End::ByServer(
                CloseCode::Policy,
                "no message received in time (channels.first_message_ms)",
            ));
        }
        if now >= self.ping_at {
            self.socket.ping();
            self.ping_at = now + self.state.config.ping();
        }
        self.session.tick(now_ms(), &mut self.effects);
        None
    }

    /// Carries out the session's effects, and those they cause.
    fn perform(&mut self) {
        while !self.effects.is_empty() {
            let effects = std::mem::take(&mut self.effects);
            effects.into_iter().for_each(|effect| self.perform_one(effect));
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send(text) => self.socket.text(text),
            Effect::SendShared { head, killmail, tail } => self.socket.fragments([head, killmail, tail]),
            Effect::Open(open) => self.open(open),
            Effect::Change { key, subscription } => {
                if let Some(channel) = self.open_channel(key) {
                    channel.change(subscription);
                    let subscription = Arc::clone(channel.reader.subscription());
                    self.session.adopt(key, &subscription);
                }
            }
            Effect::Preload { key, request, terms } => self.preload(key, request, terms),
            Effect::Count { key, system } => {
                let count = self.state.store.count_in_system(system, now_secs() - DAY_SECS);
                let sent = self.session.count(key, system, count, now_ms(), &mut self.effects);
                add(&self.state.counters.counts, u64::from(sent));
            }
            Effect::Close { key } => self.close(key),
            Effect::Refused => add(&self.state.counters.join_refused, 1),
        }
    }

    fn open(&mut self, open: Open) {
        let Open { key, subscription, resume_from, replaces, .. } = open;
        let before = replaces.and_then(|key| self.channels.iter_mut().find(|channel| channel.key == key));
        let place = before.map(|channel| {
            channel.reader.skip_unmatched();
            channel.reader.id().to_string()
        });
        let last_event_id = resume_from.or(place);
        replaces.into_iter().for_each(|key| self.close(key));
        let feed = Arc::clone(&self.state.feed);
        let plugin = subscription.plugin.as_ref();
        let hold = match feed.plugin_quota().acquire_evaluator(self.caller.judged, plugin) {
            Ok(hold) => hold,
            Err(refused) => return self.session.refused(key, &refused.to_string(), &mut self.effects),
        };
        let start = Start { last_event_id, ..Start::default() };
        let counters = Arc::clone(&self.state.counters);
        let opening = async move {
            let reader = Reader::open(feed, (*subscription).clone(), start).await?;
            Ok(Box::new(OpenChannel::new(counters, key, reader, hold)))
        };
        self.opening.push((key, Box::pin(opening)));
    }

    fn open_channel(&mut self, key: u64) -> Option<&mut OpenChannel> {
        self.channels.iter_mut().find(|channel| channel.key == key)
    }

    fn close(&mut self, key: u64) {
        self.channels.retain(|channel| channel.key != key);
    }

    fn opened(&mut self, key: u64, opened: Result<Box<OpenChannel>, feed::error::FeedError>) {
        match opened {
            Ok(mut channel) => {
                let reader = &mut channel.reader;
                reader.set_client(Client {
                    through: Transport::Websocket,
                    subscriber: Some(Arc::clone(self.session.user_id())),
                    address: self.caller.address,
                    connected_at_ms: Some(self.session.connected_at_ms()),
                });
                let (id, gap) = reader.take_opening();
                let opened = Opened {
                    subscription_id: reader.subscription_id().to_owned(),
                    id,
                    gap,
                    preparing: reader.is_preparing(),
                };
                let subscription = Arc::clone(reader.subscription());
                self.channels.reserve_exact(1);
                self.channels.push(*channel);
                self.session.opened(key, opened, &mut self.effects);
                self.session.adopt(key, &subscription);
            }
            Err(error) => self.session.refused(key, &refusal_text(&error), &mut self.effects),
        }
    }

    fn preload(&mut self, key: u64, request: PreloadRequest, terms: Vec<Term>) {
        let (config, pace) = (&self.state.config, self.state.feed.config());
        let now = now_secs();
        let newest = Newest {
            terms,
            limit: request.limit,
            since: now - i64::from(request.since_hours) * 3600,
            max: config.preload_max_killmails,
            batch: request.batch.unwrap_or(pace.batch_max),
            portion_bytes: config.push_bytes,
            pause: Duration::from_millis(request.interval_ms.unwrap_or(pace.batch_pause_ms)),
            counted_since: now - DAY_SECS,
        };
        let waiting_max = config.preloads_waiting_max;
        let Some(channel) = self.open_channel(key) else { return };
        if let Err(max) = channel.preload(newest, waiting_max) {
            let error =
                format!("not preloaded: {max} preloads are already waiting (channels.preloads_waiting_max)");
            self.session.preload_refused(key, error, &mut self.effects);
        }
    }

    fn channel_event(&mut self, key: u64, event: ChannelEvent) {
        match event {
            ChannelEvent::Live(Some(Event::Killmail { kept, id })) => {
                let killmail_id = kept.entry.facts.killmail_id;
                let span =
                    debug_span!(target: DELIVERY, "delivery", killmail.id = killmail_id, event.id = %id);
                let _entered = span.entered();
                let pushed = self.session.killmail(key, &kept, &id, now_ms(), &mut self.effects);
                add(&self.state.counters.pushed, u64::from(pushed));
            }
            ChannelEvent::Live(Some(Event::Backfilled { span, id })) => {
                self.session.gap(key, &wire_event::backfilled(&span, &id), &mut self.effects)
            }
            ChannelEvent::Live(Some(Event::Ended { reason, message })) => {
                self.session.ended(key, reason, &message, &mut self.effects)
            }
            // A stop is handled by the connection; a fault is counted, and its killmail skipped.
            ChannelEvent::Live(Some(_)) => {}
            ChannelEvent::Live(None) => {
                self.session.ended(key, "closed", "the reader is closed", &mut self.effects)
            }
            ChannelEvent::Preload(Ok(event)) => self.preload_event(key, event),
            ChannelEvent::Preload(Err(error)) => {
                tracing::error!(%error, "a preload ended early: {error}");
                self.session.preload_complete(key, 0, &[error.to_string()], &mut self.effects);
            }
        }
    }

    fn preload_event(&mut self, key: u64, event: newest_preload::PreloadEvent) {
        match event {
            newest_preload::PreloadEvent::Portion { system, kept } => {
                let pushed = self.session.portion(key, (system, kept), now_ms(), &mut self.effects);
                add(&self.state.counters.preloaded, pushed as u64);
                self.open_channel(key).into_iter().for_each(|channel| channel.note_sent(pushed));
            }
            newest_preload::PreloadEvent::Complete { systems, left_out } => {
                let max = self.state.config.preload_max_killmails;
                let errors = (left_out > 0).then(|| {
                    format!(
                        "a preload has at most {max} killmails; {left_out} systems or other ids were left out"
                    )
                });
                self.session.preload_complete(key, systems, errors.as_slice(), &mut self.effects);
            }
            newest_preload::PreloadEvent::Count { system, count } => {
                let sent = self.session.preload_count(key, (system, count), now_ms(), &mut self.effects);
                add(&self.state.counters.counts, u64::from(sent));
            }
        }
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Why a reader cannot be opened, in the form clients parse.
fn refusal_text(error: &feed::error::FeedError) -> String {
    if let feed::error::FeedError::Plugin(refused) = error
        && let Some(parameter) = refused.parameter()
    {
        return format!("[validation:invalid_{parameter}] {refused}");
    }
    error.to_string()
}

/// Waits until the server stops.
async fn stopped(closing: &mut watch::Receiver<bool>) {
    // An error means that the feed itself is gone, which is a stop, too.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Waits for a reader that is being opened.
async fn opened(
    opening: &mut Vec<(u64, Opening)>,
) -> (u64, Result<Box<OpenChannel>, feed::error::FeedError>) {
    poll_fn(|context| {
        for at in 0..opening.len() {
            if let Poll::Ready(opened) = opening[at].1.as_mut().poll(context) {
                let (key, _) = opening.swap_remove(at);
                opening.shrink_to_fit();
                return Poll::Ready((key, opened));
            }
        }
        Poll::Pending
    })
    .await
}
