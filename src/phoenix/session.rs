//! The conversation of one connection, a value: what a client says and what readers hand over comes in,
//! frames and wishes go out.
//!
//! Law 5 (every push gets its answer) stands on this file: each message with a ref that is not of a join gone
//! by is answered once, heartbeats at once, others in order within their topic.
//!
//! Must not know: sockets, readers, clocks, anything to wait for.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::id::EventId;
use crate::domain::subscription::Subscription;
use crate::domain::term::{Dimension, Term};
use crate::feed::event::{Delivered, Gap};
use crate::feed::filters::Filters;
use crate::phoenix::channel::{Channel, ChannelContext};
use crate::phoenix::config::Config;
use crate::phoenix::delivered_ids::DeliveredIds;
use crate::phoenix::effect::{Effect, Open};
use crate::phoenix::frame::{Form, Malformed, Message, Ref, Status, To};
use crate::phoenix::join::{Join, PreloadRequest, Topic, UNMATCHED};
use crate::phoenix::payloads::{self, Joined, Resumed};
use crate::wire::query;
use crate::wire::query::limits::Limits;

/// Messages to a topic whose join is not answered yet.
const WAITING_MAX: usize = 64;

/// A conversation.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    limits: Limits,
    user_id: Arc<str>,
    /// What the version of the connection speaks.
    form: Form,
    connected_at_ms: i64,
    keys: u64,
    joining: Vec<Joining>,
    channels: Vec<Channel>,
    /// What clients got on topics they left.
    left: VecDeque<(String, DeliveredIds)>,
    count_at_ms: i64,
    /// Whose limit the lists of channels count against.
    filters: Option<Arc<Filters>>,
}

/// A join under way: its reader is being opened.
#[derive(Debug)]
struct Joining {
    channel: Channel,
    /// As the join's answer carries them.
    refs: (Ref, Ref),
    join: Join,
    /// The close of the join before, if that one has to be told.
    then: Option<Bytes>,
    /// What the client said since.
    waiting: Vec<Message>,
}

/// A reader that was opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The name of the reader.
    pub subscription_id: String,
    /// Its opening place.
    pub id: EventId,
    /// Why that is not where the client asked for.
    pub gap: Option<Gap>,
    /// Whether its plugin is still being prepared.
    pub preparing: bool,
}

impl Session {
    /// A conversation that begins.
    #[must_use]
    pub fn new(config: Arc<Config>, limits: Limits, user_id: Arc<str>, form: Form, now_ms: i64) -> Self {
        let count_at_ms = now_ms.saturating_add(i64::try_from(config.count_ms).unwrap_or(i64::MAX));
        let (joining, channels, left) = (Vec::new(), Vec::new(), VecDeque::new());
        Self {
            config,
            limits,
            user_id,
            form,
            connected_at_ms: now_ms,
            keys: 0,
            joining,
            channels,
            left,
            count_at_ms,
            filters: None,
        }
    }

    /// The same, with lists that count against the limit of all filters.
    #[must_use]
    pub fn counted(self, filters: Arc<Filters>) -> Self {
        Self { filters: Some(filters), ..self }
    }

    /// What a channel reads is what its reader has: equal lists are kept once.
    pub fn adopt(&mut self, key: u64, subscription: &Arc<Subscription>) {
        if let Some(channel) = self.of(key).filter(|channel| channel.subscription == *subscription) {
            channel.subscription = Arc::clone(subscription);
        }
    }

