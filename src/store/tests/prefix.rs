//! Law 3, prefix: after opening again, the log contains what was acknowledged, and the index equals one rebuilt
//! from the log.
//!
//! Must not know: which step of a commit was cut; `tests/it` cuts processes.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::domain::filter::Filter;
use crate::domain::hash::is_known;
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::domain::provenance::Provenance;
use crate::domain::zkb::Zkb;
use crate::store::Store;
use crate::store::config::Config;
use crate::store::error::StoreError;
use crate::store::incoming::{Appended, Checkpoint, Incoming};
use crate::store::index::snapshot::list_files;
use crate::store::index::{Flag, Index, SHARDS};
use crate::store::keys::Tree;
use crate::store::open::replay;
use crate::store::tests::law::{START, any_killmail};
use crate::store::tests::{config, folder, history, ids, incoming, json, killmail};

/// Everything in the index, in a fixed order.
fn contents(index: &Index) -> (BTreeMap<String, Vec<u32>>, Vec<String>, [u64; 3]) {
    let terms =
        (0..SHARDS).flat_map(|n| index.shard(n)).map(|(term, ids)| (format!("{term:?}"), ids.to_vec()));
    let labels = index
        .labels()
        .filter(|(_, ids)| !ids.is_empty())
        .map(|(label, ids)| (label.to_owned(), ids.to_vec()));
    let flags = [Flag::Npc, Flag::Solo, Flag::Awox]
        .into_iter()
        .map(|flag| (format!("{flag:?}"), index.flagged(flag).to_vec()));
    let bands = index
        .value_bands()
        .iter()
        .filter(|(_, ids)| !ids.is_empty())
        .map(|(band, ids)| (format!("band {band}"), ids.to_vec()));
    let whole = [("all", index.all()), ("undated", index.undated())]
        .map(|(name, ids)| (name.to_owned(), ids.to_vec()));
    let rows = (1..=index.head().0).map(|seq| format!("{:?}", index.rows.get(Seq(seq)))).collect();
    let postings = terms.chain(labels).chain(flags).chain(bands).chain(whole).collect();
    (postings, rows, [index.count(), index.terms(), index.systems()])
}

/// The index that a start builds from the log alone.
fn rebuilt(store: &Store) -> Index {
    let mut index = Index::default();
    replay(&store.engine, &mut index, &store.writer.lock().numbers).expect("replayed");
    index
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Killmail>),
    /// Sets the value of known killmails, and the time of those of the lower rank.
    Revise(Vec<(usize, u32)>),
    /// Appends known killmails again.
    Again(Vec<usize>),
    Reopen,
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => vec(ranked_killmail(), 1..8).prop_map(Step::Append),
        3 => vec((any::<usize>(), 1u32..1000), 1..5).prop_map(Step::Revise),
        1 => vec(any::<usize>(), 1..4).prop_map(Step::Again),
        2 => Just(Step::Reopen),
        1 => Just(Step::Rebuild),
    ]
}

/// Every second one is from a source of the lower rank, so that all of it may be replaced.
fn ranked_killmail() -> impl Strategy<Value = Killmail> {
    any_killmail().prop_map(|mut killmail| {
        if killmail.killmail_id.is_multiple_of(2) {
            killmail.provenance = Provenance::all(&killmail, "redisq");
        }
        killmail
    })
}

static COUNTS: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

fn happened(what: usize) {
    COUNTS[what].fetch_add(1, Ordering::Relaxed);
}

