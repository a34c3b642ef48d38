//! A reader: a subscription and a place in the log. Asked for the next event, it reads, has the plugin judge,
//! and moves its place.
//!
//! Law 2 (once, in order): preload takes what is numbered up to the head read at opening, live what follows;
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

use crate::domain::entry::SharedEntry;
use crate::domain::filter::{Filter, Interest};
use crate::domain::id::{Epoch, EventId, Place, Seq};
use crate::domain::subscription::Subscription;
use crate::domain::verdict::Failure;
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::feed::event::{Batch, Event, Gap};
use crate::feed::filters::Held;
use crate::feed::newest::Newest;
use crate::feed::newest_preload::NewestPreload;
use crate::feed::preload::{Preload, Window};
use crate::feed::registry::{Entered, Who};
use crate::feed::start::{BatchForm, Log, Start, opening};
use crate::feed::subscription_plugin::{Outcome, SubscriptionPlugin, judged};
use crate::feed::wake_terms::{hold, wake_terms};
use crate::plugin::judging::run::Run;
use crate::store::query::{Page, PageQuery};
use crate::tasks;

/// A subscription and a place in the log.
pub struct Reader {
    feed: Arc<Feed>,
    subscription: Arc<Subscription>,
    judge: Option<SubscriptionPlugin>,
    held: Held,
    entered: Entered,
    closing: watch::Receiver<bool>,
    epoch: Epoch,
    phase: Phase,
    /// Read but not handed over: at most one page or batch.
    pending: VecDeque<Event>,
    /// The place behind what was handed over.
    at: Place,
    /// Live: everything up to here was looked at.
    passed: Seq,
    /// When a plugin is asked for again that could not be had for a reason that passes.
    again: Option<Instant>,
}

