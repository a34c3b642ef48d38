//! Missing numbers and pages instead of documents, followed in time that is only counted.
//!
//! Must not know: sockets.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::follower_state::FollowerState;
use crate::ingest::r2z2::waits::Waits;
use crate::sample::rng::Dice;

/// When the feeds of these tests begin, unix milliseconds.
const AT_MS: u64 = 1_728_000_040_000;
const PLAIN: Reply = Reply::Document { updated: None, at: Some(AT_MS as i64 / 1000) };
const PAGE: Reply = Reply::Misfit { other_number: false };
const OTHER: Reply = Reply::Misfit { other_number: true };
const FAILED: Reply = Reply::Failed { retry_after_ms: None };

fn following(next: u64) -> FollowerState {
    FollowerState::new(Waits::default(), Place { next: Some(next), ..Place::default() })
}

/// Asks and answers until a time: what was asked and answered, when (milliseconds since the beginning), and
/// the notes.
fn run(
    pace: &mut FollowerState,
    until_ms: u64,
    mut feed: impl FnMut(Request, u64) -> Reply,
) -> (Vec<(Request, Reply, u64)>, Vec<Notice>) {
    let (mut asked, mut notes, mut now_ms) = (vec![], vec![], AT_MS);
    loop {
        let (ask, at_ms) = pace.ask();
        now_ms = now_ms.max(at_ms);
        if now_ms > AT_MS + until_ms {
            return (asked, notes);
        }
        let answer = feed(ask, now_ms - AT_MS);
        asked.push((ask, answer, now_ms - AT_MS));
        notes.extend(pace.answered(ask, answer, now_ms));
        assert!(asked.len() < 1_000_000, "it never waits");
    }
}

fn number(ask: Request) -> Option<u64> {
    match ask {
        Request::Document(n)
        | Request::Rewritten(n)
        | Request::Ahead(n)
        | Request::Probe(n)
        | Request::Retry(n, _) => Some(n),
        Request::Pointer | Request::List(_) | Request::Bodies(_) => None,
    }
}

/// Every file but for these is there at once, up to the end.
fn files(end: u64, missing: &'static [u64]) -> impl FnMut(Request, u64) -> Reply {
    move |ask, _| match number(ask) {
        Some(n) if n < end && !missing.contains(&n) => PLAIN,
        Some(_) => Reply::Missing,
        None if ask == Request::Pointer => Reply::Pointer(end),
        None => Reply::Missing,
    }
}

#[test]
fn the_second_404_is_followed_at_once_by_one_later_number() {
    let mut pace = following(7);
    let (asked, notes) = run(&mut pace, 70_000, files(7, &[]));
    let rounds: Vec<(u64, u64)> =
        asked.iter().filter_map(|(ask, _, at)| Some((number(*ask)?, *at))).collect();
    let mut expected = vec![(7, 0)];
    for (round, later) in (8..=15).chain([8, 9]).enumerate() {
        let at = 6_000 + round as u64 * 6_100;
        expected.extend([(7, at), (later, at + 100)]);
    }
    // After a minute a round asks sequence.json in the place of a later number.
    expected.retain(|(number, at)| *at <= 60_000 || *number == 7);
    assert_eq!(rounds[..expected.len()], expected);
    assert_eq!(asked.iter().filter(|(ask, ..)| *ask == Request::Pointer).count(), 1);
    assert_eq!((notes, pace.place().next), (vec![], Some(7)));
}

#[test]
fn what_lies_before_a_later_number_is_missing_and_tried_again_beside_the_feed() {
    let mut pace = following(7);
    let (asked, notes) = run(&mut pace, 2_000_000, files(40, &[7, 8, 20]));
    assert_eq!(notes, [Notice::Missing(7, 8), Notice::Missing(20, 20)]);
    assert_eq!(pace.place().next, Some(40));
    let ahead = asked.iter().filter(|(ask, answer, _)| matches!(ask, Request::Ahead(_)) && *answer == PLAIN);
    assert_eq!(
        ahead.map(|(ask, _, at)| (number(*ask), *at)).collect::<Vec<_>>(),
        [(Some(9), 12_200), (Some(21), 19_400)]
    );
    assert!(
        !asked.iter().any(|(ask, ..)| matches!(ask, Request::Document(9 | 21))),
        "what was looked at is not asked for twice"
    );
    let tries = |number: u64| {
        asked.iter().filter(move |(ask, ..)| *ask == Request::Retry(number, false)).map(|(.., at)| *at)
    };
    // 15 s after it was last asked for, a minute, five, and as before.
    let waits: Vec<u64> = std::iter::once(12_100)
        .chain(tries(7))
        .collect::<Vec<_>>()
        .windows(2)
        .map(|w| (w[1] - w[0]) / 1_000)
        .collect();
    assert_eq!(waits, [15, 60, 300, 480, 960]);
    assert!(tries(8).next().is_some_and(|at| (21_000..22_000).contains(&at)), "15 s after its own 404");
}

