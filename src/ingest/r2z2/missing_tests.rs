//! Missing numbers, and pages instead of documents, with simulated time.
//!
//! Must not know: sockets.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::follower_state::FollowerState;
use crate::ingest::r2z2::waits::Waits;
use crate::sample::rng::Dice;

/// When the feeds of these tests start, unix milliseconds.
const AT_MS: u64 = 1_728_000_040_000;
const PLAIN: Reply = Reply::Document { updated: None, at: Some(AT_MS as i64 / 1000) };
const PAGE: Reply = Reply::Misfit { other_number: false };
const OTHER: Reply = Reply::Misfit { other_number: true };
const FAILED: Reply = Reply::Failed { retry_after_ms: None };

fn following(next: u64) -> FollowerState {
    FollowerState::new(Waits::default(), Place { next: Some(next), ..Place::default() })
}

/// Answers requests until a time; returns requests and replies with their times (milliseconds since the
/// start), and all notices.
fn run(
    state: &mut FollowerState,
    until_ms: u64,
    mut feed: impl FnMut(Request, u64) -> Reply,
) -> (Vec<(Request, Reply, u64)>, Vec<Notice>) {
    let (mut sent, mut notices, mut now_ms) = (vec![], vec![], AT_MS);
    loop {
        let (request, at_ms) = state.next_request();
        now_ms = now_ms.max(at_ms);
        if now_ms > AT_MS + until_ms {
            return (sent, notices);
        }
        let reply = feed(request, now_ms - AT_MS);
        sent.push((request, reply, now_ms - AT_MS));
        notices.extend(state.handle_reply(request, reply, now_ms));
        assert!(sent.len() < 1_000_000, "it never waits");
    }
}

fn number(request: Request) -> Option<u64> {
    match request {
        Request::Document(n)
        | Request::Rewritten(n)
        | Request::Ahead(n)
        | Request::Probe(n)
        | Request::Retry { number: n, .. } => Some(n),
        Request::Pointer | Request::ArchiveList(_) | Request::ArchiveBodies(_) => None,
    }
}

/// A feed whose files all exist from the start, up to `end` (exclusive), except for the missing ones.
fn files(end: u64, missing: &'static [u64]) -> impl FnMut(Request, u64) -> Reply {
    move |request, _| match number(request) {
        Some(n) if n < end && !missing.contains(&n) => PLAIN,
        Some(_) => Reply::NotFound,
        None if request == Request::Pointer => Reply::Pointer(end),
        None => Reply::NotFound,
    }
}

#[test]
fn after_the_second_404_one_later_number_is_tried_at_once() {
    let mut state = following(7);
    let (sent, notices) = run(&mut state, 70_000, files(7, &[]));
    let rounds: Vec<(u64, u64)> =
        sent.iter().filter_map(|(request, _, at)| Some((number(*request)?, *at))).collect();
    let mut expected = vec![(7, 0)];
    for (round, later) in (8..=15).chain([8, 9]).enumerate() {
        let at = 6_000 + round as u64 * 6_100;
        expected.extend([(7, at), (later, at + 100)]);
    }
    // After a minute a round requests sequence.json instead of a later number.
    expected.retain(|(number, at)| *at <= 60_000 || *number == 7);
    assert_eq!(rounds[..expected.len()], expected);
    assert_eq!(sent.iter().filter(|(request, ..)| *request == Request::Pointer).count(), 1);
    assert_eq!((notices, state.place().next), (vec![], Some(7)));
}

