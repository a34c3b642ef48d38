//! Every real killmail is stored, returned with all its data, also after a restart, and found by each of its
//! terms and by no other.
//!
//! Must not know: how documents are imported; see `import_cases`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use killstream::domain::entry::Origin;
use killstream::domain::filter::Filter;
use killstream::domain::hash;
use killstream::domain::merge::compare::{MergeOutcome, merge};
use killstream::domain::term::Term;
use killstream::store::Store;
use killstream::store::config::Config;
use killstream::store::facts::facts;
use killstream::store::incoming::{AgeRule, Incoming, ZkbRule};
use killstream::store::query::{HistoryQuery, Order};
use killstream::wire;
use tempfile::TempDir;

use crate::support::data;

const BATCH: usize = 1000;

fn open(folder: &Path) -> Arc<Store> {
    let config =
        Config { dir: folder.to_owned(), min_free_bytes: 0, tail_entries: 2000, ..Config::default() };
    Store::open(config, wire::killmail::encode).unwrap()
}

fn incoming(line: &str) -> Incoming {
    let package =
        wire::read::package::parse(line.as_bytes()).unwrap_or_else(|refused| panic!("{refused:?}: {line}"));
    let killmail = package.killmail.unwrap_or_else(|| panic!("no body: {line}"));
    let received_at_ms = killmail.time * 1000;
    Incoming {
        killmail,
        origin: Origin::Backfill,
        received_at_ms,
        uploaded_at: None,
        age: AgeRule::ByUpload,
        zkb: ZkbRule::Keep,
    }
}

#[test]
fn every_real_killmail_is_returned_equal_and_found() {
    let folder = TempDir::with_prefix("killstream-real-").unwrap();
    let sources = data::current();
    let mut store = open(folder.path());
    for source in &sources {
        for lines in source.lines.chunks(BATCH) {
            store.append(lines.iter().map(|line| incoming(line)).collect(), None).unwrap();
        }
    }
    let different = assert_all_come_back(&store, &sources);
    assert_eq!(store.count(), different);
    assert_found_by_every_term(&store, &sources);
    drop(store);
    store = open(folder.path());
    assert_eq!(assert_all_come_back(&store, &sources), different, "after a restart");
    assert_found_by_every_term(&store, &sources);
}

/// The hashes of the documents are those computed from their bodies.
#[test]
fn every_real_hash_equals_the_computed_one() {
    let mut equal = 0;
    for source in &data::current() {
        for line in &source.lines {
            let killmail = incoming(line).killmail;
            if let (Some(given), Some(computed)) = (hash::from_source(&killmail), hash::compute(&killmail)) {
                assert_eq!(given, computed, "{} of {}", killmail.killmail_id, source.source);
                equal += 1;
            }
        }
    }
    eprintln!("    {equal} hashes are the computed ones");
    assert!(equal > 3000, "{equal}");
}

/// Checks that a stored killmail lacks nothing its document had, and is equal to it if it was never revised.
fn assert_all_come_back(store: &Store, sources: &[data::Documents]) -> u64 {
    let mut different = BTreeSet::new();
    for source in sources {
        let mut equal = 0;
        for line in &source.lines {
            let given = incoming(line).killmail;
            let kept = store
                .killmail(given.killmail_id)
                .unwrap()
                .unwrap_or_else(|| panic!("{} is lost", given.killmail_id));
            assert_eq!(
                merge(&kept.killmail, &given, false),
                MergeOutcome::Unchanged,
                "{} of {}",
                given.killmail_id,
                source.source
            );
            if different.insert(given.killmail_id) && kept.rev == 0 {
                assert_eq!(
                    wire::killmail::json(&kept),
                    wire::killmail::encode(&given),
                    "{}",
                    given.killmail_id
                );
                equal += 1;
            }
        }
        eprintln!("    {:>6} of {} are the very same, the rest were added to", equal, source.source);
    }
    different.len() as u64
}

/// Checks for every term and label that exactly the killmails that have it are found.
fn assert_found_by_every_term(store: &Store, sources: &[data::Documents]) {
    let mut by_term: BTreeMap<Term, BTreeSet<u32>> = BTreeMap::new();
    let mut by_label: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    let ids: BTreeSet<u32> =
        sources.iter().flat_map(|s| &s.lines).map(|line| incoming(line).killmail.killmail_id).collect();
    for id in ids {
        let facts = facts(&store.killmail(id).unwrap().unwrap().killmail);
        for term in facts.terms() {
            by_term.entry(term).or_default().insert(id);
        }
        for label in facts.labels {
            by_label.entry(label).or_default().insert(id);
        }
    }
    for (term, expected) in &by_term {
        let mut filter = Filter::default();
        filter.set_ids(term.dimension, vec![term.id]);
        assert!(found(store, &filter).iter().eq(expected), "{term:?}");
    }
    for (label, expected) in &by_label {
        let filter = Filter { labels: vec![label.clone()], ..Filter::default() };
        assert!(found(store, &filter).iter().eq(expected), "{label}");
    }
    eprintln!("    {} terms and {} labels find exactly theirs", by_term.len(), by_label.len());
    assert!(by_term.len() > 5000 && by_label.len() > 5);
}

fn found(store: &Store, filter: &Filter) -> Vec<u32> {
    let query = HistoryQuery {
        filter,
        interest: None,
        order: Order::Oldest,
        after: None,
        below: None,
        head: store.head(),
        limit: usize::MAX,
    };
    store.select(&query).unwrap().into_iter().map(|hit| hit.killmail_id).collect()
}
