//! Dropping the engine does not wait for its instances to end.
//!
//! Must not know: on which threads guests run.

use std::time::{Duration, Instant};

use crate::domain::verdict::Fault;
use crate::plugin::judging::run::{Instance, Run};
use crate::plugin::limits::Config;
use crate::plugin::tests::guests::{self, KEEP};
use crate::plugin::tests::support::{self, judge, killmail};

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_stops_at_once_whatever_it_holds() {
    for count in [0, 3, 1_000] {
        let engine = support::engine(Config::default());
        let component = engine.compile(&guests::evaluating(KEEP)).unwrap();
        for config in 0..count {
            let evaluator = engine.evaluator(&component, &config.to_string(), Instance::Warm).await.unwrap();
            judge(&engine, &evaluator, 1).await.unwrap();
        }
        let begun = Instant::now();
        drop(engine);
        println!("{count} pairs: stopped after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_nobody_waits_for_do_not_delay_shutdown() {
    let engine =
        support::engine(Config { workers: 1, evaluate_cpu_ms: 20, rest_faults: 0, ..Config::default() });
    let slow =
        support::evaluator(&engine, &guests::evaluating("(loop $again (br $again)) unreachable")).await;
    let page: Vec<_> = (1..=64).map(killmail).collect();
    let asked = engine.evaluate(&slow, page, Run::Live);
    assert!(tokio::time::timeout(Duration::from_millis(30), asked).await.is_err());
    let begun = Instant::now();
    drop(engine);
    let calls = slow.component().counts().calls;
    println!("stopped after {:?} and {calls} calls", begun.elapsed());
    assert!(calls < 32, "{calls} of 64 calls were made");
    assert_eq!(slow.component().counts().faults.keys().collect::<Vec<_>>(), [&Fault::Deadline.word()]);
}
