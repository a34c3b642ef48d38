//! A reader: a subscription and a place in the log. Asked for the next event, it reads, lets the plugin judge it,
//! and moves its place.
//!
//! Law 2 (once, in order): preload takes what is numbered up to the head read when it opened, live what follows;
//! the place moves only when an event is handed over, so `next` may be dropped at any await.
//!
//! Must not know: who asks, and how slowly.

mod plugin_changes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{Instrument, Span};

use crate::domain::entry::SharedEntry;
use crate::domain::filter::{Filter, Interest};
use crate::domain::id::{Epoch, EventId, Place, Seq};
use crate::domain::skip::DELIVERY;
use crate::domain::subscription::Subscription;
use crate::domain::verdict::Failure;
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::feed::event::{Batch, Event, Gap};
use crate::feed::filters::FilterLease;
use crate::feed::newest::Newest;
use crate::feed::newest_preload::NewestPreload;
use crate::feed::preload::{Preload, Window};
use crate::feed::registry::{Client, Registration};
use crate::feed::start::{BatchForm, Log, Start, resolve_start};
use crate::feed::subscription_plugin::{Outcome, SubscriptionPlugin, judge_page};
use crate::feed::wake_terms::{register_filter, wake_terms};
use crate::plugin::judging::run::Run;
use crate::store::query::{Page, PageQuery};
use crate::tasks;

/// A subscription and a place in the log.
pub struct Reader {
    feed: Arc<Feed>,
    subscription: Arc<Subscription>,
    plugin: Option<SubscriptionPlugin>,
    lease: FilterLease,
    registration: Registration,
    closing: watch::Receiver<bool>,
    epoch: Epoch,
    phase: Phase,
    /// Read but not handed over: at most one page or batch.
    pending: VecDeque<Event>,
    /// The place after the last event handed over.
    at: Place,
    /// Live: everything up to here was examined.
    passed: Seq,
    /// When to ask for the plugin again after a temporary failure.
    retry_at: Option<Instant>,
    /// Names the subscription in every log line of this reader.
    span: Span,
}

/// Wait before asking again for a plugin that was temporarily unavailable.
const PLUGIN_RETRY: Duration = Duration::from_secs(1);

enum Phase {
    Preload(Preload),
    Live,
    Over,
}

impl Reader {
    /// Opens a reader; it is registered for wakeups before the head is read, so nothing falls in between.
    ///
    /// # Errors
    /// The plugin is unknown or refuses its configuration, the preload is too large, the store failed, the server is
    /// stopping.
    pub async fn open(feed: Arc<Feed>, subscription: Subscription, start: Start) -> Result<Self, FeedError> {
        if feed.is_closing() {
            return Err(FeedError::Closing);
        }
        let plugin = match &subscription.plugin {
            Some(using) => Some(SubscriptionPlugin::open_unready(&feed, using).await?),
            None => None,
        };
        let (subscription, lease) = register_filter(
            feed.filters(),
            subscription,
            plugin.as_ref().and_then(SubscriptionPlugin::interest),
        )
        .await?;
        let log = Log { epoch: feed.epoch(), head: feed.head(), horizon: feed.store.horizon() };
        let opened = resolve_start(&start, log);
        let subscription = Arc::new(subscription);
        let registration = feed.registry().register(subscription.clone(), opened.place);
        let span = tracing::debug_span!(target: DELIVERY, "reader", subscription.id = registration.reader.subscription_id);
        let mut reader = Self {
            registration,
            span,
            closing: feed.closing(),
            epoch: log.epoch,
            phase: Phase::Live,
            pending: VecDeque::new(),
            at: opened.place,
            passed: opened.place.head(),
            retry_at: None,
            feed,
            subscription,
            plugin,
            lease,
        };
        if let (Some(since), Place::Preload { head, after }) = (opened.preload_since, opened.place) {
            reader.phase = Phase::Preload(reader.plan(since, start.batches, head, after).await?);
        }
        reader.pending.push_back(Event::Opened { id: EventId { epoch: log.epoch, place: opened.place } });
        reader.pending.extend(opened.gap.map(Event::Gap));
        Ok(reader)
    }

