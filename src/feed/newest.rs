//! Which killmails a channel preloads: the newest ones of each term, cut into portions of one system each.
//!
//! Must not know: when portions are sent, or what a client has already.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};

use crate::domain::filter::{Filter, IdSet, Interest, Match, RoleClause};
use crate::domain::id::Seq;
use crate::domain::term::{Dimension, Role, Term};
use crate::feed::error::FeedError;
use crate::store::Store;
use crate::store::query::{HistoryQuery, Hit, Order};

/// A preload as the client asks for it.
#[derive(Debug, Clone)]
pub struct Newest {
    pub terms: Vec<Term>,
    /// Killmails per term, before any plugin judges them.
    pub limit: usize,
    /// Oldest killmail time, unix seconds.
    pub since: i64,
    /// Killmails in all.
    pub max: usize,
    /// Killmails per portion and per interval.
    pub batch: usize,
    /// Bytes of JSON per portion. A larger killmail is a portion of its own.
    pub portion_bytes: u64,
    /// Length of an interval.
    pub pause: Duration,
    /// Oldest killmail time for the counts, unix seconds.
    pub counted_since: i64,
}

impl Newest {
    /// A filter that matches what any of the terms matches, in this role.
    #[must_use]
    pub fn filter(&self, role: Role) -> Filter {
        let mut filter =
            Filter { role, ..if self.terms.is_empty() { Filter::nothing() } else { Filter::default() } };
        for dimension in Dimension::ALL {
            filter.set_ids(
                dimension,
                self.terms.iter().filter(|term| term.dimension == dimension).map(|term| term.id).collect(),
            );
        }
        filter
    }
}

/// Killmails of one system that are read and sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    pub system: u32,
    /// The killmails, newest first.
    pub hits: Vec<Hit>,
}

/// The killmails selected for a preload.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Portions still to be sent.
    pub portions: VecDeque<Portion>,
    /// Systems covered: those asked for, and others in which killmails were found.
    pub systems: u64,
    /// Terms left out, or cut short, because there were too many killmails.
    pub left_out: u64,
    /// Systems that had a portion and get a count.
    pub to_count: VecDeque<u32>,
}

impl Selection {
    /// Killmails still to be sent.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.portions.iter().map(|portion| portion.hits.len()).sum()
    }

    /// Drops portions that none of the remaining terms can match. If some terms are not systems, only reading the
    /// killmails can tell, and nothing is dropped.
    pub fn retain(&mut self, standing: &Newest) {
        if standing.terms.iter().any(|term| term.dimension != Dimension::System) {
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
        // Systems that had their portion stay covered.
        gone.retain(|system| !self.to_count.contains(system));
        self.systems = self.systems.saturating_sub(gone.len() as u64);
    }
}

/// A search over all terms.
pub struct Search<'a> {
    pub store: &'a Store,
    pub newest: &'a Newest,
    /// What the plugin needs to see.
    pub interest: Option<&'a Interest>,
    /// The last log entry to consider.
    pub head: Seq,
}

impl Search<'_> {
    /// Selects term by term. A killmail that several terms match is selected once, by the first.
    ///
    /// # Errors
    /// The store failed.
    pub fn choose(&self, filter: &Filter) -> Result<Selection, FeedError> {
        let mut filter = self.narrowed(filter);
        let (mut seen, mut groups) = (HashSet::new(), Groups::default());
        let mut left_out = 0;
        for (at, term) in self.newest.terms.iter().enumerate() {
            let room = self.newest.max - seen.len();
            if room == 0 {
                left_out += (self.newest.terms.len() - at) as u64;
                break;
            }
            restrict(&mut filter, *term);
            let mut hits = self.store.select(&self.query(&filter))?;
            hits.retain(|hit| !seen.contains(&hit.killmail_id));
            if hits.len() > room {
                hits.truncate(room);
                left_out += 1;
            }
            if term.dimension == Dimension::System {
                groups.open(term.id);
            }
            for hit in hits {
                seen.insert(hit.killmail_id);
                let system =
                    if term.dimension == Dimension::System { Some(term.id) } else { self.system_of(hit)? };
                groups.put(system.unwrap_or_default(), hit);
            }
        }
        let systems = groups.in_order.len() as u64;
        Ok(Selection { portions: self.cut(groups), systems, left_out, to_count: VecDeque::new() })
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
        Ok(self.store.entry(hit.seq)?.map(|entry| entry.facts.system()))
    }

    /// Cuts the killmails of each system, newest first, into portions.
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

/// Restricts a filter to one term.
fn restrict(filter: &mut Filter, term: Term) {
    match filter.matching {
        Match::Any => filter.set_ids(term.dimension, vec![term.id]),
        Match::All => {
            filter.each = vec![RoleClause {
                dimension: term.dimension,
                role: filter.role,
                ids: IdSet::new(vec![term.id]),
            }]
        }
    }
    if filter.matching == Match::Any {
        filter.dimensions.retain(|listed| listed.dimension == term.dimension);
    }
}

/// Killmails by system, in the order in which systems were found.
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
        let terms = terms.iter().map(|(dimension, id)| Term { dimension: *dimension, id: *id }).collect();
        let (pause, portion_bytes) = (Duration::ZERO, 1 << 20);
        Newest { terms, limit: 5, since: 0, max: 100, batch: 50, portion_bytes, pause, counted_since: 0 }
    }

    fn choice(systems: &[u32]) -> Selection {
        let portion =
            |system: &u32| Portion { system: *system, hits: vec![Hit { seq: Seq(1), killmail_id: *system }] };
        Selection {
            portions: systems.iter().map(portion).collect(),
            systems: 5,
            left_out: 0,
            to_count: [1].into(),
        }
    }

    fn systems(choice: &Selection) -> Vec<u32> {
        choice.portions.iter().map(|portion| portion.system).collect()
    }

    #[test]
    fn what_no_term_wants_any_more_is_left_out() {
        let mut chosen = choice(&[1, 2, 2, 3]);
        chosen.retain(&newest(&[(Dimension::System, 3)]));
        // System 1 had a portion before.
        assert_eq!((systems(&chosen), chosen.systems, chosen.remaining()), (vec![3], 4, 1));
        let mut chosen = choice(&[1, 2]);
        chosen.retain(&newest(&[(Dimension::System, 1), (Dimension::Character, 9)]));
        assert_eq!(systems(&chosen), [1, 2], "the character may have been in any of them");
        chosen.retain(&newest(&[]));
        assert_eq!(chosen.remaining(), 0);
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
