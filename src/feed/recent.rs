//! The newest killmails of each of many terms: what a channel preloads. Chosen at once off the event loop, handed over in portions of one
//! system, then counted.
//!
//! Must not know: frames, what a client has already.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hashbrown::{HashMap, HashSet};
use tokio::time::{Instant, sleep_until};

use crate::domain::entry::SharedEntry;
use crate::domain::filter::{Filter, IdSet, Interest, Match, Wanted};
use crate::domain::id::Seq;
use crate::domain::subscription::Subscription;
use crate::domain::term::{Kind, Term};
use crate::feed::event::Kept;
use crate::feed::judge::{Judge, Outcome, judged};
use crate::feed::{Error, Feed};
use crate::plugin::evaluator::Run;
use crate::store::{Hit, Order, Query, Store};
use crate::tasks;

/// What is wanted of the past.
#[derive(Debug, Clone)]
pub struct Newest {
    /// Of each of these.
    pub terms: Vec<Term>,
    /// So many killmails, before any plugin judges.
    pub limit: usize,
    /// Not older than this, unix seconds.
    pub since: i64,
    /// Killmails in all.
    pub max: usize,
    /// Killmails of one portion; none: a portion is a system.
    pub batch: Option<usize>,
    /// JSON of one portion, bytes; a larger killmail is a portion of its own.
    pub portion_bytes: u64,
    /// Pause between portions.
    pub pause: Duration,
    /// Counts are of killmails not older than this, unix seconds.
    pub counted_since: i64,
}

/// What comes of it, in this order: portions, one end, counts.
#[derive(Debug)]
pub enum Told {
    /// Killmails of one system, newest first.
    Portion {
        /// The system.
        system: u32,
        /// The killmails.
        kept: Vec<Kept>,
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

/// Killmails to be read together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Portion {
    system: u32,
    hits: Vec<Hit>,
}

/// What was chosen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Choice {
    portions: VecDeque<Portion>,
    systems: u64,
    left_out: u64,
    /// Systems that had a portion, to be counted.
    told: VecDeque<u32>,
}

/// A preload under way.
pub struct Recent {
    feed: Arc<Feed>,
    judge: Option<Judge>,
    newest: Arc<Newest>,
    head: Seq,
    stage: Stage,
}

