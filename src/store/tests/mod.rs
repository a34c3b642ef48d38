//! Tests of the whole store in temporary folders: shared helpers, and the simple cases.
//!
//! Must not know: how anything is stored in files, except where a test damages them on purpose.

mod conflicts;
mod files_beside;
mod law;
mod mirror_files;
mod newer;
mod old_bytes;
mod plugins;
mod prefix;
mod repair;
mod scrub;
mod spans;
mod spare_copy;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use crate::domain::entry::{Origin, SharedEntry};
use crate::domain::filter::Filter;
use crate::domain::id::{Epoch, Seq};
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::term::Dimension;
use crate::domain::zkb::Zkb;
use crate::store::Store;
use crate::store::config::Config;
use crate::store::error::StoreError;
use crate::store::incoming::{AgeRule, Appended, Checkpoint, Incoming, ZkbRule};
use crate::store::query::{HistoryQuery, Hit, Order, PageQuery};
use crate::store::refused::list::Refused;
use crate::store::upkeep::{compact, verify};

/// An encoder of predictable lengths.
fn json(killmail: &Killmail) -> Bytes {
    Bytes::from(vec![b'x'; 100 + killmail.attackers.len() * 10])
}

fn config(dir: &TempDir) -> Config {
    Config { dir: dir.path().to_owned(), min_free_bytes: 0, ..Config::default() }
}

fn open(dir: &TempDir) -> Arc<Store> {
    Store::open(config(dir), json).expect("a store opens")
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// Runs `check` on the store, after opening it again, after compacting it, and on a backup; and verifies that it
/// is undamaged. Gives the report of `verify`.
fn holds_in_every_copy(dir: &TempDir, check: impl Fn(&Store)) -> verify::Report {
    check(&open(dir));
    let report = verify::run(&config(dir), &|_| {}).expect("verified");
    assert!(report.is_clean(), "{report:?}");
    compact::run(&config(dir), &|_| {}).expect("compacted");
    let store = open(dir);
    check(&store);
    let copy = folder();
    store.backup(copy.path(), &|_| {}).expect("copied");
    check(&open(&copy));
    report
}

fn incoming(killmail: Killmail) -> Incoming {
    Incoming {
        received_at_ms: killmail.time * 1000 + 5_000,
        killmail,
        origin: Origin::Live,
        uploaded_at: None,
        age: AgeRule::ByUpload,
        zkb: ZkbRule::IfNewer,
    }
}

fn killmail(id: u32) -> Killmail {
    Killmail {
        killmail_id: id,
        time: 1_700_000_000 + i64::from(id) * 40,
        solar_system_id: 30_000_140 + id % 7,
        victim: Victim {
            character_id: Some(90_000_000 + id % 11),
            ship_type_id: Some(587 + id % 5),
            ..Victim::default()
        },
        attackers: vec![Attacker {
            character_id: Some(91_000_000 + id % 13),
            final_blow: true,
            ..Attacker::default()
        }],
        ..Killmail::default()
    }
}

fn valued(id: u32, value: f64) -> Killmail {
    let zkb =
        Zkb { total_value: Some(value), labels: Some(vec!["loc:highsec".to_owned()]), ..Zkb::default() };
    Killmail { zkb: Some(zkb), ..killmail(id) }
}

fn history(filter: &Filter) -> HistoryQuery<'_> {
    HistoryQuery {
        filter,
        interest: None,
        order: Order::Newest,
        after: None,
        below: None,
        head: Seq(u64::MAX),
        limit: usize::MAX,
    }
}

fn ask(filter: &Filter) -> PageQuery<'_> {
    PageQuery {
        filter,
        interest: None,
        after: Seq::ZERO,
        head: Seq(u64::MAX),
        max_age_secs: 0,
        limit: usize::MAX,
        limit_bytes: usize::MAX,
        scan: usize::MAX,
    }
}

fn ids(hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(|hit| hit.killmail_id).collect()
}

fn seqs(entries: &[SharedEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq.0).collect()
}

