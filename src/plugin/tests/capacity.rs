//! Limits that guests share: memory, slots of the pool, log lines; and limits on their texts.
//!
//! Must not know: how usage is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::domain::verdict::{Fault, Verdict};
use crate::plugin::class::Class;
use crate::plugin::error::Refusal;
use crate::plugin::judging::evaluator::{Evaluator, EvaluatorKey};
use crate::plugin::judging::evaluator_cache::{CacheLookup, EvaluatorCache};
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::resources::memory_account::AddressBudget;
use crate::plugin::tests::guests::{self, KEEP, Text};
use crate::plugin::tests::support::{self, judge, killmail};

const MIB: u64 = 1 << 20;
/// Together with its four initial pages, a guest then has 60 MiB, and writes to all of it.
const FILLS: &str = "(drop (memory.grow (i32.const 956))) (memory.fill (i32.const 65536) (i32.const 1) (i32.const 62849024)) (i32.const 0)";
/// Grows by 30 MiB on killmail 2, keeps all others.
const GROWS: &str =
    "(if (i64.eq (local.get $id) (i64.const 2)) (then (drop (memory.grow (i32.const 480))))) (i32.const 64)";

fn within(guests_memory_bytes: u64) -> Config {
    Config { guests_memory_bytes, ..Config::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_evaluators_of_60_mb_stay_within_the_budget_of_all_guests() {
    let engine = support::engine(within(256 * MIB));
    let memory = engine.capacity().memory().clone();
    let component = engine.compile(&guests::guest(&Text { configure: FILLS, ..Text::default() })).unwrap();
    assert_eq!(memory.used(), component.charged_bytes(), "the instance of the upload check is gone");
    let mut made: Vec<Evaluator> = Vec::new();
    let mut refused = Vec::new();
    for n in 0..40 {
        match engine.evaluator(&component, &format!("{n}"), Instance::Warm).await {
            Ok(evaluator) => made.push(evaluator),
            Err(refusal) => refused.push(refusal),
        }
        assert!(memory.used() <= 256 * MIB);
    }
    assert_eq!((made.len(), refused.len()), (4, 36));
    let text = " of 268435456 bytes of memory for guests are in use, and another does not fit (plugin.guests_memory_bytes)";
    assert!(
        refused.iter().all(|refusal| refusal.is_busy() && refusal.to_string().ends_with(text)),
        "{:?}",
        refused[0]
    );
    assert_eq!(memory.refused(), 36);
    for evaluator in &made {
        assert_eq!(judge(&engine, evaluator, 1).await, Ok(Verdict::Keep), "the existing ones continue");
    }
    // Unused, they are evicted.
    drop(made);
    let other = engine.evaluator(&component, "other", Instance::Warm).await.unwrap();
    assert_eq!(judge(&engine, &other, 1).await, Ok(Verdict::Keep));
    drop((other, component, engine));
    // Instances are dropped on another thread.
    let end = Instant::now() + Duration::from_secs(20);
    while memory.used() > 0 {
        assert!(Instant::now() < end, "{} bytes are not released", memory.used());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn growing_beyond_the_shared_budget_is_a_memory_fault() {
    let engine = support::engine(within(40 * MIB));
    let component = engine.compile(&guests::evaluating(GROWS)).unwrap();
    let one = engine.evaluator(&component, "1", Instance::Warm).await.unwrap();
    let two = engine.evaluator(&component, "2", Instance::Warm).await.unwrap();
    assert_eq!(judge(&engine, &one, 2).await, Ok(Verdict::Keep));
    assert_eq!(judge(&engine, &two, 2).await, Err(Fault::Memory));
    assert_eq!(judge(&engine, &two, 3).await, Ok(Verdict::Keep), "it continues with a small instance");
    assert_eq!(engine.capacity().evaluators(Class::Small), (2, 1_000));
    // If the other is unused, it is evicted within the call.
    drop(one);
    assert_eq!(judge(&engine, &two, 2).await, Ok(Verdict::Keep), "a memory shortage is not remembered");
    assert_eq!(engine.evaluators_kept(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_evaluators_are_evicted_for_new_ones() {
    let bytes = guests::evaluating(KEEP);
    let loaded = support::engine(Config::default()).compile(&bytes).unwrap().charged_bytes();
    let engine = support::engine(within(MIB + loaded));
    let component = engine.compile(&bytes).unwrap();
    for n in 0..20 {
        // Each takes a quarter of the rest.
        engine.evaluator(&component, &format!("{n}"), Instance::Warm).await.unwrap();
    }
    assert_eq!((engine.evaluators_kept(), engine.capacity().memory().refused()), (4, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_one_address_are_limited_to_its_part() {
    let engine = support::engine(within(256 * MIB));
    let addresses: [AddressBudget; 2] = [Arc::new(Budget::new(40 * MIB)), Arc::new(Budget::new(40 * MIB))];
    let component = engine.compile(&guests::evaluating(GROWS)).unwrap();
    let ask = async |config, address| {
        engine.evaluator_for_address(&component, config, Instance::Warm, None, address).await.unwrap()
    };
    let (one, two) = (ask("1", Some(&addresses[0])).await, ask("2", Some(&addresses[0])).await);
    let other = ask("3", Some(&addresses[1])).await;
    assert_eq!(judge(&engine, &one, 2).await, Ok(Verdict::Keep));
    assert_eq!(judge(&engine, &other, 2).await, Ok(Verdict::Keep));
    for _ in 0..10 {
        assert_eq!(judge(&engine, &two, 2).await, Err(Fault::Memory));
    }
    assert_eq!(engine.quarantined_count(), 0, "the address caused the shortage, not the pair");
    assert!(addresses[0].used() > 30 * MIB && addresses[0].used() <= 40 * MIB);
    // Another address asks for the same pair: no address is charged for it.
    let _same = ask("2", Some(&addresses[1])).await;
    assert_eq!(judge(&engine, &two, 2).await, Ok(Verdict::Keep));
    // If an address has used up its part, its unused pairs are evicted.
    drop(one);
    let four = ask("4", Some(&addresses[0])).await;
    assert_eq!(judge(&engine, &four, 2).await, Ok(Verdict::Keep));
    assert_eq!(engine.evaluators_kept(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn loaded_components_are_charged() {
    let engine = support::engine(within(16 * MIB));
    let memory = engine.capacity().memory().clone();
    let many =
        (0..10_000).map(|n| format!("(global (export \"g{n}\") i32 (i32.const 1))\n")).collect::<String>();
    let bytes = guests::guest(&Text { head: &many, ..Text::default() });
    let component = engine.compile(&bytes).unwrap();
    assert!(
        memory.used() > MIB && memory.used() == engine.capacity().component_memory().used(),
        "{} bytes",
        memory.used()
    );
    drop(component);
    assert_eq!(memory.used(), 0);
    let refused = support::engine(within(MIB)).compile(&bytes).unwrap_err();
    assert!(!refused.is_busy() && refused.reason() == "too_much_memory", "{refused}");
    assert!(
        refused.to_string().ends_with("all guests together may have 1048576 (plugin.guests_memory_bytes)"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_count_as_well() {
    let engine = support::engine(within(MIB));
    let head = "(table $t 1 funcref)";
    let evaluate = "(drop (table.grow $t (ref.null func) (i32.const 15000))) (i32.const 64)";
    let guest =
        support::evaluator(&engine, &guests::guest(&Text { head, evaluate, ..Text::default() })).await;
    let before = engine.capacity().memory().used();
    assert_eq!(judge(&engine, &guest, 1).await, Ok(Verdict::Keep));
    assert_eq!(engine.capacity().memory().used() - before, 15_000 * 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_refuses_new_evaluators() {
    let engine = support::engine(Config { pool_memories: 6, ..Config::default() });
    let component = engine.compile(&guests::evaluating(KEEP)).unwrap();
    let mut all = Vec::new();
    for config in ["1", "2", "3"] {
        all.push(engine.evaluator(&component, config, Instance::Warm).await.unwrap());
    }
    let refusal = engine.evaluator(&component, "4", Instance::Warm).await.unwrap_err();
    assert!(refusal.is_busy() && refusal.to_string().ends_with("(plugin.pool_memories)"), "{refusal}");
    for evaluator in &all {
        let page = vec![killmail(1)];
        assert_eq!(judge(&engine, evaluator, 1).await, Ok(Verdict::Keep));
        assert_eq!(
            engine.evaluate(evaluator, page, Run::History { head: killmail(9).seq }).await,
            [Ok(Verdict::Keep)]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_four_megabytes_is_a_short_line() {
    let engine = support::engine(Config::default());
    // err(text): 4,000,000 bytes from 65,536 on, all of them 0 except the beginning.
    let head = r#"(data (i32.const 128) "\01\00\00\00\00\00\00\00\00\00\01\00\00\09\3d\00") (data (i32.const 65536) "no \1b[31msuch\0athing")"#;
    let configure = "(drop (memory.grow (i32.const 70))) (i32.const 128)";
    let component = engine.compile(&guests::guest(&Text { head, configure, ..Text::default() })).unwrap();
    let refused = engine.evaluator(&component, "{}", Instance::Warm).await.unwrap_err();
    let message = "no [31msuch thing".to_owned();
    assert_eq!(refused, Refusal::Configure { message, limit: None });
    let head = head.replace("no \\1b[31msuch\\0athing", &"x".repeat(2_000));
    let component =
        engine.compile(&guests::guest(&Text { head: &head, configure, ..Text::default() })).unwrap();
    let refused = engine.evaluator(&component, "{}", Instance::Warm).await.unwrap_err().to_string();
    assert!(refused.len() <= 1_024 && refused.ends_with("x…"), "{} bytes", refused.len());
}

const LOG: &str = r#"(import "killstream:plugin/log@1.0.0-rc.1" "log" (func $log (param i32 i32 i32)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_does_not_reset_the_log_limit() {
    // A pair in quarantine would log nothing more.
    let engine = support::engine(Config { rest_faults: 0, ..Config::default() });
    let says = "(local $n i32) (loop $again
        (call $log (i32.const 2) (i32.const 0) (i32.const 8))
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20))))
        unreachable";
    let component =
        engine.compile(&guests::guest(&Text { head: LOG, evaluate: says, ..Text::default() })).unwrap();
    component.set_label("talker 3");
    component.set_label("another");
    assert_eq!(component.label(), "talker 3");
    for config in ["1", "2"] {
        let guest = engine.evaluator(&component, config, Instance::Warm).await.unwrap();
        let page: Vec<_> = (1..=50).map(killmail).collect();
        let answers = engine.evaluate(&guest, page, Run::Live).await;
        assert!(answers.iter().all(|answer| *answer == Err(Fault::Trap)));
    }
    // 2,000 lines, of which 160 fit into 64 KiB. Lines that are cut count too, and all of these contain control
    // characters. There is one more line for each fault, most of which do not fit.
    let cut = component.counts().log_lines_cut;
    assert!((2_050..2_100).contains(&cut), "{cut}");
    assert!(!component.counters().try_log(1, 64 << 10), "the minute is full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_shortage_caused_by_others_does_not_count_against_a_pair() {
    let engine = support::engine(within(40 * MIB));
    let component = engine.compile(&guests::evaluating(GROWS)).unwrap();
    let one = engine.evaluator(&component, "1", Instance::Warm).await.unwrap();
    let two = engine.evaluator(&component, "2", Instance::Warm).await.unwrap();
    assert_eq!(judge(&engine, &one, 2).await, Ok(Verdict::Keep));
    for _ in 0..10 {
        let run = Run::History { head: killmail(9).seq };
        assert_eq!(engine.evaluate(&two, vec![killmail(2)], run).await, [Err(Fault::Memory)]);
    }
    assert_eq!((engine.quarantined_count(), component.counts().at_rest), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_evicted_for_what_would_not_fit_anyway() {
    let engine = support::engine(within(40 * MIB));
    let component = engine.compile(&guests::evaluating(GROWS)).unwrap();
    let make = async |config| engine.evaluator(&component, config, Instance::Warm).await.unwrap();
    let (one, two) = (make("1").await, make("2").await);
    assert_eq!(judge(&engine, &one, 2).await, Ok(Verdict::Keep));
    drop((make("3").await, make("4").await));
    assert_eq!(judge(&engine, &two, 2).await, Err(Fault::Memory));
    assert_eq!(engine.evaluators_kept(), 4, "unused ones hold less than is needed");
    drop(one);
    assert_eq!(judge(&engine, &two, 2).await, Ok(Verdict::Keep));
}

/// Runs for some milliseconds, then grows by 30 MiB.
const WORKS_AND_GROWS: &str = "(local $n i32)
    (loop $again (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 30000000))))
    (drop (memory.grow (i32.const 480))) (i32.const 64)";

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_find_no_memory_are_charged() {
    let engine = support::engine(Config { evaluate_cpu_ms: 10_000, ..within(256 * MIB) });
    let address: AddressBudget = Arc::new(Budget::new(40 * MIB));
    let component = engine.compile(&guests::evaluating(WORKS_AND_GROWS)).unwrap();
    let make = async |config, address| {
        engine.evaluator_for_address(&component, config, Instance::Warm, None, address).await.unwrap()
    };
    let (one, two, other) =
        (make("1", Some(&address)).await, make("2", Some(&address)).await, make("3", None).await);
    let seen = |evaluator: &Evaluator| {
        let record = evaluator.record().for_run(Run::Live);
        (record.strikes(), record.fault_budget().has_recent_faults(Instant::now()))
    };
    assert_eq!(judge(&engine, &one, 1).await, Ok(Verdict::Keep));
    assert_eq!(seen(&one), (0, false));
    // The memory of all guests is used up.
    let memory = engine.capacity().memory();
    let mut held = memory.share();
    assert!(held.reach(memory.max() - memory.used()));
    assert_eq!(judge(&engine, &other, 1).await, Err(Fault::Memory));
    assert_eq!(seen(&other), (0, true), "it counts for the component and not for the pair");
    drop(held);
    // The address has used up its part.
    assert_eq!(judge(&engine, &two, 1).await, Err(Fault::Memory));
    assert_eq!(seen(&two), (1, true), "it counts for a pair that only this address uses");
    assert_eq!(engine.quarantined_count(), 0);
}

#[test]
fn a_setup_for_two_addresses_is_charged_to_neither() {
    let cache = EvaluatorCache::new(&Arc::new(Config::default()));
    let addresses: [AddressBudget; 2] = [Arc::new(Budget::new(MIB)), Arc::new(Budget::new(MIB))];
    let key = EvaluatorKey { digest: "d".to_owned(), config: "{}".to_owned(), instance: Instance::Warm };
    let CacheLookup::Missing(_waiting, ticket) = cache.lookup(&key, false, Some(&addresses[0])) else {
        panic!("it is not cached")
    };
    assert!(matches!(cache.lookup(&key, false, Some(&addresses[0])), CacheLookup::Pending(_)));
    assert!(ticket.account().is_charged_to(&addresses[0]));
    assert!(matches!(cache.lookup(&key, false, Some(&addresses[1])), CacheLookup::Pending(_)));
    assert!(!addresses.iter().any(|address| ticket.account().is_charged_to(address)));
}