/// A plugin that could not be had for a reason that passes is asked for again after this.
const AGAIN: Duration = Duration::from_secs(1);

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
        let judge = match &subscription.plugin {
            Some(using) => Some(SubscriptionPlugin::open_unready(&feed, using).await?),
            None => None,
        };
        let (subscription, held) =
            hold(feed.filters(), subscription, judge.as_ref().and_then(SubscriptionPlugin::interest)).await?;
        let log = Log { epoch: feed.epoch(), head: feed.head(), horizon: feed.store().horizon() };
        let opened = opening(&start, log);
        let subscription = Arc::new(subscription);
        let mut reader = Self {
            entered: feed.registry().enter(subscription.clone(), opened.place),
            closing: feed.closing(),
            epoch: log.epoch,
            phase: Phase::Live,
            pending: VecDeque::new(),
            at: opened.place,
            passed: opened.place.head(),
            again: None,
            feed,
            subscription,
            judge,
            held,
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
        // The last fifth of the time is for the way to the client.
        let end = now + Duration::from_millis(self.feed.config().preload_within_ms) * 4 / 5;
        let mut preload =
            Preload { filter: filter.clone(), form, head, after, taken: 0, total: 0, sent: 0, due: now, end };
        // A preload of everything would be the whole log: it needs a list of ids.
        if self.subscription.filter.has_ids() {
            let feed = self.feed.clone();
            let interest = self.judge.as_ref().and_then(SubscriptionPlugin::interest).cloned();
            let plan = tasks::blocking("preload-plan", move || {
                Window { filter: &filter, interest: interest.as_ref(), form, head, after }
                    .plan(feed.store(), feed.config())
            });
            preload.total = plan.await??.batches;
        }
        Ok(preload)
    }

    /// The random name of this subscription.
    #[must_use]
    pub fn subscription_id(&self) -> &str {
        &self.entered.line.subscription_id
    }

    /// Whether its plugin is still being prepared: nothing is read before it can judge.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        self.judge.as_ref().is_some_and(|judge| !judge.is_ready())
    }

    /// Says who reads, for those who ask who does.
    pub fn introduce(&self, who: Who) {
        self.entered.introduce(who);
    }

    /// Counts killmails that went to the client beside those it handed over: what it looked for with
    /// [`Reader::recent`].
    pub fn delivered(&self, killmails: u64) {
        self.entered.delivered(killmails);
    }

    /// What it reads.
    #[must_use]
    pub const fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Where it was opened, and why there if that is not where it was asked for: what [`Reader::next`] would
    /// begin with.
    pub fn begin(&mut self) -> (EventId, Option<Gap>) {
        let mut gap = None;
        while matches!(self.pending.front(), Some(Event::Opened { .. } | Event::Gap(_))) {
            if let Some(Event::Gap(told)) = self.pending.pop_front() {
                gap = Some(told);
            }
        }
        (self.id(), gap)
    }

    /// Where the client stands when it has seen everything handed over so far.
    #[must_use]
    pub fn id(&self) -> EventId {
        let place = match self.phase {
            Phase::Live if self.pending.is_empty() => Place::Live(self.passed),
            _ => self.at,
        };
        EventId { epoch: self.epoch, place }
    }

    /// Changes which killmails are wanted, from the place of the last event handed over on. A preload under
    /// way ends as planned.
    pub fn refilter(&mut self, filter: Filter) {
        let Subscription { plugin, max_age_secs, .. } = &*self.subscription;
        let (plugin, max_age_secs) = (plugin.clone(), *max_age_secs);
        self.resubscribe(Arc::new(Subscription { filter, plugin, max_age_secs }));
    }

    /// The same with a subscription of the same plugin.
    pub fn resubscribe(&mut self, subscription: Arc<Subscription>) {
        if matches!(self.phase, Phase::Live) {
            // What was read ahead was chosen by the old filter.
            self.passed = self.id().place.head();
            self.pending.retain(|event| {
                !matches!(event, Event::Killmail { .. } | Event::Backfilled { .. } | Event::Fault { .. })
            });
            self.pass_over();
        }
        let mut subscription = Arc::unwrap_or_clone(subscription);
        let woken = wake_terms(&subscription.filter, self.interest());
        self.held.replace(&mut subscription, woken);
        self.subscription = Arc::new(subscription);
        self.entered.renew(self.subscription.clone());
    }

    /// Goes past what is not wanted: a reader that sleeps has not looked at it yet, and a later filter might
    /// want it.
    pub fn pass_over(&mut self) {
        let head = self.feed.head();
        if !matches!(self.phase, Phase::Live) || !self.pending.is_empty() || self.passed >= head {
            return;
        }
        if let Some(page) = self.feed.store().read_page_from_memory(&self.ask(head))
            && page.entries.is_empty()
            && self.feed.store().spans(self.passed, page.passed).is_empty()
        {
            self.passed = page.passed;
        }
    }

    /// Looks for the newest killmails of some terms, up to where the reader stands now: what it hands over
    /// later is none of them.
    #[must_use]
    pub fn recent(&self, newest: Newest) -> NewestPreload {
        NewestPreload::new(
            self.feed.clone(),
            self.subscription.clone(),
            self.judge.clone(),
            newest,
            self.id().place.head(),
        )
    }

    /// Whether the preload is still going on.
    #[must_use]
    pub const fn in_preload(&self) -> bool {
        matches!(self.phase, Phase::Preload(_))
    }

    /// The next event; `None` when there will be none any more. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if matches!(self.phase, Phase::Over) && self.pending.is_empty() {
                return None;
            }
            if *self.closing.borrow() && !matches!(self.phase, Phase::Over) {
                self.end(Event::Closing);
            }
            if let Some(event) = self.pending.pop_front() {
                self.handed_over(&event);
                self.entered.moved(self.id().place);
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
                tracing::error!(subscription.id = self.subscription_id(), %error, "a reader ends");
                self.end(Event::Ended { reason: "read_failed", message: error.to_string() });
            }
        }
    }

    fn handed_over(&mut self, event: &Event) {
        let counters = self.feed.counters();
        match event {
            Event::Killmail { id, .. } => {
                self.at = id.place;
                self.entered.delivered(1);
                counters.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Event::Batch(batch) => {
                self.at = batch.id.place;
                self.entered.delivered(batch.kept.len() as u64);
                counters.preloaded.fetch_add(batch.kept.len() as u64, Ordering::Relaxed);
            }
            Event::Preloaded { id, .. } | Event::Backfilled { id, .. } => self.at = id.place,
            Event::Fault { plugin, failure, killmail_id } => {
                self.entered.failed(plugin, failure, *killmail_id);
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
        let outcomes = judged(self.judge.as_ref(), entries, Run::History { head: preload.head }).await;
        let mut kept = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            match outcome {
                Outcome::Kept(one) => kept.push(one),
                Outcome::Dropped => {}
                Outcome::Fault(failure, entry) => {
                    self.pending.push_back(self.fault(failure, entry.facts.killmail_id))
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
                judged: self.judge.is_some(),
                head,
                id,
            }));
        }
        self.phase = Phase::Preload(preload);
        Ok(())
    }

    async fn batch_hits(&self, preload: &Preload) -> Result<Vec<(u32, SharedEntry)>, FeedError> {
        let feed = self.feed.clone();
        let interest = self.judge.as_ref().and_then(SubscriptionPlugin::interest).cloned();
        let (filter, form, head, after) = (preload.filter.clone(), preload.form, preload.head, preload.after);
        tasks::blocking("preload-batch", move || {
            let window = Window { filter: &filter, interest: interest.as_ref(), form, head, after };
            let hits = window.next(feed.store(), feed.config())?;
            let entries = feed.store().entries(&hits)?;
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
        let outcomes = judged(self.judge.as_ref(), page.entries, Run::Live).await;
        let live = |seq| EventId { epoch: self.epoch, place: Place::Live(seq) };
        let mut events = Vec::new();
        let mut spans = self.feed.store().spans(self.passed, page.passed).into_iter().peekable();
        for outcome in outcomes {
            let (seq, event) = match outcome {
                Outcome::Kept(kept) => (kept.entry.seq, Event::Killmail { id: live(kept.entry.seq), kept }),
                Outcome::Dropped => continue,
                Outcome::Fault(failure, entry) => (entry.seq, self.fault(failure, entry.facts.killmail_id)),
            };
            while let Some((at, span)) = spans.next_if(|(at, _)| *at < seq) {
                events.push(Event::Backfilled { span, id: live(at) });
            }
            events.push(event);
        }
        events.extend(spans.map(|(at, span)| Event::Backfilled { span, id: live(at) }));
        self.pending.extend(events);
        self.passed = page.passed;
        self.entered.moved(self.id().place);
        Ok(())
    }

    /// The question for the next page.
    fn ask(&self, head: Seq) -> PageQuery<'_> {
        let config = self.feed.config();
        PageQuery {
            filter: &self.subscription.filter,
            interest: self.judge.as_ref().and_then(SubscriptionPlugin::interest),
            after: self.passed,
            head,
            max_age_secs: self.subscription.max_age_secs,
            limit: if self.judge.is_some() { config.judged_page_max } else { config.page_max },
            limit_bytes: config.page_bytes,
            scan: config.scan_max,
        }
    }

    async fn read_page(&self, head: Seq) -> Result<Page, FeedError> {
        let ask = self.ask(head);
        if let Some(page) = self.feed.store().read_page_from_memory(&ask) {
            return Ok(page);
        }
        let PageQuery { after, max_age_secs, limit, limit_bytes, scan, .. } = ask;
        let (feed, subscription, interest) =
            (self.feed.clone(), self.subscription.clone(), ask.interest.cloned());
        let page = tasks::blocking("reader-page", move || {
            let interest = interest.as_ref();
            feed.store().read_page(&PageQuery {
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

    /// Sleeps until the bell rings, the tick is due, the server stops or the plugin changes.
    async fn wait(&mut self) -> Result<(), FeedError> {
        let tick = sleep(Duration::from_millis(self.feed.config().tick_ms));
        let judge = &mut self.judge;
        let plugin_changed = async {
            match judge {
                Some(judge) => judge.changed().await,
                None => std::future::pending().await,
            }
        };
        let again = async {
            match self.again {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            () = self.held.ring.notified() => false,
            () = tick => false,
            () = again => false,
            _ = self.closing.changed() => false,
            () = plugin_changed => true,
        };
        // Followed before the next page is read: this wait may be dropped at any await, and the change must
        // not be.
        if let Some(judge) = self.judge.as_mut().filter(|_| changed) {
            judge.forget_change();
        }
        Ok(())
    }

    fn interest(&self) -> Option<&Interest> {
        self.judge.as_ref().and_then(SubscriptionPlugin::interest)
    }

    fn fault(&self, failure: Failure, killmail_id: u32) -> Event {
        let plugin = self.judge.as_ref().map(|judge| judge.name().to_owned()).unwrap_or_default();
        Event::Fault { plugin, failure, killmail_id }
    }
}