#[test]
fn what_is_appended_is_found_also_after_reopening() {
    let dir = folder();
    let store = open(&dir);
    let epoch = store.epoch();
    let checkpoint = Checkpoint { source: "r2z2".to_owned(), bytes: b"17".to_vec() };
    let batch = [5, 3, 9].map(killmail).map(incoming).to_vec();
    let appended = store.append(batch, Some(checkpoint)).expect("appended");
    assert!(appended.iter().all(|a| matches!(a, Appended::New(_))));
    check_three(&store, epoch);
    drop(store);
    check_three(&open(&dir), epoch);
}

fn check_three(store: &Store, epoch: Epoch) {
    assert_eq!((store.head(), store.count(), store.epoch()), (Seq(3), 3, epoch));
    assert_eq!(store.checkpoint("r2z2").expect("read"), Some(b"17".to_vec()));
    assert_eq!(store.checkpoint("other").expect("read"), None);
    for (seq, id) in [(1, 5), (2, 3), (3, 9)] {
        let entry = store.killmail(id).expect("read").expect("kept");
        assert_eq!((entry.seq, &entry.killmail, entry.age_secs), (Seq(seq), &killmail(id), 5));
        assert_eq!(store.entry(Seq(seq)).expect("read").expect("kept").killmail.killmail_id, id);
        assert_eq!(store.weight_of(Seq(seq)), 110);
    }
    assert_eq!(ids(&store.select(&history(&Filter::default())).expect("selected")), [9, 5, 3]);
    assert_eq!(store.killmail(4).expect("read").map(|e| e.seq), None);
    let page = store.read_page(&ask(&Filter::default())).expect("a page");
    assert_eq!((seqs(&page.entries), page.passed), (vec![1, 2, 3], Seq(3)));
}

#[test]
fn a_known_killmail_is_revised_or_contradicted_but_keeps_its_number() {
    let dir = folder();
    let store = open(&dir);
    let mut changed = killmail(7);
    changed.victim.damage_taken = 99;
    let batch = [killmail(7), valued(7, 5e6), killmail(7), changed, killmail(8)].map(incoming).to_vec();
    let appended = store.append(batch, None).expect("appended");
    let outcomes: Vec<&str> = appended.iter().map(outcome).collect();
    assert_eq!(outcomes, ["new 1", "revised 1", "known 1", "conflict 1", "new 2"]);
    let appended =
        store.append(vec![incoming(valued(8, 2e9)), incoming(valued(7, 6e6))], None).expect("appended");
    assert_eq!(appended.iter().map(outcome).collect::<Vec<_>>(), ["revised 2", "revised 1"]);
    let keep = Incoming { zkb: ZkbRule::Keep, ..incoming(valued(7, 9e6)) };
    assert_eq!(outcome(&store.append(vec![keep], None).expect("appended")[0]), "known 1");
    drop(store);
    let store = open(&dir);
    assert_eq!(
        (store.head(), store.count(), store.stats().revised, store.stats().conflicts),
        (Seq(2), 2, 2, 1)
    );
    assert_eq!(store.killmail(7).expect("read").expect("kept").killmail, valued(7, 6e6));
    let filter = Filter { min_value: Some(1e9), labels: vec!["loc:highsec".to_owned()], ..Filter::default() };
    assert_eq!(ids(&store.select(&history(&filter)).expect("selected")), [8]);
    let mut lookups = u64::MAX;
    let totals = store.totals_within(&history(&Filter::default()), &mut lookups).expect("summed");
    assert_eq!(totals.expect("unlimited").value, 2e9 + 6e6);
}

/// What became of a killmail, and its number.
pub fn outcome(appended: &Appended) -> &'static str {
    let (word, seq) = match appended {
        Appended::New(entry) => ("new", entry.seq),
        Appended::Revised(entry) => ("revised", entry.seq),
        Appended::Known(seq) => ("known", *seq),
        Appended::Conflict(seq) => ("conflict", *seq),
    };
    format!("{word} {seq}").leak()
}

