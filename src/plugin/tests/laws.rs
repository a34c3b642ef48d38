//! Law 6 (a guest hurts only itself) and law 7 (same in, same out) over any order of pages, guests and runs.
//!
//! Must not know: what a bad guest does.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use crate::domain::verdict::{Fault, Verdict};
use crate::plugin::engine::Engine;
use crate::plugin::judging::evaluator::Evaluator;
use crate::plugin::judging::run::{Answer, Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, Text};
use crate::plugin::tests::support::{self, killmail};

/// Keeps killmails whose id is not a multiple of three, in every run.
const NEIGHBOR: &str = "(i32.mul (i32.const 64) (i32.ne (i32.const 0) (i32.wrap_i64 (i64.rem_u (local.get $id) (i64.const 3)))))";

fn says(id: u32) -> Answer {
    Ok(if id.is_multiple_of(3) { Verdict::Drop } else { Verdict::Keep })
}

/// How often each step occurred, printed at the end.
#[derive(Default)]
struct Steps(Mutex<BTreeMap<&'static str, u64>>);

impl Steps {
    fn count(&self, step: &'static str) {
        *self.0.lock().entry(step).or_default() += 1;
    }

    fn none_is_missing(&self, steps: &[&str]) {
        let counts = self.0.lock();
        println!("steps: {counts:?}");
        for step in steps {
            assert!(counts.get(step).is_some_and(|n| *n > 0), "{step} never occurred");
        }
    }
}

/// Bad guests with their faults. The deadline is short so that many cases fit.
async fn bad(engine: &Engine) -> Vec<(Fault, Evaluator)> {
    let with = |head, evaluate| guests::guest(&Text { head, evaluate, ..Text::default() });
    let mut bad = Vec::new();
    for (fault, bytes) in [
        (Fault::Deadline, guests::evaluating("(loop $again (br $again)) unreachable")),
        (Fault::Trap, guests::evaluating("unreachable")),
        (
            Fault::Memory,
            guests::evaluating("(loop $again (drop (memory.grow (i32.const 256))) (br $again)) unreachable"),
        ),
        (
            Fault::Stack,
            with("(func $deep (param i64) (call $deep (local.get 0)) (call $deep (local.get 0)))", DEEP),
        ),
        (Fault::BadOutput, guests::keep_with("[]")),
        (Fault::Output, guests::keep_with(&format!("{{\"a\":\"{}\"}}", "x".repeat(70_000)))),
    ] {
        bad.push((fault, support::evaluator(engine, &bytes).await));
    }
    bad
}

const DEEP: &str = "(call $deep (i64.const 1)) (i32.const 64)";

#[test]
fn law_6_a_guest_hurts_only_itself_in_any_order() {
    let engine = support::engine(Config { evaluate_cpu_ms: 4, workers: 1, ..Config::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bad = runtime.block_on(bad(&engine));
    let good = runtime.block_on(support::evaluator(&engine, &guests::evaluating(NEIGHBOR)));
    let steps = Steps::default();
    let mut seq = 0;
    let case = proptest::collection::vec((0..bad.len(), 1..4_u32, any::<bool>()), 1..6);
    let mut runner = TestRunner::new(Cases { cases: 256, failure_persistence: None, ..Cases::default() });
    let next = Mutex::new(&mut seq);
    runner
        .run(&case, |pages| {
            for (which, len, live) in pages {
                let mut seq = next.lock();
                let ids: Vec<u32> = (0..len).map(|n| **seq + 1 + n).collect();
                **seq += len;
                drop(seq);
                let page = || ids.iter().map(|id| killmail(*id)).collect::<Vec<_>>();
                let run = if live { Run::Live } else { Run::History { head: killmail(u32::MAX).seq } };
                let (word, guest) = &bad[which];
                let both = async {
                    tokio::join!(engine.evaluate(guest, page(), run), engine.evaluate(&good, page(), run))
                };
                let (faults, verdicts) = runtime.block_on(both);
                prop_assert!(faults.iter().all(|answer| *answer == Err(*word)), "{word}: {faults:?}");
                prop_assert_eq!(verdicts, ids.iter().map(|id| says(*id)).collect::<Vec<_>>());
                steps.count(word.word());
                steps.count(if live { "live" } else { "history" });
            }
            Ok(())
        })
        .unwrap();
    steps.none_is_missing(&[
        "deadline",
        "trap",
        "memory",
        "stack",
        "bad_output",
        "output",
        "live",
        "history",
    ]);
    assert!(good.component().counts().faults.is_empty());
}

/// One step of a case.
#[derive(Debug, Clone)]
enum Step {
    Page {
        from: u32,
        len: u32,
        live: bool,
    },
    /// The instance ends in a fault and is replaced.
    Fault,
    /// All evaluators are dropped and set up again.
    Recreate,
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = prop_oneof![
        6 => (1..200_u32, 1..10_u32, any::<bool>()).prop_map(|(from, len, live)| Step::Page { from, len, live }),
        1 => Just(Step::Fault),
        1 => Just(Step::Recreate),
    ];
    proptest::collection::vec((step, any::<bool>()), 1..20)
}

/// Like the neighbor, but traps on killmails from a million on.
const SOMETIMES_TRAPS: &str = "(if (i64.ge_u (local.get $id) (i64.const 1000000)) (then unreachable))";

#[test]
fn law_7_same_in_same_out_whatever_came_before() {
    let engine: Arc<Engine> =
        support::engine(Config { evaluators_max: 2, rest_faults: 0, ..Config::default() });
    let component = engine.compile(&guests::evaluating(&format!("{SOMETIMES_TRAPS} {NEIGHBOR}"))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let counts = Steps::default();
    let mut runner = TestRunner::new(Cases { cases: 256, failure_persistence: None, ..Cases::default() });
    runner
        .run(&steps(), |steps| {
            let make = |instance| runtime.block_on(engine.evaluator(&component, "{}", instance)).unwrap();
            let mut pair = [make(Instance::Warm), make(Instance::Fresh)];
            for (step, fresh) in steps {
                let guest = &pair[usize::from(fresh)];
                match step {
                    Step::Page { from, len, live } => {
                        let run = if live { Run::Live } else { Run::History { head: killmail(7).seq } };
                        let page: Vec<_> = (from..from + len).map(killmail).collect();
                        let answers = runtime.block_on(engine.evaluate(guest, page, run));
                        prop_assert_eq!(answers, (from..from + len).map(says).collect::<Vec<_>>());
                        counts.count(if live { "live" } else { "history" });
                        counts.count(if fresh { "fresh" } else { "warm" });
                    }
                    Step::Fault => {
                        let answers =
                            runtime.block_on(engine.evaluate(guest, vec![killmail(1_000_000)], Run::Live));
                        prop_assert_eq!(answers, vec![Err(Fault::Trap)]);
                        counts.count("fault");
                    }
                    Step::Recreate => {
                        drop(pair);
                        // Two others evict them, then they are set up again.
                        let others = ["1", "2"].map(|config| {
                            runtime.block_on(engine.evaluator(&component, config, Instance::Warm)).unwrap()
                        });
                        drop(others);
                        pair = [make(Instance::Warm), make(Instance::Fresh)];
                        counts.count("recreate");
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    counts.none_is_missing(&["live", "history", "fresh", "warm", "fault", "recreate"]);
}
