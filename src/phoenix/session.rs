//! The session of one connection, a plain value: messages of the client and events of readers come in, frames and other
//! effects go out.
//!
//! Law 5 (every push gets its answer) rests on this file: each message whose join ref is current is answered exactly
//! once, heartbeats at once, others in order within their topic.
//!
//! Must not know: sockets, readers, clocks, or anything to wait for.

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
use crate::phoenix::join::{Join, JoinError, PreloadRequest, Topic};
use crate::phoenix::payloads::{self, Joined, Resumed};
use crate::wire::query::limits::Limits;
use crate::wire::query::request_form::CHANNEL_JOIN;

/// Messages that may wait for the reply to their topic's join.
const WAITING_MAX: usize = 64;

/// The session of one connection.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    limits: Limits,
    user_id: Arc<str>,
    /// The frame form of the connection's version.
    form: Form,
    connected_at_ms: i64,
    keys: u64,
    joining: Vec<Joining>,
    channels: Vec<Channel>,
    /// What the client received on topics it left.
    left: VecDeque<(String, DeliveredIds)>,
    count_at_ms: i64,
    /// The budget that the lists of channels count against.
    filters: Option<Arc<Filters>>,
}

/// A join whose reader is being opened.
#[derive(Debug)]
struct Joining {
    channel: Channel,
    /// Join ref and ref of the reply.
    refs: (Ref, Ref),
    join: Join,
    /// The close frame of the join it replaces, if the client can tell the two apart.
    then: Option<Bytes>,
    /// Messages received since.
    waiting: Vec<Message>,
}

/// An opened reader.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The name of its subscription.
    pub subscription_id: String,
    /// Where it was opened.
    pub id: EventId,
    /// Why that is not where the client asked.
    pub gap: Option<Gap>,
    /// Whether its plugin is still being prepared.
    pub preparing: bool,
}

impl Session {
    /// Creates a session.
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

    /// Counts the lists of channels against the budget of all filters.
    #[must_use]
    pub fn counted(self, filters: Arc<Filters>) -> Self {
        Self { filters: Some(filters), ..self }
    }

    /// Shares the reader's subscription with its channel, so that equal lists are stored once.
    pub fn adopt(&mut self, key: u64, subscription: &Arc<Subscription>) {
        if let Some(channel) = self.channel(key).filter(|channel| channel.subscription == *subscription) {
            channel.subscription = Arc::clone(subscription);
        }
    }