    /// Takes the conversation elsewhere; what stays behind has not begun.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let (config, user_id) = (Arc::clone(&self.config), Arc::clone(&self.user_id));
        let begun = Self::new(config, self.limits, user_id, self.form, self.connected_at_ms);
        std::mem::replace(self, begun)
    }

    /// The connection's name.
    #[must_use]
    pub const fn user_id(&self) -> &Arc<str> {
        &self.user_id
    }

    /// When the connection was made, unix milliseconds.
    #[must_use]
    pub const fn connected_at_ms(&self) -> i64 {
        self.connected_at_ms
    }

    /// Says to the client that what it sent is no frame.
    pub fn malformed(&self, why: &Malformed, out: &mut Vec<Effect>) {
        let to = To { form: self.form, join_ref: &None, topic: "phoenix" };
        out.push(Effect::Send(to.push(&None, "phx_error", &[&payloads::reason(&why.to_string())])));
    }

    /// What the client says.
    pub fn message(&mut self, message: Message, out: &mut Vec<Effect>) {
        if message.topic == "phoenix" && message.event == "heartbeat" {
            let to = To { form: message.form, join_ref: &None, topic: &message.topic };
            return out.push(Effect::Send(to.reply(&message.reference, Status::Ok, payloads::EMPTY)));
        }
        let is_join = message.event == "phx_join";
        if let Some(joining) = self.joining.iter_mut().find(|joining| joining.channel.topic == message.topic)
        {
            if joining.waiting.len() >= WAITING_MAX {
                let reason = payloads::reason(&format!(
                    "too many messages before the join is answered (max: {WAITING_MAX})"
                ));
                let to = To { form: message.form, ..joining.channel.to() };
                return out.push(Effect::Send(to.reply(&message.reference, Status::Error, &reason)));
            }
            return joining.waiting.push(message);
        }
        let at = self.channels.iter().position(|channel| channel.topic == message.topic);
        match at {
            _ if is_join => self.join(message, at, out),
            None => nowhere(&message, out),
            Some(at) if is_stale(&message, &self.channels[at]) => {}
            Some(at) if message.event == "phx_leave" => self.leave(at, &message, out),
            Some(at) => {
                let Self { config, user_id, connected_at_ms, channels, filters, .. } = self;
                let around = ChannelContext {
                    config,
                    user_id,
                    connected_at_ms: *connected_at_ms,
                    filters: filters.as_deref(),
                };
                channels[at].event(&message, around, out);
            }
        }
    }

    fn join(&mut self, message: Message, at: Option<usize>, out: &mut Vec<Effect>) {
        let old = at.map(|at| self.channels.swap_remove(at));
        // A client of version 1 cannot tell the close of its old join from one of the new.
        let then = old.as_ref().filter(|old| old.has_refs()).map(|old| old.closed());
        let replaces = old.as_ref().map(|old| old.key);
        let sent = match old {
            Some(old) => old.sent,
            None => self.remembered(&message.topic),
        };
        match self.read(&message) {
            Ok(join) => {
                let key = self.keys;
                self.keys += 1;
                let subscription = Arc::new(join.subscription.clone());
                let (topic, resume_from) = (message.topic.clone(), join.resume_from.clone());
                let open = Open { key, topic, subscription: subscription.clone(), resume_from, replaces };
                let refs = (message.join_ref.clone(), message.reference.clone());
                let mut channel = Channel::new(key, message, subscription);
                channel.sent = sent;
                self.joining.push(Joining { channel, refs, join, then, waiting: Vec::new() });
                out.push(Effect::Open(open));
            }
            Err(reason) => {
                let join_ref = if reason == UNMATCHED { &None } else { &message.join_ref };
                let to = To { form: message.form, join_ref, topic: &message.topic };
                out.push(Effect::Send(to.reply(
                    &message.reference,
                    Status::Error,
                    &payloads::reason(&reason),
                )));
                out.extend(then.map(Effect::Send));
                out.extend(replaces.map(|key| Effect::Close { key }));
                out.push(Effect::Refused);
                self.remember(message.topic, sent);
            }
        }
    }

    fn read(&self, message: &Message) -> Result<Join, String> {
        let topic = Topic::read(&message.topic)?;
        let payload =
            message.members(query::KNOWN_IN_JOINS).ok_or("the payload of a join must be an object")?;
        let max = self.config.topics_max;
        if self.channels.len() + self.joining.len() >= max {
            return Err(format!("too many topics on one connection (max: {max})"));
        }
        Join::read(topic, &payload, &self.config, self.limits)
    }

    /// The reader of a join is open.
    pub fn opened(&mut self, key: u64, opened: Opened, out: &mut Vec<Effect>) {
        let Some(joining) = self.take_joining(key) else { return };
        let Joining { mut channel, refs, join, then, waiting } = joining;
        let resumed = match (opened.gap, &join.resume_from) {
            (Some(gap), Some(_)) => Resumed::Gap(gap),
            (None, Some(_)) => Resumed::From(opened.id),
            (_, None) => Resumed::No,
        };
        channel.subscription_id = opened.subscription_id;
        let response = payloads::joined(
            &Joined {
                subscription_id: &channel.subscription_id,
                systems: &join.systems,
                characters: &join.characters,
                event_id: opened.id,
                resumed: &resumed,
                subscription: &channel.subscription,
                ignored: &join.ignored,
                preparing: opened.preparing,
            },
            self.config.push_bytes,
        );
        let to = To { join_ref: &refs.0, ..channel.to() };
        out.push(Effect::Send(to.reply(&refs.1, Status::Ok, &response)));
        out.extend(then.map(Effect::Send));
        if let Some(wish) = join.preload {
            let terms = terms(&join, wish);
            if !terms.is_empty() {
                out.push(Effect::Preload { key, wish, terms });
            }
        }
        // Most connections have one, and there are many of them.
        self.channels.reserve_exact(1);
        self.channels.push(channel);
        self.catch_up(waiting, out);
    }

    /// The reader of a join could not be opened.
    pub fn refused(&mut self, key: u64, reason: &str, out: &mut Vec<Effect>) {
        let Some(joining) = self.take_joining(key) else { return };
        let Joining { channel, refs, then, waiting, .. } = joining;
        let to = To { join_ref: &refs.0, ..channel.to() };
        out.push(Effect::Send(to.reply(&refs.1, Status::Error, &payloads::reason(reason))));
        out.extend(then.map(Effect::Send));
        out.push(Effect::Refused);
        self.remember(channel.topic, channel.sent);
        self.catch_up(waiting, out);
    }

    fn take_joining(&mut self, key: u64) -> Option<Joining> {
        let at = self.joining.iter().position(|joining| joining.channel.key == key)?;
        let joining = self.joining.swap_remove(at);
        self.joining.shrink_to_fit();
        Some(joining)
    }

    /// What the client said while its join was under way; a further join makes the rest wait again.
    fn catch_up(&mut self, waiting: Vec<Message>, out: &mut Vec<Effect>) {
        for message in waiting {
            self.message(message, out);
        }
    }

    fn leave(&mut self, at: usize, message: &Message, out: &mut Vec<Effect>) {
        let channel = self.channels.swap_remove(at);
        let to = To { form: message.form, ..channel.to() };
        out.push(Effect::Send(to.reply(&message.reference, Status::Ok, payloads::EMPTY)));
        out.push(Effect::Send(channel.closed()));
        out.push(Effect::Close { key: channel.key });
        self.remember(channel.topic, channel.sent);
    }

    /// The reader of a channel is over: so is the channel, and the client may join anew.
    pub fn ended(&mut self, key: u64, word: &str, text: &str, out: &mut Vec<Effect>) {
        let Some(at) = self.channels.iter().position(|channel| channel.key == key) else { return };
        let channel = self.channels.swap_remove(at);
        out.push(Effect::Send(channel.to().push(
            &channel.join_ref,
            "phx_error",
            &[&payloads::ended(word, text)],
        )));
        out.push(Effect::Close { key });
        self.remember(channel.topic, channel.sent);
    }

    fn of(&mut self, key: u64) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|channel| channel.key == key)
    }

    /// A live killmail; says whether it was pushed.
    pub fn killmail(
        &mut self,
        key: u64,
        kept: &Delivered,
        id: &EventId,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> bool {
        let effect = self.of(key).and_then(|channel| channel.killmail(kept, id, now_ms));
        let pushed = effect.is_some();
        out.extend(effect);
        pushed
    }

    /// Killmails of one system from the past; says how many were pushed: only what the channel still wants
    /// and the client lacks.
    pub fn portion(
        &mut self,
        key: u64,
        (system, kept): (u32, Vec<Delivered>),
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> usize {
        self.of(key).map_or(0, |channel| channel.portion(system, kept, now_ms, out))
    }

    /// A preload does not even begin; one that is under way goes on.
    pub fn preload_refused(&mut self, key: u64, error: String, out: &mut Vec<Effect>) {
        out.extend(self.of(key).map(|channel| channel.preload_refused(error)));
    }

    /// A preload has come to its end.
    pub fn preload_complete(&mut self, key: u64, systems: u64, errors: &[String], out: &mut Vec<Effect>) {
        out.extend(self.of(key).map(|channel| channel.preload_complete(systems, errors)));
    }

    /// A count asked for by [`Session::tick`]; says whether it was pushed.
    pub fn count(&mut self, key: u64, system: u32, count: u64, now_ms: i64, out: &mut Vec<Effect>) -> bool {
        let effect = self.of(key).map(|channel| channel.count(system, count, now_ms));
        let pushed = effect.is_some();
        out.extend(effect);
        pushed
    }

    /// The count of a system that was preloaded; says whether it was pushed: not where the system was given
    /// up since.
    pub fn preload_count(
        &mut self,
        key: u64,
        (system, count): (u32, u64),
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> bool {
        let effect = self.of(key).and_then(|channel| channel.preload_count(system, count, now_ms));
        let pushed = effect.is_some();
        out.extend(effect);
        pushed
    }

    /// The reader goes on elsewhere than it was.
    pub fn gap(&mut self, key: u64, gap: &[u8], out: &mut Vec<Effect>) {
        out.extend(self.of(key).map(|channel| Effect::Send(channel.to().push(&None, "gap", &[gap]))));
    }

    /// Time goes by: perhaps a count is due. Where everything was busy just now, a little later.
    pub fn tick(&mut self, now_ms: i64, out: &mut Vec<Effect>) {
        if now_ms < self.count_at_ms {
            return;
        }
        let Self { config, channels, .. } = self;
        let found = channels
            .iter_mut()
            .find_map(|channel| Some((channel.key, channel.next_counted(config, now_ms)?)));
        let named =
            channels.iter().any(|channel| channel.subscription.filter.ids(Dimension::System).is_some());
        let wait_ms = if named && found.is_none() { config.count_quiet_ms } else { config.count_ms };
        self.count_at_ms = now_ms.saturating_add(i64::try_from(wait_ms.max(1)).unwrap_or(i64::MAX));
        // The next channel has the next turn.
        if let Some(at) = channels.iter().position(|channel| Some(channel.key) == found.map(|(key, _)| key)) {
            channels.rotate_left(at + 1);
        }
        out.extend(found.map(|(key, system)| Effect::Count { key, system }));
    }

    /// When [`Session::tick`] has something to do, unix milliseconds.
    #[must_use]
    pub const fn next_tick_ms(&self) -> i64 {
        self.count_at_ms
    }

    /// The topics joined now, with their joins' numbers.
    pub fn topics(&self) -> impl Iterator<Item = (&str, u64)> {
        self.channels.iter().map(|channel| (channel.topic.as_str(), channel.key))
    }

    fn remember(&mut self, topic: String, sent: DeliveredIds) {
        if sent.is_empty() || self.config.topics_max == 0 {
            return;
        }
        if self.left.len() >= self.config.topics_max {
            self.left.pop_front();
        }
        self.left.push_back((topic, sent));
    }

    fn remembered(&mut self, topic: &str) -> DeliveredIds {
        let at = self.left.iter().position(|(left, _)| left == topic);
        at.and_then(|at| self.left.remove(at)).map(|(_, sent)| sent).unwrap_or_default()
    }
}

/// Whether a message belongs to a join gone by.
fn is_stale(message: &Message, channel: &Channel) -> bool {
    message.join_ref.is_some() && message.join_ref != channel.join_ref
}

/// Answers a message to a topic that is not joined, as upstream does.
fn nowhere(message: &Message, out: &mut Vec<Effect>) {
    let Message { form, join_ref, reference, topic, .. } = message;
    let to = |join_ref| To { form: *form, join_ref, topic };
    out.push(Effect::Send(match message.event.as_str() {
        "phx_leave" => to(join_ref).reply(reference, Status::Ok, payloads::EMPTY),
        _ => to(&None).reply(reference, Status::Error, &payloads::reason(UNMATCHED)),
    }));
}

/// What a join's preload looks for: systems first, in the order asked for.
fn terms(join: &Join, wish: PreloadRequest) -> Vec<Term> {
    let of = |kind, ids: &[u32]| ids.iter().map(|id| Term { kind, id: *id }).collect::<Vec<_>>();
    let mut terms = of(Dimension::System, &join.systems);
    if wish.every_kind {
        terms.extend(of(Dimension::Character, &join.characters));
        let others = join
            .subscription
            .filter
            .dimensions
            .iter()
            .filter(|d| !matches!(d.kind, Dimension::System | Dimension::Character));
        others.for_each(|dimension| terms.extend(of(dimension.kind, dimension.ids.as_slice())));
    }
    terms
}