#[test]
fn numbers_before_a_later_one_that_exists_are_missing_and_retried() {
    let mut state = following(7);
    let (sent, notices) = run(&mut state, 2_000_000, files(40, &[7, 8, 20]));
    assert_eq!(notices, [Notice::Missing { first: 7, last: 8 }, Notice::Missing { first: 20, last: 20 }]);
    assert_eq!(state.place().next, Some(40));
    let ahead =
        sent.iter().filter(|(request, reply, _)| matches!(request, Request::Ahead(_)) && *reply == PLAIN);
    assert_eq!(
        ahead.map(|(request, _, at)| (number(*request), *at)).collect::<Vec<_>>(),
        [(Some(9), 12_200), (Some(21), 19_400)]
    );
    assert!(
        !sent.iter().any(|(request, ..)| matches!(request, Request::Document(9 | 21))),
        "a number that was tried is not requested twice"
    );
    let tries = |number: u64| {
        sent.iter()
            .filter(move |(request, ..)| *request == Request::Retry { number, is_rewritten: false })
            .map(|(.., at)| *at)
    };
    // 15 s after it was last requested, then a minute, five minutes, and so on.
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
fn missing_numbers_that_arrive_late_are_stored_in_the_order_of_arrival() {
    let mut state = following(7);
    let (sent, notices) = run(&mut state, 500_000, |request, at| match number(request) {
        Some(7) if at < 100_000 => Reply::NotFound,
        Some(8) if at < 60_000 => Reply::NotFound,
        Some(n) if n < 12 => PLAIN,
        _ => Reply::NotFound,
    });
    let had: Vec<u64> = sent
        .iter()
        .filter(|(_, reply, _)| *reply == PLAIN)
        .filter_map(|(request, ..)| number(*request))
        .collect();
    assert_eq!(had, [9, 10, 11, 8, 7]);
    assert_eq!(notices.iter().filter(|notice| matches!(notice, Notice::Recovered(_))).count(), 2);
    assert_eq!(state.place().missing.ranges(), []);
}

/// When each number is published (`None`: never), and whether it is published out of turn.
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
fn with_one_in_a_hundred_missing_the_feed_is_seconds_behind_and_loses_nothing() {
    let (mut waits, mut missing, mut count) = (vec![], 0, 0);
    for (seed, mean_ms) in [(1, 3_000.0), (2, 4_200.0), (3, 5_500.0), (4, 7_200.0), (5, 12_000.0)] {
        let numbers = published(seed, mean_ms);
        let end_ms = numbers.iter().filter_map(|(at, _)| *at).max().unwrap() + 2_000_000;
        let (mut state, mut stored) = (following(0), HashMap::new());
        let (sent, _) = run(&mut state, end_ms, |request, at| {
            let there = |n: u64| {
                numbers.get(n as usize).is_some_and(|(published, _)| published.is_some_and(|then| then <= at))
            };
            match (request, number(request)) {
                // It lags behind by up to fifty numbers.
                (Request::Pointer, _) => Reply::Pointer(
                    (0..numbers.len() as u64).take_while(|n| there(*n)).last().unwrap_or(0) / 51 * 51,
                ),
                (_, Some(n)) if there(n) => {
                    stored.entry(n).or_insert(at);
                    PLAIN
                }
                _ => Reply::NotFound,
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
        assert_polite(&sent);
    }
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!((90..=130).contains(&(missing * 10_000 / count)), "{missing} of {count} are missing");
    assert!(p99 < 20_000, "p99 is {p99} ms");
    assert!(waits[waits.len() / 2] < 6_200);
}

/// Checks the rules of R2Z2: at most ten requests a second, and none for a number within six seconds of a
/// 404.
fn assert_polite(sent: &[(Request, Reply, u64)]) {
    assert!(sent.windows(2).all(|pair| pair[1].2 - pair[0].2 >= 100));
    let mut missed: HashMap<u64, u64> = HashMap::new();
    for (request, reply, at) in sent {
        let Some(number) = number(*request) else { continue };
        if let Some(before) = missed.get(&number) {
            assert!(at - before >= 6_000, "number {number} is requested {} ms after a 404", at - before);
        }
        if *reply == Reply::NotFound {
            missed.insert(number, *at);
        }
    }
}

#[test]
fn after_a_page_the_number_is_requested_again_and_not_passed_over() {
    for page in [PAGE, OTHER] {
        let mut state = following(7);
        let (sent, notices) = run(&mut state, 900_000, |_, _| page);
        assert_eq!(state.place().next, Some(7));
        assert_eq!(state.place().missing.ranges(), []);
        let waits: Vec<_> = notices
            .iter()
            .filter_map(|notice| if let Notice::Waiting(ms) = notice { Some(ms / 1000) } else { None })
            .collect();
        assert_eq!(waits[..9], [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let tries: Vec<u64> = sent
            .iter()
            .filter(|(request, ..)| *request == Request::Document(7))
            .map(|(.., at)| at / 1000)
            .collect();
        assert_eq!(tries[..7], [0, 1, 3, 9, 17, 33, 65], "at least six seconds for the number after it");
        let first = sent.iter().position(|(request, ..)| *request == Request::Ahead(8)).unwrap();
        assert_eq!(
            sent[..first].iter().filter(|(request, ..)| *request == Request::Document(7)).count(),
            3,
            "from the third failure on"
        );
        let looked: Vec<u64> = sent
            .iter()
            .filter_map(|(request, ..)| if let Request::Ahead(n) = request { Some(*n) } else { None })
            .collect();
        assert_eq!(looked[..10], [8, 9, 8, 10, 8, 11, 8, 12, 8, 13], "later ones may be unreadable as well");
    }
}

#[test]
fn an_unreadable_number_is_passed_over_once_the_one_after_it_can_be_read() {
    let mut state = following(7);
    let (sent, notices) = run(&mut state, 400_000, |request, at| match number(request) {
        Some(7) if at < 100_000 => PAGE,
        Some(7) => PLAIN,
        Some(n) if n < 12 && at > 20_000 => PLAIN,
        _ => Reply::NotFound,
    });
    let skipped = notices.iter().position(|notice| *notice == Notice::Missing { first: 7, last: 7 }).unwrap();
    assert_eq!(
        notices[..skipped].iter().filter(|notice| matches!(notice, Notice::Waiting(_))).count(),
        6,
        "{notices:?}"
    );
    assert!(notices[..skipped].contains(&Notice::Unproven));
    assert!(
        matches!(notices.last(), Some(Notice::Recovered(_))),
        "it is retried alongside the feed: {notices:?}"
    );
    assert!(
        sent.iter().any(|(request, reply, _)| *request == Request::Retry { number: 7, is_rewritten: false }
            && *reply == PAGE)
    );
    assert_eq!(state.place().next, Some(12));
    assert_eq!(state.place().missing.ranges(), []);
}

#[test]
fn unreadable_and_missing_numbers_in_a_row_are_passed_over_together() {
    let mut state = following(7);
    let (_, notices) = run(&mut state, 60_000, |request, _| match number(request) {
        Some(7 | 9) => PAGE,
        Some(n) if n < 12 && n != 8 => PLAIN,
        _ => Reply::NotFound,
    });
    assert!(notices.contains(&Notice::Missing { first: 7, last: 9 }), "{notices:?}");
    assert_eq!((state.place().next, state.place().missing.ranges().len()), (Some(12), 3));
}

#[test]
fn a_page_for_a_later_number_does_not_hold_up_the_feed() {
    let mut state = following(7);
    let (_, notices) = run(&mut state, 100_000, |request, at| match number(request) {
        Some(7) if at < 60_000 => Reply::NotFound,
        Some(8) => PAGE,
        Some(n) if n < 10 => PLAIN,
        _ => Reply::NotFound,
    });
    assert!(notices.iter().any(|notice| matches!(notice, Notice::Waiting(_))));
    assert_eq!(state.place().next, Some(10), "the unreadable one is passed over as well: {notices:?}");
}

#[test]
fn an_unreadable_rewritten_file_holds_up_only_an_unreadable_feed() {
    let mut state =
        FollowerState::new(Waits::default(), Place { next: Some(8), rewritten: vec![3], ..Place::default() });
    let (sent, _) = run(&mut state, 100_000, |request, at| match number(request) {
        Some(3) if at < 60_000 => PAGE,
        Some(3) => PLAIN,
        Some(n) if n < 10 && at > 10_000 => PLAIN,
        Some(n) if n < 10 => PAGE,
        _ => Reply::NotFound,
    });
    let first = sent.iter().find(|(_, reply, _)| *reply == PLAIN).unwrap();
    assert_eq!(first.0, Request::Ahead(8));
    assert_eq!(state.place().rewritten, [] as [u64; 0]);
    assert!(
        sent.iter().any(|(request, reply, _)| *request == Request::Retry { number: 3, is_rewritten: true }
            && *reply == PLAIN),
        "it is read later"
    );
    assert_eq!(state.place().missing.ranges(), []);
}

#[test]
fn an_unreadable_pointer_stops_neither_the_next_number_nor_later_ones() {
    for broken in [FAILED, Reply::NotFound] {
        let mut state = following(7);
        let (sent, _) =
            run(
                &mut state,
                600_000,
                |request, _| if request == Request::Pointer { broken } else { Reply::NotFound },
            );
        let count = |is: fn(Request) -> bool| sent.iter().filter(|(request, ..)| is(*request)).count();
        assert!(count(|request| request == Request::Pointer) <= 10);
        assert!(
            count(|request| request == Request::Document(7)) > 80
                && count(|request| matches!(request, Request::Ahead(_))) > 70
        );
    }
}

#[test]
fn a_search_that_meets_pages_starts_over_later() {
    let mut state = following(1_000);
    let mut pages = 0;
    let (_, notices) = run(&mut state, 400_000, |request, _| match (request, number(request)) {
        (Request::Pointer, _) => Reply::Pointer(61_999),
        (Request::Probe(_), _) if pages < 4 => {
            pages += 1;
            PAGE
        }
        (_, Some(n)) if (61_234..62_000).contains(&n) => PLAIN,
        _ => Reply::NotFound,
    });
    assert!(notices.contains(&Notice::Gone { first: 1_000, last: 61_233 }), "{notices:?}");
}

#[test]
fn an_unreadable_archive_neither_holds_up_the_feed_nor_closes_a_range() {
    let mut state = following(7);
    let day_ms = 86_400_000;
    let (sent, _) = run(&mut state, 2 * day_ms, |request, _| match request {
        Request::Document(7) => Reply::Placeholder,
        Request::Document(8) => PLAIN,
        Request::ArchiveList(_) => FAILED,
        Request::Pointer => Reply::Pointer(7),
        _ => Reply::NotFound,
    });
    let lists = sent.iter().filter(|(request, ..)| matches!(request, Request::ArchiveList(_))).count();
    assert!((5..60).contains(&lists), "{lists}");
    assert_eq!(state.place().missing.ranges().len(), 1);
}

#[test]
fn a_restart_continues_with_everything_that_was_open() {
    let mut state = following(7);
    let rewritten = Reply::Document { updated: Some(3), at: Some(AT_MS as i64 / 1000) };
    for reply in [PLAIN, Reply::Placeholder, rewritten] {
        let (request, at_ms) = state.next_request();
        state.handle_reply(request, reply, at_ms.max(AT_MS));
    }
    let bytes = serde_json::to_vec(state.place()).unwrap();
    let place: Place = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(&place, state.place());
    let again = FollowerState::new(Waits::default(), place);
    assert_eq!(again.next_request().0, Request::Rewritten(3));
    let old: Place = serde_json::from_str(r#"{"next":9,"rewritten":[4]}"#).unwrap();
    assert_eq!(
        (old.next, &old.rewritten[..], old.missing.ranges().len()),
        (Some(9), &[4][..], 0),
        "an older checkpoint is read"
    );
}

proptest! {
    /// Whatever is missing, unreadable or late: each number is stored, or remembered, or part of a range that
    /// was passed over.
    #[test]
    fn no_number_is_forgotten(missing in prop::collection::vec(0_u64..60, 0..20), pages in prop::collection::vec(0_u64..60, 0..5)) {
        let (missing, pages): (HashSet<u64>, HashSet<u64>) = (missing.into_iter().collect(), pages.into_iter().collect());
        let (mut state, mut had) = (following(0), HashSet::new());
        let (sent, _) = run(&mut state, 3_000_000, |request, _| match number(request) {
            Some(n) if pages.contains(&n) => PAGE,
            Some(n) if n <= 60 && !missing.contains(&n) => {
                if !matches!(request, Request::Probe(_)) {
                    had.insert(n);
                }
                PLAIN
            }
            None if request == Request::Pointer => Reply::Pointer(60),
            _ => Reply::NotFound,
        });
        assert_polite(&sent);
        for n in 0..=60 {
            let remembered = state.place().missing.ranges().iter().any(|range| (range.first..=range.last).contains(&n));
            prop_assert!(had.contains(&n) || remembered, "{n}");
        }
    }
}
