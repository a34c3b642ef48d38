//! A running channel preload: selected off the event loop, sent in portions of one system, then counted.
//!
//! Must not know: how killmails are selected, frames, or what a client has already.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hashbrown::HashSet;
use tokio::time::{Instant, sleep_until};

use crate::domain::entry::SharedEntry;
use crate::domain::filter::Filter;
use crate::domain::id::Seq;
use crate::domain::subscription::Subscription;
use crate::domain::term::Dimension;
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::feed::event::Delivered;
use crate::feed::newest::{Newest, Portion, Search, Selection};
use crate::feed::pace::Pace;
use crate::feed::subscription_plugin::{Outcome, SubscriptionPlugin, judge_page};
use crate::plugin::judging::run::Run;
use crate::tasks;

/// The events of a preload, in this order: portions, the end, counts.
#[derive(Debug)]
pub enum PreloadEvent {
    /// Killmails of one system, newest first. The caller reports to [`NewestPreload::note_sent`] how many it sent.
    Portion { system: u32, kept: Vec<Delivered> },
    /// All portions were sent.
    Complete {
        /// Systems covered: those asked for, and others in which killmails were found.
        systems: u64,
        /// Terms left out, or cut short, because there were too many killmails.
        left_out: u64,
    },
    /// The number of killmails of a system that had a portion.
    Count { system: u32, count: u64 },
}

/// A running preload.
pub struct NewestPreload {
    feed: Arc<Feed>,
    subscription: Arc<Subscription>,
    plugin: Option<SubscriptionPlugin>,
    /// The preload, without the terms given up since.
    newest: Arc<Newest>,
    /// What the remaining terms match, if some were given up: their killmails may have been found by others.
    remaining: Option<Filter>,
    /// Systems given up; they get no count.
    given_up: HashSet<u32>,
    head: Seq,
    pace: Pace,
    stage: Stage,
}

enum Stage {
    Requested,
    Selecting(BoxFuture<'static, Result<Selection, FeedError>>),
    Waiting(Selection),
    Reading {
        selection: Selection,
        system: u32,
        entries: BoxFuture<'static, Result<Vec<SharedEntry>, FeedError>>,
    },
    Judging {
        selection: Selection,
        system: u32,
        entries: Vec<SharedEntry>,
    },
    Counting(VecDeque<u32>),
    Over,
}

impl NewestPreload {
    /// Creates a preload of entries up to `head`; nothing is read yet.
    pub(crate) fn new(
        feed: Arc<Feed>,
        subscription: Arc<Subscription>,
        plugin: Option<SubscriptionPlugin>,
        newest: Newest,
        head: Seq,
    ) -> Self {
        let now = Instant::now();
        // The last fifth of the time is for sending.
        let within = Duration::from_millis(feed.config().preload_within_ms) * 4 / 5;
        let pace = Pace::new(newest.batch, newest.pause, now, within);
        Self {
            feed,
            subscription,
            plugin,
            newest: Arc::new(newest),
            remaining: None,
            given_up: HashSet::new(),
            head,
            pace,
            stage: Stage::Requested,
        }
    }

    /// Continues only with the terms this filter still contains.
    pub fn retain(&mut self, filter: &Filter) {
        let stays = |dimension, id| filter.ids(dimension).is_some_and(|ids| ids.contains(id));
        if self.newest.terms.iter().all(|term| stays(term.dimension, term.id)) {
            return;
        }
        let mut newest = Newest::clone(&self.newest);
        let gone = newest.terms.extract_if(.., |term| !stays(term.dimension, term.id));
        self.given_up.extend(gone.filter(|term| term.dimension == Dimension::System).map(|term| term.id));
        self.remaining = Some(newest.filter(self.subscription.filter.role));
        self.newest = Arc::new(newest);
        match &mut self.stage {
            Stage::Waiting(selection)
            | Stage::Reading { selection, .. }
            | Stage::Judging { selection, .. } => selection.retain(&self.newest),
            Stage::Requested | Stage::Selecting(_) | Stage::Counting(_) | Stage::Over => {}
        }
    }

    /// Notes how many killmails of the last portion were sent. Those the client had already cost no time.
    pub fn note_sent(&mut self, killmails: usize) {
        if let Stage::Waiting(selection) = &self.stage {
            self.pace.delivered(killmails, selection.remaining(), Instant::now());
        }
    }

