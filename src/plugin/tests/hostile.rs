//! Law 6 (a guest hurts only itself): every bad guest gets its own fault, and its neighbor is unaffected.
//!
//! Must not know: how the engine distinguishes faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::domain::entry::Entry;
use crate::domain::verdict::{Fault, Verdict};
use crate::plugin::engine::Engine;
use crate::plugin::history::NoHistory;
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, DROP, KEEP, Text};
use crate::plugin::tests::support::{self, judge, killmail};
use crate::tasks;

const LOG: &str = r#"(import "killstream:plugin/log@1.0.0-rc.1" "log" (func $log (param i32 i32 i32)))"#;
const INVOLVES: &str = r#"(import "killstream:plugin/killmail@1.0.0-rc.1" "involves" (func $involves (param i32 i32 i32 i32) (result i32)))"#;
const COUNT: &str = r#"(import "killstream:plugin/history@1.0.0-rc.1" "count" (func $count (param i32 i32 i32 i64 i64) (result i64)))"#;

const COUNT_ALL: &str = r#"(import "killstream:plugin/history@1.0.0-rc.1" "count-all" (func $count (param i32 i32 i64 i64) (result i64)))"#;
/// 5,000 terms of 70 ids: each term has its list at 0.
const ASKS_FOR_MUCH: &str = "(local $n i32) (loop $again
    (i32.store offset=135176 (i32.mul (local.get $n) (i32.const 12)) (i32.const 70))
    (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 5000))))
    (drop (call $count (i32.const 135168) (i32.const 5000) (i64.const 0) (i64.const 0))) (i32.const 64)";

/// Bad guests with the faults they must get.
fn bad_guests() -> Vec<(&'static str, Fault, Vec<u8>)> {
    let with = |head, evaluate| guests::guest(&Text { head, evaluate, ..Text::default() });
    vec![
        ("loops", Fault::Deadline, guests::evaluating("(loop $again (br $again)) unreachable")),
        ("traps", Fault::Trap, guests::evaluating("unreachable")),
        (
            "grows memory",
            Fault::Memory,
            guests::evaluating("(loop $again (drop (memory.grow (i32.const 64))) (br $again)) unreachable"),
        ),
        (
            "grows a second memory",
            Fault::Memory,
            with(
                "(memory $more 1)",
                "(loop $again (drop (memory.grow $more (i32.const 64))) (drop (memory.grow (i32.const 64))) (br $again)) unreachable",
            ),
        ),
        (
            "grows a table",
            Fault::Table,
            with(
                "(table $t 1 funcref)",
                "(loop $again (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $again)) unreachable",
            ),
        ),
        (
            "recurses",
            Fault::Stack,
            with("(func $deep (param i64) (call $deep (local.get 0)) (call $deep (local.get 0)))", DEEP),
        ),
        ("says too much", Fault::Output, guests::keep_with(&format!("{{\"a\":\"{}\"}}", "x".repeat(70_000)))),
        ("hands over too much", Fault::Output, with(INVOLVES, HUGE_LIST)),
        ("annotates without JSON", Fault::BadOutput, guests::keep_with("{nonsense")),
        ("annotates with a list", Fault::BadOutput, guests::keep_with("[1]")),
        ("annotates with a number out of range", Fault::BadOutput, guests::keep_with("{\"a\":1e999}")),
        (
            "annotates too deep",
            Fault::BadOutput,
            guests::keep_with(&format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500))),
        ),
        ("answers with an error", Fault::BadOutput, with(SAYS_ERROR, "(i32.const 128)")),
        ("points outside its memory", Fault::Trap, guests::evaluating("(i32.const 0x7fff0000)")),
        (
            "answers with an unknown case",
            Fault::Trap,
            with(r#"(data (i32.const 128) "\09")"#, "(i32.const 128)"),
        ),
        ("asks history too often", Fault::HostBudget, with(COUNT, ASKS_FOR_EVER)),
        ("asks history for too much at once", Fault::HostBudget, with(COUNT_ALL, ASKS_FOR_MUCH)),
    ]
}

const DEEP: &str = "(call $deep (i64.const 1)) (i32.const 64)";
const SAYS_ERROR: &str =
    r#"(data (i32.const 128) "\01\00\00\00\00\04\00\00\05\00\00\00") (data (i32.const 1024) "sorry")"#;
const ASKS_FOR_EVER: &str = "(loop $again
    (drop (call $count (i32.const 0) (i32.const 0) (i32.const 7) (i64.const 0) (i64.const 0))) (br $again)) unreachable";
const HUGE_LIST: &str = "(drop (memory.grow (i32.const 100)))
    (drop (call $involves (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1500000))) (i32.const 64)";

