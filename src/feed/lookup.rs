//! History on demand: one page of what a subscription selects, judged if it has a plugin, within a budget.
//!
//! Must not know: cursors, envelopes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::entry::SharedEntry;
use crate::domain::id::Seq;
use crate::domain::subscription::Subscription;
use crate::feed::event::Kept;
use crate::feed::judge::{Judge, Outcome, judged};
use crate::feed::{Error, Feed};
use crate::plugin::evaluator::Run;
use crate::store::{Order, Query};
use crate::tasks;

/// A request whose plugin waits for others' ends after so many times its CPU time.
const WAITED_TIMES: u32 = 5;

/// What is asked of the past.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Filter and plugin; `max_age_secs` means nothing here.
    pub subscription: Arc<Subscription>,
    /// Newest or oldest first, by killmail id.
    pub order: Order,
    /// The killmail id last seen, exclusive.
    pub after: Option<u32>,
    /// Only entries numbered up to here.
    pub head: Seq,
    /// Kept killmails wanted.
    pub limit: usize,
}

/// A page of the past.
#[derive(Debug)]
pub struct Found {
    /// The killmails, in the order asked for.
    pub killmails: Vec<Kept>,
    /// The killmail id to go on after; none when there is nothing more.
    pub next: Option<u32>,
    /// False when the budget of the plugin ended the page early.
    pub complete: bool,
}

impl Feed {
    /// One page of the past.
    ///
    /// # Errors
    /// The plugin is unknown or refuses its configuration, or the store failed.
    pub async fn lookup(self: &Arc<Self>, lookup: Lookup) -> Result<Found, Error> {
        let judge = match &lookup.subscription.plugin {
            Some(using) => Some(Judge::open(self, using).await?.counted()),
            None => None,
        };
        let mut search = Search { feed: self, judge, lookup, judged: 0, waited: Duration::ZERO };
        search.run().await
    }

    /// How many killmails a filter selects, no plugin asked.
    ///
    /// # Errors
    /// The store failed.
    pub async fn count(self: &Arc<Self>, subscription: Arc<Subscription>, head: Seq) -> Result<u64, Error> {
        let feed = self.clone();
        let counted = tasks::blocking("history-count", move || {
            let filter = &subscription.filter;
            feed.store().count_matching(&Query {
                filter,
                interest: None,
                order: Order::Newest,
                after: None,
                below: None,
                head,
                limit: usize::MAX,
            })
        });
        Ok(counted.await??)
    }
}

struct Search<'a> {
    feed: &'a Arc<Feed>,
    judge: Option<Judge>,
    lookup: Lookup,
    judged: usize,
    /// Waited for judgments.
    waited: Duration,
}

impl Search<'_> {
    async fn run(&mut self) -> Result<Found, Error> {
        let limit = self.lookup.limit;
        let mut killmails = Vec::new();
        loop {
            let missing = limit - killmails.len();
            // One more than needed tells whether there is a next page.
            let wanted = if self.judge.is_some() { self.feed.config().judged_page_max } else { missing + 1 };
            let mut page = self.page(wanted).await?;
            let exhausted = page.len() < wanted;
            if self.judge.is_none() {
                page.truncate(missing);
            }
            let Some(last) = page.last().map(|entry| entry.facts.killmail_id) else {
                return Ok(Found { killmails, next: None, complete: true });
            };
            self.judged += page.len();
            let begun = Instant::now();
            let outcomes = judged(self.judge.as_ref(), page, Run::History { head: self.lookup.head }).await;
            self.waited += begun.elapsed();
            for outcome in outcomes {
                if let Outcome::Kept(kept) = outcome {
                    let id = kept.entry.facts.killmail_id;
                    killmails.push(kept);
                    if killmails.len() == limit {
                        let next = (!exhausted || id != last).then_some(id);
                        return Ok(Found { killmails, next, complete: true });
                    }
                }
            }
            if exhausted {
                return Ok(Found { killmails, next: None, complete: true });
            }
            self.lookup.after = Some(last);
            if self.is_spent() {
                return Ok(Found { killmails, next: Some(last), complete: false });
            }
        }
    }

    /// Whether the request has had what it may have of its plugin.
    fn is_spent(&self) -> bool {
        let config = self.feed.config();
        let cpu_max = Duration::from_millis(config.judged_ms);
        let spent = self.judge.as_ref().map_or(Duration::ZERO, Judge::spent);
        self.judged >= config.judged_max || spent >= cpu_max || self.waited >= cpu_max * WAITED_TIMES
    }

    async fn page(&self, limit: usize) -> Result<Vec<SharedEntry>, Error> {
        let (feed, lookup) = (self.feed.clone(), self.lookup.clone());
        let interest = self.judge.as_ref().and_then(Judge::interest).cloned();
        let page = tasks::blocking("history-page", move || {
            let hits = feed.store().select(&Query {
                filter: &lookup.subscription.filter,
                interest: interest.as_ref(),
                order: lookup.order,
                after: lookup.after,
                below: None,
                head: lookup.head,
                limit,
            })?;
            feed.store().entries(&hits)
        });
        Ok(page.await??)
    }
}