    /// Waits for the next event; `None` after the last. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The store failed; the preload is over then.
    pub async fn next(&mut self) -> Result<Option<PreloadEvent>, FeedError> {
        loop {
            match self.step().await {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) if matches!(self.stage, Stage::Over) => return Ok(None),
                Ok(None) => {}
                Err(error) => {
                    self.stage = Stage::Over;
                    return Err(error);
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<PreloadEvent>, FeedError> {
        match &mut self.stage {
            Stage::Over => Ok(None),
            Stage::Requested => {
                if let Some(plugin) = self.plugin.as_mut().filter(|plugin| !plugin.is_ready()) {
                    plugin.ready().await?;
                }
                self.stage = Stage::Selecting(self.select());
                Ok(None)
            }
            Stage::Selecting(selecting) => {
                let mut selection = selecting.await?;
                if self.remaining.is_some() {
                    selection.retain(&self.newest);
                }
                self.stage = Stage::Waiting(selection);
                Ok(None)
            }
            Stage::Waiting(selection) => {
                if !selection.portions.is_empty() {
                    sleep_until(self.pace.due()).await;
                }
                Ok(self.start_portion())
            }
            Stage::Reading { entries, .. } => {
                let read = entries.await?;
                if let Stage::Reading { selection, system, .. } =
                    std::mem::replace(&mut self.stage, Stage::Over)
                {
                    self.stage = Stage::Judging { selection, system, entries: read };
                }
                Ok(None)
            }
            Stage::Judging { entries, .. } => {
                let outcomes =
                    judge_page(self.plugin.as_ref(), entries.clone(), Run::History { head: self.head }).await;
                Ok(self.judged(outcomes))
            }
            Stage::Counting(systems) => {
                let Some(system) = systems.pop_front() else {
                    self.stage = Stage::Over;
                    return Ok(None);
                };
                // Microseconds, from memory: not worth leaving the event loop.
                let count = self.feed.store.count_in_system(system, self.newest.counted_since);
                Ok(Some(PreloadEvent::Count { system, count }))
            }
        }
    }

    fn select(&self) -> BoxFuture<'static, Result<Selection, FeedError>> {
        let (feed, newest, subscription, head) =
            (self.feed.clone(), self.newest.clone(), self.subscription.clone(), self.head);
        let interest = self.plugin.as_ref().and_then(SubscriptionPlugin::interest).cloned();
        Box::pin(async move {
            let chosen = tasks::blocking("preload-selection", move || {
                let search =
                    Search { store: &feed.store, newest: &newest, interest: interest.as_ref(), head };
                search.choose(&subscription.filter)
            });
            chosen.await?
        })
    }

    fn start_portion(&mut self) -> Option<PreloadEvent> {
        let Stage::Waiting(mut selection) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return None;
        };
        if let Some(Portion { system, hits }) = selection.portions.pop_front() {
            let feed = self.feed.clone();
            let entries = async move {
                Ok(tasks::blocking("preload-portion", move || feed.store.entries(&hits)).await??)
            };
            self.stage = Stage::Reading { selection, system, entries: Box::pin(entries) };
            return None;
        }
        self.stage = Stage::Counting(std::mem::take(&mut selection.to_count));
        Some(PreloadEvent::Complete { systems: selection.systems, left_out: selection.left_out })
    }

    fn judged(&mut self, outcomes: Vec<Outcome>) -> Option<PreloadEvent> {
        let Stage::Judging { mut selection, system, .. } = std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return None;
        };
        let mut kept: Vec<Delivered> = outcomes
            .into_iter()
            .filter_map(|o| if let Outcome::Kept(kept) = o { Some(kept) } else { None })
            .collect();
        if let Some(remaining) = &self.remaining {
            kept.retain(|kept| remaining.accepts(&kept.entry.facts));
        }
        if !kept.is_empty() && selection.to_count.back() != Some(&system) && !self.given_up.contains(&system)
        {
            selection.to_count.push_back(system);
        }
        self.stage = Stage::Waiting(selection);
        (!kept.is_empty()).then_some(PreloadEvent::Portion { system, kept })
    }
}
