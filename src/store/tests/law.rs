//! Law 1, select is accept: whatever the killmails and the filter, queries and pages return exactly what the
//! filter accepts.
//!
//! Must not know: how a result is found.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tempfile::TempDir;

use crate::domain::entry::Origin;
use crate::domain::facts::Facts;
use crate::domain::filter::{Filter, IdSet, Interest, Match, RoleClause};
use crate::domain::id::Seq;
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::term::{Dimension, Role};
use crate::domain::zkb::Zkb;
use crate::store::Store;
use crate::store::config::Config;
use crate::store::facts::facts;
use crate::store::incoming::Incoming;
use crate::store::index::id_range::IdRange;
use crate::store::index::plan::Plan;
use crate::store::query::{HistoryQuery, Order, PageQuery};
use crate::store::tests::{ask, config, folder, history, ids, incoming, json, killmail, seqs};

pub const START: i64 = 1_700_000_000;
/// Real systems and ship types, so that they have constellations, regions and groups.
const SYSTEMS: [u32; 5] = [30_000_142, 30_000_144, 30_002_187, 30_002_510, 31_000_005];
const SHIPS: [u32; 5] = [587, 670, 11_567, 24_690, 17_738];
const LABELS: [&str; 3] = ["loc:highsec", "isk:1b+", "pvp"];

pub fn killmails() -> impl Strategy<Value = Vec<Killmail>> {
    vec(any_killmail(), 1..50).prop_map(|mut killmails| {
        let mut seen = HashSet::new();
        killmails.retain(|k| seen.insert(k.killmail_id));
        killmails
    })
}

pub fn any_killmail() -> impl Strategy<Value = Killmail> {
    // Time follows the id, but not strictly.
    let undated = proptest::bool::weighted(0.1);
    (1u32..400, 0i64..20_000, select(&SYSTEMS[..]), party(), vec(party(), 1..4), option::of(zkb()), undated)
        .prop_map(|(id, blur, solar_system_id, (c, o, s), attackers, zkb, time_implausible)| {
            let attackers = attackers.into_iter().enumerate().map(|(n, (c, o, s))| Attacker {
                character_id: c,
                corporation_id: o,
                ship_type_id: s,
                weapon_type_id: s,
                final_blow: n == 0,
                ..Attacker::default()
            });
            Killmail {
                killmail_id: id,
                time: if time_implausible { blur } else { START + i64::from(id) * 600 + blur },
                time_implausible,
                solar_system_id,
                victim: Victim { character_id: c, corporation_id: o, ship_type_id: s, ..Victim::default() },
                attackers: attackers.collect(),
                zkb,
                ..Killmail::default()
            }
        })
}

fn party() -> impl Strategy<Value = (Option<u32>, Option<u32>, Option<u32>)> {
    (option::of(1u32..8), option::of(1u32..4), option::of(select(&SHIPS[..])))
}

fn zkb() -> impl Strategy<Value = Zkb> {
    let labels = subsequence(LABELS.map(str::to_owned).to_vec(), 0..=3);
    (option::of(0u32..10), any::<(bool, bool, bool)>(), labels).prop_map(
        |(value, (npc, solo, awox), labels)| Zkb {
            total_value: value.map(f64::from),
            npc: Some(npc),
            solo: Some(solo),
            awox: Some(awox),
            labels: Some(labels),
            ..Zkb::default()
        },
    )
}

fn role() -> impl Strategy<Value = Role> {
    select(&[Role::Any, Role::Victim, Role::Attacker, Role::FinalBlow][..])
}

fn dimension() -> impl Strategy<Value = (Dimension, Vec<u32>)> {
    select(&Dimension::ALL[..]).prop_flat_map(|dimension| {
        let pool: Vec<u32> = match dimension {
            Dimension::System => SYSTEMS.to_vec(),
            Dimension::Constellation => vec![20_000_020, 20_000_322],
            Dimension::Region => vec![10_000_002, 10_000_043, 10_000_030],
            Dimension::ShipType | Dimension::WeaponType => SHIPS.to_vec(),
            Dimension::ShipGroup => vec![25, 29, 27, 30],
            _ => (1..9).collect(),
        };
        (Just(dimension), vec(select(pool), 1..4))
    })
}

