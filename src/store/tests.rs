//! The store as a whole, over a temporary folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::domain::entry::{Origin, SharedEntry};
use crate::domain::filter::{Filter, IdSet, Interest, Match, Wanted};
use crate::domain::id::{Epoch, Seq};
use crate::domain::killmail::{Attacker, Killmail, Victim};
use crate::domain::term::{Kind, Role};
use crate::domain::zkb::Zkb;
use crate::store::{AgeRule, Appended, Ask, Checkpoint, Config, Hit, Incoming, Order, Query, Store, ZkbRule};

/// An encoder of predictable lengths.
fn json(killmail: &Killmail) -> Bytes {
    Bytes::from(vec![b'x'; 100 + killmail.attackers.len() * 10])
}

fn config(dir: &TempDir) -> Config {
    Config { dir: dir.path().to_owned(), min_free_bytes: 0, encode: json, ..Config::default() }
}

fn open(dir: &TempDir) -> Arc<Store> {
    Store::open(config(dir)).expect("a store opens")
}

fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
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
        victim: Victim { character_id: Some(90_000_000 + id % 11), ship_type_id: Some(587 + id % 5), ..Victim::default() },
        attackers: vec![Attacker { character_id: Some(91_000_000 + id % 13), final_blow: true, ..Attacker::default() }],
        ..Killmail::default()
    }
}

fn valued(id: u32, value: f64) -> Killmail {
    let zkb = Zkb { total_value: Some(value), labels: Some(vec!["loc:highsec".to_owned()]), ..Zkb::default() };
    Killmail { zkb: Some(zkb), ..killmail(id) }
}

fn history(filter: &Filter) -> Query<'_> {
    Query { filter, interest: None, order: Order::Newest, after: None, below: None, head: Seq(u64::MAX), limit: usize::MAX }
}

fn ask(filter: &Filter) -> Ask<'_> {
    Ask {
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
    let page = store.page(&ask(&Filter::default())).expect("a page");
    assert_eq!((seqs(&page.entries), page.passed), (vec![1, 2, 3], Seq(3)));
}
