//! History requests: one page of the killmails a subscription selects, judged by its plugin within a CPU budget. A
//! page lists killmails; most are read only when they are sent, so that a slow client costs a list of numbers.
//!
//! Must not know: cursors, or the JSON around a page.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::entry::SharedEntry;
use crate::domain::filter::{Filter, Interest};
use crate::domain::id::Seq;
use crate::domain::subscription::Subscription;
use crate::domain::term::Term;
use crate::domain::verdict::Failure;
use crate::feed::Feed;
use crate::feed::error::FeedError;
use crate::feed::event::Delivered;
use crate::feed::subscription_plugin::{Outcome, SubscriptionPlugin, judge_page};
use crate::plugin::judging::run::Run;
use crate::store;
use crate::store::query::{HistoryQuery, Hit, Order};

/// The first killmails of a page are read together with their numbers, up to this many bytes of JSON: leaving the
/// event loop once more would cost as much as reading them.
const FIRST_READ_BYTES: u64 = 256 << 10;

/// A request whose plugin waits for other requests ends after this many times its CPU budget.
const WAIT_FACTOR: u32 = 5;

/// A request for a page of history.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// Filter and plugin; `max_age_secs` is ignored.
    pub subscription: Arc<Subscription>,
    /// Newest or oldest first, by killmail id.
    pub order: Order,
    /// The last killmail id of the previous page.
    pub after: Option<u32>,
    /// The last log entry to consider.
    pub head: Seq,
    /// Killmails on the page, counted after the plugin.
    pub limit: usize,
}

/// The newest killmails of one id.
#[derive(Debug, Clone, Copy)]
pub struct Latest {
    pub term: Term,
    /// Oldest killmail time, unix seconds.
    pub since: Option<i64>,
    /// Killmails at most.
    pub limit: usize,
}

/// A killmail of a page.
#[derive(Debug, Clone)]
pub struct Chosen {
    pub hit: Hit,
    /// Plugin name and JSON object.
    pub annotations: Vec<(String, Arc<str>)>,
    /// The killmail itself, for the first ones of a page.
    entry: Option<SharedEntry>,
}

impl Chosen {
    const fn plain(hit: Hit, entry: Option<SharedEntry>) -> Self {
        Self { hit, annotations: Vec::new(), entry }
    }

    /// The killmail with its annotations, if it was read already.
    fn delivered(&self) -> Option<Delivered> {
        Some(Delivered { entry: self.entry.clone()?, annotations: self.annotations.clone() })
    }
}

/// A page of history.
#[derive(Debug, Default)]
pub struct Found {
    /// The killmails, in the requested order.
    pub chosen: Vec<Chosen>,
    /// The killmail id the next page starts after; `None` on the last page.
    pub next: Option<u32>,
    /// False when the plugin's budget ended the page early, or a fault hid a killmail.
    pub complete: bool,
    /// The plugin's faults; `None` without a plugin.
    pub faults: Option<Faults>,
}

/// The faults of a plugin on one page; each hides a killmail.
#[derive(Debug, Default)]
pub struct Faults {
    /// How many, by kind of fault.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first fault, as a sentence.
    pub example: Option<String>,
}

impl Faults {
    fn note(&mut self, plugin: &str, failure: &Failure, killmail_id: u32) {
        *self.counts.entry(failure.fault.word()).or_default() += 1;
        self.example
            .get_or_insert_with(|| format!("plugin {plugin} failed on killmail {killmail_id}: {failure}"));
    }
}

impl Feed {
    /// Reads one page of history.
    ///
    /// # Errors
    /// The plugin is unknown or refuses its configuration, or the store failed.
    pub async fn lookup(self: &Arc<Self>, lookup: Lookup) -> Result<Found, FeedError> {
        let plugin = match &lookup.subscription.plugin {
            Some(using) => Some(
                SubscriptionPlugin::open(self, using)
                    .await?
                    .limited_to(Duration::from_millis(self.config().judged_ms)),
            ),
            None => None,
        };
        let mut search = Search { feed: self, lookup, judged: 0, bytes: 0, waited: Duration::ZERO };
        match plugin {
            Some(plugin) => search.judged(&plugin).await,
            None => search.selected().await,
        }
    }