fn clause() -> impl Strategy<Value = RoleClause> {
    (dimension(), role()).prop_map(|((dimension, ids), role)| RoleClause {
        dimension,
        role,
        ids: IdSet::new(ids),
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let flag = || option::weighted(0.15, any::<bool>());
    let value = || option::weighted(0.15, (0u32..10).prop_map(f64::from));
    let time = || option::weighted(0.3, START..START + 280_000);
    let labels =
        prop_oneof![4 => Just(Vec::new()), 1 => vec(select(LABELS.map(str::to_owned).to_vec()), 1..3)];
    let matching = select(&[Match::Any, Match::All][..]);
    let each = prop_oneof![4 => Just(Vec::new()), 1 => vec(clause(), 1..3)];
    let flags = (flag(), flag(), flag());
    let values = (value(), value());
    let lists = (vec(dimension(), 0..3), matching, prop_oneof![2 => Just(Role::Any), 1 => role()]);
    (lists, labels, flags, values, time(), time(), each).prop_map(
        |(
            (dimensions, matching, role),
            labels,
            (npc, solo, awox),
            (min_value, max_value),
            since,
            until,
            each,
        )| {
            let mut filter = Filter {
                matching,
                role,
                each,
                labels,
                npc,
                solo,
                awox,
                min_value,
                max_value,
                since,
                until,
                ..Filter::default()
            };
            dimensions.into_iter().for_each(|(dimension, ids)| filter.set_ids(dimension, ids));
            filter
        },
    )
}

fn interest() -> impl Strategy<Value = Interest> {
    (
        vec(clause(), 0..3),
        option::weighted(0.2, 0u32..9),
        option::weighted(0.2, 0u32..4),
        option::weighted(0.2, 0u32..4),
    )
        .prop_map(|(any_of, value, min_attackers, max_attackers)| Interest {
            any_of,
            min_value: value.map(f64::from),
            min_attackers,
            max_attackers,
        })
}

/// A store with these killmails in this order, with `tail` entries in memory; every fifth is backfill, every
/// seventh was old when it came.
fn store_of(dir: &TempDir, killmails: &[Killmail], tail: usize) -> Arc<Store> {
    let store = Store::open(Config { tail_entries: tail, ..config(dir) }, json).expect("opens");
    let batch = killmails.iter().cloned().enumerate().map(|(n, killmail)| {
        let late = if n % 7 == 3 { 7_200_000 } else { 1_000 };
        let origin = if n % 5 == 2 { Origin::Backfill } else { Origin::Live };
        Incoming { received_at_ms: killmail.time * 1000 + late, origin, ..incoming(killmail) }
    });
    store.append(batch.collect(), None).expect("appended");
    store
}

fn accepted<'a>(
    all: &'a [(u64, Facts)],
    filter: &'a Filter,
    interest: Option<&'a Interest>,
) -> impl Iterator<Item = &'a (u64, Facts)> {
    all.iter().filter(move |(_, facts)| filter.accepts(facts) && interest.is_none_or(|i| i.accepts(facts)))
}

static COUNTS: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

fn happened(what: usize, times: u64) {
    COUNTS[what].fetch_add(times, Ordering::Relaxed);
}

