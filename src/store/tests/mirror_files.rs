//! The numbers of the mirror's files: they survive everything that happens to the store, also in a store that
//! was written before files had their own numbers.
//!
//! Must not know: what is in a file.

use std::sync::Arc;

use tempfile::TempDir;

use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;
use crate::domain::span::Span;
use crate::store::Store;
use crate::store::keys::{Key, Tree};
use crate::store::tests::{config, folder, holds_in_every_copy, incoming, json, killmail, open, valued};
use crate::store::upkeep::salvage;

const SPAN: Span = Span { from: 1_700_000_000, to: 1_700_000_100, killmails: 2 };

/// A killmail from which no hash can be computed.
fn hashless(id: u32) -> Killmail {
    let mut killmail = killmail(id);
    killmail.attackers[0].final_blow = false;
    killmail
}

fn hashed(id: u32) -> Killmail {
    Killmail { hash: Some("aa".to_owned()), ..hashless(id) }
}

fn append(store: &Store, killmails: impl IntoIterator<Item = Killmail>) {
    store.append(killmails.into_iter().map(incoming).collect(), None).expect("appended");
}

/// The entries of all files, in the order of their numbers.
fn files(store: &Store) -> Vec<u64> {
    (1..=store.newest_file()).map(|file| store.entry_of_file(file).expect("there is no gap").0).collect()
}

fn filled(dir: &TempDir) -> Arc<Store> {
    let store = open(dir);
    append(&store, [killmail(1), hashless(2), hashless(3), killmail(4)]);
    store.append_span(SPAN, None).expect("appended");
    append(&store, [killmail(5)]);
    append(&store, [hashed(3), valued(1, 1e9)]);
    append(&store, [hashless(6), killmail(7)]);
    store
}

fn check(store: &Store) {
    assert_eq!((store.head(), files(store)), (Seq(8), vec![1, 4, 6, 3, 8]));
    assert_eq!(
        store.revision_notice(4).expect("read"),
        Some(1),
        "the next file, that of the late entry, announces the revision"
    );
    assert_eq!((store.entry_of_file(0), store.entry_of_file(6)), (None, None));
}

#[test]
fn only_killmails_with_a_hash_are_numbered_also_after_reopening() {
    let dir = folder();
    check(&filled(&dir));
    holds_in_every_copy(&dir, check);
}

#[test]
fn a_salvaged_store_has_the_same_files() {
    let dir = folder();
    drop(filled(&dir));
    let new = folder();
    let losses = salvage::run(dir.path(), &config(&new), json, &|_| {}).expect("salvaged");
    assert_eq!(losses.carried.get("file numbers"), Some(&4), "{:?}", losses.carried);
    check(&open(&new));
}

#[test]
fn a_store_without_file_numbers_keeps_the_numbers_of_the_log() {
    let dir = folder();
    let store = filled(&dir);
    for file in 1..=9_u64 {
        store.engine.remove(Tree::Meta, &Key::FileRun(file).bytes()).expect("removed");
    }
    // As it was written then: the next entry announces a revised one.
    store
        .engine
        .put(Tree::Meta, &[b"told/", &9_u64.to_be_bytes()[..]].concat(), &4_u64.to_le_bytes())
        .expect("put");
    store.engine.sync().expect("synced");
    drop(store);
    let store = open(&dir);
    assert_eq!(files(&store), [1, 2, 3, 4, 5, 6, 7, 8], "clients continue at 9");
    append(&store, [hashless(9), killmail(10)]);
    store.append_span(SPAN, None).expect("appended");
    append(&store, [valued(4, 5.0), killmail(11)]);
    let check = |store: &Store| {
        assert_eq!(files(store), [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]);
        assert_eq!(store.revision_notice(9).expect("read"), Some(4));
        assert_eq!(store.revision_notice(10).expect("read"), Some(4), "it was revised again since");
    };
    check(&store);
    drop(store);
    check(&open(&dir));
}