    /// Finds the newest killmails of an id; the flag says whether there are more.
    ///
    /// # Errors
    /// The store failed.
    pub async fn latest(self: &Arc<Self>, latest: Latest) -> Result<(Vec<Chosen>, bool), FeedError> {
        let Latest { term, since, limit } = latest;
        let mut filter = Filter { since, ..Filter::default() };
        filter.set_ids(term.dimension, vec![term.id]);
        let subscription = Arc::new(Subscription { filter, ..Subscription::default() });
        let lookup = Lookup { subscription, order: Order::Newest, after: None, head: self.head(), limit };
        self.lookup(lookup).await.map(|found| (found.chosen, found.next.is_some()))
    }

    /// Reads the killmails of a page.
    ///
    /// # Errors
    /// The store failed.
    pub async fn load(self: &Arc<Self>, chosen: Vec<Chosen>) -> Result<Vec<Delivered>, FeedError> {
        if let Some(kept) = chosen.iter().map(Chosen::delivered).collect() {
            return Ok(kept);
        }
        let feed = self.clone();
        let read = self.read("history-read", move || -> Result<Vec<Delivered>, FeedError> {
            let hits: Vec<Hit> = chosen.iter().map(|one| one.hit).collect();
            let entries = feed.store.entries(&hits)?;
            let kept = entries
                .into_iter()
                .zip(chosen)
                .map(|(entry, one)| Delivered { entry, annotations: one.annotations });
            Ok(kept.collect())
        });
        read.await?
    }