fn check_history(
    store: &Store,
    all: &[(u64, Facts)],
    filter: &Filter,
    interest: Option<&Interest>,
    cut: (u32, u64),
) -> Result<(), TestCaseError> {
    let query = HistoryQuery { interest, ..history(filter) };
    let mut expected: Vec<u32> =
        accepted(all, filter, interest).map(|(_, facts)| facts.killmail_id).collect();
    expected.sort_unstable();
    happened(0, expected.len() as u64);
    let found = u64::from(!expected.is_empty());
    happened(1, found * u64::from(filter.role != Role::Any && filter.has_ids()));
    happened(2, found * u64::from(interest.is_some()));
    happened(3, found * u64::from(filter.since.is_some()));
    let oldest = ids(&store.select(&HistoryQuery { order: Order::Oldest, ..query })?);
    prop_assert_eq!(&oldest, &expected);
    let newest = ids(&store.select(&query)?);
    prop_assert_eq!(newest, newest_first(all, &expected, filter));
    prop_assert_eq!(store.count_matching(&query)?, expected.len() as u64);
    let mut lookups = u64::MAX;
    let totals = store.totals_within(&query, &mut lookups)?.expect("unlimited");
    let value: f64 = accepted(all, filter, interest).filter_map(|(_, facts)| facts.total_value).sum();
    let first = accepted(all, filter, interest)
        .filter(|(_, facts)| !facts.time_implausible)
        .map(|(_, facts)| facts.time)
        .min();
    prop_assert_eq!((totals.killmails, totals.value, totals.first), (expected.len() as u64, value, first));

    let (id, head) = cut;
    let pinned = HistoryQuery { head: Seq(head), after: Some(id), below: Some(300), limit: 3, ..query };
    let expected: Vec<u32> = {
        let mut ids: Vec<u32> = accepted(all, filter, interest)
            .filter(|(seq, _)| *seq <= head)
            .map(|(_, f)| f.killmail_id)
            .collect();
        ids.retain(|i| *i < 300);
        ids.sort_unstable();
        ids
    };
    let after: Vec<u32> = expected.iter().copied().filter(|i| *i > id).take(3).collect();
    prop_assert_eq!(ids(&store.select(&HistoryQuery { order: Order::Oldest, ..pinned })?), after);
    // Page by page, from the end of any page, also from an id that is not stored.
    let newest = newest_first(all, &expected, filter);
    for (at, id) in newest.iter().enumerate() {
        let next: Vec<u32> = newest[at + 1..].iter().copied().take(3).collect();
        prop_assert_eq!(ids(&store.select(&HistoryQuery { after: Some(*id), ..pinned })?), next);
    }
    if all.iter().all(|(_, facts)| facts.killmail_id != id) {
        let undated =
            |id: &u32| all.iter().any(|(_, facts)| facts.killmail_id == *id && facts.time_implausible);
        let next: Vec<u32> = newest.iter().copied().filter(|i| *i < id || undated(i)).take(3).collect();
        prop_assert_eq!(ids(&store.select(&pinned)?), next);
    }
    Ok(())
}

/// These ids, greatest first; killmails with an impossible time come last.
fn newest_first(all: &[(u64, Facts)], ids: &[u32], filter: &Filter) -> Vec<u32> {
    let undated: HashSet<u32> =
        all.iter().filter(|(_, facts)| facts.time_implausible).map(|(_, facts)| facts.killmail_id).collect();
    let mut ids: Vec<(bool, u32)> =
        ids.iter().map(|id| (!filter.has_window() && undated.contains(id), *id)).collect();
    ids.sort_unstable_by_key(|(undated, id)| (*undated, std::cmp::Reverse(*id)));
    ids.into_iter().map(|(_, id)| id).collect()
}

