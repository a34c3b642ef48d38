//! Law 6 (a guest hurts only itself): however many configurations a bad guest has, a neighbor waits for one
//! call, and a pair that keeps failing is quarantined.
//!
//! Must not know: how turns are scheduled, or what counts against a pair.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::domain::filter::RoleClause;
use crate::domain::verdict::{Fault, Verdict};
use crate::plugin::class::Class;
use crate::plugin::engine::Engine;
use crate::plugin::history::{Allowance, Bound, Exhausted, History, HistoryQuestion, Totals};
use crate::plugin::judging::job_queue::PagesWaiting;
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::resources::memory_account::AddressBudget;
use crate::plugin::sandbox::component::Component;
use crate::plugin::tests::guests::{self, KEEP, Text};
use crate::plugin::tests::support::{self, judge, killmail};

const LOOPS: &str = "(loop $again (br $again)) unreachable";

/// Keeps, and queries history once, so that a test can see when it was called.
const ASKS_AND_KEEPS: &str = "(drop (call $count (i32.const 0) (i32.const 0) (i32.const 7) (i64.const 0) (i64.const 0))) (i32.const 64)";
const COUNT: &str = r#"(import "killstream:plugin/history@1.0.0-rc.1" "count" (func $count (param i32 i32 i32 i64 i64) (result i64)))"#;

/// Records how often another guest had been called at each query.
#[derive(Default)]
struct Watch {
    other: OnceLock<Component>,
    calls: Mutex<Vec<u64>>,
}

impl History for Watch {
    fn count(&self, _: &HistoryQuestion, _: Bound, _: &mut Allowance) -> Result<u64, Exhausted> {
        self.calls.lock().push(self.other.get().map_or(0, |other| other.counts().calls));
        Ok(0)
    }

    fn totals(&self, _: &HistoryQuestion, _: Bound, _: &mut Allowance) -> Result<Totals, Exhausted> {
        Ok(Totals::default())
    }

