//! Equal pairs share instances and verdicts; unequal ones share nothing.
//!
//! Must not know: where verdicts are remembered.

use std::time::{Duration, Instant};

use crate::domain::term::{Dimension, Role};
use crate::domain::verdict::Verdict;
use crate::plugin::error::Refusal;
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, KEEP, Text};
use crate::plugin::tests::support::{self, judge, killmail};
use crate::tasks;

/// Built with the kit, annotates every verdict.
const HIGH_VALUE: &[u8] = include_bytes!("../../../plugins/prebuilt/high-value.wasm");

/// Drops the first killmail and keeps later ones: distinguishes warm instances from fresh ones.
fn remembers() -> Vec<u8> {
    guests::guest(&Text {
        head: "(global $seen (mut i32) (i32.const 0))",
        evaluate: "(local $before i32) (local.set $before (global.get $seen)) (global.set $seen (i32.const 64)) (local.get $before)",
        ..Text::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_equal_pairs_judge_a_killmail_once() {
    let engine = support::engine(Config::default());
    let component = engine.compile(&guests::evaluating(KEEP)).unwrap();
    let (answered, mut answers) = tokio::sync::mpsc::channel(100);
    for _ in 0..100 {
        let evaluator = engine.evaluator(&component, "{}", Instance::Warm).await.unwrap();
        let (engine, answered) = (engine.clone(), answered.clone());
        tasks::spawn("asker", async move {
            let page = engine.evaluate(&evaluator, vec![killmail(1), killmail(2)], Run::Live).await;
            answered.send(page).await.unwrap();
        });
    }
    for _ in 0..100 {
        assert_eq!(answers.recv().await.unwrap(), [Ok(Verdict::Keep), Ok(Verdict::Keep)]);
    }
    let counts = component.counts();
    assert_eq!((counts.calls, counts.remembered), (2, 198));
    assert_eq!(engine.counts(), counts);
    assert_eq!(engine.evaluators_kept(), 1);
    // Another configuration is another pair.
    let other = engine.evaluator(&component, "{\"a\":1}", Instance::Warm).await.unwrap();
    judge(&engine, &other, 1).await.unwrap();
    assert_eq!((component.counts().calls, engine.evaluators_kept()), (3, 2));
}

#[test]
fn counts_of_a_deleted_component_remain_in_the_total_only() {
    let engine = support::engine(Config::default());
    let instances = |digest: &str| engine.counts_of(digest).instances;
    let one = engine.compile(&guests::evaluating(KEEP)).unwrap();
    let two = engine.compile(&remembers()).unwrap();
    let digests = [one.digest().to_owned(), two.digest().to_owned()];
    drop(one);
    engine.forget(&digests[0]);
    engine.forget(&digests[1]);
    assert_eq!((instances(&digests[0]), instances(&digests[1])), (0, 1), "the second is still in use");
    drop(two);
    engine.forget(&digests[0]);
    assert_eq!((instances(&digests[1]), engine.counts().instances), (0, 2));
    let again = engine.compile(&remembers()).unwrap();
    engine.forget(&digests[0]);
    assert_eq!((instances(again.digest()), engine.counts().instances), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_instances_live_on_and_fresh_ones_do_not() {
    let engine = support::engine(Config::default());
    let component = engine.compile(&remembers()).unwrap();
    let warm = engine.evaluator(&component, "{}", Instance::Warm).await.unwrap();
    let fresh = engine.evaluator(&component, "{}", Instance::Fresh).await.unwrap();
    for id in 1..=5 {
        let first = id == 1;
        assert_eq!(judge(&engine, &warm, id).await, Ok(if first { Verdict::Drop } else { Verdict::Keep }));
        assert_eq!(judge(&engine, &fresh, id).await, Ok(Verdict::Drop));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kit_frees_what_it_is_given() {
    // The guest's stack takes half of it; the annotations of all its verdicts would take four times as much.
    let engine = support::engine(Config { memory_bytes: 2 << 20, ..Config::default() });
    let component = engine.compile(HIGH_VALUE).unwrap();
    let evaluator = engine.evaluator(&component, r#"{"min_isk":0}"#, Instance::Warm).await.unwrap();
    let page: Vec<_> = (0..50_000).map(|_| killmail(1)).collect();
    for _ in 0..4 {
        let answers = engine.evaluate(&evaluator, page.clone(), Run::History { head: killmail(9).seq }).await;
        assert!(
            answers.iter().all(|answer| matches!(answer, Ok(Verdict::KeepWith(_)))),
            "{:?}",
            answers.last()
        );
    }
    assert_eq!(component.counts().faults, [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cpu_time_of_pages_is_metered_per_handle() {
    let engine = support::engine(Config::default());
    let evaluator = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    let (mine, yours) = (evaluator.with_cpu_meter(), evaluator.with_cpu_meter());
    let page: Vec<_> = (0..2_000).map(|_| killmail(1)).collect();
    let run = Run::History { head: killmail(9).seq };
    let begun = Instant::now();
    engine.evaluate(&mine, page.clone(), run).await;
    let once = mine.cpu_used();
    assert!(once > Duration::ZERO && once <= begun.elapsed(), "{once:?}");
    engine.evaluate(&mine, page, run).await;
    assert!(mine.cpu_used() > once);
    assert_eq!((yours.cpu_used(), evaluator.cpu_used()), (Duration::ZERO, Duration::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_live_never_share_an_instance() {
    let engine = support::engine(Config::default());
    let evaluator = support::evaluator(&engine, &remembers()).await;
    judge(&engine, &evaluator, 1).await.unwrap();
    assert_eq!(judge(&engine, &evaluator, 2).await, Ok(Verdict::Keep), "the live instance was called before");
    let run = Run::History { head: killmail(9).seq };
    assert_eq!(
        engine.evaluate(&evaluator, vec![killmail(3)], run).await,
        [Ok(Verdict::Drop)],
        "the history instance was not"
    );
    assert_eq!(
        engine.evaluate(&evaluator, vec![killmail(3)], run).await,
        [Ok(Verdict::Keep)],
        "and its verdict is not remembered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killmails_outside_the_interest_are_not_evaluated() {
    let engine = support::engine(Config::default());
    // ok(some({any-of: [{alliance, final-blow, [2]}], ..})); terms and ids are at 256 and 512. At least 2,
    // at most 5 attackers.
    let interest = |id: u32| {
        format!(
            r#"(data (i32.const 128) "\00\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\01\00\00\01\00\00\00\00\00\00\00\00\00\00\00\02\00\00\00\05\00\00\00\00\00")
            (data (i32.const 256) "\02\03\00\00\00\02\00\00\01\00\00\00") (data (i32.const 512) "{}")"#,
            guests::bytes(id)
        )
    };
    let of = |id| guests::guest(&Text { head: &interest(id), configure: "(i32.const 128)", evaluate: KEEP });
    let (fits, misses) =
        (support::evaluator(&engine, &of(2)).await, support::evaluator(&engine, &of(1)).await);
    let said = fits.interest().unwrap();
    assert_eq!((said.min_value, said.min_attackers, said.max_attackers), (None, Some(2), Some(5)));
    let wanted = &said.any_of[0];
    assert_eq!(
        (wanted.dimension, wanted.role, wanted.ids.as_slice()),
        (Dimension::Alliance, Role::FinalBlow, &[2][..])
    );
    assert_eq!(judge(&engine, &fits, 1).await, Ok(Verdict::Keep));
    assert_eq!(
        judge(&engine, &misses, 1).await,
        Ok(Verdict::Drop),
        "alliance 1 took part, but without the final blow"
    );
    assert_eq!((fits.component().counts().calls, misses.component().counts().calls), (1, 0));
    assert_eq!(misses.component().counts().passed_over, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_pairs_are_evicted_and_used_ones_are_not() {
    let engine = support::engine(Config { evaluators_max: 2, ..Config::default() });
    let component = engine.compile(&guests::evaluating(KEEP)).unwrap();
    let make = async |config: &'static str| engine.evaluator(&component, config, Instance::Warm).await;
    let (one, two) = (make("1").await.unwrap(), make("2").await.unwrap());
    assert_eq!(make("3").await.unwrap_err(), Refusal::TooMany { max: 2 });
    drop(one);
    let three = make("3").await.unwrap();
    assert_eq!(engine.evaluators_kept(), 2);
    for evaluator in [&two, &three] {
        judge(&engine, evaluator, 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_current_killmail_can_be_queried() {
    let engine = support::engine(Config::default());
    // involves(alliance, role, [2]) with the id at 512; as final blow yes, as victim no.
    let head = |role: u32| {
        format!(
            "(import \"killstream:plugin/killmail@1.0.0-rc.1\" \"involves\" (func $involves (param i32 i32 i32 i32) (result i32)))\n\
             (data (i32.const 512) \"\\02\\00\\00\\00\")\n(global $role i32 (i32.const {role}))"
        )
    };
    let evaluate = "(i32.mul (i32.const 64) (call $involves (i32.const 2) (global.get $role) (i32.const 512) (i32.const 1)))";
    for (role, kept) in [(0, true), (1, false), (2, true), (3, true)] {
        let guest = support::evaluator(
            &engine,
            &guests::guest(&Text { head: &head(role), evaluate, ..Text::default() }),
        )
        .await;
        let verdict = if kept { Verdict::Keep } else { Verdict::Drop };
        assert_eq!(judge(&engine, &guest, 1).await, Ok(verdict), "role {role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_ends_with_its_threads() {
    let engine = support::engine(Config::default());
    let evaluator = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    judge(&engine, &evaluator, 1).await.unwrap();
    drop(engine);
    assert_eq!(evaluator.digest().len(), 64);
}