#[test]
fn a_killmail_of_thousands_of_attackers_comes_back() {
    let dir = folder();
    let store = open(&dir);
    let mut large = valued(4, 1e9);
    large.attackers = (0..40_000u32)
        .map(|n| Attacker {
            character_id: Some(2_000_000_000u32.wrapping_add(n.wrapping_mul(50_021))),
            damage_done: i64::from(n) * 7919 % 10_007,
            ..Attacker::default()
        })
        .collect();
    store
        .append(vec![incoming(killmail(3)), incoming(large.clone()), incoming(killmail(5))], None)
        .expect("appended");
    let mut revised = large.clone();
    revised.zkb.get_or_insert_default().points = Some(12);
    drop(store);
    let store = open(&dir);
    assert_eq!(store.killmail(4).expect("read").expect("kept").killmail, large);
    store.append(vec![incoming(revised.clone())], None).expect("appended");
    drop(store);
    let store = Store::open(Config { tail_entries: 1, ..config(&dir) }, json).expect("opens");
    assert_eq!(store.killmail(4).expect("read").expect("kept").killmail, revised);
    let mut filter = Filter::default();
    filter.set_ids(Dimension::Character, vec![2_000_000_000]);
    assert_eq!(ids(&store.select(&history(&filter)).expect("selected")), [4]);
}

#[test]
fn a_page_ends_at_its_limits() {
    let dir = folder();
    let store = open(&dir);
    store.append((1..=20).map(killmail).map(incoming).collect(), None).expect("appended");
    let filter = Filter::default();
    for in_memory in [true, false] {
        let page = |ask: PageQuery<'_>| {
            let page =
                if in_memory { store.read_page_from_memory(&ask) } else { store.select_page(&ask).ok() }
                    .expect("a page");
            (seqs(&page.entries), page.passed.0)
        };
        assert_eq!(page(PageQuery { limit: 3, ..ask(&filter) }), (vec![1, 2, 3], 3));
        assert_eq!(page(PageQuery { limit_bytes: 250, ..ask(&filter) }), (vec![1, 2], 2));
        assert_eq!(page(PageQuery { limit_bytes: 1, after: Seq(4), ..ask(&filter) }), (vec![5], 5));
        assert_eq!(page(PageQuery { scan: 2, after: Seq(17), ..ask(&filter) }), (vec![18, 19], 19));
        assert_eq!(page(PageQuery { head: Seq(18), after: Seq(17), ..ask(&filter) }), (vec![18], 18));
        assert_eq!(page(PageQuery { after: Seq(20), ..ask(&filter) }), (vec![], 20));
        assert_eq!(page(PageQuery { max_age_secs: 4, ..ask(&filter) }), (vec![], 20));
    }
}

#[test]
fn only_what_a_running_source_brings_is_live() {
    let dir = folder();
    let store = open(&dir);
    let backfill = Incoming { origin: Origin::Backfill, ..incoming(killmail(2)) };
    let old = Incoming { received_at_ms: (killmail(3).time + 7200) * 1000, ..incoming(killmail(3)) };
    let replayed = Incoming { age: AgeRule::Zero, ..old.clone() };
    let uploaded = Incoming {
        uploaded_at: Some(killmail(5).time + 10),
        ..Incoming { killmail: killmail(5), ..old.clone() }
    };
    let batch =
        vec![incoming(killmail(1)), backfill, old, Incoming { killmail: killmail(4), ..replayed }, uploaded];
    store.append(batch, None).expect("appended");
    let filter = Filter::default();
    let hour = PageQuery { max_age_secs: 3600, ..ask(&filter) };
    for page in [store.read_page(&hour), store.scan_page_as_oracle(&hour), store.select_page(&hour)] {
        assert_eq!(seqs(&page.expect("a page").entries), [1, 4, 5]);
    }
    assert_eq!(seqs(&store.read_page(&ask(&filter)).expect("a page").entries), [1, 3, 4, 5]);
    assert!(store.entry(Seq(3)).expect("read").expect("kept").is_late());
}

