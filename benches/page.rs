//! Queries on a store of a million killmails with a realistic distribution.
//!
//! The baseline answers the same queries from `HashMap<_, HashSet<u64>>`, the index that services of this kind
//! usually have. Both answers are compared before anything is measured. The last queries include reading the
//! killmails and encoding them as JSON.

mod support;

use std::collections::{HashMap, HashSet};

use killstream::domain::entry::Origin;
use killstream::domain::filter::{Filter, Match};
use killstream::domain::id::Seq;
use killstream::domain::term::{Dimension, Term};
use killstream::store::Store;
use killstream::store::query::{HistoryQuery, Order};
use killstream::wire::killmail::json;
use support::{Ledger, filled_store, filter_of, human, killmails, recipe, rss_bytes};

const DAY: i64 = 86_400;
const NEWEST: usize = 50;

/// The straightforward index.
#[derive(Default)]
struct Plain {
    by_term: HashMap<Term, HashSet<u64>>,
    times: HashMap<u64, i64>,
}

impl Plain {
    fn ids(&self, dimension: Dimension, ids: &[u32]) -> impl Iterator<Item = u64> {
        ids.iter().filter_map(move |id| self.by_term.get(&Term { dimension, id: *id })).flatten().copied()
    }

    fn is_since(&self, id: u64, since: i64) -> bool {
        self.times.get(&id).is_some_and(|time| *time >= since)
    }

    fn newest(mut found: Vec<u64>) -> Vec<u64> {
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        found.truncate(NEWEST);
        found
    }

    fn any(&self, dimension: Dimension, ids: &[u32], since: i64) -> Vec<u64> {
        Self::newest(self.ids(dimension, ids).filter(|id| self.is_since(*id, since)).collect())
    }

    fn both(&self, a: Term, b: Term) -> Vec<u64> {
        let (Some(a), Some(b)) = (self.by_term.get(&a), self.by_term.get(&b)) else { return Vec::new() };
        Self::newest(a.intersection(b).copied().collect())
    }
}

struct NamedQuery {
    name: &'static str,
    filter: Filter,
}

fn newest(store: &Store, filter: &Filter) -> Vec<u64> {
    let query = HistoryQuery {
        filter,
        interest: None,
        order: Order::Newest,
        after: None,
        below: None,
        head: Seq(u64::MAX),
        limit: NEWEST,
    };
    let hits = store.select(&query).expect("selected");
    hits.iter().map(|hit| u64::from(hit.killmail_id)).collect()
}

fn count(store: &Store, filter: &Filter) -> u64 {
    let query = HistoryQuery {
        filter,
        interest: None,
        order: Order::Newest,
        after: None,
        below: None,
        head: Seq(u64::MAX),
        limit: usize::MAX,
    };
    store.count_matching(&query).expect("selected")
}

/// Reads the newest matches and joins their JSON, as the history routes do.
fn answer(store: &Store, filter: &Filter) -> usize {
    let query = HistoryQuery {
        filter,
        interest: None,
        order: Order::Newest,
        after: None,
        below: None,
        head: Seq(u64::MAX),
        limit: NEWEST,
    };
    let hits = store.select(&query).expect("selected");
    let entries = store.entries(&hits).expect("read");
    let mut body = Vec::with_capacity(256 * 1024);
    for entry in &entries {
        body.extend_from_slice(&json(entry));
        body.push(b',');
    }
    body.len()
}

fn main() {
    let mut ledger = Ledger::new("page");
    let recipe = recipe(killmails());
    let until = support::end_of(&recipe);
    let characters: Vec<u32> = recipe.clone().generate().characters().iter().map(|c| c.id).collect();
    let mut plain = Plain::default();
    let mut seen: HashMap<Term, u32> = HashMap::new();
    let before = rss_bytes();
    let (_dir, store) = filled_store(recipe, Origin::Backfill, |made| {
        *seen.entry(Term { dimension: Dimension::System, id: made.killmail.solar_system_id }).or_default() +=
            1;
    });
    let stats = store.stats();
    println!(
        "RSS grew by {} MiB for {} killmails; the index says {} MiB; {} terms; {} MiB on disk",
        (rss_bytes() - before) >> 20,
        stats.killmails,
        stats.index_bytes >> 20,
        stats.terms,
        stats.disk_bytes >> 20
    );
    fill(&mut plain, &store);
    let system =
        seen.iter().max_by_key(|(_, count)| **count).map(|(term, _)| term.id).expect("a busy system");
    let character = characters[50];
    let (ten, thousand) =
        (&characters[200..210], characters.iter().copied().step_by(17).take(1_000).collect::<Vec<_>>());
    let since = until - DAY;
    index(&mut ledger, &store, &plain, system, character, since);
    many(&mut ledger, &store, &plain, ten, &thousand, since);
    whole(&mut ledger, &store, system, character, until);
    ledger.table();
    for name in [
        "system",
        "character",
        "system, 24 h",
        "count, 24 h",
        "system AND character",
        "10 characters",
        "1,000 characters, 24 h",
    ] {
        ledger.ratio(name, &format!("plain {name}"));
    }
    for name in ["end to end, recent", "end to end, a month ago"] {
        ledger.alone(name, |nanos| format!("{} a killmail", human(nanos / NEWEST as f64)));
    }
}

