//! A channel's preload under way: chosen at once off the event loop, handed over in portions of one system,
//! then counted.
//!
//! Must not know: how killmails are chosen, frames, what a client has already.

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
use crate::feed::newest::{Choice, Newest, Portion, Search};
use crate::feed::pace::Pace;
use crate::feed::subscription_plugin::{Outcome, SubscriptionPlugin, judged};
use crate::plugin::judging::run::Run;
use crate::tasks;

/// What comes of it, in this order: portions, one end, counts.
#[derive(Debug)]
pub enum PreloadEvent {
    /// Killmails of one system, newest first. [`NewestPreload::delivered`] hears how many of them went out.
    Portion {
        /// The system.
        system: u32,
        /// The killmails.
        kept: Vec<Delivered>,
    },
    /// That was all.
    Complete {
        /// Systems looked at: those asked for, and others where killmails were.
        systems: u64,
        /// Terms that were not looked at, or not to their end, because there were too many killmails.
        left_out: u64,
    },
    /// How many killmails a system had, of those that had a portion.
    Count {
        /// The system.
        system: u32,
        /// The killmails.
        count: u64,
    },
}

/// A preload under way.
pub struct NewestPreload {
    feed: Arc<Feed>,
    subscription: Arc<Subscription>,
    judge: Option<SubscriptionPlugin>,
    /// Its terms are those that still stand.
    newest: Arc<Newest>,
    /// What those take, where some were given up since: others found what is left of theirs.
    standing: Option<Filter>,
    /// Systems among those given up: they are not counted, whatever else brings killmails of theirs.
    given_up: HashSet<u32>,
    head: Seq,
    pace: Pace,
    stage: Stage,
}