/// A killmail with an impossible time.
fn undated(id: u32, time: i64) -> Incoming {
    Incoming { received_at_ms: killmail(id).time * 1000, ..incoming(Killmail { time, ..killmail(id) }) }
}

#[test]
fn killmails_with_an_impossible_time_are_kept_apart() {
    let dir = folder();
    let check = |store: &Store| {
        let (all, window) =
            (Filter::default(), Filter { since: Some(killmail(1).time), ..Filter::default() });
        assert_eq!(ids(&store.select(&history(&all)).expect("selected")), [6, 4, 3, 1, 5, 2]);
        assert_eq!(
            ids(&store.select(&HistoryQuery { order: Order::Oldest, ..history(&all) }).expect("selected")),
            [1, 2, 3, 4, 5, 6]
        );
        assert_eq!(ids(&store.select(&history(&window)).expect("selected")), [6, 4, 3, 1]);
        assert_eq!(store.count_matching(&history(&all)).expect("counted"), 6);
        assert_eq!(store.count_matching(&history(&window)).expect("counted"), 4);
        let counted: u64 =
            (0..7).map(|n| store.count_in_system(30_000_140 + n, killmail(1).time - 7200)).sum();
        assert_eq!(counted, 4);
        let mut days = BTreeMap::new();
        store.count_days(&mut days, Seq(0), store.head());
        assert_eq!(days.values().sum::<u64>(), 4);
        assert!(
            days.keys().all(|day| (killmail(1).time / 86_400..=killmail(6).time / 86_400).contains(day)),
            "{days:?}"
        );
        let stats = store.stats();
        assert_eq!((stats.oldest, stats.newest), (Some(killmail(1).time), Some(killmail(6).time)));
        let marked = |id: u32| store.killmail(id).expect("read").expect("kept").killmail.time_implausible;
        assert_eq!((1..=6).map(marked).collect::<Vec<_>>(), [false, true, false, false, true, false]);
    };
    let store = open(&dir);
    let hour_ahead = undated(4, killmail(4).time + 3600);
    let batch = vec![
        incoming(killmail(1)),
        undated(2, 946_684_800),
        incoming(killmail(3)),
        hour_ahead,
        undated(5, killmail(5).time + 3601),
    ];
    store.append(batch, None).expect("appended");
    store.append(vec![incoming(killmail(6))], None).expect("appended");
    // It comes again a day later, when its time is possible: the mark from its first arrival stays.
    let again = Incoming {
        received_at_ms: (killmail(5).time + 86_400) * 1000,
        ..undated(5, killmail(5).time + 3601)
    };
    let zkb = Some(Zkb { points: Some(1), ..Zkb::default() });
    let again = Incoming { killmail: Killmail { zkb, ..again.killmail.clone() }, ..again };
    assert!(matches!(store.append(vec![again], None).expect("appended")[..], [Appended::Revised(_)]));
    let check = |store: &Store| {
        let late = store.killmail(4).expect("read").expect("kept").killmail.time;
        assert_eq!(late, killmail(4).time + 3600);
        check(store);
    };
    check(&store);
    drop(store);
    // From a snapshot, and without one.
    check(&open(&dir));
    for file in fs::read_dir(dir.path()).expect("a folder").flatten() {
        if file.path().extension().is_some_and(|kind| kind == "snap") {
            fs::remove_file(file.path()).expect("removed");
        }
    }
    check(&Store::open(Config { tail_entries: 1, ..config(&dir) }, json).expect("opened"));
}

