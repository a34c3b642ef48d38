//! The rules of the feed, one test each, with simulated time.
//!
//! Must not know: sockets.

use crate::clock::DAY_SECS;
use crate::domain::span::Span;
use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::follower_state::FollowerState;
use crate::ingest::r2z2::missing_numbers::RecoveryStep;
use crate::ingest::r2z2::waits::Waits;

/// When the documents of these tests are published, unix seconds, and the same in milliseconds.
const AT: i64 = 20_000 * DAY_SECS + 40_000;
const AT_MS: u64 = AT as u64 * 1000;
const PLAIN: Reply = Reply::Document { updated: None, at: Some(AT) };
const FAILED: Reply = Reply::Failed { retry_after_ms: None };
const PAGE: Reply = Reply::Misfit { other_number: false };
const FORBIDDEN: Reply = Reply::Forbidden { retry_after_ms: None };

/// Answers the next request; returns it with the time at which it was sent.
fn step(state: &mut FollowerState, reply: Reply, now_ms: &mut u64) -> (Request, u64, Option<Notice>) {
    let (request, at_ms) = state.next_request();
    *now_ms = (*now_ms).max(at_ms);
    let notice = state.handle_reply(request, reply, *now_ms);
    (request, *now_ms, notice)
}

fn updated(number: u64) -> Reply {
    Reply::Document { updated: Some(number), at: Some(AT) }
}

fn following(next: u64) -> FollowerState {
    FollowerState::new(Waits::default(), Place { next: Some(next), ..Place::default() })
}

/// Answers requests by the rule of `feed` until a time; returns all requests with their times, and all
/// notices.
fn run(
    state: &mut FollowerState,
    now_ms: &mut u64,
    until_ms: u64,
    mut feed: impl FnMut(Request, u64) -> Reply,
) -> (Vec<(Request, u64)>, Vec<Notice>) {
    let (mut sent, mut notices) = (vec![], vec![]);
    loop {
        let (request, at_ms) = state.next_request();
        if at_ms.max(*now_ms) > until_ms {
            return (sent, notices);
        }
        *now_ms = (*now_ms).max(at_ms);
        sent.push((request, *now_ms));
        notices.extend(state.handle_reply(request, feed(request, *now_ms), *now_ms));
        assert!(sent.len() < 2_000_000, "it never waits");
    }
}

/// A feed with the files from `first` up to `end` (exclusive), except for the missing ones.
fn files(first: u64, end: u64, missing: &'static [u64]) -> impl FnMut(Request, u64) -> Reply {
    move |request, _| match request {
        Request::Pointer => Reply::Pointer(end - 1),
        Request::Document(n)
        | Request::Rewritten(n)
        | Request::Ahead(n)
        | Request::Probe(n)
        | Request::Retry { number: n, .. } => {
            if (first..end).contains(&n) && !missing.contains(&n) {
                PLAIN
            } else {
                Reply::NotFound
            }
        }
        Request::ArchiveList(_) | Request::ArchiveBodies(_) => Reply::NotFound,
    }
}

#[test]
fn a_first_start_requests_sequence_json_and_then_its_number() {
    let mut state = FollowerState::new(Waits::default(), Place::default());
    let mut now = 5;
    assert_eq!(step(&mut state, Reply::Pointer(900), &mut now), (Request::Pointer, 5, None));
    assert_eq!(step(&mut state, PLAIN, &mut now), (Request::Document(900), 105, None));
    assert_eq!(step(&mut state, PLAIN, &mut now), (Request::Document(901), 205, None));
    assert_eq!((state.place().next, state.place().begun), (Some(902), Some(AT - 3600)));
}

#[test]
fn a_missing_number_is_requested_again_after_six_seconds() {
    let mut state = following(7);
    let mut now = 0;
    step(&mut state, Reply::NotFound, &mut now);
    assert_eq!(step(&mut state, PLAIN, &mut now), (Request::Document(7), 6_000, None));
    assert_eq!(state.next_request(), (Request::Document(8), 6_100));
}

#[test]
fn requests_keep_the_minimum_distance() {
    let mut state = following(100);
    let mut now = AT_MS;
    let (sent, _) = run(&mut state, &mut now, AT_MS + 3_600_000, files(90, 5_000, &[120, 121, 140, 300]));
    assert!(sent.windows(2).all(|pair| pair[1].1 - pair[0].1 >= 100), "ten a second at most");
    assert!(sent.len() > 4_900);
}

