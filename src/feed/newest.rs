//! Which killmails a channel preloads: the newest of each of many terms, cut into portions of one system.
//!
//! Must not know: when portions go out, what a client has already.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use crate::domain::filter::{Filter, IdSet, Interest, Match, RoleClause};
use crate::domain::id::Seq;
use crate::domain::term::{Dimension, Role, Term};
use crate::feed::error::FeedError;
use crate::store::Store;
use crate::store::query::{HistoryQuery, Hit, Order};

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
    /// Killmails of one portion, and of one interval.
    pub batch: usize,
    /// JSON of one portion, bytes; a larger killmail is a portion of its own.
    pub portion_bytes: u64,
    /// An interval lasts so long.
    pub pause: Duration,
    /// Counts are of killmails not older than this, unix seconds.
    pub counted_since: i64,
}

impl Newest {
    /// The filter that takes what any of the terms takes, in this role.
    #[must_use]
    pub fn filter(&self, role: Role) -> Filter {
        let mut filter =
            Filter { role, ..if self.terms.is_empty() { Filter::nothing() } else { Filter::default() } };
        for kind in Dimension::ALL {
            filter.set_ids(
                kind,
                self.terms.iter().filter(|term| term.kind == kind).map(|term| term.id).collect(),
            );
        }
        filter
    }
}

/// Killmails of one system to be read and handed over together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    /// The system.
    pub system: u32,
    /// The killmails, newest first.
    pub hits: Vec<Hit>,
}

/// What was chosen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What is still to be handed over.
    pub portions: VecDeque<Portion>,
    /// Systems looked at: those asked for, and others where killmails were.
    pub systems: u64,
    /// Terms that were not looked at, or not to their end, because there were too many killmails.
    pub left_out: u64,
    /// Systems that had a portion, to be counted.
    pub told: VecDeque<u32>,
}

impl Choice {
    /// Killmails still to be handed over.
    #[must_use]
    pub fn left(&self) -> usize {
        self.portions.iter().map(|portion| portion.hits.len()).sum()
    }

    /// Leaves out what none of the terms that still stand can want. Where others than systems are among them,
    /// only reading can tell.
    pub fn keep(&mut self, standing: &Newest) {
        if standing.terms.iter().any(|term| term.kind != Dimension::System) {
            return;
        }
        let systems: HashSet<u32> = standing.terms.iter().map(|term| term.id).collect();
        let mut gone = HashSet::new();
        self.portions.retain(|portion| {
            let stays = systems.contains(&portion.system);
            if !stays {
                gone.insert(portion.system);
            }
            stays
        });
        // Those that had their portion were looked at all the same.
        gone.retain(|system| !self.told.contains(system));
        self.systems = self.systems.saturating_sub(gone.len() as u64);
    }
}

/// One search for all terms.
pub struct Search<'a> {
    /// Where.
    pub store: &'a Store,
    /// What.
    pub newest: &'a Newest,
    /// What the plugin needs.
    pub interest: Option<&'a Interest>,
    /// Only entries numbered up to here.
    pub head: Seq,
}

impl Search<'_> {
    /// Chooses term by term; a killmail that several terms find comes once, where the first found it.
    ///
    /// # Errors
    /// The store failed.
    pub fn choose(&self, filter: &Filter) -> Result<Choice, FeedError> {
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
            if term.kind == Dimension::System {
                groups.open(term.id);
            }
            for hit in hits {
                seen.insert(hit.killmail_id);
                let system =
                    if term.kind == Dimension::System { Some(term.id) } else { self.system_of(hit)? };
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

    const fn query<'a>(&'a self, filter: &'a Filter) -> HistoryQuery<'a> {
        let (interest, head, limit) = (self.interest, self.head, self.newest.limit);
        HistoryQuery { filter, interest, order: Order::Newest, after: None, below: None, head, limit }
    }

    fn system_of(&self, hit: Hit) -> Result<Option<u32>, FeedError> {
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
                let full = portion.len() >= self.newest.batch || bytes + weight > self.newest.portion_bytes;
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
        Match::All => {
            filter.each =
                vec![RoleClause { kind: term.kind, role: filter.role, ids: IdSet::new(vec![term.id]) }]
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(terms: &[(Dimension, u32)]) -> Newest {
        let terms = terms.iter().map(|(kind, id)| Term { kind: *kind, id: *id }).collect();
        let (pause, portion_bytes) = (Duration::ZERO, 1 << 20);
        Newest { terms, limit: 5, since: 0, max: 100, batch: 50, portion_bytes, pause, counted_since: 0 }
    }

    fn choice(systems: &[u32]) -> Choice {
        let portion =
            |system: &u32| Portion { system: *system, hits: vec![Hit { seq: Seq(1), killmail_id: *system }] };
        Choice { portions: systems.iter().map(portion).collect(), systems: 5, left_out: 0, told: [1].into() }
    }

    fn systems(choice: &Choice) -> Vec<u32> {
        choice.portions.iter().map(|portion| portion.system).collect()
    }

    #[test]
    fn what_no_term_wants_any_more_is_left_out() {
        let mut chosen = choice(&[1, 2, 2, 3]);
        chosen.keep(&newest(&[(Dimension::System, 3)]));
        // System 1 had a portion before.
        assert_eq!((systems(&chosen), chosen.systems, chosen.left()), (vec![3], 4, 1));
        let mut chosen = choice(&[1, 2]);
        chosen.keep(&newest(&[(Dimension::System, 1), (Dimension::Character, 9)]));
        assert_eq!(systems(&chosen), [1, 2], "the character may have been in any of them");
        chosen.keep(&newest(&[]));
        assert_eq!(chosen.left(), 0);
    }

    #[test]
    fn terms_that_stand_make_a_filter() {
        assert_eq!(newest(&[]).filter(Role::Any), Filter::nothing());
        let filter = newest(&[(Dimension::System, 3), (Dimension::Alliance, 9), (Dimension::System, 1)])
            .filter(Role::Victim);
        assert_eq!(filter.ids(Dimension::System).map(IdSet::as_slice), Some(&[1, 3][..]));
        assert!(
            filter.ids(Dimension::Alliance).is_some()
                && filter.matching == Match::Any
                && filter.role == Role::Victim
        );
    }
}