    /// Moves the session out, leaving an empty one.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let (config, user_id) = (Arc::clone(&self.config), Arc::clone(&self.user_id));
        let empty = Self::new(config, self.limits, user_id, self.form, self.connected_at_ms);
        std::mem::replace(self, empty)
    }

    /// The connection's name.
    #[must_use]
    pub const fn user_id(&self) -> &Arc<str> {
        &self.user_id
    }

    /// When the connection was opened, unix milliseconds.
    #[must_use]
    pub const fn connected_at_ms(&self) -> i64 {
        self.connected_at_ms
    }

    /// Replies to a malformed frame.
    pub fn malformed(&self, why: &Malformed, out: &mut Vec<Effect>) {
        let to = To { form: self.form, join_ref: &None, topic: "phoenix" };
        out.push(Effect::Send(to.push(&None, "phx_error", &[&payloads::reason(&why.to_string())])));
    }

    /// Handles a message of the client.
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
            None => reply_unjoined(&message, out),
            Some(at) if is_stale(&message, &self.channels[at]) => {}
            Some(at) if message.event == "phx_leave" => self.leave(at, &message, out),
            Some(at) => {
                let Self { config, user_id, connected_at_ms, channels, filters, .. } = self;
                let context = ChannelContext {
                    config,
                    user_id,
                    connected_at_ms: *connected_at_ms,
                    filters: filters.as_deref(),
                };
                channels[at].event(&message, context, out);
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
                let join_ref = if reason == JoinError::Unmatched { &None } else { &message.join_ref };
                let to = To { form: message.form, join_ref, topic: &message.topic };
                out.push(Effect::Send(to.reply(
                    &message.reference,
                    Status::Error,
                    &payloads::reason(&reason.to_string()),
                )));
                out.extend(then.map(Effect::Send));
                out.extend(replaces.map(|key| Effect::Close { key }));
                out.push(Effect::Refused);
                self.remember(message.topic, sent);
            }
        }
    }

    fn read(&self, message: &Message) -> Result<Join, JoinError> {
        let topic = Topic::read(&message.topic)?;
        let payload = message
            .members(CHANNEL_JOIN.known_names)
            .ok_or_else(|| "the payload of a join must be an object".to_owned())?;
        let max = self.config.topics_max;
        if self.channels.len() + self.joining.len() >= max {
            return Err(format!("too many topics on one connection (max: {max})").into());
        }
        Ok(Join::read(topic, &payload, &self.config, self.limits)?)
    }

    /// Completes a join: its reader is open.
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
        if let Some(request) = join.preload {
            let terms = preload_terms(&join, request);
            if !terms.is_empty() {
                out.push(Effect::Preload { key, request, terms });
            }
        }
        // There are many connections, and most have one channel.
        self.channels.reserve_exact(1);
        self.channels.push(channel);
        self.handle_waiting(waiting, out);
    }

    /// Refuses a join: its reader could not be opened.
    pub fn refused(&mut self, key: u64, reason: &str, out: &mut Vec<Effect>) {
        let Some(joining) = self.take_joining(key) else { return };
        let Joining { channel, refs, then, waiting, .. } = joining;
        let to = To { join_ref: &refs.0, ..channel.to() };
        out.push(Effect::Send(to.reply(&refs.1, Status::Error, &payloads::reason(reason))));
        out.extend(then.map(Effect::Send));
        out.push(Effect::Refused);
        self.remember(channel.topic, channel.sent);
        self.handle_waiting(waiting, out);
    }

    fn take_joining(&mut self, key: u64) -> Option<Joining> {
        let at = self.joining.iter().position(|joining| joining.channel.key == key)?;
        let joining = self.joining.swap_remove(at);
        self.joining.shrink_to_fit();
        Some(joining)
    }

    /// Handles the messages that waited for a join. Another join among them makes the rest wait again.
    fn handle_waiting(&mut self, waiting: Vec<Message>, out: &mut Vec<Effect>) {
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

    /// Ends a channel whose reader ended. The client may join again.
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

    fn channel(&mut self, key: u64) -> Option<&mut Channel> {
        self.channels.iter_mut().find(|channel| channel.key == key)
    }

    /// Pushes a live killmail; true if it was sent.
    pub fn killmail(
        &mut self,
        key: u64,
        kept: &Delivered,
        id: &EventId,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> bool {
        let effect = self.channel(key).and_then(|channel| channel.killmail(kept, id, now_ms));
        let pushed = effect.is_some();
        out.extend(effect);
        pushed
    }

    /// Pushes preloaded killmails of one system, those the channel still wants and the client does not have; returns how
    /// many.
    pub fn portion(
        &mut self,
        key: u64,
        (system, kept): (u32, Vec<Delivered>),
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> usize {
        self.channel(key).map_or(0, |channel| channel.portion(system, kept, now_ms, out))
    }

    /// Refuses a preload; a running one continues.
    pub fn preload_refused(&mut self, key: u64, error: String, out: &mut Vec<Effect>) {
        out.extend(self.channel(key).map(|channel| channel.preload_refused(error)));
    }

    /// Ends a preload.
    pub fn preload_complete(&mut self, key: u64, systems: u64, errors: &[String], out: &mut Vec<Effect>) {
        out.extend(self.channel(key).map(|channel| channel.preload_complete(systems, errors)));
    }

    /// Pushes a count requested by [`Session::tick`]; true if it was sent.
    pub fn count(&mut self, key: u64, system: u32, count: u64, now_ms: i64, out: &mut Vec<Effect>) -> bool {
        let effect = self.channel(key).map(|channel| channel.count(system, count, now_ms));
        let pushed = effect.is_some();
        out.extend(effect);
        pushed
    }

    /// Pushes the count of a preloaded system, unless the client removed the system since; true if it was sent.
    pub fn preload_count(
        &mut self,
        key: u64,
        (system, count): (u32, u64),
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> bool {
        let effect = self.channel(key).and_then(|channel| channel.preload_count(system, count, now_ms));
        let pushed = effect.is_some();
        out.extend(effect);
        pushed
    }

    /// Pushes a gap.
    pub fn gap(&mut self, key: u64, gap: &[u8], out: &mut Vec<Effect>) {
        out.extend(self.channel(key).map(|channel| Effect::Send(channel.to().push(&None, "gap", &[gap]))));
    }

    /// Requests the next count if one is due. Where all systems had killmails just now, it is postponed a little.
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
        // The next count is for the next channel.
        if let Some(at) = channels.iter().position(|channel| Some(channel.key) == found.map(|(key, _)| key)) {
            channels.rotate_left(at + 1);
        }
        out.extend(found.map(|(key, system)| Effect::Count { key, system }));
    }

    /// When to call [`Session::tick`], unix milliseconds.
    #[must_use]
    pub const fn next_tick_ms(&self) -> i64 {
        self.count_at_ms
    }

    /// The joined topics, with the numbers of their joins.
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

/// Whether a message belongs to an earlier join.
fn is_stale(message: &Message, channel: &Channel) -> bool {
    message.join_ref.is_some() && message.join_ref != channel.join_ref
}

/// Replies to a message for a topic that is not joined, as upstream does.
fn reply_unjoined(message: &Message, out: &mut Vec<Effect>) {
    let Message { form, join_ref, reference, topic, .. } = message;
    let to = |join_ref| To { form: *form, join_ref, topic };
    out.push(Effect::Send(match message.event.as_str() {
        "phx_leave" => to(join_ref).reply(reference, Status::Ok, payloads::EMPTY),
        _ => to(&None).reply(reference, Status::Error, &payloads::reason(&JoinError::Unmatched.to_string())),
    }));
}

/// The terms a join's preload covers: systems first, in the order given.
fn preload_terms(join: &Join, request: PreloadRequest) -> Vec<Term> {
    let terms_in =
        |dimension, ids: &[u32]| ids.iter().map(|id| Term { dimension, id: *id }).collect::<Vec<_>>();
    let mut terms = terms_in(Dimension::System, &join.systems);
    if request.every_kind {
        terms.extend(terms_in(Dimension::Character, &join.characters));
        let others = join
            .subscription
            .filter
            .dimensions
            .iter()
            .filter(|d| !matches!(d.dimension, Dimension::System | Dimension::Character));
        others.for_each(|listed| terms.extend(terms_in(listed.dimension, listed.ids.as_slice())));
    }
    terms
}