#[test]
fn missing_ones_that_come_late_are_had_in_the_order_they_come() {
    let mut pace = following(7);
    let (asked, notes) = run(&mut pace, 500_000, |ask, at| match number(ask) {
        Some(7) if at < 100_000 => Reply::Missing,
        Some(8) if at < 60_000 => Reply::Missing,
        Some(n) if n < 12 => PLAIN,
        _ => Reply::Missing,
    });
    let had: Vec<u64> =
        asked.iter().filter(|(_, answer, _)| *answer == PLAIN).filter_map(|(ask, ..)| number(*ask)).collect();
    assert_eq!(had, [9, 10, 11, 8, 7]);
    assert_eq!(notes.iter().filter(|note| matches!(note, Notice::Healed(_))).count(), 2);
    assert_eq!(pace.place().holes.list(), []);
}

/// When each number is published (`None`: never), and whether it is one of those that do not come in their
/// turn.
fn published(seed: u64, mean_ms: f64) -> Vec<(Option<u64>, bool)> {
    let (mut dice, mut numbers, mut at_ms) = (Dice::new(seed), vec![], 0.0_f64);
    let mut next_ms = |dice: &mut Dice| {
        at_ms -= (f64::from(dice.below(1_000_000) + 1) / 1e6).ln() * mean_ms;
        at_ms as u64
    };
    while numbers.len() < 6_000 {
        // Runs of one to three: some are adjacent.
        let missing = if dice.chance(0.0077) {
            1 + u64::from(dice.chance(0.3)) + u64::from(dice.chance(0.1))
        } else {
            0
        };
        for _ in 0..missing {
            let at = next_ms(&mut dice);
            numbers.push((dice.chance(0.5).then(|| at + 2_000 + u64::from(dice.below(200_000))), true));
        }
        numbers.push((Some(next_ms(&mut dice)), false));
    }
    numbers
}

#[test]
fn with_one_in_a_hundred_missing_the_live_feed_is_seconds_behind_and_loses_nothing() {
    let (mut waits, mut missing, mut count) = (vec![], 0, 0);
    for (seed, mean_ms) in [(1, 3_000.0), (2, 4_200.0), (3, 5_500.0), (4, 7_200.0), (5, 12_000.0)] {
        let numbers = published(seed, mean_ms);
        let end_ms = numbers.iter().filter_map(|(at, _)| *at).max().unwrap() + 2_000_000;
        let (mut pace, mut stored) = (following(0), HashMap::new());
        let (asked, _) = run(&mut pace, end_ms, |ask, at| {
            let there = |n: u64| {
                numbers.get(n as usize).is_some_and(|(published, _)| published.is_some_and(|then| then <= at))
            };
            match (ask, number(ask)) {
                // It lags behind by up to fifty numbers.
                (Request::Pointer, _) => Reply::Pointer(
                    (0..numbers.len() as u64).take_while(|n| there(*n)).last().unwrap_or(0) / 51 * 51,
                ),
                (_, Some(n)) if there(n) => {
                    stored.entry(n).or_insert(at);
                    PLAIN
                }
                _ => Reply::Missing,
            }
        });
        for (n, (published, is_missing)) in numbers.iter().enumerate() {
            count += 1;
            missing += u64::from(*is_missing);
            let Some(published) = published else { continue };
            let stored =
                stored.get(&(n as u64)).unwrap_or_else(|| panic!("number {n} of feed {seed} is lost"));
            waits.push(stored - published);
        }
        polite(&asked);
    }
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!((90..=130).contains(&(missing * 10_000 / count)), "{missing} of {count} are missing");
    assert!(p99 < 20_000, "p99 is {p99} ms");
    assert!(waits[waits.len() / 2] < 6_200);
}