#[test]
fn an_impossible_upload_time_is_ignored() {
    let dir = folder();
    let store = open(&dir);
    let received = |id: u32| killmail(id).time + 100;
    let uploaded = |id: u32, at: i64| Incoming {
        received_at_ms: received(id) * 1000,
        uploaded_at: Some(at),
        ..incoming(killmail(id))
    };
    let day = 86_400;
    let batch = vec![
        uploaded(1, killmail(1).time * 1000),
        uploaded(2, killmail(2).time - 1),
        uploaded(3, received(3) + day + 1),
        uploaded(4, received(4) + day),
        uploaded(5, killmail(5).time),
    ];
    store.append(batch, None).expect("appended");
    let stored = |store: &Store, seq| {
        store.entry(Seq(seq)).expect("read").map(|entry| (entry.uploaded_at, entry.age_secs)).expect("kept")
    };
    let expected = [
        (None, 100),
        (None, 100),
        (None, 100),
        (Some(received(4) + day), 86_500),
        (Some(killmail(5).time), 0),
    ];
    for (seq, expected) in (1..).zip(expected) {
        assert_eq!(stored(&store, seq), expected, "{seq}");
    }
    // An impossible one does not replace the time of upload, either.
    let renewed = |value| Zkb { total_value: Some(value), ..Zkb::default() };
    let again = |value, at| Incoming {
        killmail: Killmail { zkb: Some(renewed(value)), ..killmail(5) },
        ..uploaded(5, at)
    };
    store.append(vec![again(1.0, killmail(5).time + 50)], None).expect("appended");
    store.append(vec![again(2.0, killmail(5).time * 1000)], None).expect("appended");
    let entry = store.killmail(5).expect("read").expect("kept");
    assert_eq!(entry.uploaded_at, Some(killmail(5).time + 50));
}

#[test]
fn opening_a_store_in_use_reports_the_pid() {
    let dir = folder();
    let _store = open(&dir);
    let pid = std::process::id();
    assert!(matches!(Store::open(config(&dir), json), Err(StoreError::InUse { pid: p }) if p == pid));
}

#[test]
fn too_little_space_stops_only_writes() {
    let dir = folder();
    open(&dir).append(vec![incoming(killmail(1))], None).expect("appended");
    let store = Store::open(Config { min_free_bytes: u64::MAX, ..config(&dir) }, json).expect("opens");
    assert!(!store.has_space());
    assert!(matches!(
        store.append(vec![incoming(killmail(2))], None),
        Err(StoreError::NoSpace { min: u64::MAX, .. })
    ));
    assert_eq!((store.head(), store.killmail(1).expect("read").is_some()), (Seq(1), true));
}

#[test]
fn refused_documents_are_kept_and_counted() {
    let dir = folder();
    let store = open(&dir);
    let raw: Vec<u8> = (0..200_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let refused = |at_ms: i64, reason: &str, raw: Vec<u8>| Refused {
        reason: reason.to_owned(),
        killmail_id: Some(7),
        source: "r2z2".to_owned(),
        raw: raw.into(),
        at_ms,
    };
    let all = [
        refused(1, "legacy_crest", raw),
        refused(2, "missing_time", b"{}".to_vec()),
        refused(3, "missing_time", Vec::new()),
    ];
    all.iter().for_each(|r| store.add_refused(r).expect("kept"));
    store.append(vec![incoming(killmail(1))], None).expect("appended");
    drop(store);
    let store = open(&dir);
    assert_eq!(store.refused(10).expect("read"), all.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(
        store.refused_counts().into_iter().collect::<Vec<_>>(),
        [("legacy_crest".to_owned(), 1), ("missing_time".to_owned(), 2)]
    );
    assert_eq!(store.stats().refused, 3);
}

#[test]
fn damage_is_reported_with_the_command_that_repairs_it() {
    let dir = folder();
    open(&dir).append((1..=2_000).map(killmail).map(incoming).collect(), None).expect("appended");
    let path = dir.path().join("store/db");
    let mut bytes = fs::read(&path).expect("read");
    let middle = bytes.len() / 4;
    bytes[middle..middle + 65_536].fill(0);
    fs::write(&path, bytes).expect("written");
    fs::read_dir(dir.path().join("store"))
        .expect("listed")
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("snap."))
        .for_each(|e| fs::remove_file(e.path()).expect("removed"));
    match Store::open(config(&dir), json) {
        Err(StoreError::Damaged { command, .. }) => assert!(command.contains("salvage")),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("64 KiB of zeros went unnoticed"),
    }
}