enum Stage {
    Asked,
    Choosing(BoxFuture<'static, Result<Choice, FeedError>>),
    Waiting(Choice),
    Reading { choice: Choice, system: u32, entries: BoxFuture<'static, Result<Vec<SharedEntry>, FeedError>> },
    Judging { choice: Choice, system: u32, entries: Vec<SharedEntry> },
    Counting(VecDeque<u32>),
    Over,
}

impl NewestPreload {
    /// Will choose among what is numbered up to `head`.
    pub(crate) fn new(
        feed: Arc<Feed>,
        subscription: Arc<Subscription>,
        judge: Option<SubscriptionPlugin>,
        newest: Newest,
        head: Seq,
    ) -> Self {
        let now = Instant::now();
        // The last fifth of the time is for the way to the client.
        let within = Duration::from_millis(feed.config().preload_within_ms) * 4 / 5;
        let pace = Pace::new(newest.batch, newest.pause, now, within);
        Self {
            feed,
            subscription,
            judge,
            newest: Arc::new(newest),
            standing: None,
            given_up: HashSet::new(),
            head,
            pace,
            stage: Stage::Asked,
        }
    }

    /// Goes on only with the terms that this filter still names: what was asked for the others' sake alone
    /// ends.
    pub fn keep(&mut self, filter: &Filter) {
        let stays = |kind, id| filter.ids(kind).is_some_and(|ids| ids.contains(id));
        if self.newest.terms.iter().all(|term| stays(term.kind, term.id)) {
            return;
        }
        let mut newest = Newest::clone(&self.newest);
        let gone = newest.terms.extract_if(.., |term| !stays(term.kind, term.id));
        self.given_up.extend(gone.filter(|term| term.kind == Dimension::System).map(|term| term.id));
        self.standing = Some(newest.filter(self.subscription.filter.role));
        self.newest = Arc::new(newest);
        match &mut self.stage {
            Stage::Waiting(choice) | Stage::Reading { choice, .. } | Stage::Judging { choice, .. } => {
                choice.keep(&self.newest)
            }
            Stage::Asked | Stage::Choosing(_) | Stage::Counting(_) | Stage::Over => {}
        }
    }

    /// So many killmails of the last portion went out: the others the client had already, and they cost no
    /// time.
    pub fn delivered(&mut self, killmails: usize) {
        if let Stage::Waiting(choice) = &self.stage {
            self.pace.delivered(killmails, choice.left(), Instant::now());
        }
    }

    /// What comes next; `None` when there is nothing any more. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The store failed; nothing comes after it.
    pub async fn next(&mut self) -> Result<Option<PreloadEvent>, FeedError> {
        loop {
            match self.step().await {
                Ok(Some(told)) => return Ok(Some(told)),
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
            Stage::Asked => {
                if let Some(judge) = self.judge.as_mut().filter(|judge| !judge.is_ready()) {
                    judge.ready().await?;
                }
                self.stage = Stage::Choosing(self.choice());
                Ok(None)
            }
            Stage::Choosing(choosing) => {
                let mut choice = choosing.await?;
                if self.standing.is_some() {
                    choice.keep(&self.newest);
                }
                self.stage = Stage::Waiting(choice);
                Ok(None)
            }
            Stage::Waiting(choice) => {
                if !choice.portions.is_empty() {
                    sleep_until(self.pace.due()).await;
                }
                Ok(self.waited())
            }
            Stage::Reading { entries, .. } => {
                let read = entries.await?;
                if let Stage::Reading { choice, system, .. } = std::mem::replace(&mut self.stage, Stage::Over)
                {
                    self.stage = Stage::Judging { choice, system, entries: read };
                }
                Ok(None)
            }
            Stage::Judging { entries, .. } => {
                let outcomes =
                    judged(self.judge.as_ref(), entries.clone(), Run::History { head: self.head }).await;
                Ok(self.told(outcomes))
            }
            Stage::Counting(systems) => {
                let Some(system) = systems.pop_front() else {
                    self.stage = Stage::Over;
                    return Ok(None);
                };
                // From memory, in microseconds: no reason to leave the event loop.
                let count = self.feed.store().count_in_system(system, self.newest.counted_since);
                Ok(Some(PreloadEvent::Count { system, count }))
            }
        }
    }

    fn choice(&self) -> BoxFuture<'static, Result<Choice, FeedError>> {
        let (feed, newest, subscription, head) =
            (self.feed.clone(), self.newest.clone(), self.subscription.clone(), self.head);
        let interest = self.judge.as_ref().and_then(SubscriptionPlugin::interest).cloned();
        Box::pin(async move {
            let chosen = tasks::blocking("preload-choice", move || {
                let search =
                    Search { store: feed.store(), newest: &newest, interest: interest.as_ref(), head };
                search.choose(&subscription.filter)
            });
            chosen.await?
        })
    }

    fn waited(&mut self) -> Option<PreloadEvent> {
        let Stage::Waiting(mut choice) = std::mem::replace(&mut self.stage, Stage::Over) else { return None };
        if let Some(Portion { system, hits }) = choice.portions.pop_front() {
            let feed = self.feed.clone();
            let entries = async move {
                Ok(tasks::blocking("preload-portion", move || feed.store().entries(&hits)).await??)
            };
            self.stage = Stage::Reading { choice, system, entries: Box::pin(entries) };
            return None;
        }
        self.stage = Stage::Counting(std::mem::take(&mut choice.told));
        Some(PreloadEvent::Complete { systems: choice.systems, left_out: choice.left_out })
    }

    fn told(&mut self, outcomes: Vec<Outcome>) -> Option<PreloadEvent> {
        let Stage::Judging { mut choice, system, .. } = std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return None;
        };
        let mut kept: Vec<Delivered> = outcomes
            .into_iter()
            .filter_map(|o| if let Outcome::Kept(kept) = o { Some(kept) } else { None })
            .collect();
        if let Some(standing) = &self.standing {
            kept.retain(|kept| standing.accepts(&kept.entry.facts));
        }
        if !kept.is_empty() && choice.told.back() != Some(&system) && !self.given_up.contains(&system) {
            choice.told.push_back(system);
        }
        self.stage = Stage::Waiting(choice);
        (!kept.is_empty()).then_some(PreloadEvent::Portion { system, kept })
    }
}
