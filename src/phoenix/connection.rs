//! One connection: the short loop between a line, a conversation and its readers.
//!
//! Reading the client and writing to it never wait for a reader; a reader is asked for more when everything
//! before is written.
//!
//! Must not know: what events mean, how frames look.

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
use crate::phoenix::socket::{Socket, Turn};
use crate::phoenix::{Caller, ChannelState};
use crate::quota::Lease;
use crate::tasks;
use crate::wire::event;

type Opening = BoxFuture<'static, Result<Box<OpenChannel>, feed::error::FeedError>>;

/// A connection.
pub struct Connection {
    door: Arc<ChannelState>,
    line: Socket,
    session: Session,
    effects: Vec<Effect>,
    opening: Vec<(u64, Opening)>,
    running: Vec<OpenChannel>,
    closing: watch::Receiver<bool>,
    heard: Instant,
    /// When the first message must be there, until it is.
    first_by: Option<Instant>,
    ping_at: Instant,
    caller: Caller,
    _lease: Lease<IpAddr>,
}

/// What came first.
enum Happened {
    Turn(Turn),
    Opened(u64, Result<Box<OpenChannel>, feed::error::FeedError>),
    Due,
    Told(u64, ChannelEvent),
}

/// How a connection ends.
enum End {
    /// The client said goodbye, or is gone.
    Theirs,
    /// We say goodbye.
    Ours(CloseCode, &'static str),
    /// The client broke the rules.
    Cut(CloseCode),
}

impl Connection {
    /// Of a line just opened.
    #[must_use]
    pub fn new(
        door: Arc<ChannelState>,
        line: Socket,
        session: Session,
        (lease, caller): (Lease<IpAddr>, Caller),
    ) -> Self {
        let now = Instant::now();
        let ping_at = now + door.config.ping();
        let first_by = Some(now + door.config.first_message());
        let closing = door.feed.closing();
        let (effects, opening, running) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            door,
            line,
            session,
            effects,
            opening,
            running,
            closing,
            heard: now,
            first_by,
            ping_at,
            caller,
            _lease: lease,
        }
    }

    /// Talks until one side says goodbye.
    pub async fn run(mut self) {
        let end = self.talk().await;
        let Self { door, line, running, opening, .. } = self;
        // Whoever asks who reads should not find this one while it says goodbye.
        drop((running, opening));
        let within = door.config.goodbye();
        match end {
            End::Theirs => line.finish(within).await,
            End::Ours(code, reason) => line.close(code, reason, within).await,
            End::Cut(code) => {
                let reason = if code == CloseCode::Size {
                    format!("over {} bytes", door.config.frame_max_bytes)
                } else {
                    String::new()
                };
                line.cut(code, &reason, within).await;
            }
        }
    }

