//! A joined topic: its lists, the events that change them, and what is pushed. A plain value: events in, effects out.
//!
//! Must not know: sockets, readers, other topics.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashSet;

use crate::domain::filter::IdSet;
use crate::domain::id::EventId;
use crate::domain::skip::{DELIVERY, Skip};
use crate::domain::spelling::nearest;
use crate::domain::subscription::Subscription;
use crate::domain::term::{Dimension, Term};
use crate::feed::event::Delivered;
use crate::feed::filters::Filters;
use crate::phoenix::config::Config;
use crate::phoenix::delivered_ids::DeliveredIds;
use crate::phoenix::effect::Effect;
use crate::phoenix::frame::{Form, Message, Ref, Status, To};
use crate::phoenix::ids::{self, Ids};
use crate::phoenix::join::{self, CHARACTERS, PreloadRequest, SYSTEMS, channel_filter};
use crate::phoenix::payloads;
use crate::wire::killmail::delivered_json;
use crate::wire::query::parameters::{KnownNames, Parameters};

/// Killmails of at least this many bytes are shared between frames; smaller ones are copied into each.
const SHARED_BYTES_MIN: usize = 32 << 10;

/// The members an event's payload may have.
const KNOWN: KnownNames = &[SYSTEMS, CHARACTERS, UPDATE, &["preload"]];
/// Shorter lists change without a check of the filter budget: there is one per connection and topic at most.
const SHORT_IDS: usize = 1_000;
/// The members of `update_subscriptions`.
const UPDATE: &[&str] = &["add_systems", "remove_systems", "add_characters", "remove_characters"];

/// Capacity kept for recently active systems.
const RECENT_CAPACITY: usize = 8;

/// A topic that a client has joined.
#[derive(Debug)]
pub struct Channel {
    /// The number of this join on its connection.
    pub key: u64,
    /// The form of its frames.
    pub form: Form,
    pub topic: String,
    /// The join ref of its frames.
    pub join_ref: Ref,
    /// The name of its subscription.
    pub subscription_id: String,
    pub subscription: Arc<Subscription>,
    /// The killmails it has received.
    pub sent: DeliveredIds,
    /// Killmails pushed by the running preload.
    pub preloaded: u64,
    /// Systems that had killmails in a preload and still get a count.
    pub uncounted: HashSet<u32>,
    /// The system counted last.
    pub counted: u32,
    /// Systems with a recent killmail, and when it was pushed.
    pub recent: Vec<(u32, i64)>,
}

/// What replies need beyond the channel.
#[derive(Clone, Copy)]
pub struct ChannelContext<'a> {
    pub config: &'a Config,
    /// The connection's name.
    pub user_id: &'a str,
    /// When the connection was opened, unix milliseconds.
    pub connected_at_ms: i64,
    /// The budget the lists count against, if there is one.
    pub filters: Option<&'a Filters>,
}

/// An `ok` reply and the effects that follow it.
struct Reply {
    response: Bytes,
    then: Vec<Effect>,
}

impl Reply {
    const fn plain(response: Bytes) -> Self {
        Self { response, then: Vec::new() }
    }
}

/// A change of the lists.
#[derive(Default)]
struct Change {
    /// Ids to add, new to the channel, in the order given.
    systems: Vec<u32>,
    characters: Vec<u32>,
    /// Ids to remove.
    removed: Vec<(Dimension, Vec<u32>)>,
}

/// The payload of an event.
struct Payload<'a> {
    event: &'a str,
    members: &'a Parameters<'a>,
    config: &'a Config,
    filters: Option<&'a Filters>,
}