    async fn plan(&self, since: i64, form: BatchForm, head: Seq, after: u32) -> Result<Preload, FeedError> {
        let now = Instant::now();
        let mut filter = self.subscription.filter.clone();
        filter.since = Some(filter.since.map_or(since, |asked| asked.max(since)));
        let filter = Arc::new(filter);
        // The last fifth of the time is for sending.
        let end = now + Duration::from_millis(self.feed.config().preload_within_ms) * 4 / 5;
        let mut preload =
            Preload { filter: filter.clone(), form, head, after, taken: 0, total: 0, sent: 0, due: now, end };
        // Without a list of ids, a preload could be the whole log.
        if self.subscription.filter.has_ids() {
            let feed = self.feed.clone();
            let interest = self.plugin.as_ref().and_then(SubscriptionPlugin::interest).cloned();
            let plan = tasks::blocking("preload-plan", move || {
                Window { filter: &filter, interest: interest.as_ref(), form, head, after }
                    .plan(&feed.store, feed.config())
            });
            preload.total = plan.await??.batches;
        }
        Ok(preload)
    }

    /// The subscription's random name.
    #[must_use]
    pub fn subscription_id(&self) -> &str {
        &self.registration.reader.subscription_id
    }

    /// Whether the plugin is still being prepared; nothing is read until it is ready.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        self.plugin.as_ref().is_some_and(|plugin| !plugin.is_ready())
    }

    /// Sets the client, as `/api/v1/subscriptions` shows it.
    pub fn set_client(&self, client: Client) {
        self.registration.set_client(client);
    }

    /// Counts killmails that reached the client through a [`NewestPreload`] of this reader.
    pub fn count_delivered(&self, killmails: u64) {
        self.registration.count_delivered(killmails);
    }

    /// Its subscription.
    #[must_use]
    pub const fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Takes the place it was opened at, and the gap if that is not where the client asked: the events [`Reader::next`]
    /// would start with.
    pub fn take_opening(&mut self) -> (EventId, Option<Gap>) {
        let mut gap = None;
        while matches!(self.pending.front(), Some(Event::Opened { .. } | Event::Gap(_))) {
            if let Some(Event::Gap(found)) = self.pending.pop_front() {
                gap = Some(found);
            }
        }
        (self.id(), gap)
    }

    /// Where the client is once it has seen everything handed over so far.
    #[must_use]
    pub fn id(&self) -> EventId {
        let place = match self.phase {
            Phase::Live if self.pending.is_empty() => Place::Live(self.passed),
            _ => self.at,
        };
        EventId { epoch: self.epoch, place }
    }

    /// Changes the filter, starting after the last event handed over. A running preload ends as planned.
    pub fn set_filter(&mut self, filter: Filter) {
        let Subscription { plugin, max_age_secs, .. } = &*self.subscription;
        let (plugin, max_age_secs) = (plugin.clone(), *max_age_secs);
        self.set_subscription(Arc::new(Subscription { filter, plugin, max_age_secs }));
    }

    /// The same, with a whole subscription of the same plugin.
    pub fn set_subscription(&mut self, subscription: Arc<Subscription>) {
        if matches!(self.phase, Phase::Live) {
            // Events read ahead were selected by the old filter.
            self.passed = self.id().place.head();
            self.pending.retain(|event| {
                !matches!(event, Event::Killmail { .. } | Event::Backfilled { .. } | Event::Fault { .. })
            });
            self.skip_unmatched();
        }
        let mut subscription = Arc::unwrap_or_clone(subscription);
        let woken = wake_terms(&subscription.filter, self.interest());
        self.lease.replace(&mut subscription, woken);
        self.subscription = Arc::new(subscription);
        self.registration.set_subscription(self.subscription.clone());
    }

    /// Skips entries at the head that do not match: a sleeping reader has not examined them yet, and a later filter
    /// might match them.
    pub fn skip_unmatched(&mut self) {
        let head = self.feed.head();
        if !matches!(self.phase, Phase::Live) || !self.pending.is_empty() || self.passed >= head {
            return;
        }
        if let Some(page) = self.feed.store.read_page_from_memory(&self.page_query(head))
            && page.entries.is_empty()
            && self.feed.store.spans(self.passed, page.passed).is_empty()
        {
            self.passed = page.passed;
        }
    }

    /// Starts a preload of the newest killmails of some terms, up to the reader's place: live delivery continues after
    /// it.
    #[must_use]
    pub fn preload_newest(&self, newest: Newest) -> NewestPreload {
        NewestPreload::new(
            self.feed.clone(),
            self.subscription.clone(),
            self.plugin.clone(),
            newest,
            self.id().place.head(),
        )
    }

    /// Whether the preload is still running.
    #[must_use]
    pub const fn in_preload(&self) -> bool {
        matches!(self.phase, Phase::Preload(_))
    }

    /// Waits for the next event; `None` after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        let span = self.span.clone();
        self.next_event().instrument(span).await
    }

    async fn next_event(&mut self) -> Option<Event> {
        loop {
            if matches!(self.phase, Phase::Over) && self.pending.is_empty() {
                return None;
            }
            if *self.closing.borrow() && !matches!(self.phase, Phase::Over) {
                self.end(Event::Closing);
            }
            if let Some(event) = self.pending.pop_front() {
                self.handed_over(&event);
                self.registration.set_place(self.id().place);
                return Some(event);
            }
            let followed = self.follow_plugin().await;
            let read = match &self.phase {
                _ if followed.is_err() => followed,
                _ if self.is_preparing() => continue,
                Phase::Over => continue,
                Phase::Preload(preload) => {
                    let preload = preload.clone();
                    self.read_batch(preload).await
                }
                Phase::Live => self.read_live().await,
            };
            if let Err(error) = read {
                tracing::error!(subscription.id = self.subscription_id(), %error, "a reader ended");
                self.end(Event::Ended { reason: "read_failed", message: error.to_string() });
            }
        }
    }

    fn handed_over(&mut self, event: &Event) {
        let counters = self.feed.counters();
        match event {
            Event::Killmail { id, kept } => {
                self.at = id.place;
                self.registration.count_delivered(1);
                let killmail_id = kept.entry.facts.killmail_id;
                tracing::debug!(target: DELIVERY, { killmail.id = killmail_id, event.id = %id }, "handed over");
                counters.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Event::Batch(batch) => {
                self.at = batch.id.place;
                for kept in &batch.kept {
                    let killmail_id = kept.entry.facts.killmail_id;
                    tracing::debug!(target: DELIVERY, { killmail.id = killmail_id }, "handed over in the preload");
                }
                self.registration.count_delivered(batch.kept.len() as u64);
                counters.preloaded.fetch_add(batch.kept.len() as u64, Ordering::Relaxed);
            }
            Event::Preloaded { id, .. } | Event::Backfilled { id, .. } => self.at = id.place,
            Event::Fault { plugin, failure, entry, id } => {
                self.at = id.place;
                self.registration.set_last_fault(plugin, failure, entry.facts.killmail_id);
                counters.faults.fetch_add(1, Ordering::Relaxed);
            }
            Event::Opened { .. } | Event::Gap(_) | Event::Ended { .. } | Event::Closing => {}
        }
    }

    fn end(&mut self, last: Event) {
        self.at = self.id().place;
        self.pending.clear();
        self.pending.push_back(last);
        self.phase = Phase::Over;
    }

    async fn read_batch(&mut self, mut preload: Preload) -> Result<(), FeedError> {
        if preload.taken < preload.total {
            sleep_until(preload.due).await;
        }
        let hits = if preload.taken < preload.total { self.batch_hits(&preload).await? } else { Vec::new() };
        let Some(last_id) = hits.last().map(|(id, _)| *id) else {
            let id = EventId { epoch: self.epoch, place: Place::Live(preload.head) };
            self.passed = preload.head;
            self.phase = Phase::Live;
            self.pending.push_back(Event::Preloaded { total: preload.sent, id });
            return Ok(());
        };
        let entries = hits.into_iter().map(|(_, entry)| entry).collect();
        let outcomes = judge_page(self.plugin.as_ref(), entries, Run::History { head: preload.head }).await;
        let mut kept = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            match outcome {
                Outcome::Kept(one) => kept.push(one),
                Outcome::Dropped => {}
                Outcome::Fault(failure, entry) => {
                    let place = Place::Preload { head: preload.head, after: preload.after };
                    self.pending.push_back(self.fault(failure, entry, EventId { epoch: self.epoch, place }));
                }
            }
        }
        preload.taken += 1;
        preload.after = last_id;
        preload.sent += kept.len() as u64;
        preload.due = preload.next_due(self.feed.config(), Instant::now());
        let last = preload.taken == preload.total;
        if last || !kept.is_empty() {
            let id =
                EventId { epoch: self.epoch, place: Place::Preload { head: preload.head, after: last_id } };
            let (number, total, head) = (preload.taken, preload.total, preload.head);
            self.pending.push_back(Event::Batch(Batch {
                kept,
                number,
                total,
                last,
                judged: self.plugin.is_some(),
                head,
                id,
            }));
        }
        self.phase = Phase::Preload(preload);
        Ok(())
    }

    async fn batch_hits(&self, preload: &Preload) -> Result<Vec<(u32, SharedEntry)>, FeedError> {
        let feed = self.feed.clone();
        let interest = self.plugin.as_ref().and_then(SubscriptionPlugin::interest).cloned();
        let (filter, form, head, after) = (preload.filter.clone(), preload.form, preload.head, preload.after);
        tasks::blocking("preload-batch", move || {
            let window = Window { filter: &filter, interest: interest.as_ref(), form, head, after };
            let hits = window.next(&feed.store, feed.config())?;
            let entries = feed.store.entries(&hits)?;
            Ok(entries.into_iter().map(|entry| (entry.facts.killmail_id, entry)).collect())
        })
        .await?
    }

    async fn read_live(&mut self) -> Result<(), FeedError> {
        let head = self.feed.head();
        if self.passed >= head {
            return self.wait().await;
        }
        let page = self.read_page(head).await?;
        self.feed.counters().pages.fetch_add(1, Ordering::Relaxed);
        let outcomes = judge_page(self.plugin.as_ref(), page.entries, Run::Live).await;
        let live = |seq| EventId { epoch: self.epoch, place: Place::Live(seq) };
        let mut events = Vec::new();
        let mut spans = self.feed.store.spans(self.passed, page.passed).into_iter().peekable();
        for outcome in outcomes {
            let (seq, event) = match outcome {
                Outcome::Kept(kept) => (kept.entry.seq, Event::Killmail { id: live(kept.entry.seq), kept }),
                Outcome::Dropped => continue,
                Outcome::Fault(failure, entry) => {
                    let seq = entry.seq;
                    (seq, self.fault(failure, entry, live(seq)))
                }
            };
            while let Some((at, span)) = spans.next_if(|(at, _)| *at < seq) {
                events.push(Event::Backfilled { span, id: live(at) });
            }
            events.push(event);
        }
        events.extend(spans.map(|(at, span)| Event::Backfilled { span, id: live(at) }));
        self.pending.extend(events);
        self.passed = page.passed;
        self.registration.set_place(self.id().place);
        Ok(())
    }

    /// The query for the next page.
    fn page_query(&self, head: Seq) -> PageQuery<'_> {
        let config = self.feed.config();
        PageQuery {
            filter: &self.subscription.filter,
            interest: self.plugin.as_ref().and_then(SubscriptionPlugin::interest),
            after: self.passed,
            head,
            max_age_secs: self.subscription.max_age_secs,
            limit: if self.plugin.is_some() { config.judged_page_max } else { config.page_max },
            limit_bytes: config.page_bytes,
            scan: config.scan_max,
        }
    }

    async fn read_page(&self, head: Seq) -> Result<Page, FeedError> {
        let query = self.page_query(head);
        if let Some(page) = self.feed.store.read_page_from_memory(&query) {
            return Ok(page);
        }
        let PageQuery { after, max_age_secs, limit, limit_bytes, scan, .. } = query;
        let (feed, subscription, interest) =
            (self.feed.clone(), self.subscription.clone(), query.interest.cloned());
        let page = tasks::blocking("reader-page", move || {
            let interest = interest.as_ref();
            feed.store.read_page(&PageQuery {
                filter: &subscription.filter,
                interest,
                after,
                head,
                max_age_secs,
                limit,
                limit_bytes,
                scan,
            })
        });
        Ok(page.await??)
    }

    /// Waits for a wakeup, the next tick, a stop of the server or a change of the plugin.
    async fn wait(&mut self) -> Result<(), FeedError> {
        let tick = sleep(Duration::from_millis(self.feed.config().tick_ms));
        let plugin = &mut self.plugin;
        let plugin_changed = async {
            match plugin {
                Some(plugin) => plugin.changed().await,
                None => std::future::pending().await,
            }
        };
        let retry = async {
            match self.retry_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            () = self.lease.wakeup.notified() => false,
            () = tick => false,
            () = retry => false,
            _ = self.closing.changed() => false,
            () = plugin_changed => true,
        };
        // The change is followed before the next page is read. It is marked again here, since this future may be
        // dropped at any await and the change must not be lost.
        if let Some(plugin) = self.plugin.as_mut().filter(|_| changed) {
            plugin.mark_changed();
        }
        Ok(())
    }

    fn interest(&self) -> Option<&Interest> {
        self.plugin.as_ref().and_then(SubscriptionPlugin::interest)
    }

    fn fault(&self, failure: Failure, entry: SharedEntry, id: EventId) -> Event {
        let plugin = self.plugin.as_ref().map(|plugin| plugin.name().to_owned()).unwrap_or_default();
        Event::Fault { plugin, failure, entry, id }
    }
}
