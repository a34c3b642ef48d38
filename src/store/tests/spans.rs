//! Spans: numbers of the log without a killmail, which every check and every start must recognise.
//!
//! Must not know: who writes spans, or why.

use std::sync::Arc;

use tempfile::TempDir;

use crate::domain::filter::Filter;
use crate::domain::id::Seq;
use crate::domain::span::Span;
use crate::store::Store;
use crate::store::incoming::Checkpoint;
use crate::store::tests::{ask, config, folder, holds_in_every_copy, incoming, json, killmail, open, seqs};
use crate::store::upkeep::salvage;

const SPAN: Span = Span { from: 1_700_000_000, to: 1_700_000_100, killmails: 2 };

fn filled(dir: &TempDir) -> Arc<Store> {
    let store = open(dir);
    store.append([1, 2].map(killmail).map(incoming).to_vec(), None).expect("appended");
    let checkpoint = Checkpoint { source: "r2z2".to_owned(), bytes: b"9".to_vec() };
    assert_eq!(store.append_span(SPAN, Some(checkpoint)).expect("appended"), Seq(3));
    store.append(vec![incoming(killmail(3))], None).expect("appended");
    assert_eq!(store.append_span(Span { killmails: 7, ..SPAN }, None).expect("appended"), Seq(5));
    store
}

fn check(store: &Store) {
    assert_eq!((store.head(), store.count()), (Seq(5), 3));
    assert_eq!(store.checkpoint("r2z2").expect("read").as_deref(), Some(&b"9"[..]));
    assert_eq!(store.spans(Seq(0), Seq(5)), [(Seq(3), SPAN), (Seq(5), Span { killmails: 7, ..SPAN })]);
    assert_eq!(store.spans(Seq(3), Seq(4)), []);
    assert_eq!(store.spans(Seq(2), Seq(3)), [(Seq(3), SPAN)]);
    assert_eq!(store.entry(Seq(3)).expect("read").map(|e| e.seq), None);
    for page in [
        store.read_page(&ask(&Filter::default())),
        store.scan_page_as_oracle(&ask(&Filter::default())),
        store.select_page(&ask(&Filter::default())),
    ] {
        let page = page.expect("a page");
        assert_eq!((seqs(&page.entries), page.passed), (vec![1, 2, 4], Seq(5)));
    }
}

#[test]
fn a_span_has_a_number_and_no_killmail_also_after_reopening() {
    let dir = folder();
    check(&filled(&dir));
    let report = holds_in_every_copy(&dir, check);
    assert_eq!((report.killmails, report.head, report.holes), (3, 5, vec![]));
}

#[test]
fn a_salvaged_store_knows_its_spans() {
    let dir = folder();
    drop(filled(&dir));
    let new = folder();
    let losses = salvage::run(dir.path(), &config(&new), json, &|_| {}).expect("salvaged");
    assert_eq!((losses.killmails, losses.lost, losses.holes), (3, 0, vec![]));
    assert_eq!(losses.carried.get("spans"), Some(&2), "{:?}", losses.carried);
    check(&open(&new));
}