enum Stage {
    Choosing(BoxFuture<'static, Result<Choice, Error>>),
    Waiting { choice: Choice, due: Instant },
    Reading { choice: Choice, system: u32, entries: BoxFuture<'static, Result<Vec<SharedEntry>, Error>> },
    Judging { choice: Choice, system: u32, entries: Vec<SharedEntry> },
    Counting(VecDeque<u32>),
    Over,
}

impl Recent {
    /// Begins to choose among what is numbered up to `head`.
    pub(crate) fn new(feed: Arc<Feed>, subscription: Arc<Subscription>, judge: Option<Judge>, newest: Newest, head: Seq) -> Self {
        let newest = Arc::new(newest);
        let (choosing, wanted) = (feed.clone(), newest.clone());
        let interest = judge.as_ref().and_then(Judge::interest).cloned();
        let choice = async move {
            let chosen = tasks::blocking("preload-choice", move || {
                let search = Search { store: choosing.store(), newest: &wanted, interest: interest.as_ref(), head };
                search.choose(&subscription.filter)
            });
            chosen.await?
        };
        Self { feed, judge, newest, head, stage: Stage::Choosing(Box::pin(choice)) }
    }

    /// What comes next; `None` when there is nothing any more. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The store failed; nothing comes after it.
    pub async fn next(&mut self) -> Result<Option<Told>, Error> {
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

    async fn step(&mut self) -> Result<Option<Told>, Error> {
        match &mut self.stage {
            Stage::Over => Ok(None),
            Stage::Choosing(choosing) => {
                let choice = choosing.await?;
                self.stage = Stage::Waiting { choice, due: Instant::now() };
                Ok(None)
            }
            Stage::Waiting { due, .. } => {
                sleep_until(*due).await;
                Ok(self.waited())
            }
            Stage::Reading { entries, .. } => {
                let read = entries.await?;
                if let Stage::Reading { choice, system, .. } = std::mem::replace(&mut self.stage, Stage::Over) {
                    self.stage = Stage::Judging { choice, system, entries: read };
                }
                Ok(None)
            }
            Stage::Judging { entries, .. } => {
                let outcomes = judged(self.judge.as_ref(), entries.clone(), Run::History { head: self.head }).await;
                Ok(self.told(outcomes))
            }
            Stage::Counting(systems) => {
                let Some(system) = systems.pop_front() else {
                    self.stage = Stage::Over;
                    return Ok(None);
                };
                // From memory, in microseconds: no reason to leave the event loop.
                let count = self.feed.store().system_count(system, self.newest.counted_since);
                Ok(Some(Told::Count { system, count }))
            }
        }
    }

    fn waited(&mut self) -> Option<Told> {
        let Stage::Waiting { mut choice, .. } = std::mem::replace(&mut self.stage, Stage::Over) else { return None };
        if let Some(Portion { system, hits }) = choice.portions.pop_front() {
            let feed = self.feed.clone();
            let entries = async move { Ok(tasks::blocking("preload-portion", move || feed.store().entries(&hits)).await??) };
            self.stage = Stage::Reading { choice, system, entries: Box::pin(entries) };
            return None;
        }
        self.stage = Stage::Counting(std::mem::take(&mut choice.told));
        Some(Told::Complete { systems: choice.systems, left_out: choice.left_out })
    }

    fn told(&mut self, outcomes: Vec<Outcome>) -> Option<Told> {
        let Stage::Judging { mut choice, system, .. } = std::mem::replace(&mut self.stage, Stage::Over) else { return None };
        let kept: Vec<Kept> = outcomes.into_iter().filter_map(|o| if let Outcome::Kept(kept) = o { Some(kept) } else { None }).collect();
        let due = if kept.is_empty() { Instant::now() } else { Instant::now() + self.newest.pause };
        if !kept.is_empty() && choice.told.back() != Some(&system) {
            choice.told.push_back(system);
        }
        self.stage = Stage::Waiting { choice, due };
        (!kept.is_empty()).then_some(Told::Portion { system, kept })
    }
}

/// One search for all terms.
struct Search<'a> {
    store: &'a Store,
    newest: &'a Newest,
    interest: Option<&'a Interest>,
    head: Seq,
}

impl Search<'_> {
    /// Chooses term by term; a killmail that several terms find comes once, where the first found it.
    fn choose(&self, filter: &Filter) -> Result<Choice, Error> {
        let mut filter = self.narrowed(filter);
        let (mut seen, mut groups) = (HashSet::new(), Groups::default());
        let mut left_out = 0;
        for (at, term) in self.newest.terms.iter().enumerate() {
            let room = self.newest.max - seen.len();
            if room == 0 {
                left_out += (self.newest.terms.len() - at) as u64;
                break;
            }
            aim(&mut filter, *term);
            let mut hits = self.store.select(&self.query(&filter))?;
            hits.retain(|hit| !seen.contains(&hit.killmail_id));
            if hits.len() > room {
                hits.truncate(room);
                left_out += 1;
            }
            if term.kind == Kind::System {
                groups.open(term.id);
            }
            for hit in hits {
                seen.insert(hit.killmail_id);
                let system = if term.kind == Kind::System { Some(term.id) } else { self.system_of(hit)? };
                groups.put(system.unwrap_or_default(), hit);
            }
        }
        let systems = groups.in_order.len() as u64;
        Ok(Choice { portions: self.cut(groups), systems, left_out, told: VecDeque::new() })
    }

    /// What every term has in common.
    fn narrowed(&self, filter: &Filter) -> Filter {
        let since = filter.since.map_or(self.newest.since, |since| since.max(self.newest.since));
        let mut filter = Filter { since: Some(since), ..filter.clone() };
        if filter.matching == Match::Any {
            filter.dimensions.clear();
        }
        filter
    }

    const fn query<'a>(&'a self, filter: &'a Filter) -> Query<'a> {
        let (interest, head, limit) = (self.interest, self.head, self.newest.limit);
        Query { filter, interest, order: Order::Newest, after: None, below: None, head, limit }
    }

    fn system_of(&self, hit: Hit) -> Result<Option<u32>, Error> {
        Ok(self.store.entry(hit.seq)?.map(|entry| entry.facts.system))
    }

    /// Cuts each system's killmails, newest first, into what goes out together.
    fn cut(&self, groups: Groups) -> VecDeque<Portion> {
        let mut portions = VecDeque::new();
        for (system, mut hits) in groups.in_order {
            hits.sort_unstable_by_key(|hit| std::cmp::Reverse(hit.killmail_id));
            let (mut portion, mut bytes) = (Vec::new(), 0);
            for hit in hits {
                let weight = u64::from(self.store.weight_of(hit.seq));
                let full = self.newest.batch.is_some_and(|most| portion.len() >= most) || bytes + weight > self.newest.portion_bytes;
                if full && !portion.is_empty() {
                    portions.push_back(Portion { system, hits: std::mem::take(&mut portion) });
                    bytes = 0;
                }
                portion.push(hit);
                bytes += weight;
            }
            if !portion.is_empty() {
                portions.push_back(Portion { system, hits: portion });
            }
        }
        portions
    }
}

/// Makes a filter ask for one term.
fn aim(filter: &mut Filter, term: Term) {
    match filter.matching {
        Match::Any => filter.set_ids(term.kind, vec![term.id]),
        Match::All => filter.each = vec![Wanted { kind: term.kind, role: filter.role, ids: IdSet::new(vec![term.id]) }],
    }
    if filter.matching == Match::Any {
        filter.dimensions.retain(|dimension| dimension.kind == term.kind);
    }
}

/// Killmails by system, systems in the order they came up.
#[derive(Default)]
struct Groups {
    in_order: Vec<(u32, Vec<Hit>)>,
    places: HashMap<u32, usize>,
}

impl Groups {
    fn open(&mut self, system: u32) -> usize {
        *self.places.entry(system).or_insert_with(|| {
            self.in_order.push((system, Vec::new()));
            self.in_order.len() - 1
        })
    }

    fn put(&mut self, system: u32, hit: Hit) {
        let at = self.open(system);
        self.in_order[at].1.push(hit);
    }
}
