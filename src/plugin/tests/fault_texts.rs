//! Texts about guests that fail: the cause with its limit, and the guest's own output.
//!
//! Must not know: who reads them.

use crate::domain::verdict::{Failure, Fault, Verdict};
use crate::plugin::engine::Engine;
use crate::plugin::error::Refusal;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, KEEP, TAKE_ALL, Text};
use crate::plugin::tests::support::{self, killmail};

const TRACEBACK: &str =
    "Traceback (most recent call last):\n  File \"app.py\", line 3\nValueError: \x1b[31mbad\u{feff} value\n";

/// The failure of a killmail that could not be evaluated.
async fn failure(engine: &Engine, evaluator: &Evaluator, id: u32) -> Failure {
    engine.judge(evaluator, vec![killmail(id)], Run::Live).await.remove(0).expect_err("it fails")
}

async fn failing(bytes: &[u8]) -> Failure {
    let engine = support::engine(Config::default());
    failure(&engine, &support::evaluator(&engine, bytes).await, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stderr_of_a_call_appears_in_its_fault_only() {
    let engine = support::engine(Config { rest_faults: 0, ..Config::default() });
    let evaluate =
        "(if (i64.eq (local.get $id) (i64.const 2)) (then unreachable)) (call $out) (call $err) unreachable";
    let bytes = guests::writing("all is well\n", TRACEBACK, &Text { evaluate, ..Text::default() });
    let evaluator = support::evaluator(&engine, &bytes).await;
    let first = failure(&engine, &evaluator, 1).await;
    let said = "; it said last: Traceback (most recent call last):   File \"app.py\", line 3 ValueError: [31mbad value; ";
    assert_eq!(first.fault, Fault::Trap);
    assert!(
        first.message.starts_with("wasm trap: wasm `unreachable`") && first.message.contains(said),
        "{first}"
    );
    let second = failure(&engine, &evaluator, 2).await;
    assert!(!second.message.contains("it said last"), "that was another call: {second}");
    assert_eq!(failure(&engine, &evaluator, 3).await, first, "the same again");
    assert!(!first.message.contains("all is well"), "{first}");
    let last = evaluator.component().counts().last_fault.expect("there was one");
    assert_eq!((last.killmail_id, last.failure), (3, first));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_long_text_is_kept() {
    let err = format!("{}\nthe end\n", "x".repeat(3_900));
    let text = Text { evaluate: "(call $err) unreachable", ..Text::default() };
    let failure = failing(&guests::writing("", &err, &text)).await;
    assert!(failure.message.len() <= 1_024 && failure.message.contains("xx the end; "), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_before_a_refusal_appears_in_it() {
    let engine = support::engine(Config::default());
    let configure = "(call $err) unreachable";
    let component = engine
        .compile(&guests::writing("", TRACEBACK, &Text { configure, ..Text::default() }))
        .expect("it compiles");
    let refusal = engine.evaluator(&component, "{}", Instance::Warm).await.expect_err("it traps").to_string();
    assert!(refusal.contains("the fault trap") && refusal.contains("ValueError: [31mbad value"), "{refusal}");
    let log = r#"(import "killstream:plugin/log@1.0.0-rc.1" "log" (func $log (param i32 i32 i32)))
        (data (i32.const 1024) "no such field")"#;
    let says = "(call $log (i32.const 4) (i32.const 1024) (i32.const 13)) unreachable";
    let failure = failing(&guests::guest(&Text { head: log, evaluate: says, ..Text::default() })).await;
    assert!(
        failure.message.contains("it said last: no such field"),
        "an error in its log appears as well: {failure}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_output_is_limited_like_its_log() {
    let engine = support::engine(Config::default());
    let text = Text { evaluate: "(call $out) (call $err) (i32.const 64)", ..Text::default() };
    let evaluator =
        support::evaluator(&engine, &guests::writing(&"a\n".repeat(15), &"b\n".repeat(15), &text)).await;
    assert_eq!(support::judge(&engine, &evaluator, 1).await, Ok(Verdict::Keep));
    assert_eq!(evaluator.component().counts().log_lines_cut, 10, "20 lines of a call are logged");
    let long = support::evaluator(&engine, &guests::writing(&"a".repeat(1_500), "", &text)).await;
    assert_eq!(support::judge(&engine, &long, 1).await, Ok(Verdict::Keep));
    assert_eq!(long.component().counts().log_lines_cut, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_named_with_its_setting_and_value() {
    let deep = "(func $deep (param i64) (call $deep (local.get 0)) (call $deep (local.get 0)))";
    let involves = r#"(import "killstream:plugin/killmail@1.0.0-rc.1" "involves" (func $involves (param i32 i32 i32 i32) (result i32)))"#;
    let with = |head: &str, evaluate: &str| guests::guest(&Text { head, evaluate, ..Text::default() });
    let huge = "(drop (memory.grow (i32.const 100)))
        (drop (call $involves (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1500000))) (i32.const 64)";
    for (fault, words, bytes) in [
        (
            Fault::Deadline,
            "10 ms of CPU time (plugin.evaluate_cpu_ms)",
            with("", "(loop $again (br $again)) unreachable"),
        ),
        (
            Fault::Memory,
            "67108864 (plugin.memory_bytes)",
            with("", "(drop (memory.grow (i32.const 2000))) unreachable"),
        ),
        (
            Fault::Stack,
            "524288 bytes of stack (plugin.stack_bytes)",
            with(deep, "(call $deep (i64.const 1)) (i32.const 64)"),
        ),
        (Fault::Output, "4194304 bytes in one call (plugin.hostcall_bytes)", with(involves, huge)),
        (
            Fault::Output,
            "65536 (plugin.verdict_bytes)",
            guests::keep_with(&format!("{{\"a\":\"{}\"}}", "x".repeat(70_000))),
        ),
    ] {
        let failure = failing(&bytes).await;
        assert_eq!(failure.fault, fault, "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[test]
fn a_start_that_takes_too_long_is_refused_with_the_limit() {
    let engine = support::engine(Config::default());
    let head = "(func $spin (loop $again (br $again))) (start $spin)";
    let refusal =
        engine.compile(&guests::guest(&Text { head, ..Text::default() })).expect_err("it never ends");
    let Refusal::Deadline { message, limit: 100 } = refusal else { panic!("{refusal}") };
    assert!(
        message.contains("creating an instance")
            && message.contains("100 ms of CPU time (plugin.configure_cpu_ms)"),
        "{message}"
    );
    let engine = support::engine(Config { configure_cpu_ms: 600_000, call_wall_ms: 20, ..Config::default() });
    let refusal =
        engine.compile(&guests::guest(&Text { head, ..Text::default() })).expect_err("it never ends");
    let Refusal::Deadline { message, limit: 20 } = refusal else { panic!("{refusal}") };
    assert!(message.contains("20 ms of wall time (plugin.call_wall_ms)"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_without_a_text_says_so() {
    // `err` with no text, with three zero bytes, with invisible text.
    let engine = support::engine(Config::default());
    for text in ["", "\\00\\00\\00", "\\ef\\bb\\bf", "\\0a \\0a"] {
        let length = guests::bytes(u32::try_from(wat_length(text)).expect("a short text"));
        let head = format!(
            r#"(data (i32.const 128) "\01\00\00\00\00\00\00\00\00\04\00\00{length}")
            (data (i32.const 256) "\01\00\00\00\00\04\00\00{length}") (data (i32.const 1024) "{text}")"#
        );
        let refusing = guests::guest(&Text { head: &head, configure: "(i32.const 128)", ..Text::default() });
        let component = engine.compile(&refusing).expect("it compiles");
        let refusal = engine.evaluator(&component, "{}", Instance::Warm).await.expect_err("it refuses");
        assert_eq!(
            refusal,
            Refusal::Configure {
                message: "the plugin rejected the configuration without giving a reason".to_owned(),
                limit: None,
            },
            "{text:?}"
        );
        let failure =
            failing(&guests::guest(&Text { head: &head, evaluate: "(i32.const 256)", configure: TAKE_ALL }))
                .await;
        assert_eq!(
            failure,
            Failure::new(Fault::BadOutput, "the plugin could not evaluate the killmail and gave no reason"),
            "{text:?}"
        );
    }
}

/// Length in bytes of a text with two-digit escapes.
fn wat_length(text: &str) -> usize {
    text.len() - 2 * text.matches('\\').count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_pair_returns_its_last_fault() {
    let engine = support::engine(Config { rest_faults: 1, ..Config::default() });
    let text = Text { evaluate: "(call $err) unreachable", ..Text::default() };
    let evaluator = support::evaluator(&engine, &guests::writing("", TRACEBACK, &text)).await;
    failure(&engine, &evaluator, 1).await;
    let resting = failure(&engine, &evaluator, 2).await;
    assert_eq!((resting.fault, evaluator.component().counts().at_rest), (Fault::Trap, 1));
    assert!(
        resting.message.starts_with("not called: it is in quarantine after its last fault: wasm trap")
            && resting.message.contains("ValueError"),
        "{resting}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_pair_returns_the_fault_of_that_kind_of_killmails() {
    let engine = support::engine(Config { rest_faults: 1, ..Config::default() });
    let evaluate = "(if (i64.eq (local.get $id) (i64.const 1)) (then (call $err))) unreachable";
    let bytes = guests::writing("", TRACEBACK, &Text { evaluate, ..Text::default() });
    let evaluator = support::evaluator(&engine, &bytes).await;
    failure(&engine, &evaluator, 1).await;
    let past = Run::History { head: killmail(9).seq };
    engine.judge(&evaluator, vec![killmail(2)], past).await;
    let resting = failure(&engine, &evaluator, 3).await;
    assert!(resting.message.contains("ValueError"), "the text of another kind: {resting}");
    let resting = engine.judge(&evaluator, vec![killmail(3)], past).await.remove(0).expect_err("it rests");
    assert!(
        resting.message.starts_with("not called: it is in quarantine ")
            && !resting.message.contains("ValueError"),
        "the text of another kind: {resting}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_over_the_limit_are_counted() {
    let engine = support::engine(Config { log_bytes_per_minute: 900, ..Config::default() });
    let component = engine.compile(&guests::evaluating("unreachable")).expect("it compiles");
    let sample: Vec<_> = (1..=3).map(killmail).collect();
    for (config, cut) in [("1", 0), ("2", 1), ("3", 2)] {
        engine.tried_evaluator(&component, config, Instance::Warm, &sample).await.expect("it is repeatable");
        assert_eq!(component.counts().log_lines_cut, cut, "the warning of each trial is a line");
    }
    let evaluator = engine.evaluator(&component, "{}", Instance::Warm).await.expect("it takes `{}`");
    failure(&engine, &evaluator, 1).await;
    assert_eq!(component.counts().log_lines_cut, 3, "and so is a fault");
}

#[test]
fn a_trial_that_mostly_fails_gives_a_warning() {
    let engine = support::engine(Config::default());
    let sample: Vec<_> = (1..=51).map(killmail).collect();
    let tried = |bytes: &[u8]| {
        engine.try_upload(&engine.compile(bytes).expect("it compiles"), &sample).expect("it is repeatable")
    };
    let all = tried(&guests::evaluating("unreachable"));
    assert!(all.probed && all.warnings.len() == 1, "{all:?}");
    assert!(
        all.warnings[0]
            .starts_with("all 254 calls of the trial ended in `trap`: wasm trap: wasm `unreachable`"),
        "{all:?}"
    );
    let most = "(if (i64.gt_u (local.get $id) (i64.const 9)) (then unreachable)) (i32.const 64)";
    let most = tried(&guests::evaluating(most));
    assert!(most.warnings[0].starts_with("209 of 254 calls of the trial ended in `trap`: "), "{most:?}");
    let few = "(if (i64.lt_u (local.get $id) (i64.const 9)) (then unreachable)) (i32.const 64)";
    assert_eq!(
        (tried(&guests::evaluating(few)).warnings, tried(&guests::evaluating(KEEP)).warnings),
        (vec![], vec![])
    );
}