#[test]
fn without_look_ahead_a_number_is_passed_over_after_a_minute() {
    let mut state = FollowerState::new(
        Waits { ahead_numbers: 0, ..Waits::default() },
        Place { next: Some(7), ..Place::default() },
    );
    let mut now = 0;
    while state.next_request().0 == Request::Document(7) {
        step(&mut state, Reply::NotFound, &mut now);
        assert!(now < 120_000, "the pointer is never requested");
    }
    assert!(now > 60_000, "{now}");
    assert_eq!(step(&mut state, Reply::Pointer(8), &mut now).2, Some(Notice::Missing { first: 7, last: 7 }));
    assert_eq!(state.next_request().0, Request::Document(8));
    assert_eq!(state.place().missing.ranges().len(), 1, "and remembered");
}

#[test]
fn a_number_the_feed_has_not_passed_is_awaited() {
    let mut state = following(7);
    let mut now = 0;
    let (sent, notices) = run(&mut state, &mut now, 600_000, files(0, 0, &[]).map_pointer(7));
    assert_eq!(notices, []);
    let pointers = sent.iter().filter(|(request, _)| *request == Request::Pointer).count();
    assert!((5..=10).contains(&pointers), "{pointers}");
    assert_eq!(state.place().next, Some(7));
}

#[test]
fn a_stale_pointer_does_not_stop_the_feed() {
    let mut state = following(7);
    let mut now = 0;
    // sequence.json stays at 7, the feed moves on, and number 20 is missing.
    let (_, notices) = run(&mut state, &mut now, 400_000, files(7, 60, &[20]).map_pointer(7));
    assert_eq!(
        notices.first(),
        Some(&Notice::Missing { first: 20, last: 20 }),
        "the file after it shows that it is missing"
    );
    assert_eq!(state.place().next, Some(60));
}

#[test]
fn a_misfit_does_not_prove_that_a_file_exists() {
    let mut state = following(7);
    let mut now = 0;
    let mut busy = 0;
    let (_, notices) = run(&mut state, &mut now, 900_000, |request, _| match request {
        Request::Pointer => Reply::Pointer(7),
        Request::Probe(_) if busy < 5 => {
            busy += 1;
            PAGE
        }
        _ => Reply::NotFound,
    });
    assert!(notices.iter().all(|notice| matches!(notice, Notice::Waiting(_))), "{notices:?}");
    assert_eq!((busy, notices.len()), (5, 5));
    assert_eq!(state.place().next, Some(7));
}

#[test]
fn a_feed_that_was_set_back_is_followed_from_its_new_head() {
    let mut state = following(500);
    let mut now = 0;
    let (sent, notices) = run(&mut state, &mut now, 900_000, files(300, 340, &[]).map_pointer(320));
    assert_eq!(notices, [Notice::RolledBack { from: 500, to: 320 }], "once");
    let back = sent.iter().find(|(request, _)| *request == Request::Document(320)).unwrap().1;
    assert!((180_000..260_000).contains(&back), "after three minutes: {back}");
    assert_eq!(state.place().next, Some(340), "and then it is at the head");
}

#[test]
fn a_quiet_hour_at_the_head_rolls_back_at_most_once() {
    let mut state = following(360);
    let mut now = 0;
    let (sent, notices) = run(&mut state, &mut now, 3_600_000, files(300, 360, &[]).map_pointer(320));
    assert_eq!(notices, [Notice::RolledBack { from: 360, to: 320 }]);
    assert_eq!(
        sent.iter().filter(|(request, _)| matches!(request, Request::Document(n) if *n < 360)).count(),
        40
    );
    assert_eq!(state.place().next, Some(360));
}

