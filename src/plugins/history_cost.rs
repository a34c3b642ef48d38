//! Compares what questions to history cost with what they are charged, on a store of 40,000 realistic
//! killmails.
//!
//!     CARGO_PROFILE_TEST_OPT_LEVEL=3 cargo test --lib history_cost -- --ignored --nocapture
//!
//! Must not know: what is charged.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tempfile::TempDir;

use crate::domain::entry::Origin;
use crate::domain::filter::{IdSet, RoleClause};
use crate::domain::id::Seq;
use crate::domain::term::{Dimension, Role};
use crate::plugin::history::{Allowance, Bound, Exhausted, History, HistoryQuestion};
use crate::plugins::plugin_history::StoreHistory;
use crate::sample::generate::Recipe;
use crate::store::config::Config;
use crate::store::incoming::{AgeRule, Incoming, ZkbRule};
use crate::store::{Store, facts};

const DIMENSIONS: [Dimension; 5] =
    [Dimension::Region, Dimension::System, Dimension::ShipType, Dimension::Alliance, Dimension::Character];

struct Past {
    _dir: TempDir,
    _store: Arc<Store>,
    history: StoreHistory,
    /// Ids of each dimension, the most frequent first.
    ids: BTreeMap<Dimension, Vec<u32>>,
}