fn fill(plain: &mut Plain, store: &Store) {
    // Filled from the store, so that both contain the same killmails.
    for seq in 1..=store.head().0 {
        let entry = store.entry(Seq(seq)).expect("read").expect("no holes");
        let id = u64::from(entry.facts.killmail_id);
        plain.times.insert(id, entry.facts.time);
        for term in
            entry.facts.terms().filter(|t| matches!(t.dimension, Dimension::System | Dimension::Character))
        {
            plain.by_term.entry(term).or_default().insert(id);
        }
    }
}

fn compare(ledger: &mut Ledger, store: &Store, query: &NamedQuery, baseline: impl Fn() -> Vec<u64>) {
    assert_eq!(newest(store, &query.filter), baseline(), "{}", query.name);
    ledger.measure(query.name, || newest(store, &query.filter));
    ledger.measure(&format!("plain {}", query.name), baseline);
}

fn index(ledger: &mut Ledger, store: &Store, plain: &Plain, system: u32, character: u32, since: i64) {
    let system_filter = filter_of(Dimension::System, &[system]);
    compare(ledger, store, &NamedQuery { name: "system", filter: system_filter.clone() }, || {
        plain.any(Dimension::System, &[system], i64::MIN)
    });
    let query = NamedQuery { name: "character", filter: filter_of(Dimension::Character, &[character]) };
    compare(ledger, store, &query, || plain.any(Dimension::Character, &[character], i64::MIN));
    let today = Filter { since: Some(since), ..system_filter.clone() };
    compare(ledger, store, &NamedQuery { name: "system, 24 h", filter: today.clone() }, || {
        plain.any(Dimension::System, &[system], since)
    });
    let counted =
        || plain.ids(Dimension::System, &[system]).filter(|id| plain.is_since(*id, since)).count() as u64;
    assert_eq!(count(store, &today), counted());
    ledger.measure("count, 24 h", || count(store, &today));
    ledger.measure("plain count, 24 h", counted);
    let mut both = system_filter;
    both.set_ids(Dimension::Character, vec![character]);
    both.matching = Match::All;
    let terms = [
        Term { dimension: Dimension::System, id: system },
        Term { dimension: Dimension::Character, id: character },
    ];
    compare(ledger, store, &NamedQuery { name: "system AND character", filter: both }, || {
        plain.both(terms[0], terms[1])
    });
}

fn many(ledger: &mut Ledger, store: &Store, plain: &Plain, ten: &[u32], thousand: &[u32], since: i64) {
    let query = NamedQuery { name: "10 characters", filter: filter_of(Dimension::Character, ten) };
    compare(ledger, store, &query, || plain.any(Dimension::Character, ten, i64::MIN));
    let filter = Filter { since: Some(since), ..filter_of(Dimension::Character, thousand) };
    compare(ledger, store, &NamedQuery { name: "1,000 characters, 24 h", filter }, || {
        plain.any(Dimension::Character, thousand, since)
    });
}

fn whole(ledger: &mut Ledger, store: &Store, system: u32, character: u32, until: i64) {
    let recent = filter_of(Dimension::System, &[system]);
    ledger.measure("end to end, recent", || answer(store, &recent));
    let old = Filter { until: Some(until - 30 * DAY), ..filter_of(Dimension::System, &[system]) };
    ledger.measure("end to end, a month ago", || answer(store, &old));
    let old = Filter { until: Some(until - 30 * DAY), ..filter_of(Dimension::Character, &[character]) };
    ledger.measure("end to end, a character a month ago", || answer(store, &old));
}