impl Payload<'_> {
    /// The ids under the first of these names that is present; `None` if none is.
    fn ids(&self, dimension: Dimension, names: &[&str]) -> Result<Option<Vec<u32>>, String> {
        let max =
            if dimension == Dimension::System { self.config.systems_max } else { self.config.characters_max };
        let Some(name) = names.iter().find(|name| self.members.contains(name)) else { return Ok(None) };
        let mut ids = Ids::new(dimension, max);
        if self.members.elements(name, |value| ids.push(value)) {
            ids.done().map(Some)
        } else {
            Err(wrong(self.event, &format!("{name} must be a list")))
        }
    }

    /// The ids the event requires.
    fn required_ids(&self, dimension: Dimension) -> Result<Vec<u32>, String> {
        let names = if dimension == Dimension::System { SYSTEMS } else { CHARACTERS };
        self.ids(dimension, names)?.ok_or_else(|| wrong(self.event, &format!("{} must be a list", names[0])))
    }

    /// The preload for the new ids; without one in the payload, what upstream always sent.
    fn preload(&self) -> Result<Option<PreloadRequest>, String> {
        Ok(join::requested_preload(self.members)?.unwrap_or(Some(PreloadRequest::DEFAULT)))
    }
}

/// The reply to a known event with a malformed payload. Upstream treats it like an unknown event.
fn wrong(event: &str, why: &str) -> String {
    format!("unknown event: {event}: {why}")
}

const fn plural(dimension: Dimension) -> &'static str {
    if matches!(dimension, Dimension::System) { "systems" } else { "characters" }
}

impl Channel {
    /// Creates the channel for a join.
    #[must_use]
    pub fn new(key: u64, join: Message, subscription: Arc<Subscription>) -> Self {
        let Message { form, join_ref, reference, topic, .. } = join;
        let (subscription_id, sent, recent, uncounted) =
            (String::new(), DeliveredIds::default(), Vec::new(), HashSet::new());
        let join_ref = join_ref.or(reference);
        Self {
            key,
            form,
            topic,
            join_ref,
            subscription_id,
            subscription,
            sent,
            preloaded: 0,
            uncounted,
            counted: 0,
            recent,
        }
    }

    /// Whether its frames carry a join ref.
    #[must_use]
    pub const fn has_refs(&self) -> bool {
        matches!(self.form, Form::Array)
    }