fn check_pages(
    store: &Store,
    all: &[(u64, Facts)],
    filter: &Filter,
    interest: Option<&Interest>,
    limit: usize,
) -> Result<(), TestCaseError> {
    for after in 0..=store.head().0 {
        let query = PageQuery { interest, after: Seq(after), max_age_secs: 3600, limit, ..ask(filter) };
        let live = |seq: u64| (seq - 1) % 5 != 2 && (seq - 1) % 7 != 3;
        let expected: Vec<u64> = accepted(all, filter, interest)
            .map(|(seq, _)| *seq)
            .filter(|s| *s > after && live(*s))
            .take(limit)
            .collect();
        let pages =
            [store.scan_page_as_oracle(&query)?, store.select_page(&query)?, store.read_page(&query)?];
        for page in &pages {
            prop_assert_eq!(seqs(&page.entries), expected.clone());
        }
        happened(4, u64::from(expected.len() == limit));
        let passed =
            if expected.len() == limit { expected.last().copied().unwrap_or(after) } else { store.head().0 };
        prop_assert!(pages.iter().all(|page| page.passed == Seq(passed)));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    fn any_killmails_and_filters(
        killmails in killmails(), filters in vec((filter(), option::of(interest())), 6), tail in 1usize..20, limit in 1usize..6,
        cut in (1u32..400, 1u64..50),
    ) {
        let dir = folder();
        let store = store_of(&dir, &killmails, tail);
        let all: Vec<(u64, Facts)> = (1..).zip(killmails.iter().map(facts)).collect();
        for (filter, interest) in &filters {
            check_history(&store, &all, filter, interest.as_ref(), cut)?;
            check_pages(&store, &all, filter, interest.as_ref(), limit)?;
        }
    }
}

#[test]
fn select_is_accept() {
    any_killmails_and_filters();
    let counts: Vec<u64> = COUNTS.iter().map(|c| c.load(Ordering::Relaxed)).collect();
    println!("selected, with a role, with an interest, with a window of time, pages ended early: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

/// If few or no rows match, not every row is examined, whatever revisions did to values.
#[test]
fn values_and_flags_alone_do_not_examine_every_row() {
    let zkb = |value: f64| {
        Some(Zkb {
            total_value: Some(value),
            npc: Some(false),
            solo: Some(true),
            awox: Some(true),
            ..Zkb::default()
        })
    };
    let killmails: Vec<Killmail> =
        (1..=6_000).map(|id| Killmail { zkb: zkb(f64::from(id) * 1e6), ..killmail(id) }).collect();
    let dir = folder();
    let store = store_of(&dir, &killmails, 100);
    let examined = |filter: &Filter| {
        let resident = store.resident.read();
        let plan = Plan::new(&resident.index, filter, None);
        plan.collect(&resident.index, IdRange::ALL).len()
    };
    let least = |isk: f64| Filter { min_value: Some(isk), ..Filter::default() };
    let found = |filter: &Filter| ids(&store.select(&history(filter)).expect("selected"));
    let nothing = [
        least(1e13),
        Filter { npc: Some(true), ..Filter::default() },
        Filter { solo: Some(false), ..Filter::default() },
        Filter { max_value: Some(500_000.0), ..Filter::default() },
    ];
    for filter in &nothing {
        assert_eq!((examined(filter), found(filter)), (0, vec![]), "{filter:?}");
    }
    assert!(examined(&least(5.99e9)) < 1_500, "those near the bound and beyond it");
    assert_eq!(found(&least(5.999e9)), [6_000, 5_999]);
    // Revised: the most valuable one is worth little now, and another one more than all.
    let revised = [(6_000, 1.0), (7, 2e13)].map(|(id, value)| Killmail { zkb: zkb(value), ..killmail(id) });
    store.append(revised.map(incoming).to_vec(), None).expect("revised");
    assert_eq!((found(&least(5.999e9)), found(&least(1e13))), (vec![5_999, 7], vec![7]));
    drop(store);
    // The same after opening again.
    let store = Store::open(config(&dir), json).expect("opened");
    let again = ids(&store.select(&history(&least(5.999e9))).expect("selected"));
    assert_eq!(again, [5_999, 7]);
}

/// Killmails of four runs whose ids and times arrive out of order.
fn killmail_of_run(n: u32) -> Killmail {
    let run = [3, 1, 2, 0][(n / 3_000) as usize];
    Killmail {
        killmail_id: 1 + run * 1_000_000 + n % 3_000 * if run == 2 { 50 } else { 1 },
        time: START + i64::from(run) * 900_000 + i64::from(n % 3_000) * 100,
        solar_system_id: SYSTEMS[n as usize % 5],
        victim: Victim {
            character_id: Some(1 + n % 1_000),
            ship_type_id: Some(SHIPS[n as usize / 7 % 5]),
            ..Victim::default()
        },
        attackers: vec![Attacker {
            character_id: Some(5_000 + n % 17),
            final_blow: true,
            ..Attacker::default()
        }],
        zkb: n.is_multiple_of(3).then(|| Zkb {
            total_value: Some(f64::from(n)),
            awox: Some(n.is_multiple_of(300)),
            ..Zkb::default()
        }),
        ..Killmail::default()
    }
}

/// Several blocks, large postings, ids in runs that arrive out of order.
#[test]
fn select_is_accept_over_many_blocks() {
    let killmails: Vec<Killmail> = (0..12_000).map(killmail_of_run).collect();
    let dir = folder();
    let store = store_of(&dir, &killmails, 100);
    let all: Vec<(u64, Facts)> = (1..).zip(killmails.iter().map(facts)).collect();
    let with = |dimension: Dimension, ids: Vec<u32>, rest: Filter| {
        let mut filter = rest;
        filter.set_ids(dimension, ids);
        filter
    };
    let day = Filter { since: Some(START + 900_000), until: Some(START + 950_050), ..Filter::default() };
    let filters = [
        Filter::default(),
        day.clone(),
        with(Dimension::System, vec![SYSTEMS[0]], Filter::default()),
        with(Dimension::System, vec![SYSTEMS[0]], day.clone()),
        with(Dimension::System, SYSTEMS.to_vec(), Filter { min_value: Some(11_000.0), ..Filter::default() }),
        with(Dimension::Character, (1..400).collect(), day.clone()),
        with(
            Dimension::Character,
            vec![5_003],
            with(Dimension::System, vec![SYSTEMS[2]], Filter { matching: Match::All, ..Filter::default() }),
        ),
        with(Dimension::Character, vec![5_003, 77], Filter { role: Role::Victim, ..Filter::default() }),
        Filter { awox: Some(true), ..Filter::default() },
        Filter { awox: Some(false), ..Filter::default() },
        Filter { awox: Some(false), npc: Some(false), min_value: Some(5_000.0), ..Filter::default() },
        Filter { min_value: Some(11_990.0), ..Filter::default() },
        Filter { min_value: Some(700.0), max_value: Some(800.0), ..Filter::default() },
        Filter { max_value: Some(50.0), ..day },
        Filter { min_value: Some(1e12), ..Filter::default() },
        with(Dimension::System, SYSTEMS[..3].to_vec(), Filter { max_value: Some(90.0), ..Filter::default() }),
        with(Dimension::Character, vec![12_345], Filter::default()),
    ];
    for filter in &filters {
        check_history(&store, &all, filter, None, (250, 9_000)).expect("history");
        for after in [0, 1, 2_500, 4_095, 4_096, 5_000, 8_191, 8_200, 11_500, 11_950, 12_000] {
            let query = PageQuery { after: Seq(after), max_age_secs: 3600, limit: 700, ..ask(filter) };
            let (expected, selected) = (
                store.scan_page_as_oracle(&query).expect("scanned"),
                store.select_page(&query).expect("selected"),
            );
            assert_eq!(
                (seqs(&expected.entries), expected.passed),
                (seqs(&selected.entries), selected.passed)
            );
        }
    }
    let mut filter = Filter { since: Some(START + 5_000), ..Filter::default() };
    filter.set_ids(Dimension::System, vec![SYSTEMS[1]]);
    let expected = accepted(&all, &filter, None).count() as u64;
    assert_eq!(store.count_in_system(SYSTEMS[1], START + 5_000), expected);
    assert_eq!(store.stats().systems, 5);
}