    fn last_seen(&self, _: &RoleClause, _: Bound, _: &mut Allowance) -> Result<Option<i64>, Exhausted> {
        Ok(None)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn law_6_an_innocent_stream_beside_two_hundred_looping_configurations() {
    const PAGES: u32 = 20;
    for run in [Run::Live, Run::History { head: killmail(u32::MAX).seq }] {
        // No quarantine, so that all of them stay in the way.
        let config = Config {
            workers: 1,
            evaluate_cpu_ms: 2,
            rest_faults: 0,
            rest_excess_ms: 0,
            faults_cpu_ms_per_sec: 0,
            ..Config::default()
        };
        let watch = Arc::new(Watch::default());
        let engine = Engine::new(config, watch.clone(), |_| Bytes::new()).unwrap();
        let bad = engine.compile(&guests::evaluating(LOOPS)).unwrap();
        watch.other.set(bad.clone()).unwrap();
        let asks = guests::guest(&Text { head: COUNT, evaluate: ASKS_AND_KEEPS, ..Text::default() });
        let good = support::evaluator(&engine, &asks).await;
        let mut looping = Vec::new();
        for n in 0..200 {
            looping.push(engine.evaluator(&bad, &n.to_string(), Instance::Warm).await.unwrap());
        }
        let page: Vec<_> = (1..=3).map(killmail).collect();
        let hostile = join_all(looping.iter().map(|evaluator| engine.evaluate(evaluator, page.clone(), run)));
        let innocent = async {
            while bad.counts().calls == 0 {
                tokio::task::yield_now().await;
            }
            let mut standing = Vec::new();
            for id in 1..=PAGES {
                let mut asked = pin!(engine.evaluate(&good, vec![killmail(id)], run));
                let answered = asked.as_mut().now_or_never();
                // From here on it is queued.
                standing.push(bad.counts().calls);
                let answers = match answered {
                    Some(answers) => answers,
                    None => asked.await,
                };
                assert_eq!(answers, [Ok(Verdict::Keep)]);
            }
            standing
        };
        let (faults, standing) = tokio::join!(hostile, innocent);
        let called = watch.calls.lock().clone();
        let waited: Vec<u64> =
            called.iter().zip(&standing).map(|(called, stood)| called.saturating_sub(*stood)).collect();
        assert_eq!(waited.len(), PAGES as usize);
        assert!(
            waited.iter().all(|calls| *calls <= 1),
            "it waits only for the current call: {run:?}: {waited:?}"
        );
        assert!(faults.iter().flatten().all(|answer| *answer == Err(Fault::Deadline)));
        assert_eq!(bad.counts().calls, 600);
    }
}

/// With `{}` it keeps; with a longer configuration it loops.
fn loops_if_configured() -> Vec<u8> {
    let head = "(global $loops (mut i32) (i32.const 0))";
    let configure = "(global.set $loops (i32.gt_u (local.get $config_len) (i32.const 2))) (i32.const 0)";
    let evaluate = "(if (global.get $loops) (then (loop $again (br $again)))) (i32.const 64)";
    guests::guest(&Text { head, configure, evaluate })
}

#[tokio::test(flavor = "multi_thread")]
async fn unproven_looping_pairs_wait_and_proven_ones_do_not() {
    for run in [Run::Live, Run::History { head: killmail(u32::MAX).seq }] {
        // One fault uses the budget of the next 49 seconds.
        let config =
            Config { workers: 1, evaluate_cpu_ms: 50, faults_cpu_ms_per_sec: 1, ..Config::default() };
        let engine = support::engine(config);
        let component = engine.compile(&loops_if_configured()).unwrap();
        let good = engine.evaluator(&component, "{}", Instance::Warm).await.unwrap();
        for id in 1..=20 {
            assert_eq!(engine.evaluate(&good, vec![killmail(id)], run).await, [Ok(Verdict::Keep)]);
        }
        let mut looping = Vec::new();
        for n in 100..105 {
            looping.push(engine.evaluator(&component, &n.to_string(), Instance::Warm).await.unwrap());
        }
        let mut hostile = pin!(join_all(looping.iter().map(|evaluator| engine.evaluate(
            evaluator,
            vec![killmail(21)],
            run
        ))));
        while component.counts().faults.is_empty() || engine.pages_waiting().held < 4 {
            assert!(hostile.as_mut().now_or_never().is_none(), "they wait");
            tokio::task::yield_now().await;
        }
        let asked: Vec<_> = (22..42).map(killmail).collect();
        assert!(engine.evaluate(&good, asked, run).await.iter().all(|verdict| *verdict == Ok(Verdict::Keep)));
        let other = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
        assert_eq!(engine.evaluate(&other, vec![killmail(42)], run).await, [Ok(Verdict::Keep)]);
        assert_eq!((component.counts().faults["deadline"], engine.pages_waiting().held), (1, 4));
    }
}

const ASKS: &str =
    "(drop (call $count (i32.const 0) (i32.const 0) (i32.const 7) (i64.const 0) (i64.const 0)))";

#[tokio::test(flavor = "multi_thread")]
async fn a_proven_pair_takes_turns_with_unproven_ones() {
    for run in [Run::Live, Run::History { head: killmail(u32::MAX).seq }] {
        // The component failed recently, and its budget allows more.
        let config = Config {
            workers: 1,
            evaluate_cpu_ms: 100,
            rest_faults: 0,
            rest_excess_ms: 0,
            faults_cpu_ms_per_sec: 10_000,
            ..Config::default()
        };
        let watch = Arc::new(Watch::default());
        let engine = Engine::new(config, watch.clone(), |_| Bytes::new()).unwrap();
        let evaluate = format!(
            "(local $n i32) (if (i64.eq (local.get $id) (i64.const 7)) (then (loop $ever (br $ever))))
            (if (i64.ge_u (local.get $id) (i64.const 1000)) (then (loop $again
                (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 5000000))))))
            (if (i64.eq (local.get $id) (i64.const 5)) (then {ASKS})) (i32.const 64)"
        );
        let bytes = guests::guest(&Text { head: COUNT, evaluate: &evaluate, ..Text::default() });
        let component = engine.compile(&bytes).unwrap();
        watch.other.set(component.clone()).unwrap();
        let works = engine.evaluator(&component, "1", Instance::Warm).await.unwrap();
        let pages = [101..=120, 7..=7, 201..=240];
        for page in pages {
            drop(engine.evaluate(&works, page.map(killmail).collect::<Vec<_>>(), run).await);
        }
        let record = works.record().for_run(run);
        assert_eq!((record.is_proven(), record.strikes()), (true, 1));
        let newcomer = engine.evaluator(&component, "2", Instance::Warm).await.unwrap();
        let before = component.counts().calls;
        let mut slow =
            pin!(engine.evaluate(&newcomer, (1_000..1_019).map(killmail).collect::<Vec<_>>(), run));
        while component.counts().calls == before {
            assert!(slow.as_mut().now_or_never().is_none(), "it takes longer");
            tokio::task::yield_now().await;
        }
        let stood = component.counts().calls;
        assert_eq!(engine.evaluate(&works, vec![killmail(5)], run).await, [Ok(Verdict::Keep)]);
        let waited = watch.calls.lock()[0] - stood;
        assert!(waited <= 4, "{waited} calls of the newcomer went before it, {run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looping_pairs_of_one_address_do_not_precede_the_first_call_of_another() {
    let config = Config { workers: 1, evaluate_cpu_ms: 10, faults_cpu_ms_per_sec: 50, ..Config::default() };
    let watch = Arc::new(Watch::default());
    let engine = Engine::new(config, watch.clone(), |_| Bytes::new()).unwrap();
    let head = format!("{COUNT}\n(global $loops (mut i32) (i32.const 0))");
    let configure = "(global.set $loops (i32.gt_u (local.get $config_len) (i32.const 2))) (i32.const 0)";
    let evaluate = format!("(if (global.get $loops) (then (loop $again (br $again)))) {ASKS} (i32.const 64)");
    let component =
        engine.compile(&guests::guest(&Text { head: &head, configure, evaluate: &evaluate })).unwrap();
    watch.other.set(component.clone()).unwrap();
    let addresses: [AddressBudget; 2] = [Arc::new(Budget::default()), Arc::new(Budget::default())];
    let mut looping = Vec::new();
    for n in 100..140 {
        looping.push(
            engine
                .evaluator_for_address(&component, &n.to_string(), Instance::Warm, None, Some(&addresses[0]))
                .await
                .unwrap(),
        );
    }
    let honest = engine
        .evaluator_for_address(&component, "{}", Instance::Warm, None, Some(&addresses[1]))
        .await
        .unwrap();
    let mut hostile = pin!(join_all(looping.iter().map(|evaluator| engine.evaluate(
        evaluator,
        vec![killmail(1)],
        Run::Live
    ))));
    while component.counts().faults.is_empty() || engine.pages_waiting().held < 20 {
        assert!(hostile.as_mut().now_or_never().is_none(), "they wait");
        tokio::task::yield_now().await;
    }
    let mut asked = pin!(engine.evaluate(&honest, vec![killmail(2)], Run::Live));
    assert!(asked.as_mut().now_or_never().is_none(), "it waits until the component may fail again");
    let stood = component.counts().calls;
    assert_eq!(asked.await, [Ok(Verdict::Keep)]);
    let waited = watch.calls.lock()[0] - stood;
    assert!(waited <= 2, "{waited} calls of the other address went before it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cheap_fault_before_a_slow_successful_call_is_not_costly() {
    let engine = support::engine(Config { workers: 1, evaluate_cpu_ms: 1_000, ..Config::default() });
    let evaluate = "(local $n i32) (if (i64.eq (local.get $id) (i64.const 2)) (then unreachable))
        (if (i64.eq (local.get $id) (i64.const 3)) (then (loop $again
            (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000000)))))) (i32.const 64)";
    let evaluator = support::evaluator(&engine, &guests::evaluating(evaluate)).await;
    for run in [Run::Live, Run::History { head: killmail(u32::MAX).seq }] {
        let answers = engine.evaluate(&evaluator, vec![killmail(1), killmail(2), killmail(3)], run).await;
        assert_eq!(answers, [Ok(Verdict::Keep), Err(Fault::Trap), Ok(Verdict::Keep)]);
        assert_eq!(evaluator.record().for_run(run).strikes(), 0, "{run:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_waits_for_are_dropped() {
    let engine = support::engine(Config {
        workers: 1,
        evaluate_cpu_ms: 50,
        faults_cpu_ms_per_sec: 1,
        ..Config::default()
    });
    let component = engine.compile(&loops_if_configured()).unwrap();
    let mut looping = Vec::new();
    for n in 100..105 {
        looping.push(engine.evaluator(&component, &n.to_string(), Instance::Warm).await.unwrap());
    }
    {
        let mut hostile = pin!(join_all(looping.iter().map(|evaluator| engine.evaluate(
            evaluator,
            vec![killmail(1)],
            Run::Live
        ))));
        while engine.pages_waiting().held < 4 {
            assert!(hostile.as_mut().now_or_never().is_none(), "they wait");
            tokio::task::yield_now().await;
        }
    }
    // The next pages find them gone.
    let other = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    while engine.pages_waiting() != PagesWaiting::default() {
        assert_eq!(
            engine.evaluate(&other, vec![killmail(2)], Run::History { head: killmail(9).seq }).await,
            [Ok(Verdict::Keep)]
        );
    }
    assert_eq!(component.counts().faults["deadline"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_few_setups_of_a_component_hold_resources() {
    // Room for six evaluators, and none of the sixteen that wait is refused.
    let config = Config { workers: 1, pool_memories: 12, trials_cpu_ms_per_sec: 1_000, ..Config::default() };
    let engine = support::engine(config);
    let slow = "(local $n i32) (loop $again
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000)))) (i32.const 64)";
    let component = engine.compile(&guests::evaluating(slow)).unwrap();
    let sample: Vec<_> = (1..=20).map(killmail).collect();
    let configs: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    let tried = join_all(configs.iter().map(|config| async {
        // Dropped at once, so that it can be evicted.
        engine.tried_evaluator(&component, config, Instance::Warm, &sample).await.map(drop)
    }));
    assert_eq!(tried.await, vec![Ok(()); 16]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_keeps_failing_is_quarantined_for_all_users() {
    let engine = support::engine(Config::default());
    let bad = engine.compile(&guests::evaluating("unreachable")).unwrap();
    let evaluator = engine.evaluator(&bad, "{}", Instance::Warm).await.unwrap();
    let other = engine.evaluator(&bad, "{\"a\":1}", Instance::Warm).await.unwrap();
    let page: Vec<_> = (1..=64).map(killmail).collect();
    let answers = engine.evaluate(&evaluator, page, Run::Live).await;
    assert!(answers.iter().all(|answer| *answer == Err(Fault::Trap)));
    let counts = bad.counts();
    assert_eq!((counts.calls, counts.at_rest, counts.faults["trap"]), (5, 59, 5));
    let past = Run::History { head: killmail(99).seq };
    assert_eq!(engine.evaluate(&evaluator, vec![killmail(70)], past).await, [Err(Fault::Trap)]);
    assert_eq!(bad.counts().calls, 6, "history is counted separately");
    // Another configuration is another pair.
    assert_eq!(judge(&engine, &other, 1).await, Err(Fault::Trap));
    assert_eq!(bad.counts().calls, 7);
    let resting = engine.quarantined(bad.digest());
    assert_eq!((resting.count, engine.quarantined_count()), (1, 1));
    assert_eq!(
        (resting.listed[0].until - resting.listed[0].since, resting.listed[0].config_digest.len()),
        (30, 64)
    );
    assert_eq!(resting.listed[0].reason, "5 faults in 60 s, the last: trap");
    // It is still in quarantine after its evaluator was dropped.
    drop(evaluator);
    let fresh = engine.evaluator(&bad, "{}", Instance::Fresh).await.unwrap();
    assert_eq!(judge(&engine, &fresh, 80).await, Err(Fault::Trap));
    assert_eq!(bad.counts().calls, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_on_history_do_not_quarantine_live_streams() {
    let engine = support::engine(Config::default());
    let bytes =
        guests::evaluating("(if (i64.eq (local.get $id) (i64.const 7)) (then unreachable)) (i32.const 64)");
    let evaluator = support::evaluator(&engine, &bytes).await;
    let past = Run::History { head: killmail(99).seq };
    for _ in 0..20 {
        assert_eq!(engine.evaluate(&evaluator, vec![killmail(7)], past).await, [Err(Fault::Trap)]);
    }
    assert_eq!(evaluator.component().counts().calls, 5);
    assert_eq!(
        engine.evaluate(&evaluator, vec![killmail(8)], past).await,
        [Err(Fault::Trap)],
        "history is in quarantine"
    );
    assert_eq!(judge(&engine, &evaluator, 8).await, Ok(Verdict::Keep));
    assert_eq!(engine.quarantined_count(), 1);
    assert!(engine.quarantined(evaluator.digest()).listed[0].reason.starts_with("for past killmails only"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successful_call_ends_the_quarantine() {
    let engine = support::engine(Config { rest_secs: 0, rest_max_secs: 0, ..Config::default() });
    let bad = engine.compile(&guests::evaluating(
        "(if (i64.lt_u (local.get $id) (i64.const 9)) (then unreachable)) (i32.const 64)",
    ));
    let evaluator = engine.evaluator(&bad.unwrap(), "{}", Instance::Warm).await.unwrap();
    for id in 1..=8 {
        assert_eq!(judge(&engine, &evaluator, id).await, Err(Fault::Trap));
    }
    let counts = evaluator.component().counts();
    assert_eq!(
        (engine.quarantined_count(), counts.calls, counts.at_rest),
        (0, 8, 0),
        "a quarantine of no length ends at once"
    );
    assert_eq!(judge(&engine, &evaluator, 9).await, Ok(Verdict::Keep));
    for id in 1..=4 {
        assert_eq!(judge(&engine, &evaluator, 10 * id + 9).await, Ok(Verdict::Keep));
    }
    assert_eq!(evaluator.component().counts().calls, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_overruns_while_others_wait_is_quarantined() {
    let config = Config { workers: 1, evaluate_cpu_ms: 100, rest_excess_ms: 20, ..Config::default() };
    let engine = support::engine(config);
    let slow = "(local $n i32) (loop $again
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000000)))) (i32.const 64)";
    let greedy = support::evaluator(&engine, &guests::evaluating(slow)).await;
    let run = Run::History { head: killmail(u32::MAX).seq };
    // Alone it delays nobody.
    let page: Vec<_> = (1..=8).map(killmail).collect();
    assert!(engine.evaluate(&greedy, page.clone(), run).await.iter().all(Result::is_ok));
    assert_eq!(engine.quarantined_count(), 0);
    let good = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    let pages: Vec<Vec<_>> = (0..40).map(|_| (1..=64).map(killmail).collect()).collect();
    let others = join_all(pages.into_iter().map(|page| engine.evaluate(&good, page, run)));
    let (_, verdicts) = tokio::join!(engine.evaluate(&greedy, page, run), others);
    assert!(verdicts.iter().flatten().all(|verdict| *verdict == Ok(Verdict::Keep)));
    let resting = engine.quarantined(greedy.digest());
    assert_eq!(resting.count, 1);
    assert!(resting.listed[0].reason.contains("while others waited"), "{}", resting.listed[0].reason);
    assert_eq!(engine.quarantined(good.digest()).count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluator_stops_at_its_cpu_limit() {
    let engine = support::engine(Config { evaluate_cpu_ms: 100, ..Config::default() });
    let slow = "(local $n i32) (loop $again
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000000)))) (i32.const 64)";
    let evaluator = support::evaluator(&engine, &guests::evaluating(slow))
        .await
        .with_cpu_limit(Duration::from_millis(10));
    let run = Run::History { head: killmail(u32::MAX).seq };
    let page: Vec<_> = (1..=64).map(killmail).collect();
    let answers = engine.evaluate(&evaluator, page.clone(), run).await;
    assert!((1..32).contains(&answers.len()), "{}", answers.len());
    assert!(evaluator.is_cpu_exhausted() && answers.iter().all(Result::is_ok));
    assert!(engine.evaluate(&evaluator, page, run).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_history_instances_are_dropped() {
    let engine = support::engine(Config { evaluator_idle_secs: 0, workers: 1, ..Config::default() });
    let evaluator = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    let run = Run::History { head: killmail(9).seq };
    judge(&engine, &evaluator, 1).await.unwrap();
    engine.evaluate(&evaluator, vec![killmail(2)], run).await;
    assert_eq!(evaluator.take_idle_instances(Duration::from_secs(60)).len(), 0);
    assert_eq!(evaluator.take_idle_instances(Duration::ZERO).len(), 1, "the live instance stays");
    let before = evaluator.component().counts().instances;
    judge(&engine, &evaluator, 3).await.unwrap();
    engine.evaluate(&evaluator, vec![killmail(4)], run).await;
    assert_eq!(evaluator.component().counts().instances, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_large_instances_are_dropped() {
    // A component over a limit of the class `small` is of the other class.
    let engine = support::engine(Config { upload_bytes: 100, ..Config::default() });
    let evaluator = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    assert_eq!(evaluator.component().class(), Class::Scripting);
    judge(&engine, &evaluator, 1).await.unwrap();
    engine.evaluate(&evaluator, vec![killmail(2)], Run::History { head: killmail(9).seq }).await;
    assert_eq!(evaluator.take_idle_instances(Duration::ZERO).len(), 2);
    assert_eq!(judge(&engine, &evaluator, 3).await, Ok(Verdict::Keep));
    let other = engine.evaluator(evaluator.component(), "1", Instance::Warm).await.unwrap();
    assert_eq!(
        other.take_idle_instances(Duration::ZERO).len(),
        1,
        "the instance that was configured and never called"
    );
}