#[test]
fn far_behind_the_feed_continues_at_the_oldest_file() {
    let mut state = following(1_000);
    let mut now = AT_MS;
    let (sent, notices) = run(&mut state, &mut now, AT_MS + 400_000, files(61_234, 62_000, &[61_500]));
    assert_eq!(notices.first(), Some(&Notice::Gone { first: 1_000, last: 61_233 }));
    let probes = sent.iter().filter(|(request, _)| matches!(request, Request::Probe(_))).count();
    assert!(probes < 60, "{probes}");
    let first = sent
        .iter()
        .find_map(|(request, at)| matches!(request, Request::Document(61_234)).then_some(*at))
        .unwrap();
    assert!(first - AT_MS < 90_000, "a minute of 404s and the search: {}", first - AT_MS);
    assert_eq!(state.place().missing.ranges()[0].numbers, 60_234);
    assert_eq!(state.place().next, Some(62_000));
}

#[test]
fn numbers_missing_in_a_row_are_passed_over_at_once() {
    let mut state = following(100);
    let mut now = AT_MS;
    run(&mut state, &mut now, AT_MS + 600_000, |request, at| files(200, 300, &[])(request, at));
    assert_eq!(
        state.place().next,
        Some(300),
        "the later numbers tried are missing as well, so the rest is searched"
    );
    assert_eq!(state.place().missing.ranges().len(), 1);
}

#[test]
fn a_rewritten_file_is_fetched_again_before_the_next_number() {
    let mut state = following(7);
    let mut now = 0;
    step(&mut state, updated(3), &mut now);
    assert_eq!((state.place().next, &state.place().rewritten[..]), (Some(8), &[3][..]));
    assert_eq!(step(&mut state, updated(1), &mut now), (Request::Rewritten(3), 100, None));
    assert_eq!(state.next_request(), (Request::Document(8), 200), "a rewritten file names no other");
}

#[test]
fn a_file_that_names_itself_or_a_later_number_causes_no_loop() {
    let mut state = following(7);
    let mut now = 0;
    step(&mut state, updated(7), &mut now);
    step(&mut state, updated(90), &mut now);
    assert_eq!(state.next_request().0, Request::Document(9));
}

#[test]
fn a_rewritten_file_that_stays_missing_is_retried_later() {
    let mut state =
        FollowerState::new(Waits::default(), Place { next: Some(8), rewritten: vec![3], ..Place::default() });
    let mut now = AT_MS;
    assert_eq!(step(&mut state, Reply::NotFound, &mut now).2, None);
    assert_eq!(step(&mut state, Reply::NotFound, &mut now).1, AT_MS + 6_000);
    step(&mut state, Reply::NotFound, &mut now);
    assert_eq!(state.next_request().0, Request::Document(8));
    let (sent, _) = run(&mut state, &mut now, AT_MS + 600_000, |request, _| {
        if matches!(request, Request::Retry { .. }) { PLAIN } else { Reply::NotFound }
    });
    assert_eq!(
        sent.iter()
            .filter(|(request, _)| *request == Request::Retry { number: 3, is_rewritten: true })
            .count(),
        1
    );
    assert_eq!(state.place().missing.ranges(), []);
}

#[test]
fn a_placeholder_is_a_missing_number() {
    let mut state = following(7);
    let mut now = 0;
    assert_eq!(step(&mut state, Reply::Placeholder, &mut now).2, Some(Notice::Missing { first: 7, last: 7 }));
    assert_eq!(state.next_request(), (Request::Document(8), 100));
}

#[test]
fn retry_after_is_always_honoured() {
    let mut state = following(7);
    let mut now = 0;
    step(&mut state, Reply::Limited { retry_after_ms: Some(2_000) }, &mut now);
    assert_eq!(state.next_request(), (Request::Document(7), 2_000));
    step(&mut state, Reply::Forbidden { retry_after_ms: Some(3_600_000) }, &mut now);
    assert_eq!(state.next_request().1 - now, 3_600_000);
    step(&mut state, Reply::Failed { retry_after_ms: Some(45_000) }, &mut now);
    assert_eq!(state.next_request().1 - now, 45_000);
    step(&mut state, PLAIN, &mut now);
    step(&mut state, Reply::Forbidden { retry_after_ms: Some(1_000) }, &mut now);
    assert_eq!(state.next_request().1 - now, 60_000, "minutes, whatever Retry-After says");
}

#[test]
fn a_429_without_retry_after_waits_half_a_minute() {
    let mut state = following(7);
    let mut now = 0;
    assert_eq!(
        step(&mut state, Reply::Limited { retry_after_ms: None }, &mut now).2,
        Some(Notice::Waiting(30_000))
    );
    assert_eq!(state.next_request(), (Request::Document(7), 30_000));
}

