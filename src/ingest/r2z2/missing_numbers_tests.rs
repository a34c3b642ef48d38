//! When missing numbers are retried and looked for in archives.
//!
//! Must not know: sockets.

use super::*;

const WAITS: RecoveryWaits =
    RecoveryWaits { first_ms: 60_000, least_ms: 6_000, archive_after_ms: 23_400_000 };
/// A Wednesday at noon, unix seconds.
const NOON: i64 = 20_000 * DAY_SECS + DAY_SECS / 2;
const NOON_MS: u64 = NOON as u64 * 1000;

fn passed_over(first: u64, last: u64, rewritten: bool, from: i64) -> PassedOver {
    PassedOver { first, last, rewritten, from, now_ms: NOON_MS, requested_ms: NOON_MS }
}

fn with(first: u64, last: u64) -> MissingNumbers {
    let mut missing = MissingNumbers::default();
    missing.add(passed_over(first, last, false, NOON - 10), &WAITS);
    missing
}

/// Fails to get a number until the archives are due; returns the waits before each try, seconds.
fn retry_in_vain(missing: &mut MissingNumbers, begun: i64) -> Vec<u64> {
    let (mut waits, mut now_ms) = (vec![], NOON_MS);
    while let Some((RecoveryStep::Number(number), at_ms)) = missing.next_step(begun, &WAITS) {
        waits.push((at_ms - now_ms) / 1000);
        now_ms = at_ms;
        assert_eq!(missing.note_failed_try(number, &WAITS, now_ms), None);
        assert!(waits.len() < 100);
    }
    waits
}

#[test]
fn a_number_is_retried_after_growing_waits_until_its_archive_exists() {
    let mut missing = with(7, 7);
    missing.set_end(NOON + 10);
    let waits = retry_in_vain(&mut missing, NOON - 100);
    assert_eq!(waits[..8], [15, 60, 300, 480, 960, 1920, 3600, 3600]);
    let (step, at_ms) = missing.next_step(NOON - 100, &WAITS).unwrap();
    assert_eq!(step, RecoveryStep::Day(20_000));
    assert!(at_ms >= 20_001 * 86_400_000 + 23_400_000, "after half past six of the next day");
    assert!(at_ms < 20_001 * 86_400_000 + 23_400_000 + 3_600_001);
}

#[test]
fn the_archives_of_three_days_before_are_read_for_late_killmails() {
    let mut missing = with(7, 9);
    missing.set_end(NOON + DAY_SECS);
    let begun = NOON - 30 * DAY_SECS;
    let mut days = vec![];
    while let Some((RecoveryStep::Day(day), _)) = missing.next_step(begun, &WAITS) {
        days.push(day - 20_000);
        missing.note_recovered(day, NOON + day, begun);
        let closed = missing.note_archive_read(day, begun);
        assert_eq!(closed.len(), usize::from(day == 20_001));
        if let Some(range) = closed.first() {
            assert_eq!(
                range.recovered(),
                Some(Span { from: NOON + 19_997, to: NOON + 20_002, killmails: 5 })
            );
        }
    }
    assert_eq!(days, [-3, -2, -1, 0, 1]);
    assert_eq!(missing.ranges(), []);
}

#[test]
fn a_range_is_left_to_archives_once_a_document_gives_it_an_end() {
    let mut missing = with(7, 900);
    assert_eq!(missing.next_step(NOON, &WAITS), None);
    missing.set_end(NOON + 5);
    assert_eq!(
        missing.next_step(NOON, &WAITS),
        Some((RecoveryStep::Day(20_000), 20_001 * 86_400_000 + 23_400_000))
    );
}

#[test]
fn one_reading_of_an_archive_serves_all_ranges_of_that_day() {
    let mut missing = with(7, 8);
    missing.add(passed_over(20, 21, false, NOON), &WAITS);
    missing.set_end(NOON + 5);
    assert_eq!(missing.note_archive_read(20_000, NOON - 5).len(), 2);
}

#[test]
fn a_number_that_arrives_is_no_longer_missing() {
    let mut missing = with(7, 7);
    assert_eq!(missing.remove_arrived(8), None);
    assert_eq!(missing.remove_arrived(7).map(|range| range.first), Some(7));
    assert_eq!(missing.ranges(), []);
}

#[test]
fn a_rewritten_file_is_never_looked_for_in_archives() {
    let mut missing = MissingNumbers::default();
    missing.add(passed_over(3, 3, true, NOON), &WAITS);
    missing.set_end(NOON);
    for n in 0..6 {
        assert_eq!(missing.next_step(0, &WAITS).map(|(step, _)| step), Some(RecoveryStep::Number(3)));
        assert_eq!(missing.note_failed_try(3, &WAITS, NOON_MS).is_some(), n == 5);
    }
    assert_eq!(missing.ranges(), []);
}