fn past(killmails: u64) -> Past {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(Config { dir: dir.path().to_owned(), ..Config::default() }, |_| Bytes::new()).unwrap();
    let recipe =
        Recipe { killmails, days: killmails as f64 / 14_400.0, late: 0.0, revised: 0.0, ..Recipe::default() };
    let mut counts: BTreeMap<Dimension, BTreeMap<u32, u64>> = BTreeMap::new();
    let mut batch = Vec::new();
    for made in recipe.generate() {
        let found = facts::facts(&made.killmail);
        for dimension in DIMENSIONS {
            let counts = counts.entry(dimension).or_default();
            let parties = found.victim.ids(dimension).iter().chain(found.attackers.ids(dimension));
            found.place(dimension).iter().chain(parties).for_each(|id| *counts.entry(*id).or_default() += 1);
        }
        let received_at_ms = (made.uploaded_at + 3) * 1000;
        let (killmail, uploaded_at) = (made.killmail, Some(made.uploaded_at));
        batch.push(Incoming {
            killmail,
            origin: Origin::Live,
            received_at_ms,
            uploaded_at,
            age: AgeRule::ByUpload,
            zkb: ZkbRule::IfNewer,
        });
        if batch.len() == 1_000 {
            store.append(std::mem::take(&mut batch), None).unwrap();
        }
    }
    store.append(batch, None).unwrap();
    let most_frequent = |counts: BTreeMap<u32, u64>| {
        let mut ids: Vec<(u64, u32)> = counts.into_iter().map(|(id, count)| (count, id)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.into_iter().map(|(_, id)| id).collect()
    };
    let ids = counts.into_iter().map(|(dimension, counts)| (dimension, most_frequent(counts))).collect();
    Past { _dir: dir, history: StoreHistory::new(&store), _store: store, ids }
}

const BOUND: Bound = Bound { below: u32::MAX, head: Seq(u64::MAX) };

fn term(dimension: Dimension, role: Role, ids: &[u32]) -> RoleClause {
    RoleClause { dimension, role, ids: IdSet::new(ids.to_vec()) }
}

/// Prints the duration of the second of two runs in milliseconds, and what it was charged.
fn measure(what: &str, ask: impl Fn(&mut Allowance) -> Result<u64, Exhausted>) {
    let (mut took, mut charged, mut answer) = (0.0, 0, 0);
    for _ in 0..2 {
        let mut allowance = Allowance::new(u64::MAX);
        let begun = Instant::now();
        answer = black_box(ask(&mut allowance)).unwrap();
        took = begun.elapsed().as_secs_f64() * 1e3;
        charged = u64::MAX - allowance.remaining();
    }
    println!("{took:9.3} ms, charged {:9.3} ms: {what}: {answer}", charged as f64 / 1e6);
}

#[test]
#[ignore = "a measurement, not a test"]
fn what_questions_cost() {
    const KILLMAILS: u64 = 40_000;
    let past = past(KILLMAILS);
    let history = &past.history;
    let count = |what: &str, terms: Vec<RoleClause>| {
        let query = HistoryQuestion { terms, ..HistoryQuestion::default() };
        measure(what, |allowance| history.count(&query, BOUND, allowance));
    };
    let totals = |what: &str, terms: Vec<RoleClause>| {
        let query = HistoryQuestion { terms, ..HistoryQuestion::default() };
        measure(what, |allowance| history.totals(&query, BOUND, allowance).map(|totals| totals.killmails));
    };
    for n in [1_000, 100_000, 1_000_000_u32] {
        let absent: Vec<u32> =
            (0..n).map(|id| 4_000_000_000 - id.wrapping_mul(7919) % 1_000_000_000).collect();
        measure(&format!("sorting {n} ids"), |_| Ok(IdSet::new(absent.clone()).as_slice().len() as u64));
        count(
            &format!("one term of {n} ids that do not occur"),
            vec![term(Dimension::Character, Role::Any, &absent)],
        );
    }
    for (terms, ids) in [(10_000, 1), (1_000, 70), (11_000, 70)] {
        let absent: Vec<u32> = (0..ids).map(|id| 4_000_000_000 - id).collect();
        let terms = vec![term(Dimension::Character, Role::Any, &absent); terms];
        count(&format!("{} terms of {ids} ids that do not occur", terms.len()), terms);
    }
    for dimension in DIMENSIONS {
        let ids = &past.ids[&dimension];
        count(&format!("the most frequent {dimension}"), vec![term(dimension, Role::Any, &ids[..1])]);
        count(
            &format!("one term of all {} {dimension} ids", ids.len()),
            vec![term(dimension, Role::Any, ids)],
        );
        for terms in [2, 10, 100] {
            count(
                &format!("{terms} terms of the 70 most frequent {dimension} ids"),
                vec![term(dimension, Role::Any, &ids[..ids.len().min(70)]); terms],
            );
        }
        for role in
            [Role::Victim, Role::Attacker, Role::FinalBlow].into_iter().filter(|_| dimension.is_party())
        {
            count(&format!("all {dimension} ids as {role:?}"), vec![term(dimension, role, ids)]);
        }
    }
    let ships = &past.ids[&Dimension::ShipType];
    for terms in [10, 100] {
        count(
            &format!("{terms} terms of all ships as attackers"),
            vec![term(Dimension::ShipType, Role::Attacker, ships); terms],
        );
    }
    totals("totals of all killmails", vec![]);
    totals(
        "totals of 70 regions",
        vec![term(Dimension::Region, Role::Any, &past.ids[&Dimension::Region][..70])],
    );
    let half = Bound { below: u32::MAX, head: Seq(KILLMAILS / 2) };
    let last = term(Dimension::ShipType, Role::FinalBlow, &ships[..1]);
    for bound in [BOUND, half] {
        let seen = |allowance: &mut Allowance| {
            history.last_seen(&last, bound, allowance).map(|time| u64::from(time.is_some()))
        };
        measure(&format!("the most frequent ship as final blow, last seen up to {}", bound.head), seen);
    }
}

#[test]
fn an_expensive_question_is_refused_before_it_is_answered() {
    let past = past(3_000);
    let history = &past.history;
    let ask = |terms: Vec<RoleClause>, allowance: &mut Allowance| {
        history.count(&HistoryQuestion { terms, since: None, until: None }, BOUND, allowance)
    };
    let ships = &past.ids[&Dimension::ShipType];
    let mut allowance = Allowance::new(50_000_000);
    let one = term(Dimension::ShipType, Role::Any, &ships[..1]);
    assert!(ask(vec![one.clone()], &mut allowance).unwrap() > 100);
    assert!(allowance.remaining() > 49_900_000, "the cheap question is cheap");
    // About 10,000 killmails in each term: reading the lists alone would take a second.
    let refused =
        ask(vec![term(Dimension::ShipType, Role::Any, &ships[..70]); 500], &mut allowance).unwrap_err();
    assert!(refused.needed > 50_000_000 && allowance.remaining() == refused.left, "{refused}");
    // A role has to be looked up on disk for each killmail, so as many are read as the allowance pays for.
    let victims = vec![term(Dimension::ShipType, Role::Victim, ships)];
    let found = ask(victims.clone(), &mut Allowance::new(u64::MAX)).unwrap();
    assert_eq!(found, 3_000);
    let mut little = Allowance::new(10_000_000);
    let refused = ask(victims, &mut little).unwrap_err();
    assert!(refused.left < 10_000 && little.remaining() < 10_000, "{refused}");
}