    /// Counts the killmails a filter selects, before any plugin.
    ///
    /// # Errors
    /// The store failed.
    pub async fn count(
        self: &Arc<Self>,
        subscription: Arc<Subscription>,
        head: Seq,
    ) -> Result<u64, FeedError> {
        let feed = self.clone();
        let counted = self.read("history-count", move || {
            let filter = &subscription.filter;
            feed.store.count_matching(&HistoryQuery {
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
    lookup: Lookup,
    judged: usize,
    /// Bytes of JSON of the killmails kept so far.
    bytes: u64,
    /// Time spent waiting for the plugin.
    waited: Duration,
}

impl Search<'_> {
    /// The page without a plugin.
    async fn selected(&self) -> Result<Found, FeedError> {
        // One more than needed shows whether there is a next page.
        let (feed, lookup) = (self.feed.clone(), self.lookup.clone());
        let page = self.feed.read("history-page", move || -> Result<_, store::error::StoreError> {
            let mut hits = select(&feed, &lookup, None, lookup.limit.saturating_add(1))?;
            let more = hits.len() > lookup.limit;
            hits.truncate(lookup.limit);
            let mut bytes = 0;
            let first = hits.iter().take_while(|hit| is_read_first(&feed, &mut bytes, hit.seq)).count();
            let entries = feed.store.entries(&hits[..first])?;
            Ok((hits, entries, more))
        });
        let (hits, entries, more) = page.await??;
        let next = hits.last().filter(|_| more).map(|hit| hit.killmail_id);
        let entries = entries.into_iter().map(Some).chain(std::iter::repeat(None));
        let chosen = hits.into_iter().zip(entries).map(|(hit, entry)| Chosen::plain(hit, entry)).collect();
        Ok(Found { chosen, next, complete: true, faults: None })
    }

    /// The page with a plugin.
    async fn judged(&mut self, plugin: &SubscriptionPlugin) -> Result<Found, FeedError> {
        let wanted = self.feed.config().judged_page_max;
        let (mut found, mut faults) = (Found { complete: true, ..Found::default() }, Faults::default());
        loop {
            let page = self.page(plugin, wanted).await?;
            let exhausted = page.len() < wanted;
            let ids: Vec<u32> = page.iter().map(|entry| entry.facts.killmail_id).collect();
            if ids.is_empty() {
                break;
            }
            let begun = Instant::now();
            let outcomes = judge_page(Some(plugin), page, Run::History { head: self.lookup.head }).await;
            self.waited += begun.elapsed();
            self.judged += outcomes.len();
            // A plugin whose budget is used up leaves out the rest of the page.
            let cut = outcomes.len() < ids.len();
            let last =
                ids.get(..outcomes.len()).and_then(|judged| judged.last().copied()).or(self.lookup.after);
            if let Some(id) = self.take(plugin, outcomes, (&mut found, &mut faults)) {
                found.next = (cut || !exhausted || Some(id) != last).then_some(id);
                break;
            }
            if exhausted && !cut {
                break;
            }
            self.lookup.after = last;
            if self.is_spent(plugin) {
                (found.next, found.complete) = (last, false);
                break;
            }
        }
        found.complete &= faults.counts.is_empty();
        found.faults = Some(faults);
        Ok(found)
    }

    /// Adds the killmails that were kept. When the page is full, returns its last killmail id.
    fn take(
        &mut self,
        plugin: &SubscriptionPlugin,
        outcomes: Vec<Outcome>,
        (found, faults): (&mut Found, &mut Faults),
    ) -> Option<u32> {
        for outcome in outcomes {
            match outcome {
                Outcome::Kept(Delivered { entry, annotations }) => {
                    let hit = Hit { seq: entry.seq, killmail_id: entry.facts.killmail_id };
                    let entry = is_read_first(self.feed, &mut self.bytes, hit.seq).then_some(entry);
                    found.chosen.push(Chosen { hit, annotations, entry });
                    if found.chosen.len() == self.lookup.limit {
                        return Some(hit.killmail_id);
                    }
                }
                Outcome::Dropped => {}
                Outcome::Fault(failure, entry) => {
                    faults.note(plugin.name(), &failure, entry.facts.killmail_id)
                }
            }
        }
        None
    }

    /// Whether the request has used up its plugin budget.
    fn is_spent(&self, plugin: &SubscriptionPlugin) -> bool {
        let config = self.feed.config();
        let waited_max = Duration::from_millis(config.judged_ms) * WAIT_FACTOR;
        self.judged >= config.judged_max || plugin.is_spent() || self.waited >= waited_max
    }

    async fn page(&self, plugin: &SubscriptionPlugin, limit: usize) -> Result<Vec<SharedEntry>, FeedError> {
        let (feed, lookup, interest) = (self.feed.clone(), self.lookup.clone(), plugin.interest().cloned());
        let page = self.feed.read("history-page", move || {
            let hits = select(&feed, &lookup, interest.as_ref(), limit)?;
            feed.store.entries(&hits)
        });
        Ok(page.await??)
    }
}

/// Whether a killmail is among the first of a page, with `bytes` of JSON before it.
fn is_read_first(feed: &Feed, bytes: &mut u64, seq: Seq) -> bool {
    let before = *bytes;
    *bytes += u64::from(feed.store.weight_of(seq));
    before < FIRST_READ_BYTES
}

fn select(
    feed: &Feed,
    lookup: &Lookup,
    interest: Option<&Interest>,
    limit: usize,
) -> Result<Vec<Hit>, store::error::StoreError> {
    let filter = &lookup.subscription.filter;
    feed.store.select(&HistoryQuery {
        filter,
        interest,
        order: lookup.order,
        after: lookup.after,
        below: None,
        head: lookup.head,
        limit,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::verdict::Fault;

    #[test]
    fn faults_are_counted_and_the_first_is_told() {
        let mut faults = Faults::default();
        faults.note("gatecamp", &Failure::new(Fault::Trap, "it said last: ValueError"), 7);
        faults.note("gatecamp", &Failure::new(Fault::Memory, ""), 8);
        faults.note("gatecamp", &Failure::new(Fault::Trap, ""), 9);
        assert_eq!(faults.counts, BTreeMap::from([("trap", 2), ("memory", 1)]));
        assert_eq!(
            faults.example.as_deref(),
            Some("plugin gatecamp failed on killmail 7: trap: it said last: ValueError")
        );
    }
}