#[test]
fn an_archive_that_never_appears_is_given_up() {
    let mut missing = with(7, 9);
    missing.set_end(NOON);
    let mut now_ms = NOON_MS;
    let mut tries = 0;
    loop {
        let (step, at_ms) = missing.next_step(NOON, &WAITS).unwrap();
        assert_eq!(step, RecoveryStep::Day(20_000));
        now_ms = now_ms.max(at_ms);
        tries += 1;
        if let [range] = &missing.note_archive_missing(20_000, NOON, &WAITS, now_ms)[..] {
            assert_eq!(range.recovered(), None);
            break;
        }
    }
    assert!(tries > 30 && now_ms > NOON_MS + 86_400_000, "{tries} tries in {} s", (now_ms - NOON_MS) / 1000);
}

#[test]
fn a_number_is_retried_in_turn_while_its_archive_does_not_exist() {
    let mut missing = with(7, 7);
    missing.set_end(NOON + 10);
    let (mut now_ms, mut steps) = (NOON_MS + 100 * 86_400_000, vec![]);
    while let Some((step, at_ms)) = missing.next_step(NOON - 100, &WAITS) {
        now_ms = now_ms.max(at_ms);
        steps.push(step);
        match step {
            RecoveryStep::Number(number) => assert_eq!(missing.note_failed_try(number, &WAITS, now_ms), None),
            RecoveryStep::Day(day) => drop(missing.note_archive_missing(day, NOON - 100, &WAITS, now_ms)),
        }
    }
    let numbers = steps.iter().filter(|step| **step == RecoveryStep::Number(7)).count();
    assert_eq!(
        steps[..8],
        [
            [RecoveryStep::Number(7); 5].as_slice(),
            &[RecoveryStep::Day(20_000), RecoveryStep::Number(7), RecoveryStep::Day(20_000)]
        ]
        .concat()
    );
    assert_eq!((numbers, steps.len() - numbers), (20, 16), "it is given up in the end");
}

#[test]
fn numbers_that_may_still_arrive_are_merged_last() {
    let mut missing = MissingNumbers::default();
    for n in 0..70 {
        missing.add(passed_over(n * 1000, n * 1000, false, NOON), &WAITS);
        while let Some(range) = missing.0.iter().find(|range| range.is_retried()) {
            missing.note_failed_try(range.first, &WAITS, NOON_MS);
        }
    }
    for number in [70_000, 70_001] {
        missing.add(passed_over(number, number, false, NOON), &WAITS);
    }
    assert_eq!(missing.ranges().len(), RANGES_MAX);
    assert_eq!(
        missing.ranges().iter().filter(|range| range.is_single() && range.first >= 70_000).count(),
        2,
        "{missing:?}"
    );
}

#[test]
fn an_archive_that_cannot_be_read_is_postponed_and_never_given_up() {
    let mut missing = with(7, 9);
    missing.set_end(NOON);
    for n in 0..100 {
        missing.postpone_archive(20_000, NOON, &WAITS, NOON_MS + n);
    }
    assert_eq!(missing.next_step(NOON, &WAITS).map(|(step, _)| step), Some(RecoveryStep::Day(20_000)));
    missing.postpone_archive(20_000, NOON, &WAITS, NOON_MS + 100 * 86_400_000);
    assert_eq!(
        missing.next_step(NOON, &WAITS).map(|(_, at_ms)| at_ms),
        Some(NOON_MS + 100 * 86_400_000 + 3_600_000)
    );
}

#[test]
fn the_number_of_ranges_is_bounded_and_no_number_is_forgotten() {
    let mut missing = MissingNumbers::default();
    for n in 0..500 {
        missing.add(passed_over(n * 10, n * 10, false, NOON), &WAITS);
    }
    assert_eq!(missing.ranges().len(), RANGES_MAX);
    assert_eq!(missing.ranges().iter().map(|range| range.numbers).sum::<u64>(), 500);
    assert!(serde_json::to_vec(&missing).unwrap().len() < 12_000);
    assert!(
        (0..500).all(|n| missing.ranges().iter().any(|range| (range.first..=range.last).contains(&(n * 10))))
    );
    missing.add(passed_over(250, 250, false, NOON), &WAITS);
    assert_eq!(missing.ranges().iter().map(|range| range.numbers).sum::<u64>(), 500, "known already");
}
