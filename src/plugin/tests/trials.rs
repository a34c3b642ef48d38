//! Law 7 (same in, same out) is checked before a plugin is used: once for everyone, and with a result that does
//! not depend on load.
//!
//! Must not know: in which orders the sample is evaluated.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::domain::entry::SharedEntry;
use crate::domain::verdict::Verdict;
use crate::plugin::error::Refusal;
use crate::plugin::judging::run::Instance;
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, KEEP, Text};
use crate::plugin::tests::support::{self, judge, killmail};
use crate::tasks;

const SEEN: &str = "(global $seen (mut i32) (i32.const 0))";
/// Counts its calls in `$seen`.
const COUNT: &str = "(global.set $seen (i32.add (global.get $seen) (i32.const 1)))";

fn sample(count: u32) -> Vec<SharedEntry> {
    (1..=count).map(killmail).collect()
}

/// Refuses the configuration, with the text "no".
fn refusing() -> Vec<u8> {
    let head = r#"(data (i32.const 128) "\01\00\00\00\00\00\00\00\00\04\00\00\02\00\00\00") (data (i32.const 1024) "no")"#;
    guests::guest(&Text { head, configure: "(i32.const 128)", ..Text::default() })
}

#[test]
fn law_7_guests_that_remember_are_not_repeatable() {
    let engine = support::engine(Config::default());
    let remembering = [
        ("alternates", format!("{COUNT} (i32.mul (i32.const 64) (i32.and (global.get $seen) (i32.const 1)))")),
        ("keeps every third", format!("{COUNT} (i32.mul (i32.const 64) (i32.eqz (i32.rem_u (global.get $seen) (i32.const 3))))")),
        ("keeps the first only", format!("{COUNT} (i32.mul (i32.const 64) (i32.eq (global.get $seen) (i32.const 1)))")),
        // Depends on the previous killmail.
        (
            "remembers the previous killmail",
            "(local $last i32) (local.set $last (global.get $seen)) (global.set $seen (i32.wrap_i64 (local.get $id)))
            (i32.mul (i32.const 64) (i32.eq (local.get $last) (i32.wrap_i64 (local.get $id))))"
                .to_owned(),
        ),
        ("traps every second time", format!("{COUNT} (if (i32.and (global.get $seen) (i32.const 1)) (then unreachable)) (i32.const 64)")),
    ];
    for (what, evaluate) in remembering {
        let guest = engine
            .compile(&guests::guest(&Text { head: SEEN, evaluate: &evaluate, ..Text::default() }))
            .unwrap();
        for count in [20, 21] {
            let probed = engine.try_sample(&guest, "{}", &sample(count));
            if what == "traps every second time" {
                // A trap ends the instance, with everything it remembers.
                continue;
            }
            let refusal = probed.expect_err(what);
            assert_eq!(refusal.reason(), "not_repeatable", "{what}, {count}: {refusal}");
        }
    }
    // A guest that looks only at the killmail is.
    let looks =
        guests::evaluating("(i32.mul (i32.const 64) (i32.wrap_i64 (i64.and (local.get $id) (i64.const 1))))");
    for count in [0, 1, 2, 21] {
        engine.try_sample(&engine.compile(&looks).unwrap(), "{}", &sample(count)).unwrap();
    }
}

#[test]
fn calls_that_take_too_long_are_refused() {
    let engine = support::engine(Config::default());
    let probe = |evaluate: &str, head: &str| {
        let guest = engine.compile(&guests::guest(&Text { head, evaluate, ..Text::default() })).unwrap();
        engine.try_sample(&guest, "{}", &sample(9))
    };
    let seventh =
        "(if (i64.eq (local.get $id) (i64.const 7)) (then (loop $again (br $again)))) (i32.const 64)";
    let Err(Refusal::Deadline { message, limit: 10 }) = probe(seventh, "") else { panic!("another outcome") };
    assert!(message.contains("killmail 7") && message.contains("plugin.evaluate_cpu_ms"), "{message}");
    let asks = r#"(import "killstream:plugin/history@1.0.0-rc.1" "count" (func $count (param i32 i32 i32 i64 i64) (result i64)))"#;
    let for_ever = "(loop $again (drop (call $count (i32.const 0) (i32.const 0) (i32.const 7) (i64.const 0) (i64.const 0))) (br $again)) unreachable";
    let refusal = probe(for_ever, asks).unwrap_err();
    assert_eq!(refusal.reason(), "host_budget", "{refusal}");
    // The second call takes too long, as any call may on a busy machine; its repetition does not.
    let once = "(if (i32.eqz (global.get $seen)) (then (loop $again (br $again)))) (i32.const 64)";
    let refusal = probe(once, SEEN).unwrap_err();
    assert_eq!(
        refusal.reason(),
        "deadline",
        "on the separate instance it is the first call again: {refusal}"
    );
    let second = format!(
        "{COUNT} (if (i32.eq (global.get $seen) (i32.const 2)) (then (loop $again (br $again)))) (i32.const 64)"
    );
    probe(&second, SEEN).unwrap();
}