    async fn talk(&mut self) -> End {
        loop {
            self.perform();
            let free = self.line.is_free();
            let due = self.due();
            let happened = tokio::select! {
                biased;
                () = stopped(&mut self.closing) => return End::Ours(CloseCode::Restart, "the server is stopping"),
                turn = self.line.turn() => Happened::Turn(turn),
                (key, opened) = opened(&mut self.opening) => Happened::Opened(key, opened),
                () = sleep_until(due) => Happened::Due,
                (key, told) = open_channel::told(&mut self.running), if free => Happened::Told(key, told),
            };
            let end = match happened {
                Happened::Turn(turn) => self.turned(turn).await,
                Happened::Opened(key, opened) => {
                    self.opened(key, opened);
                    None
                }
                Happened::Due => self.tick(),
                Happened::Told(key, told) => {
                    self.told(key, told);
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn turned(&mut self, turn: Turn) -> Option<End> {
        if !matches!(turn, Turn::Drained) {
            self.heard = Instant::now();
        }
        if matches!(turn, Turn::Text(_) | Turn::Binary(_)) {
            self.first_by = None;
        }
        match turn {
            Turn::Text(bytes) if std::str::from_utf8(&bytes).is_err() => {
                return Some(End::Cut(CloseCode::Invalid));
            }
            Turn::Text(bytes) => {
                return self
                    .say(bytes, |bytes| std::str::from_utf8(bytes).map_or(Err(Malformed::NoFrame), decode))
                    .await;
            }
            Turn::Binary(bytes) => return self.say(bytes, decode_binary).await,
            Turn::Alive | Turn::Drained => {}
            Turn::Ended => return Some(End::Theirs),
            Turn::Broken(code) => return Some(End::Cut(code)),
        }
        None
    }

    /// Hears what the client says. A long message is read off the event loop, and the conversation goes
    /// along.
    async fn say(&mut self, bytes: Bytes, decode: fn(&[u8]) -> Result<Message, Malformed>) -> Option<End> {
        let (mut session, mut effects) = (self.session.take(), std::mem::take(&mut self.effects));
        let heard = tasks::read("message", bytes.len(), move || {
            match decode(&bytes) {
                Ok(message) => session.message(message, &mut effects),
                Err(why) => session.malformed(&why, &mut effects),
            }
            (session, effects)
        });
        match heard.await {
            Ok(both) => (self.session, self.effects) = both,
            Err(_) => return Some(End::Cut(CloseCode::Error)),
        }
        None
    }

    /// When something has to be done that nobody asks for.
    fn due(&self) -> Instant {
        let wait_ms = u64::try_from(self.session.next_tick_ms() - now_ms()).unwrap_or(0);
        let tick = Instant::now() + Duration::from_millis(wait_ms);
        let due = tick.min(self.ping_at).min(self.heard + self.door.config.idle());
        self.first_by.map_or(due, |first_by| due.min(first_by))
    }

    fn tick(&mut self) -> Option<End> {
        let now = Instant::now();
        if now >= self.heard + self.door.config.idle() {
            return Some(End::Ours(CloseCode::Normal, "nothing was heard"));
        }
        if self.first_by.is_some_and(|first_by| now >= first_by) {
            return Some(End::Ours(CloseCode::Policy, "no message came in time (channels.first_message_ms)"));
        }
        if now >= self.ping_at {
            self.line.ping();
            self.ping_at = now + self.door.config.ping();
        }
        self.session.tick(now_ms(), &mut self.effects);
        None
    }

    /// Does what the conversation wants, and what follows from that.
    fn perform(&mut self) {
        while !self.effects.is_empty() {
            let effects = std::mem::take(&mut self.effects);
            effects.into_iter().for_each(|effect| self.perform_one(effect));
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send(text) => self.line.text(text),
            Effect::SendAround { head, killmail, tail } => self.line.fragments([head, killmail, tail]),
            Effect::Open(open) => self.open(open),
            Effect::Change { key, subscription } => {
                if let Some(running) = self.at_work(key) {
                    running.change(subscription);
                    let subscription = Arc::clone(running.reader.subscription());
                    self.session.adopt(key, &subscription);
                }
            }
            Effect::Preload { key, wish, terms } => self.preload(key, wish, terms),
            Effect::Count { key, system } => {
                let count = self.door.feed.store().system_count(system, now_secs() - DAY_SECS);
                let told = self.session.count(key, system, count, now_ms(), &mut self.effects);
                self.count(|door| &door.feed.channel_counters().counts, u64::from(told));
            }
            Effect::Close { key } => self.close(key),
            Effect::Refused => self.count(|door| &door.feed.channel_counters().join_refused, 1),
        }
    }

    fn count(&self, counter: impl FnOnce(&ChannelState) -> &AtomicU64, by: u64) {
        counter(&self.door).fetch_add(by, Ordering::Relaxed);
    }

    fn open(&mut self, open: Open) {
        let Open { key, subscription, resume_from, replaces, .. } = open;
        let before = replaces.and_then(|key| self.running.iter_mut().find(|running| running.key == key));
        let place = before.map(|running| {
            running.reader.skip_unmatched();
            running.reader.id().to_string()
        });
        let last_event_id = resume_from.or(place);
        replaces.into_iter().for_each(|key| self.close(key));
        let feed = Arc::clone(&self.door.feed);
        let hold = match feed.plugin_quota().take(
            &feed.plugin_limits(),
            self.caller.judged,
            subscription.plugin.as_ref(),
        ) {
            Ok(hold) => hold,
            Err(refused) => return self.session.refused(key, &refused.to_string(), &mut self.effects),
        };
        let start = Start { last_event_id, ..Start::default() };
        let opening = async move {
            let reader = Reader::open(feed.clone(), (*subscription).clone(), start).await?;
            Ok(Box::new(OpenChannel::new(feed, key, reader, hold)))
        };
        self.opening.push((key, Box::pin(opening)));
    }

    fn at_work(&mut self, key: u64) -> Option<&mut OpenChannel> {
        self.running.iter_mut().find(|running| running.key == key)
    }

    fn close(&mut self, key: u64) {
        self.running.retain(|running| running.key != key);
    }

    fn opened(&mut self, key: u64, opened: Result<Box<OpenChannel>, feed::error::FeedError>) {
        match opened {
            Ok(mut running) => {
                let reader = &mut running.reader;
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
                self.running.reserve_exact(1);
                self.running.push(*running);
                self.session.opened(key, opened, &mut self.effects);
                self.session.adopt(key, &subscription);
            }
            Err(error) => self.session.refused(key, &reason(&error), &mut self.effects),
        }
    }

    fn preload(&mut self, key: u64, wish: PreloadRequest, terms: Vec<Term>) {
        let (config, pace) = (&self.door.config, self.door.feed.config());
        let now = now_secs();
        let newest = Newest {
            terms,
            limit: wish.limit,
            since: now - i64::from(wish.since_hours) * 3600,
            max: config.preload_max_killmails,
            batch: wish.batch.unwrap_or(pace.batch_max),
            portion_bytes: config.push_bytes,
            pause: Duration::from_millis(wish.interval_ms.unwrap_or(pace.batch_pause_ms)),
            counted_since: now - DAY_SECS,
        };
        let waiting_max = config.preloads_waiting_max;
        let Some(running) = self.at_work(key) else { return };
        if let Err(max) = running.preload(newest, waiting_max) {
            let error = format!("not preloaded: {max} preloads wait already (channels.preloads_waiting_max)");
            self.session.preload_refused(key, error, &mut self.effects);
        }
    }

    fn told(&mut self, key: u64, told: ChannelEvent) {
        match told {
            ChannelEvent::Live(Some(Event::Killmail { kept, id })) => {
                let killmail_id = kept.entry.facts.killmail_id;
                let span =
                    debug_span!(target: DELIVERY, "delivery", killmail.id = killmail_id, event.id = %id);
                let _entered = span.entered();
                let pushed = self.session.killmail(key, &kept, &id, now_ms(), &mut self.effects);
                self.count(|door| &door.feed.channel_counters().pushed, u64::from(pushed));
            }
            ChannelEvent::Live(Some(Event::Backfilled { span, id })) => {
                self.session.gap(key, &event::backfilled(&span, &id), &mut self.effects)
            }
            ChannelEvent::Live(Some(Event::Ended { reason, message })) => {
                self.session.ended(key, reason, &message, &mut self.effects)
            }
            // That the server stops is heard by everyone at once; a fault is counted, and the killmail
            // skipped.
            ChannelEvent::Live(Some(_)) => {}
            ChannelEvent::Live(None) => {
                self.session.ended(key, "closed", "the reader is closed", &mut self.effects)
            }
            ChannelEvent::Recent(Ok(recent)) => self.told_recent(key, recent),
            ChannelEvent::Recent(Err(error)) => {
                tracing::error!(%error, "a preload ends early: {error}");
                self.session.preload_complete(key, 0, &[error.to_string()], &mut self.effects);
            }
        }
    }

    fn told_recent(&mut self, key: u64, told: newest_preload::PreloadEvent) {
        match told {
            newest_preload::PreloadEvent::Portion { system, kept } => {
                let pushed = self.session.portion(key, (system, kept), now_ms(), &mut self.effects);
                self.count(|door| &door.feed.channel_counters().preloaded, pushed as u64);
                self.at_work(key).into_iter().for_each(|running| running.delivered(pushed));
            }
            newest_preload::PreloadEvent::Complete { systems, left_out } => {
                let max = self.door.config.preload_max_killmails;
                let errors = (left_out > 0).then(|| {
                    format!(
                        "a preload has at most {max} killmails; {left_out} systems or other ids were left out"
                    )
                });
                self.session.preload_complete(key, systems, errors.as_slice(), &mut self.effects);
            }
            newest_preload::PreloadEvent::Count { system, count } => {
                let told = self.session.preload_count(key, (system, count), now_ms(), &mut self.effects);
                self.count(|door| &door.feed.channel_counters().counts, u64::from(told));
            }
        }
    }
}

/// Why a reader cannot be opened, in a client's words.
fn reason(error: &feed::error::FeedError) -> String {
    if let feed::error::FeedError::Plugin(refused) = error
        && let Some(parameter) = refused.parameter()
    {
        return format!("[validation:invalid_{parameter}] {refused}");
    }
    error.to_string()
}

/// Waits until the server stops.
async fn stopped(closing: &mut watch::Receiver<bool>) {
    // An error means that the feed itself is gone, which is a stop as well.
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