#[tokio::test(flavor = "multi_thread")]
async fn law_6_every_bad_guest_gets_its_own_fault_and_its_neighbor_is_unaffected() {
    let engine = support::engine(Config { workers: 1, ..Config::default() });
    let good = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    let mut id = 0;
    for (what, word, bytes) in bad_guests() {
        let component = engine.compile(&bytes).unwrap_or_else(|e| panic!("a guest that {what}: {e}"));
        let bad = engine.evaluator(&component, "{}", Instance::Warm).await.unwrap();
        for _ in 0..3 {
            id += 1;
            let page = || vec![killmail(id)];
            let (bad, good) = tokio::join!(
                engine.evaluate(&bad, page(), Run::Live),
                engine.evaluate(&good, page(), Run::Live)
            );
            assert_eq!(bad, [Err(word)], "a guest that {what}");
            assert_eq!(good, [Ok(Verdict::Keep)], "the neighbor of a guest that {what}");
        }
        assert_eq!(component.counts().faults[word.word()], 3, "a guest that {what}");
        assert_eq!(component.counts().calls, 3, "a guest that {what}");
    }
    assert_eq!(good.component().counts().keeps, u64::from(id));
    assert!(good.component().counts().faults.is_empty());
    // After every fault except bad output there is a new instance. The neighbor keeps its first one; the other
    // was for the check at upload.
    assert_eq!(good.component().counts().instances, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_continues_after_a_fault() {
    let engine = support::engine(Config::default());
    // Traps on every second killmail.
    let text = "(if (i64.eqz (i64.rem_u (local.get $id) (i64.const 2))) (then unreachable)) (i32.const 64)";
    let guest = support::evaluator(&engine, &guests::evaluating(text)).await;
    let page: Vec<_> = (1..=10).map(killmail).collect();
    let answers = engine.evaluate(&guest, page, Run::Live).await;
    for (answer, id) in answers.iter().zip(1..) {
        assert_eq!(*answer, if id % 2 == 0 { Err(Fault::Trap) } else { Ok(Verdict::Keep) });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_log_is_cut_and_counted() {
    let engine = support::engine(Config::default());
    let text = "(local $n i32) (loop $again
        (call $log (i32.const 2) (i32.const 0) (i32.const 2000))
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 50))))
        (i32.const 64)";
    let guest =
        support::evaluator(&engine, &guests::guest(&Text { head: LOG, evaluate: text, ..Text::default() }))
            .await;
    assert_eq!(judge(&engine, &guest, 1).await, Ok(Verdict::Keep));
    assert_eq!(guest.component().counts().log_lines_cut, 50, "20 were cut to their length, 30 left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_are_one_line_of_json() {
    let engine = support::engine(Config::default());
    let guest = support::evaluator(&engine, &guests::keep_with("{\"a\":\r\n 1.5}")).await;
    assert_eq!(judge(&engine, &guest, 1).await, Ok(Verdict::KeepWith("{\"a\":1.5}".into())));
}

/// The guest counts to half a million: a millisecond or two of CPU time, but far more wall time if it is
/// preempted.
fn busy_but_innocent() -> Vec<u8> {
    guests::evaluating(
        "(local $n i32) (loop $again
            (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 500000))))
            (i32.const 64)",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn four_busy_threads_give_no_deadline_fault_to_an_innocent_guest() {
    let engine = support::engine(Config::default());
    let guest = support::evaluator(&engine, &busy_but_innocent()).await;
    let over = Arc::new(AtomicBool::new(false));
    let busy = [(); 4].map(|()| {
        let over = Arc::clone(&over);
        tasks::thread("busy", move || while !over.load(Ordering::Relaxed) {}).unwrap()
    });
    let page: Vec<_> = (1..=200).map(killmail).collect();
    let answers = engine.evaluate(&guest, page, Run::Live).await;
    over.store(true, Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
    assert!(answers.iter().all(|answer| *answer == Ok(Verdict::Keep)), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_does_not_wait_for_a_page_of_history() {
    let engine = support::engine(Config { workers: 1, evaluate_cpu_ms: 25, ..Config::default() });
    let slow =
        support::evaluator(&engine, &guests::evaluating("(loop $again (br $again)) unreachable")).await;
    let quick = support::evaluator(&engine, &guests::evaluating(DROP)).await;
    let page: Vec<_> = (1..=64).map(killmail).collect();
    let past = engine.evaluate(&slow, page, Run::History { head: killmail(1).seq });
    let live = async {
        while slow.component().counts().calls == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(judge(&engine, &quick, 1).await, Ok(Verdict::Drop));
        assert!(slow.component().counts().calls < 64, "history was still being judged");
    };
    let (past, ()) = tokio::join!(past, live);
    assert!(past.iter().all(|answer| *answer == Err(Fault::Deadline)));
}

/// How often the JSON of a killmail was written.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn killmail_data_is_charged_before_it_is_passed() {
    let json = |_: &Entry| {
        WRITTEN.fetch_add(1, Ordering::Relaxed);
        Bytes::from_static(b"{}")
    };
    let engine =
        Engine::new(Config { host_cpu_ms: 0, ..Config::default() }, Arc::new(NoHistory), json).unwrap();
    for (name, params, call) in [
        ("json", "i32", "(call $ask (i32.const 2048))"),
        ("attackers", "i32", "(call $ask (i32.const 2048))"),
        ("column", "i32 i32 i32", "(call $ask (i32.const 0) (i32.const 0) (i32.const 2048))"),
    ] {
        let head = format!(
            r#"(import "killstream:plugin/killmail@1.0.0-rc.1" "{name}" (func $ask (param {params})))"#
        );
        let asks = guests::guest(&Text {
            head: &head,
            evaluate: &format!("{call} (i32.const 64)"),
            ..Text::default()
        });
        let evaluator = support::evaluator(&engine, &asks).await;
        assert_eq!(judge(&engine, &evaluator, 1).await, Err(Fault::HostBudget), "{name}");
    }
    assert_eq!(WRITTEN.load(Ordering::Relaxed), 0);
}