/// The rules of R2Z2: ten requests a second at most, a number not again within six seconds of a 404.
fn polite(asked: &[(Request, Reply, u64)]) {
    assert!(asked.windows(2).all(|pair| pair[1].2 - pair[0].2 >= 100));
    let mut missed: HashMap<u64, u64> = HashMap::new();
    for (ask, answer, at) in asked {
        let Some(number) = number(*ask) else { continue };
        if let Some(before) = missed.get(&number) {
            assert!(at - before >= 6_000, "number {number} is asked for {} ms after a 404", at - before);
        }
        if *answer == Reply::Missing {
            missed.insert(number, *at);
        }
    }
}

#[test]
fn a_page_is_asked_again_with_growing_waits_and_no_number_is_passed_over() {
    for page in [PAGE, OTHER] {
        let mut pace = following(7);
        let (asked, notes) = run(&mut pace, 900_000, |_, _| page);
        assert_eq!(pace.place().next, Some(7));
        assert_eq!(pace.place().holes.list(), []);
        let waits: Vec<_> = notes
            .iter()
            .filter_map(|note| if let Notice::Waiting(ms) = note { Some(ms / 1000) } else { None })
            .collect();
        assert_eq!(waits[..9], [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let tries: Vec<u64> =
            asked.iter().filter(|(ask, ..)| *ask == Request::Document(7)).map(|(.., at)| at / 1000).collect();
        assert_eq!(tries[..7], [0, 1, 3, 9, 17, 33, 65], "six seconds for the number after at least");
        let first = asked.iter().position(|(ask, ..)| *ask == Request::Ahead(8)).unwrap();
        assert_eq!(
            asked[..first].iter().filter(|(ask, ..)| *ask == Request::Document(7)).count(),
            3,
            "from the third failure on"
        );
        let looked: Vec<u64> = asked
            .iter()
            .filter_map(|(ask, ..)| if let Request::Ahead(n) = ask { Some(*n) } else { None })
            .collect();
        assert_eq!(looked[..10], [8, 9, 8, 10, 8, 11, 8, 12, 8, 13], "those after it may be unreadable, too");
    }
}

#[test]
fn an_unreadable_number_is_passed_over_once_the_one_after_it_can_be_read() {
    let mut pace = following(7);
    let (asked, notes) = run(&mut pace, 400_000, |ask, at| match number(ask) {
        Some(7) if at < 100_000 => PAGE,
        Some(7) => PLAIN,
        Some(n) if n < 12 && at > 20_000 => PLAIN,
        _ => Reply::Missing,
    });
    let skipped = notes.iter().position(|note| *note == Notice::Missing(7, 7)).unwrap();
    assert_eq!(
        notes[..skipped].iter().filter(|note| matches!(note, Notice::Waiting(_))).count(),
        6,
        "{notes:?}"
    );
    assert!(notes[..skipped].contains(&Notice::Unproven));
    assert!(matches!(notes.last(), Some(Notice::Healed(_))), "it is tried again beside the feed: {notes:?}");
    assert!(asked.iter().any(|(ask, answer, _)| *ask == Request::Retry(7, false) && *answer == PAGE));
    assert_eq!(pace.place().next, Some(12));
    assert_eq!(pace.place().holes.list(), []);
}

#[test]
fn unreadable_and_missing_numbers_in_a_row_are_passed_over_together() {
    let mut pace = following(7);
    let (_, notes) = run(&mut pace, 60_000, |ask, _| match number(ask) {
        Some(7 | 9) => PAGE,
        Some(n) if n < 12 && n != 8 => PLAIN,
        _ => Reply::Missing,
    });
    assert!(notes.contains(&Notice::Missing(7, 9)), "{notes:?}");
    assert_eq!((pace.place().next, pace.place().holes.list().len()), (Some(12), 3));
}

#[test]
fn a_page_for_a_later_number_holds_up_nothing() {
    let mut pace = following(7);
    let (_, notes) = run(&mut pace, 100_000, |ask, at| match number(ask) {
        Some(7) if at < 60_000 => Reply::Missing,
        Some(8) => PAGE,
        Some(n) if n < 10 => PLAIN,
        _ => Reply::Missing,
    });
    assert!(notes.iter().any(|note| matches!(note, Notice::Waiting(_))));
    assert_eq!(pace.place().next, Some(10), "the unreadable one is passed over, too: {notes:?}");
}

#[test]
fn a_rewritten_file_that_is_unreadable_holds_up_the_feed_only_while_that_is_unreadable_too() {
    let mut pace =
        FollowerState::new(Waits::default(), Place { next: Some(8), rewritten: vec![3], ..Place::default() });
    let (asked, _) = run(&mut pace, 100_000, |ask, at| match number(ask) {
        Some(3) if at < 60_000 => PAGE,
        Some(3) => PLAIN,
        Some(n) if n < 10 && at > 10_000 => PLAIN,
        Some(n) if n < 10 => PAGE,
        _ => Reply::Missing,
    });
    let first = asked.iter().find(|(_, answer, _)| *answer == PLAIN).unwrap();
    assert_eq!(first.0, Request::Ahead(8));
    assert_eq!(pace.place().rewritten, [] as [u64; 0]);
    assert!(
        asked.iter().any(|(ask, answer, _)| *ask == Request::Retry(3, true) && *answer == PLAIN),
        "it is read later"
    );
    assert_eq!(pace.place().holes.list(), []);
}

#[test]
fn a_broken_pointer_stops_neither_the_next_number_nor_the_later_ones() {
    for broken in [FAILED, Reply::Missing] {
        let mut pace = following(7);
        let (asked, _) =
            run(&mut pace, 600_000, |ask, _| if ask == Request::Pointer { broken } else { Reply::Missing });
        let count = |is: fn(Request) -> bool| asked.iter().filter(|(ask, ..)| is(*ask)).count();
        assert!(count(|ask| ask == Request::Pointer) <= 10);
        assert!(
            count(|ask| ask == Request::Document(7)) > 80
                && count(|ask| matches!(ask, Request::Ahead(_))) > 70
        );
    }
}

#[test]
fn a_search_that_meets_a_page_begins_anew_later() {
    let mut pace = following(1_000);
    let mut pages = 0;
    let (_, notes) = run(&mut pace, 400_000, |ask, _| match (ask, number(ask)) {
        (Request::Pointer, _) => Reply::Pointer(61_999),
        (Request::Probe(_), _) if pages < 4 => {
            pages += 1;
            PAGE
        }
        (_, Some(n)) if (61_234..62_000).contains(&n) => PLAIN,
        _ => Reply::Missing,
    });
    assert!(notes.contains(&Notice::Skipped(1_000, 61_233)), "{notes:?}");
}

#[test]
fn an_archive_that_cannot_be_read_holds_up_nothing_and_closes_nothing() {
    let mut pace = following(7);
    let day_ms = 86_400_000;
    let (asked, _) = run(&mut pace, 2 * day_ms, |ask, _| match ask {
        Request::Document(7) => Reply::Hole,
        Request::Document(8) => PLAIN,
        Request::List(_) => FAILED,
        Request::Pointer => Reply::Pointer(7),
        _ => Reply::Missing,
    });
    let lists = asked.iter().filter(|(ask, ..)| matches!(ask, Request::List(_))).count();
    assert!((5..60).contains(&lists), "{lists}");
    assert_eq!(pace.place().holes.list().len(), 1);
}

proptest! {
    /// Whatever is missing, unreadable or late: each number is had, or remembered, or was passed over
    /// together with others.
    #[test]
    fn no_number_is_forgotten(missing in prop::collection::vec(0_u64..60, 0..20), pages in prop::collection::vec(0_u64..60, 0..5)) {
        let (missing, pages): (HashSet<u64>, HashSet<u64>) = (missing.into_iter().collect(), pages.into_iter().collect());
        let (mut pace, mut had) = (following(0), HashSet::new());
        let (asked, _) = run(&mut pace, 3_000_000, |ask, _| match number(ask) {
            Some(n) if pages.contains(&n) => PAGE,
            Some(n) if n <= 60 && !missing.contains(&n) => {
                if !matches!(ask, Request::Probe(_)) {
                    had.insert(n);
                }
                PLAIN
            }
            None if ask == Request::Pointer => Reply::Pointer(60),
            _ => Reply::Missing,
        });
        polite(&asked);
        for n in 0..=60 {
            let remembered = pace.place().holes.list().iter().any(|hole| (hole.first..=hole.last).contains(&n));
            prop_assert!(had.contains(&n) || remembered, "{n}");
        }
    }
}