#[test]
fn a_403_waits_for_minutes() {
    let mut state = following(7);
    let mut now = 0;
    let mut waits = vec![];
    for _ in 0..6 {
        step(&mut state, FORBIDDEN, &mut now);
        waits.push((state.next_request().1 - now) / 60_000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15]);
}

#[test]
fn waits_after_failures_grow_up_to_a_minute() {
    let mut state = following(7);
    let mut now = 0;
    let mut waits = vec![];
    for _ in 0..9 {
        step(&mut state, FAILED, &mut now);
        waits.push((state.next_request().1 - now) / 1000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    step(&mut state, PLAIN, &mut now);
    step(&mut state, FAILED, &mut now);
    assert_eq!(state.next_request().1 - now, 1_000, "a reply resets the wait");
}

#[test]
fn a_failed_pointer_at_the_start_is_requested_again() {
    let mut state = FollowerState::new(Waits::default(), Place::default());
    let mut now = 0;
    step(&mut state, FAILED, &mut now);
    assert_eq!(state.next_request(), (Request::Pointer, 1_000));
    step(&mut state, Reply::NotFound, &mut now);
    assert_eq!(state.next_request(), (Request::Pointer, 7_000));
}

#[test]
fn a_number_passed_over_is_retried_while_the_feed_is_quiet() {
    let mut state = following(7);
    let mut now = AT_MS;
    step(&mut state, Reply::Placeholder, &mut now);
    step(&mut state, PLAIN, &mut now);
    let mut tries = 0;
    let (sent, notices) = run(&mut state, &mut now, AT_MS + 3_600_000, |request, _| match request {
        Request::Retry { number: 7, is_rewritten: false } => {
            tries += 1;
            if tries == 3 { PLAIN } else { Reply::NotFound }
        }
        Request::Pointer => Reply::Pointer(9),
        _ => Reply::NotFound,
    });
    let waits: Vec<u64> = sent
        .iter()
        .filter(|(request, _)| matches!(request, Request::Retry { .. }))
        .map(|(_, at)| (at - AT_MS) / 1_000)
        .collect();
    assert_eq!(waits, [15, 75, 375], "seconds: after a quarter, one and five minutes");
    assert!(matches!(&notices[..], [Notice::Recovered(ranges)] if ranges[0].first == 7), "{notices:?}");
    assert_eq!(state.place().missing.ranges(), []);
    let live = sent
        .iter()
        .filter(|(request, _)| *request == Request::Document(9))
        .map(|(_, at)| *at)
        .collect::<Vec<_>>();
    assert!(
        live.windows(2).all(|pair| pair[1] - pair[0] >= 6_000),
        "the head is not requested more often for it"
    );
}

#[test]
fn a_recovered_file_may_name_a_rewritten_one() {
    let mut state = following(7);
    let mut now = AT_MS;
    step(&mut state, Reply::Placeholder, &mut now);
    step(&mut state, PLAIN, &mut now);
    let rewritten = |request: Request| matches!(request, Request::Rewritten(3));
    let (sent, _) = run(&mut state, &mut now, AT_MS + 600_000, |request, _| match request {
        Request::Retry { number: 7, is_rewritten: false } => updated(3),
        request if rewritten(request) => PLAIN,
        Request::Pointer => Reply::Pointer(9),
        _ => Reply::NotFound,
    });
    assert_eq!(sent.iter().filter(|(request, _)| rewritten(*request)).count(), 1);
}

#[test]
fn a_number_that_never_arrives_is_looked_for_in_the_archive_of_its_day() {
    let mut state = following(7);
    let mut now = AT_MS;
    step(&mut state, PLAIN, &mut now);
    step(&mut state, Reply::Placeholder, &mut now);
    step(&mut state, PLAIN, &mut now);
    let mut filled = false;
    let (mut sent, mut notices) = (vec![], vec![]);
    while notices.is_empty() {
        let (request, at_ms) = state.next_request();
        now = now.max(at_ms);
        let reply = match request {
            Request::ArchiveList(_) => Reply::Listed { wanted: !filled },
            Request::ArchiveBodies(day) => {
                state.note_recovered(day, AT + 5);
                filled = true;
                Reply::BodiesRead
            }
            Request::Pointer => Reply::Pointer(10),
            _ => Reply::NotFound,
        };
        sent.push((request, now));
        notices.extend(state.handle_reply(request, reply, now));
        assert!(now < AT_MS + 3 * 86_400_000, "it is never recovered");
    }
    let archive: Vec<_> = sent
        .iter()
        .filter(|(request, _)| matches!(request, Request::ArchiveList(_) | Request::ArchiveBodies(_)))
        .collect();
    assert_eq!(
        archive.iter().map(|(request, _)| *request).collect::<Vec<_>>(),
        [Request::ArchiveList(20_000), Request::ArchiveBodies(20_000)]
    );
    assert!(archive[0].1 >= 20_001 * 86_400_000 + 23_400_000, "after half past six of the next day");
    let Notice::Recovered(ranges) = &notices[0] else { panic!("{notices:?}") };
    assert_eq!(ranges[0].recovered(), Some(Span::at(AT + 5)));
    assert_eq!(
        state.place().missing.next_step(0, &Waits::default().recovery).map(|(step, _)| step),
        None::<RecoveryStep>
    );
}

#[test]
fn a_number_missing_before_the_first_document_is_dated_by_the_feed() {
    let list_days =
        |at: i64, now_ms: u64| {
            let mut now = now_ms;
            let mut state = following(7);
            let feed = move |request, _| match request {
                Request::Pointer => Reply::Pointer(9),
                Request::Document(9) => Reply::Document { updated: None, at: Some(at) },
                Request::Document(8) | Request::Retry { number: 8, .. } => Reply::Placeholder,
                Request::ArchiveList(_) => Reply::Listed { wanted: false },
                _ => Reply::NotFound,
            };
            let until = now + 40 * 86_400_000;
            let (sent, _) = run(&mut state, &mut now, until, feed);
            assert_eq!(state.place().missing.ranges(), [], "all of it was read");
            let days: Vec<_> =
                sent.into_iter()
                    .filter_map(|(request, _)| {
                        if let Request::ArchiveList(day) = request { Some(day - 20_000) } else { None }
                    })
                    .collect();
            (days, state.begun())
        };
    // A feed of a month ago: the archives of its days are read, not of ours.
    assert_eq!(list_days(AT, AT_MS + 30 * 86_400_000), (vec![0], AT - 3600));
    // The first document is two days late: the numbers before it are from after our start.
    assert_eq!(list_days(AT, AT_MS - 2 * 86_400_000).0, [-2, -1, 0]);
}

#[test]
fn a_clock_at_1970_does_not_cause_fifty_years_of_archives_to_be_read() {
    let (mut state, mut now) = (following(7), 5_000);
    step(&mut state, Reply::Placeholder, &mut now);
    step(&mut state, PLAIN, &mut now);
    assert_eq!(state.begun(), AT - 30 * DAY_SECS);
}

#[test]
fn an_archive_that_broke_off_is_listed_again() {
    let place = Place { next: Some(9), begun: Some(AT), last: Some(AT), ..Place::default() };
    let mut state = FollowerState::new(Waits::default(), place);
    let mut now = AT_MS;
    step(&mut state, Reply::Placeholder, &mut now);
    step(&mut state, PLAIN, &mut now);
    let mut broken = 0;
    run(&mut state, &mut now, AT_MS + 2 * 86_400_000, |request, _| match request {
        Request::ArchiveList(_) => Reply::Listed { wanted: true },
        Request::ArchiveBodies(_) if broken < 3 => {
            broken += 1;
            FAILED
        }
        Request::ArchiveBodies(_) => Reply::BodiesRead,
        Request::Pointer => Reply::Pointer(11),
        _ => Reply::NotFound,
    });
    assert_eq!((broken, state.place().missing.ranges().len()), (3, 0));
}

/// Replaces the number in `sequence.json`.
trait MapPointer: FnMut(Request, u64) -> Reply + Sized {
    fn map_pointer(mut self, pointer: u64) -> impl FnMut(Request, u64) -> Reply {
        move |request, at| {
            if request == Request::Pointer { Reply::Pointer(pointer) } else { self(request, at) }
        }
    }
}

impl<F: FnMut(Request, u64) -> Reply> MapPointer for F {}