    /// The address of its frames.
    #[must_use]
    pub fn to(&self) -> To<'_> {
        To { form: self.form, join_ref: &self.join_ref, topic: &self.topic }
    }

    /// The frame that tells the client that it is closed.
    #[must_use]
    pub fn closed(&self) -> Bytes {
        self.to().push(&self.join_ref, "phx_close", &[payloads::EMPTY])
    }

    /// Replies to an event of the client.
    pub fn event(&mut self, message: &Message, context: ChannelContext<'_>, out: &mut Vec<Effect>) {
        let done = self.handle(message, context);
        let to = To { form: message.form, ..self.to() };
        match done {
            Ok(Reply { response, then }) => {
                out.push(Effect::Send(to.reply(&message.reference, Status::Ok, &response)));
                out.extend(then);
            }
            Err(reason) => out.push(Effect::Send(to.reply(
                &message.reference,
                Status::Error,
                &payloads::reason(&reason),
            ))),
        }
    }

    fn handle(&mut self, message: &Message, context: ChannelContext<'_>) -> Result<Reply, String> {
        let event = message.event.as_str();
        let payload = message.members(KNOWN).ok_or_else(|| wrong(event, "the payload must be an object"))?;
        let payload = Payload { event, members: &payload, config: context.config, filters: context.filters };
        match event {
            "subscribe_systems" => self.subscribe(Dimension::System, &payload),
            "subscribe_characters" => self.subscribe(Dimension::Character, &payload),
            "unsubscribe_systems" => self.unsubscribe(Dimension::System, &payload),
            "unsubscribe_characters" => self.unsubscribe(Dimension::Character, &payload),
            "update_subscriptions" => self.update(&payload),
            "get_status" => {
                let who = (context.user_id, context.connected_at_ms);
                let (systems, characters) = (self.ids(Dimension::System), self.ids(Dimension::Character));
                Ok(Reply {
                    response: payloads::status(&self.subscription_id, systems, characters, who),
                    then: Vec::new(),
                })
            }
            _ => Err(format!("unknown event: {event}")),
        }
    }

    fn subscribe(&mut self, dimension: Dimension, payload: &Payload<'_>) -> Result<Reply, String> {
        let asked = payload.required_ids(dimension)?;
        let added = self.added(dimension, asked);
        if added.is_empty() {
            return Ok(Reply::plain(payloads::message(&format!(
                "Already subscribed to all requested {}",
                plural(dimension)
            ))));
        }
        let (systems, characters) =
            if dimension == Dimension::System { (added, Vec::new()) } else { (Vec::new(), added) };
        let then = self.change(Change { systems, characters, ..Change::default() }, payload)?;
        Ok(Reply { response: self.listed(dimension), then })
    }

    fn unsubscribe(&mut self, dimension: Dimension, payload: &Payload<'_>) -> Result<Reply, String> {
        let removed: Vec<u32> =
            payload.required_ids(dimension)?.into_iter().filter(|id| self.has(dimension, *id)).collect();
        if removed.is_empty() {
            return Ok(Reply::plain(payloads::message(&format!(
                "Not subscribed to any of the requested {}",
                plural(dimension)
            ))));
        }
        let then =
            self.change(Change { removed: vec![(dimension, removed)], ..Change::default() }, payload)?;
        Ok(Reply { response: self.listed(dimension), then })
    }

    /// Ids that are both added and removed stay.
    fn update(&mut self, payload: &Payload<'_>) -> Result<Reply, String> {
        let unknown = payload.members.unknown();
        let slip = unknown.iter().find_map(|name| Some((name, nearest(name, UPDATE.iter().copied())?)));
        if let Some((name, meant)) = slip {
            return Err(format!("{} has no member {name}; did you mean {meant}?", payload.event));
        }
        let asked = |dimension, name| payload.ids(dimension, &[name]).map(Option::unwrap_or_default);
        let (systems, characters) =
            (asked(Dimension::System, "add_systems")?, asked(Dimension::Character, "add_characters")?);
        let (mut less_systems, mut less_characters) =
            (asked(Dimension::System, "remove_systems")?, asked(Dimension::Character, "remove_characters")?);
        let (more_systems, more_characters) = (IdSet::new(systems.clone()), IdSet::new(characters.clone()));
        less_systems.retain(|id| !more_systems.contains(*id));
        less_characters.retain(|id| !more_characters.contains(*id));
        let removed = vec![(Dimension::System, less_systems), (Dimension::Character, less_characters)];
        let (systems, characters) =
            (self.added(Dimension::System, systems), self.added(Dimension::Character, characters));
        let mut then = self.change(Change { systems, characters, removed }, payload)?;
        let response =
            payloads::subscribed(Some(self.ids(Dimension::System)), Some(self.ids(Dimension::Character)));
        then.insert(0, Effect::Send(self.to().push(&None, "subscription_updated", &[&response])));
        Ok(Reply { response, then })
    }

    /// Changes the lists; returns the effects.
    fn change(&mut self, change: Change, payload: &Payload<'_>) -> Result<Vec<Effect>, String> {
        if self.is_everything() {
            return Ok(Vec::new());
        }
        let request = payload.preload()?;
        let mut filter = self.subscription.filter.clone();
        for (dimension, added) in
            [(Dimension::System, &change.systems), (Dimension::Character, &change.characters)]
        {
            let gone = IdSet::new(
                change
                    .removed
                    .iter()
                    .filter(|(of, _)| *of == dimension)
                    .flat_map(|(_, ids)| ids.iter().copied())
                    .collect(),
            );
            let mut ids: Vec<u32> =
                self.ids(dimension).iter().copied().filter(|id| !gone.contains(*id)).collect();
            ids.extend(added);
            if ids.len() > payload.config.channel_ids_max {
                return Err(ids::too_many(dimension, payload.config.channel_ids_max));
            }
            filter.set_ids(dimension, ids);
        }
        // The old list may be shared, so that releasing it frees nothing: a long list is counted in full.
        let ids = filter.dimensions.iter().map(|dimension| dimension.ids.as_slice().len()).sum::<usize>();
        if let Some(filters) = payload.filters.filter(|_| ids >= SHORT_IDS) {
            filters.check_room(ids).map_err(|full| full.to_string())?;
        }
        for (_, systems) in change.removed.iter().filter(|(dimension, _)| *dimension == Dimension::System) {
            self.uncounted.retain(|system| !systems.contains(system));
        }
        let Subscription { plugin, max_age_secs, .. } = &*self.subscription;
        let subscription = Subscription {
            filter: channel_filter(filter),
            plugin: plugin.clone(),
            max_age_secs: *max_age_secs,
        };
        self.subscription = Arc::new(subscription);
        let mut then = vec![Effect::Change { key: self.key, subscription: self.subscription.clone() }];
        then.extend(self.preload_of(request, &change.systems, &change.characters));
        Ok(then)
    }

    /// The preload of added ids, if there is anything to preload.
    fn preload_of(
        &self,
        request: Option<PreloadRequest>,
        systems: &[u32],
        characters: &[u32],
    ) -> Option<Effect> {
        let request = request?;
        let terms_in =
            |dimension, ids: &[u32]| ids.iter().map(|id| Term { dimension, id: *id }).collect::<Vec<_>>();
        let mut terms = terms_in(Dimension::System, systems);
        if request.every_kind {
            terms.extend(terms_in(Dimension::Character, characters));
        }
        (!terms.is_empty()).then_some(Effect::Preload { key: self.key, request, terms })
    }

    /// The ids the channel does not have yet.
    fn added(&self, dimension: Dimension, mut ids: Vec<u32>) -> Vec<u32> {
        if self.is_everything() {
            return Vec::new();
        }
        ids.retain(|id| !self.has(dimension, *id));
        ids
    }

    fn has(&self, dimension: Dimension, id: u32) -> bool {
        self.subscription.filter.ids(dimension).is_some_and(|ids| ids.contains(id))
    }

    fn listed(&self, dimension: Dimension) -> Bytes {
        let ids = Some(self.ids(dimension));
        if dimension == Dimension::System {
            payloads::subscribed(ids, None)
        } else {
            payloads::subscribed(None, ids)
        }
    }

    /// The ids of a dimension, ascending.
    fn ids(&self, dimension: Dimension) -> &[u32] {
        self.subscription.filter.ids(dimension).map_or(&[], |ids| ids.as_slice())
    }

    /// Notes that a killmail is sent; false if the client has it already.
    fn is_first(&mut self, killmail_id: u32, now_ms: i64) -> bool {
        let is_first = self.sent.insert(killmail_id, now_ms);
        let subscription = &self.subscription_id;
        if is_first {
            tracing::debug!(target: DELIVERY, { killmail.id = killmail_id, subscription.id = subscription }, "sent");
        } else {
            let why = Skip::AlreadySent;
            tracing::debug!(target: DELIVERY, { killmail.id = killmail_id, subscription.id = subscription, %why }, "not sent");
        }
        is_first
    }

    /// Pushes a live killmail; `None` if the client has it.
    pub fn killmail(&mut self, kept: &Delivered, id: &EventId, now_ms: i64) -> Option<Effect> {
        let facts = &kept.entry.facts;
        if !self.is_first(facts.killmail_id, now_ms) {
            return None;
        }
        self.note_recent(facts.system(), now_ms);
        let text = delivered_json(kept);
        if text.len() < SHARED_BYTES_MIN {
            return Some(Effect::Send(self.update_of(facts.system(), &[text], Some(id), now_ms)));
        }
        // Many clients want a large killmail at once: a copy for each of thousands would take gigabytes.
        const HERE: &[u8] = b"\0";
        let whole = self.update_of(facts.system(), &[Bytes::from_static(HERE)], Some(id), now_ms);
        let at = whole.iter().position(|byte| HERE.contains(byte))?;
        let (head, tail) = (whole.slice(..at), whole.slice(at + HERE.len()..));
        Some(Effect::SendShared { head, killmail: text, tail })
    }

    /// Pushes preloaded killmails of one system, those the channel still wants and the client does not have; returns how
    /// many.
    pub fn portion(
        &mut self,
        system: u32,
        mut kept: Vec<Delivered>,
        now_ms: i64,
        out: &mut Vec<Effect>,
    ) -> usize {
        kept.retain(|kept| self.subscription.filter.accepts(&kept.entry.facts));
        if !kept.is_empty() {
            self.uncounted.insert(system);
        }
        kept.retain(|kept| self.is_first(kept.entry.facts.killmail_id, now_ms));
        if !kept.is_empty() {
            self.note_recent(system, now_ms);
            let texts: Vec<Bytes> = kept.iter().map(delivered_json).collect();
            out.push(Effect::Send(self.update_of(system, &texts, None, now_ms)));
        }
        self.preloaded += kept.len() as u64;
        kept.len()
    }

    fn update_of(&self, system: u32, texts: &[Bytes], id: Option<&EventId>, now_ms: i64) -> Bytes {
        let (head, tail) = (payloads::update_head(system), payloads::update_tail(now_ms, id));
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * texts.len() + 1);
        for text in texts {
            parts.push(if parts.is_empty() { &head } else { b"," });
            parts.push(text);
        }
        parts.push(&tail);
        self.to().push(&None, "killmail_update", &parts)
    }

    /// Notes a killmail in a system, which postpones its count.
    fn note_recent(&mut self, system: u32, now_ms: i64) {
        self.recent.retain(|(other, _)| *other != system);
        self.recent.push((system, now_ms));
    }

    /// The frame that ends a preload.
    pub fn preload_complete(&mut self, systems: u64, errors: &[String]) -> Effect {
        let total = std::mem::take(&mut self.preloaded);
        Effect::Send(self.to().push(
            &None,
            "preload_complete",
            &[&payloads::preload_complete(total, systems, errors)],
        ))
    }

    /// The frame that refuses a preload.
    #[must_use]
    pub fn preload_refused(&self, error: String) -> Effect {
        Effect::Send(self.to().push(
            &None,
            "preload_complete",
            &[&payloads::preload_complete(0, 0, &[error])],
        ))
    }

    /// The count of a preloaded system: once, and only while the client still wants it.
    pub fn preload_count(&mut self, system: u32, count: u64, now_ms: i64) -> Option<Effect> {
        let effect = self.uncounted.remove(&system).then(|| self.count(system, count, now_ms));
        if self.uncounted.is_empty() {
            self.uncounted = HashSet::new();
        }
        effect
    }

    /// The frame of a count.
    #[must_use]
    pub fn count(&self, system: u32, count: u64, now_ms: i64) -> Effect {
        Effect::Send(self.to().push(&None, "kill_count_update", &[&payloads::count(system, count, now_ms)]))
    }

    /// The next system to count; `None` while all had killmails just now.
    pub fn next_counted(&mut self, config: &Config, now_ms: i64) -> Option<u32> {
        let quiet_ms = i64::try_from(config.count_quiet_ms).unwrap_or(i64::MAX);
        self.recent.retain(|(_, at)| now_ms - at < quiet_ms);
        self.recent.shrink_to(RECENT_CAPACITY);
        let systems = self.subscription.filter.ids(Dimension::System).map_or(&[][..], |ids| ids.as_slice());
        let next = systems.partition_point(|system| *system <= self.counted);
        let in_turn = systems[next..].iter().chain(&systems[..next]);
        let found = in_turn.copied().find(|system| !self.recent.iter().any(|(other, _)| other == system))?;
        self.counted = found;
        Some(found)
    }

    /// Whether it gets everything, so that no id can add anything.
    fn is_everything(&self) -> bool {
        !self.subscription.filter.has_ids() && self.subscription.filter.each.is_empty()
    }
}