#[test]
fn a_trial_has_a_cpu_limit() {
    let engine = support::engine(Config { trial_cpu_ms: 20, ..Config::default() });
    let busy = "(local $n i32) (loop $again
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 2000000)))) (i32.const 64)";
    let guest = engine.compile(&guests::evaluating(busy)).unwrap();
    let Err(Refusal::Deadline { message, limit: 20 }) = engine.try_sample(&guest, "{}", &sample(200)) else {
        panic!("another outcome")
    };
    assert!(message.contains("plugin.trial_cpu_ms"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_tried_once_for_everyone() {
    let engine = support::engine(Config::default());
    let sample: Arc<Vec<SharedEntry>> = Arc::new(sample(20));
    let good = engine.compile(&guests::evaluating(KEEP)).unwrap();
    let alternates = format!("{COUNT} (i32.mul (i32.const 64) (i32.and (global.get $seen) (i32.const 1)))");
    let bad = engine
        .compile(&guests::guest(&Text { head: SEEN, evaluate: &alternates, ..Text::default() }))
        .unwrap();
    let refusing = engine.compile(&refusing()).unwrap();
    let before = [&good, &bad, &refusing].map(|component| component.counts().instances);
    let (sender, mut outcomes) = tokio::sync::mpsc::channel(600);
    for _ in 0..200 {
        for component in [&good, &bad, &refusing] {
            let (engine, component, sample, sender) =
                (Arc::clone(&engine), component.clone(), Arc::clone(&sample), sender.clone());
            tasks::spawn("asker", async move {
                let tried = engine.tried_evaluator(&component, "{\"a\":1}", Instance::Warm, &sample).await;
                sender.send(tried.map(drop).map_err(|refusal| refusal.reason())).await.unwrap();
            });
        }
    }
    let mut counted = [0; 3];
    for _ in 0..600 {
        match outcomes.recv().await.unwrap() {
            Ok(()) => counted[0] += 1,
            Err("not_repeatable") => counted[1] += 1,
            Err(reason) => {
                assert_eq!(reason, "configure");
                counted[2] += 1;
            }
        }
    }
    assert_eq!(counted, [200; 3]);
    let made = [&good, &bad, &refusing].map(|component| component.counts().instances);
    assert_eq!(made[0] - before[0], 4, "an instance for each order");
    assert!(made[1] - before[1] <= 4);
    assert_eq!(made[2] - before[2], 1);
    // A refusal because of its verdicts does not apply to callers that want no trial, with fresh instances.
    engine.evaluator(&bad, "{\"a\":1}", Instance::Fresh).await.unwrap();
    assert_eq!(
        engine.evaluator(&refusing, "{\"a\":1}", Instance::Fresh).await.unwrap_err().reason(),
        "configure"
    );
    assert_eq!(refusing.counts().instances - before[2], 1, "it is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_judged_while_configurations_are_tried() {
    let engine = support::engine(Config {
        workers: 1,
        evaluate_cpu_ms: 1_000,
        trials_cpu_ms_per_sec: 1_000,
        ..Config::default()
    });
    let quick = support::evaluator(&engine, &guests::evaluating(KEEP)).await;
    let slow = engine.compile(&guests::evaluating(
        "(local $n i32) (loop $again
            (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 3000000)))) (i32.const 64)",
    ));
    let (slow, sample) = (slow.unwrap(), sample(100));
    let trial = engine.tried_evaluator(&slow, "{}", Instance::Warm, &sample);
    let live = async {
        while engine.setups_waiting() == 0 {
            tokio::task::yield_now().await;
        }
        for id in 1..=20 {
            assert_eq!(judge(&engine, &quick, id).await, Ok(Verdict::Keep));
        }
        assert_eq!(engine.setups_waiting(), 1, "the trial is still running");
    };
    let (tried, ()) = tokio::join!(trial, live);
    tried.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn setups_that_nobody_waits_for_are_dropped() {
    let engine = support::engine(Config { workers: 1, trials_cpu_ms_per_sec: 1_000, ..Config::default() });
    let endless = "(local $n i32) (loop $again
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 3000000)))) (i32.const 64)";
    let slow = engine.compile(&guests::evaluating(endless)).unwrap();
    let sample = sample(200);
    let asked = engine.tried_evaluator(&slow, "{}", Instance::Warm, &sample);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), asked).await.is_err(),
        "it takes longer than that"
    );
    // The next setup does not wait for the rest of it.
    let quick = engine.compile(&guests::evaluating(KEEP)).unwrap();
    engine.evaluator(&quick, "{}", Instance::Warm).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), async {
        while engine.setups_waiting() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(engine.evaluators_kept(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_because_of_full_limits_are_not_remembered() {
    let engine = support::engine(Config { evaluators_max: 1, trials_waiting_max: 0, ..Config::default() });
    let component = engine.compile(&guests::evaluating(KEEP)).unwrap();
    for _ in 0..2 {
        assert_eq!(
            engine.evaluator(&component, "{}", Instance::Warm).await.unwrap_err(),
            Refusal::TooManyTrials { max: 0 }
        );
    }
    let engine = support::engine(Config { evaluators_max: 1, ..Config::default() });
    let component = engine.compile(&guests::evaluating(KEEP)).unwrap();
    let one = engine.evaluator(&component, "1", Instance::Warm).await.unwrap();
    assert_eq!(
        engine.evaluator(&component, "2", Instance::Warm).await.unwrap_err(),
        Refusal::TooMany { max: 1 }
    );
    drop(one);
    engine.evaluator(&component, "2", Instance::Warm).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn remembered_refusals_are_limited() {
    let engine = support::engine(Config { outcomes_max: 10, ..Config::default() });
    let refusing = engine.compile(&refusing()).unwrap();
    for n in 0..50 {
        assert_eq!(
            engine.evaluator(&refusing, &n.to_string(), Instance::Warm).await.unwrap_err().reason(),
            "configure"
        );
    }
    let before = refusing.counts().instances;
    for n in 40..50 {
        assert!(engine.evaluator(&refusing, &n.to_string(), Instance::Warm).await.is_err());
    }
    assert_eq!(refusing.counts().instances, before, "the newest ten are remembered");
    assert!(engine.evaluator(&refusing, "0", Instance::Warm).await.is_err());
    assert_eq!(refusing.counts().instances, before + 1, "the oldest is configured again");
}

#[tokio::test(flavor = "multi_thread")]
async fn setups_wait_for_cpu_time_and_none_is_lost() {
    // Together they take more than is available at once.
    let engine = support::engine(Config { workers: 1, trials_cpu_ms_per_sec: 20, ..Config::default() });
    let busy = "(local $n i32) (loop $again
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000)))) (i32.const 64)";
    let component = engine.compile(&guests::evaluating(busy)).unwrap();
    let sample = sample(5);
    let configs: Vec<String> = (0..4).map(|n| n.to_string()).collect();
    let asked =
        configs.iter().map(|config| engine.tried_evaluator(&component, config, Instance::Warm, &sample));
    let made =
        tokio::time::timeout(Duration::from_secs(60), join_all(asked)).await.expect("all are answered");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

#[test]
fn an_upload_whose_configuration_faults_is_refused() {
    let engine = support::engine(Config::default());
    let by_default = |configure: &str| {
        let guest = engine.compile(&guests::guest(&Text { configure, ..Text::default() })).unwrap();
        engine.try_upload(&guest, &sample(3)).map(|tried| tried.probed).map_err(|refusal| refusal.reason())
    };
    assert_eq!(by_default("(i32.const 0)"), Ok(true));
    assert_eq!(by_default("(loop $again (br $again)) unreachable"), Err("deadline"));
    assert_eq!(by_default("unreachable"), Err("configure"));
    let refusing = engine.compile(&refusing()).unwrap();
    assert_eq!(
        engine.try_upload(&refusing, &sample(3)).map(|tried| tried.probed),
        Ok(false),
        "it rejects this configuration"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_expire_while_the_component_is_loaded() {
    let engine = support::engine(Config { outcome_secs: 0, ..Config::default() });
    let traps =
        engine.compile(&guests::guest(&Text { configure: "unreachable", ..Text::default() })).unwrap();
    for (component, instances) in [(engine.compile(&refusing()).unwrap(), 1), (traps, 2)] {
        for _ in 0..3 {
            let before = component.counts().instances;
            assert_eq!(
                engine.evaluator(&component, "{}", Instance::Warm).await.unwrap_err().reason(),
                "configure"
            );
            assert_eq!(
                component.counts().instances - before,
                instances,
                "configuring is repeated after a fault"
            );
        }
    }
    let good = engine.compile(&guests::evaluating(KEEP)).unwrap();
    engine.tried_evaluator(&good, "{}", Instance::Warm, &sample(3)).await.unwrap();
    let before = good.counts().instances;
    engine.tried_evaluator(&good, "{}", Instance::Warm, &sample(3)).await.unwrap();
    assert_eq!(good.counts().instances, before, "a passed trial is remembered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_setup_does_not_block_others_of_its_component() {
    // Generous, for busy machines.
    let limits = Config { evaluate_cpu_ms: 200, trial_cpu_ms: 60_000, ..Config::default() };
    let engine = support::engine(Config { workers: 1, trials_cpu_ms_per_sec: 1_000, ..limits });
    // Slow with a configuration of more than two bytes.
    let head = "(global $slow (mut i32) (i32.const 0))";
    let configure = "(global.set $slow (i32.gt_u (local.get $config_len) (i32.const 2))) (i32.const 0)";
    let evaluate = "(local $n i32) (if (global.get $slow) (then (loop $again
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 3000000)))))) (i32.const 64)";
    let component = engine.compile(&guests::guest(&Text { head, configure, evaluate })).unwrap();
    let sample = sample(100);
    let mut slow = std::pin::pin!(engine.tried_evaluator(&component, "{\"a\":1}", Instance::Warm, &sample));
    let quick = async {
        while engine.setups_waiting() == 0 {
            tokio::task::yield_now().await;
        }
        engine.tried_evaluator(&component, "{}", Instance::Warm, &sample).await.unwrap();
    };
    tokio::select! {
        biased;
        _ = &mut slow => panic!("the slow one finished first"),
        () = quick => {}
    }
    slow.await.unwrap();
}
