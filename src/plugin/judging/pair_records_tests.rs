//! Tests of `pair_records`.

use super::*;
use crate::domain::id::Seq;

fn failure(fault: Fault) -> Failure {
    Failure::new(fault, "it failed")
}

#[test]
fn a_quarantine_outlives_the_evaluator_and_memory_is_bounded() {
    let records = PairRecords::new(&Config { evaluators_max: 2, ..Config::default() });
    let digest: Arc<str> = "d".into();
    let record = records.get_or_create(&digest, "bad");
    (0..5).for_each(|_| record.for_run(Run::Live).record_call(Some(&failure(Fault::Memory))));
    drop(record);
    records.sweep();
    assert_eq!(
        records.get_or_create(&digest, "bad").for_run(Run::Live).blocking_fault(),
        Some(Fault::Memory)
    );
    for n in 0..20 {
        drop(records.get_or_create(&digest, &n.to_string()));
    }
    assert!(records.tables.lock().pairs.len() <= 4);
    assert_eq!(
        (records.quarantined("d").count, records.quarantined_count(), records.quarantined("e").count),
        (1, 1, 0),
        "pairs in quarantine are kept longest"
    );
}

#[test]
fn proof_outlives_the_evaluator() {
    let records = PairRecords::new(&Config { evaluators_max: 2, ..Config::default() });
    let digest: Arc<str> = "d".into();
    let is_proven = |config: &str| records.get_or_create(&digest, config).for_run(Run::Live).is_proven();
    (0..20).for_each(|_| records.get_or_create(&digest, "works").for_run(Run::Live).record_call(None));
    records.get_or_create(&digest, "new").for_run(Run::Live).record_call(None);
    records.sweep();
    assert!(is_proven("works"), "its evaluator was evicted for a while");
    (0..18).for_each(|_| records.get_or_create(&digest, "new").for_run(Run::Live).record_call(None));
    records.sweep();
    records.get_or_create(&digest, "new").for_run(Run::Live).record_call(None);
    assert!(is_proven("new"), "a stream that comes and goes earns proof, too");
    for n in 0..20 {
        records.get_or_create(&digest, &n.to_string()).for_run(Run::Live).record_call(None);
    }
    assert!(records.tables.lock().pairs.len() <= 4 && is_proven("works"), "unproven pairs do not evict it");
    records.forget("e");
    assert!(is_proven("works"));
    records.forget("d");
    assert_eq!((is_proven("works"), records.tables.lock().pairs.len()), (false, 1));
}

#[test]
fn faults_on_past_killmails_count_only_there() {
    let records = PairRecords::new(&Config::default());
    let (record, history) = (records.get_or_create(&"d".into(), "c"), Run::History { head: Seq(1) });
    (0..5).for_each(|_| record.for_run(history).record_call(Some(&failure(Fault::Trap))));
    assert_eq!(
        (record.for_run(history).blocking_fault(), record.for_run(Run::Live).blocking_fault()),
        (Some(Fault::Trap), None)
    );
    assert_eq!((records.quarantined("d").count, records.quarantined_count()), (1, 1));
    assert!(records.quarantined("d").listed[0].reason.starts_with("for past killmails only: 5 faults"));
    (0..5).for_each(|_| record.for_run(Run::Live).record_call(Some(&failure(Fault::Memory))));
    assert_eq!(
        (record.for_run(history).blocking_fault(), record.for_run(Run::Live).blocking_fault()),
        (Some(Fault::Trap), Some(Fault::Memory))
    );
    assert_eq!((records.quarantined("d").count, records.quarantined_count()), (2, 1), "it is one pair");
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn unproven_pairs_of_a_failing_component_are_quarantined_after_one_fault() {
    let (records, digest): (_, Arc<str>) = (PairRecords::new(&Config::default()), "d".into());
    let works = records.get_or_create(&digest, "works");
    (0..20).for_each(|_| works.for_run(Run::Live).record_call(None));
    let pairs: Vec<_> = (0..30).map(|n| records.get_or_create(&digest, &n.to_string())).collect();
    for pair in &pairs {
        pair.for_run(Run::Live).record_call(Some(&failure(Fault::Deadline)));
        pair.for_run(Run::Live).record_costly_fault(Fault::Deadline, 8 * MS);
    }
    let resting: Vec<bool> =
        pairs.iter().map(|pair| pair.for_run(Run::Live).blocking_fault().is_some()).collect();
    assert_eq!((resting[..5].contains(&true), resting[5..].contains(&false)), (false, false), "{resting:?}");
    let pairs_of_d = records.quarantined("d");
    assert_eq!((pairs_of_d.count, pairs_of_d.listed.len()), (25, 20), "twenty are listed");
    assert!(
        pairs_of_d.listed[0].reason.starts_with("deadline after 8 ms of CPU time beyond its turn, while"),
        "{:?}",
        pairs_of_d.listed[0]
    );

    // A proven pair is held neither now nor after its first fault.
    works.for_run(Run::Live).record_costly_fault(Fault::Deadline, 8 * MS);
    assert_eq!(works.for_run(Run::Live).blocking_fault(), None);
    let history = Run::History { head: Seq(1) };
    let (now, other) = (Instant::now(), records.get_or_create(&"e".into(), "other"));
    let held = |record: &CallRecord| !record.fault_budget().hold_time(now).is_zero();
    assert_eq!(
        (held(works.for_run(Run::Live)), held(works.for_run(history)), held(other.for_run(Run::Live))),
        (true, false, false)
    );
}

#[test]
fn each_costly_fault_doubles_the_proof_needed() {
    let records = PairRecords::new(&Config::default());
    let pair = records.get_or_create(&"d".into(), "c");
    let record = pair.for_run(Run::Live);
    for calls in [20, 40, 80, 160, 320, 640, 640] {
        (1..calls).for_each(|_| record.record_call(None));
        assert!(!record.is_proven() && record.is_held(Instant::now()), "{calls}");
        record.record_call(None);
        assert!(record.is_proven() && !record.is_held(Instant::now()), "{calls}");
        record.record_costly_fault(Fault::Deadline, MS);
    }
}
