//! Tests of `pair_records`.

use super::*;
use crate::domain::id::Seq;

fn failure(fault: Fault) -> Failure {
    Failure::new(fault, "it failed")
}

#[test]
fn a_rest_outlives_the_evaluator_and_room_is_bounded() {
    let records = PairRecords::new(&Config { evaluators_max: 2, ..Config::default() });
    let digest: Arc<str> = "d".into();
    let record = records.of(&digest, "bad");
    (0..5).for_each(|_| record.of(Run::Live).called(Some(&failure(Fault::Memory))));
    drop(record);
    records.tidy();
    assert_eq!(records.of(&digest, "bad").of(Run::Live).rests(), Some(Fault::Memory));
    for n in 0..20 {
        drop(records.of(&digest, &n.to_string()));
    }
    assert!(records.known.lock().pairs.len() <= 4);
    assert_eq!(
        (records.resting("d").count, records.count(), records.resting("e").count),
        (1, 1, 0),
        "who rests stays longest"
    );
}

#[test]
fn proof_outlives_the_evaluator() {
    let records = PairRecords::new(&Config { evaluators_max: 2, ..Config::default() });
    let digest: Arc<str> = "d".into();
    let is_proven = |config: &str| records.of(&digest, config).of(Run::Live).is_proven();
    (0..20).for_each(|_| records.of(&digest, "works").of(Run::Live).called(None));
    records.of(&digest, "new").of(Run::Live).called(None);
    records.tidy();
    assert!(is_proven("works"), "it was let go of for a while");
    (0..18).for_each(|_| records.of(&digest, "new").of(Run::Live).called(None));
    records.tidy();
    records.of(&digest, "new").of(Run::Live).called(None);
    assert!(is_proven("new"), "a stream that comes and goes earns it, too");
    for n in 0..20 {
        records.of(&digest, &n.to_string()).of(Run::Live).called(None);
    }
    assert!(records.known.lock().pairs.len() <= 4 && is_proven("works"), "strangers do not push it out");
    records.forget("e");
    assert!(is_proven("works"));
    records.forget("d");
    assert_eq!((is_proven("works"), records.known.lock().pairs.len()), (false, 1));
}

#[test]
fn what_a_pair_does_to_the_past_is_held_against_it_there_only() {
    let records = PairRecords::new(&Config::default());
    let (record, past) = (records.of(&"d".into(), "c"), Run::History { head: Seq(1) });
    (0..5).for_each(|_| record.of(past).called(Some(&failure(Fault::Trap))));
    assert_eq!((record.of(past).rests(), record.of(Run::Live).rests()), (Some(Fault::Trap), None));
    assert_eq!((records.resting("d").count, records.count()), (1, 1));
    assert!(records.resting("d").some[0].reason.starts_with("for killmails of the past only: 5 faults"));
    (0..5).for_each(|_| record.of(Run::Live).called(Some(&failure(Fault::Memory))));
    assert_eq!(
        (record.of(past).rests(), record.of(Run::Live).rests()),
        (Some(Fault::Trap), Some(Fault::Memory))
    );
    assert_eq!((records.resting("d").count, records.count()), (2, 1), "it is one pair");
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn where_a_component_keeps_failing_those_without_proof_rest_after_one_fault() {
    let (records, digest): (_, Arc<str>) = (PairRecords::new(&Config::default()), "d".into());
    let works = records.of(&digest, "works");
    (0..20).for_each(|_| works.of(Run::Live).called(None));
    let pairs: Vec<_> = (0..30).map(|n| records.of(&digest, &n.to_string())).collect();
    for pair in &pairs {
        pair.of(Run::Live).called(Some(&failure(Fault::Deadline)));
        pair.of(Run::Live).wasted(Fault::Deadline, 8 * MS);
    }
    let resting: Vec<bool> = pairs.iter().map(|pair| pair.of(Run::Live).rests().is_some()).collect();
    assert_eq!((resting[..5].contains(&true), resting[5..].contains(&false)), (false, false), "{resting:?}");
    let told = records.resting("d");
    assert_eq!((told.count, told.some.len()), (25, 20), "twenty are told of");
    assert!(
        told.some[0].reason.starts_with("deadline after 8 ms of CPU time beyond its turn, while"),
        "{:?}",
        told.some[0]
    );

    // One that works is held neither now nor after its first fault.
    works.of(Run::Live).wasted(Fault::Deadline, 8 * MS);
    assert_eq!(works.of(Run::Live).rests(), None);
    let past = Run::History { head: Seq(1) };
    let (now, other) = (Instant::now(), records.of(&"e".into(), "other"));
    let held = |record: &Record| !record.fault_budget().hold_time(now).is_zero();
    assert_eq!(
        (held(works.of(Run::Live)), held(works.of(past)), held(other.of(Run::Live))),
        (true, false, false)
    );
}

#[test]
fn each_costly_fault_doubles_the_proof_a_pair_owes() {
    let records = PairRecords::new(&Config::default());
    let pair = records.of(&"d".into(), "c");
    let record = pair.of(Run::Live);
    for calls in [20, 40, 80, 160, 320, 640, 640] {
        (1..calls).for_each(|_| record.called(None));
        assert!(!record.is_proven() && record.is_held(Instant::now()), "{calls}");
        record.called(None);
        assert!(record.is_proven() && !record.is_held(Instant::now()), "{calls}");
        record.wasted(Fault::Deadline, MS);
    }
}