fn remove_snapshots(dir: &TempDir) {
    for entry in fs::read_dir(dir.path()).expect("listed").flatten() {
        if entry.file_name().to_string_lossy().ends_with(".snap") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
}

fn settings(dir: &TempDir) -> Config {
    Config { snapshot_every: 6, tail_entries: 5, ..config(dir) }
}

fn revised(killmail: &Killmail, value: u32) -> Killmail {
    let labels = vec![format!("isk:{}", value % 5)];
    let zkb = Zkb {
        total_value: Some(f64::from(value)),
        labels: Some(labels),
        npc: Some(value.is_multiple_of(2)),
        ..Zkb::default()
    };
    let mut revised = Killmail { zkb: Some(zkb), ..killmail.clone() };
    // Parts of it come from a source of the lower rank.
    if !killmail.provenance.is_empty() && value.is_multiple_of(3) {
        // A possible time, or an impossible one.
        revised.time = if value.is_multiple_of(2) {
            START + i64::from(killmail.killmail_id) * 600
        } else {
            i64::from(value)
        };
    }
    revised.provenance = match value % 7 {
        0 => Provenance::all(&revised, "redisq"),
        1 => Provenance::from_iter([("zkb".to_owned(), "websocket".to_owned())]),
        _ => Provenance::default(),
    };
    revised
}

/// Appends, and updates the model with what the store returns.
fn append(store: &Store, model: &mut Vec<Killmail>, killmails: Vec<Killmail>) -> Result<(), TestCaseError> {
    let bytes = (model.len() as u64).to_le_bytes().to_vec();
    let arrived = |killmail| Incoming { received_at_ms: (START + 400_000) * 1000, ..incoming(killmail) };
    let appended = store.append(
        killmails.into_iter().map(arrived).collect(),
        Some(Checkpoint { source: "s".to_owned(), bytes }),
    )?;
    for appended in appended {
        match appended {
            Appended::New(entry) if entry.seq.0 > model.len() as u64 => {
                prop_assert_eq!(entry.seq.0, model.len() as u64 + 1);
                model.push(entry.killmail.clone());
            }
            Appended::New(_) => {}
            Appended::Revised(entry) => {
                happened(0);
                if model[entry.seq.0 as usize - 1].time_implausible != entry.killmail.time_implausible {
                    happened(5);
                }
                model[entry.seq.0 as usize - 1] = entry.killmail.clone();
            }
            Appended::Known(_) => happened(1),
            Appended::Conflict(_) => happened(2),
        }
    }
    Ok(())
}

fn check(store: &Store, model: &[Killmail]) -> Result<(), TestCaseError> {
    prop_assert_eq!((store.head().0, store.count()), (model.len() as u64, model.len() as u64));
    let mut with_file: Vec<u64> =
        (1..=store.newest_file()).filter_map(|file| store.entry_of_file(file)).map(|seq| seq.0).collect();
    with_file.sort_unstable();
    let hashed: Vec<u64> =
        (1..).zip(model).filter(|(_, killmail)| is_known(killmail)).map(|(seq, _)| seq).collect();
    prop_assert_eq!(with_file, hashed, "every killmail with a hash has one file, and nothing else has");
    for (seq, killmail) in (1..).zip(model) {
        let entry = store.entry(Seq(seq))?;
        prop_assert_eq!(entry.as_ref().map(|e| &e.killmail), Some(killmail));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    fn any_steps(steps in vec(step(), 1..14)) {
        let dir = folder();
        let mut store = Store::open(settings(&dir), json)?;
        let mut model: Vec<Killmail> = Vec::new();
        for step in steps {
            match step {
                Step::Append(killmails) => append(&store, &mut model, killmails)?,
                Step::Revise(_) | Step::Again(_) if model.is_empty() => {}
                Step::Again(which) => {
                    let killmails = which.into_iter().map(|n| model[n % model.len()].clone()).collect();
                    append(&store, &mut model, killmails)?;
                }
                Step::Revise(which) => {
                    let killmails = which.into_iter().map(|(n, value)| revised(&model[n % model.len()], value)).collect();
                    append(&store, &mut model, killmails)?;
                }
                Step::Reopen | Step::Rebuild => {
                    let before = contents(&store.resident.read().index);
                    let files = store.files.read().stored();
                    drop(store);
                    if matches!(step, Step::Rebuild) {
                        remove_snapshots(&dir);
                        happened(3);
                    } else if fs::read_dir(dir.path()).expect("listed").flatten().any(|e| e.file_name().to_string_lossy().ends_with(".snap")) {
                        happened(4);
                    }
                    store = Store::open(settings(&dir), json)?;
                    prop_assert_eq!(&contents(&store.resident.read().index), &before);
                    prop_assert_eq!(&contents(&rebuilt(&store)), &before);
                    prop_assert_eq!(store.files.read().stored(), files);
                    let checkpoint = store.checkpoint("s")?.and_then(|b| b.as_array().copied()).map_or(0, u64::from_le_bytes);
                    prop_assert!(checkpoint <= store.head().0);
                }
            }
            check(&store, &model)?;
        }
    }
}

#[test]
fn prefix() {
    any_steps();
    let counts: Vec<u64> = COUNTS.iter().map(|c| c.load(Ordering::Relaxed)).collect();
    println!(
        "revised, known, conflict, rebuilt, from a snapshot, dated or undated by a revision: {counts:?}"
    );
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn log_entries_are_rebuilt_from_their_records() {
    let dir = folder();
    let store = Store::open(settings(&dir), json).expect("opens");
    let killmails: Vec<Killmail> = (1..=40).map(killmail).collect();
    store.append(killmails.iter().cloned().map(incoming).collect(), None).expect("appended");
    store.append(vec![incoming(revised(&killmails[4], 7))], None).expect("appended");
    let before = contents(&store.resident.read().index);
    for seq in [5u64, 17, 40] {
        store.engine.remove(Tree::Log, &seq.to_be_bytes()).expect("removed");
    }
    store.engine.put(Tree::Log, &9u64.to_be_bytes(), b"damaged").expect("put");
    store.engine.sync().expect("synced");
    drop(store);
    remove_snapshots(&dir);
    let store = Store::open(settings(&dir), json).expect("opens");
    assert_eq!(contents(&store.resident.read().index), before);
}

#[test]
fn a_missing_record_is_damage() {
    let dir = folder();
    let store = Store::open(settings(&dir), json).expect("opens");
    store.append((1..=20).map(killmail).map(incoming).collect(), None).expect("appended");
    store.engine.remove(Tree::Records, &13u64.to_be_bytes()).expect("removed");
    store.engine.sync().expect("synced");
    drop(store);
    assert!(
        matches!(Store::open(settings(&dir), json), Err(StoreError::Damaged { what, .. }) if what.contains("killmail 13"))
    );
}

/// A start from a snapshot applies a revision as the running store did, without leaving traces of what was
/// replaced.
#[test]
fn a_killmail_that_got_a_possible_time_is_in_order_after_reopening() {
    let dir = folder();
    let arrived =
        |killmail: Killmail| Incoming { received_at_ms: (START + 400_000) * 1000, ..incoming(killmail) };
    let mut undated =
        Killmail { time: 7, zkb: Some(Zkb { total_value: Some(1e9), ..Zkb::default() }), ..killmail(30) };
    undated.provenance = Provenance::all(&undated, "redisq");
    let store = Store::open(settings(&dir), json).expect("opens");
    store
        .append((1..30).map(killmail).chain([undated.clone()]).map(arrived).collect(), None)
        .expect("appended");
    assert_eq!(ids(&store.select(&history(&Filter::default())).expect("selected")).last(), Some(&30));
    drop(store);
    assert!(!list_files(dir.path()).expect("listed").is_empty(), "there is a snapshot");
    // Too few entries for another snapshot.
    let settings = Config { snapshot_every: 100, ..settings(&dir) };
    let store = Store::open(settings.clone(), json).expect("opens");
    let dated = Killmail { zkb: Some(Zkb { total_value: Some(1e6), ..Zkb::default() }), ..killmail(30) };
    assert!(matches!(store.append(vec![arrived(dated)], None).expect("appended")[0], Appended::Revised(_)));
    let before = contents(&store.resident.read().index);
    drop(store);
    let store = Store::open(settings, json).expect("opens");
    assert_eq!(ids(&store.select(&history(&Filter::default())).expect("selected")).first(), Some(&30));
    assert_eq!(contents(&store.resident.read().index), before);
}
