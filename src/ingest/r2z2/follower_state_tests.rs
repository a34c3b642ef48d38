//! The rules of the feed, one test for each, with time that is only counted.
//!
//! Must not know: sockets.

use crate::clock::DAY_SECS;
use crate::domain::span::Span;
use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::follower_state::FollowerState;
use crate::ingest::r2z2::missing_numbers::Cure;
use crate::ingest::r2z2::waits::Waits;

/// When the documents of these tests are published, unix seconds, and the same in milliseconds.
const AT: i64 = 20_000 * DAY_SECS + 40_000;
const AT_MS: u64 = AT as u64 * 1000;
const PLAIN: Reply = Reply::Document { updated: None, at: Some(AT) };
const FAILED: Reply = Reply::Failed { retry_after_ms: None };
const PAGE: Reply = Reply::Misfit { other_number: false };
const FORBIDDEN: Reply = Reply::Forbidden { retry_after_ms: None };

/// Answers the next question; returns it with the time it was asked at.
fn step(pace: &mut FollowerState, answer: Reply, now_ms: &mut u64) -> (Request, u64, Option<Notice>) {
    let (ask, at_ms) = pace.ask();
    *now_ms = (*now_ms).max(at_ms);
    let note = pace.answered(ask, answer, *now_ms);
    (ask, *now_ms, note)
}

fn updated(number: u64) -> Reply {
    Reply::Document { updated: Some(number), at: Some(AT) }
}

fn following(next: u64) -> FollowerState {
    FollowerState::new(Waits::default(), Place { next: Some(next), ..Place::default() })
}

/// A feed that answers by rule, until a time; everything that was asked, and every note.
fn run(
    pace: &mut FollowerState,
    now_ms: &mut u64,
    until_ms: u64,
    mut feed: impl FnMut(Request, u64) -> Reply,
) -> (Vec<(Request, u64)>, Vec<Notice>) {
    let (mut asked, mut notes) = (vec![], vec![]);
    loop {
        let (ask, at_ms) = pace.ask();
        if at_ms.max(*now_ms) > until_ms {
            return (asked, notes);
        }
        *now_ms = (*now_ms).max(at_ms);
        asked.push((ask, *now_ms));
        notes.extend(pace.answered(ask, feed(ask, *now_ms), *now_ms));
        assert!(asked.len() < 2_000_000, "it never waits");
    }
}

/// Files from the first to before the end are there, but for the missing.
fn files(first: u64, end: u64, missing: &'static [u64]) -> impl FnMut(Request, u64) -> Reply {
    move |ask, _| match ask {
        Request::Pointer => Reply::Pointer(end - 1),
        Request::Document(n)
        | Request::Rewritten(n)
        | Request::Ahead(n)
        | Request::Probe(n)
        | Request::Retry(n, _) => {
            if (first..end).contains(&n) && !missing.contains(&n) {
                PLAIN
            } else {
                Reply::Missing
            }
        }
        Request::List(_) | Request::Bodies(_) => Reply::Missing,
    }
}

#[test]
fn a_first_start_asks_where_the_feed_is_and_then_that_number() {
    let mut pace = FollowerState::new(Waits::default(), Place::default());
    let mut now = 5;
    assert_eq!(step(&mut pace, Reply::Pointer(900), &mut now), (Request::Pointer, 5, None));
    assert_eq!(step(&mut pace, PLAIN, &mut now), (Request::Document(900), 105, None));
    assert_eq!(step(&mut pace, PLAIN, &mut now), (Request::Document(901), 205, None));
    assert_eq!((pace.place().next, pace.place().begun), (Some(902), Some(AT - 3600)));
}

#[test]
fn a_missing_number_is_asked_again_after_six_seconds() {
    let mut pace = following(7);
    let mut now = 0;
    step(&mut pace, Reply::Missing, &mut now);
    assert_eq!(step(&mut pace, PLAIN, &mut now), (Request::Document(7), 6_000, None));
    assert_eq!(pace.ask(), (Request::Document(8), 6_100));
}

#[test]
fn no_two_requests_come_closer_than_the_pace() {
    let mut pace = following(100);
    let mut now = AT_MS;
    let (asked, _) = run(&mut pace, &mut now, AT_MS + 3_600_000, files(90, 5_000, &[120, 121, 140, 300]));
    assert!(asked.windows(2).all(|pair| pair[1].1 - pair[0].1 >= 100), "ten a second at most");
    assert!(asked.len() > 4_900);
}

#[test]
fn a_number_is_passed_over_after_a_minute_where_no_later_one_is_looked_at() {
    let mut pace = FollowerState::new(
        Waits { ahead_numbers: 0, ..Waits::default() },
        Place { next: Some(7), ..Place::default() },
    );
    let mut now = 0;
    while pace.ask().0 == Request::Document(7) {
        step(&mut pace, Reply::Missing, &mut now);
        assert!(now < 120_000, "the pointer is never asked");
    }
    assert!(now > 60_000, "{now}");
    assert_eq!(step(&mut pace, Reply::Pointer(8), &mut now).2, Some(Notice::Missing(7, 7)));
    assert_eq!(pace.ask().0, Request::Document(8));
    assert_eq!(pace.place().holes.list().len(), 1, "and remembered");
}

#[test]
fn a_number_the_feed_has_not_passed_is_waited_for() {
    let mut pace = following(7);
    let mut now = 0;
    let (asked, notes) = run(&mut pace, &mut now, 600_000, files(0, 0, &[]).map_pointer(7));
    assert_eq!(notes, []);
    let pointers = asked.iter().filter(|(ask, _)| *ask == Request::Pointer).count();
    assert!((5..=10).contains(&pointers), "{pointers}");
    assert_eq!(pace.place().next, Some(7));
}

#[test]
fn a_stale_pointer_stops_nothing() {
    let mut pace = following(7);
    let mut now = 0;
    // sequence.json says 7 for ever, the feed goes on, and number 20 is a ghost.
    let (_, notes) = run(&mut pace, &mut now, 400_000, files(7, 60, &[20]).map_pointer(7));
    assert_eq!(notes.first(), Some(&Notice::Missing(20, 20)), "the file behind it shows that it is one");
    assert_eq!(pace.place().next, Some(60));
}

#[test]
fn an_answer_that_is_no_document_proves_no_file() {
    let mut pace = following(7);
    let mut now = 0;
    let mut busy = 0;
    let (_, notes) = run(&mut pace, &mut now, 900_000, |ask, _| match ask {
        Request::Pointer => Reply::Pointer(7),
        Request::Probe(_) if busy < 5 => {
            busy += 1;
            PAGE
        }
        _ => Reply::Missing,
    });
    assert!(notes.iter().all(|note| matches!(note, Notice::Waiting(_))), "{notes:?}");
    assert_eq!((busy, notes.len()), (5, 5));
    assert_eq!(pace.place().next, Some(7));
}

#[test]
fn a_feed_that_was_set_back_is_followed_from_where_it_is() {
    let mut pace = following(500);
    let mut now = 0;
    let (asked, notes) = run(&mut pace, &mut now, 900_000, files(300, 340, &[]).map_pointer(320));
    assert_eq!(notes, [Notice::RolledBack(500, 320)], "once");
    let back = asked.iter().find(|(ask, _)| *ask == Request::Document(320)).unwrap().1;
    assert!((180_000..260_000).contains(&back), "after three minutes: {back}");
    assert_eq!(pace.place().next, Some(340), "and then it stands at the head");
}

#[test]
fn a_quiet_hour_at_the_head_rolls_back_no_more_than_once() {
    let mut pace = following(360);
    let mut now = 0;
    let (asked, notes) = run(&mut pace, &mut now, 3_600_000, files(300, 360, &[]).map_pointer(320));
    assert_eq!(notes, [Notice::RolledBack(360, 320)]);
    assert_eq!(asked.iter().filter(|(ask, _)| matches!(ask, Request::Document(n) if *n < 360)).count(), 40);
    assert_eq!(pace.place().next, Some(360));
}

#[test]
fn too_far_behind_goes_to_the_oldest_file_still_there() {
    let mut pace = following(1_000);
    let mut now = AT_MS;
    let (asked, notes) = run(&mut pace, &mut now, AT_MS + 400_000, files(61_234, 62_000, &[61_500]));
    assert_eq!(notes.first(), Some(&Notice::Skipped(1_000, 61_233)));
    let probes = asked.iter().filter(|(ask, _)| matches!(ask, Request::Probe(_))).count();
    assert!(probes < 60, "{probes}");
    let first =
        asked.iter().find_map(|(ask, at)| matches!(ask, Request::Document(61_234)).then_some(*at)).unwrap();
    assert!(first - AT_MS < 90_000, "a minute of 404s and the search: {}", first - AT_MS);
    assert_eq!(pace.place().holes.list()[0].numbers, 60_234);
    assert_eq!(pace.place().next, Some(62_000));
}

#[test]
fn ghosts_in_a_row_are_passed_over_at_once() {
    let mut pace = following(100);
    let mut now = AT_MS;
    run(&mut pace, &mut now, AT_MS + 600_000, |ask, at| files(200, 300, &[])(ask, at));
    assert_eq!(pace.place().next, Some(300), "what was looked at is missing, too: the rest by a search");
    assert_eq!(pace.place().holes.list().len(), 1);
}

#[test]
fn a_rewritten_file_is_fetched_again_before_the_next_number() {
    let mut pace = following(7);
    let mut now = 0;
    step(&mut pace, updated(3), &mut now);
    assert_eq!((pace.place().next, &pace.place().rewritten[..]), (Some(8), &[3][..]));
    assert_eq!(step(&mut pace, updated(1), &mut now), (Request::Rewritten(3), 100, None));
    assert_eq!(pace.ask(), (Request::Document(8), 200), "a rewritten file names nothing further");
}

#[test]
fn a_file_that_names_itself_or_the_future_starts_no_loop() {
    let mut pace = following(7);
    let mut now = 0;
    step(&mut pace, updated(7), &mut now);
    step(&mut pace, updated(90), &mut now);
    assert_eq!(pace.ask().0, Request::Document(9));
}

#[test]
fn a_rewritten_file_that_stays_missing_is_tried_again_later() {
    let mut pace =
        FollowerState::new(Waits::default(), Place { next: Some(8), rewritten: vec![3], ..Place::default() });
    let mut now = AT_MS;
    assert_eq!(step(&mut pace, Reply::Missing, &mut now).2, None);
    assert_eq!(step(&mut pace, Reply::Missing, &mut now).1, AT_MS + 6_000);
    step(&mut pace, Reply::Missing, &mut now);
    assert_eq!(pace.ask().0, Request::Document(8));
    let (asked, _) = run(&mut pace, &mut now, AT_MS + 600_000, |ask, _| {
        if matches!(ask, Request::Retry(..)) { PLAIN } else { Reply::Missing }
    });
    assert_eq!(asked.iter().filter(|(ask, _)| *ask == Request::Retry(3, true)).count(), 1);
    assert_eq!(pace.place().holes.list(), []);
}

#[test]
fn a_placeholder_is_a_hole() {
    let mut pace = following(7);
    let mut now = 0;
    assert_eq!(step(&mut pace, Reply::Hole, &mut now).2, Some(Notice::Missing(7, 7)));
    assert_eq!(pace.ask(), (Request::Document(8), 100));
}

#[test]
fn retry_after_is_always_honoured() {
    let mut pace = following(7);
    let mut now = 0;
    step(&mut pace, Reply::Limited { retry_after_ms: Some(2_000) }, &mut now);
    assert_eq!(pace.ask(), (Request::Document(7), 2_000));
    step(&mut pace, Reply::Forbidden { retry_after_ms: Some(3_600_000) }, &mut now);
    assert_eq!(pace.ask().1 - now, 3_600_000);
    step(&mut pace, Reply::Failed { retry_after_ms: Some(45_000) }, &mut now);
    assert_eq!(pace.ask().1 - now, 45_000);
    step(&mut pace, PLAIN, &mut now);
    step(&mut pace, Reply::Forbidden { retry_after_ms: Some(1_000) }, &mut now);
    assert_eq!(pace.ask().1 - now, 60_000, "minutes, whatever is said");
}

#[test]
fn a_429_without_a_word_waits_half_a_minute() {
    let mut pace = following(7);
    let mut now = 0;
    assert_eq!(
        step(&mut pace, Reply::Limited { retry_after_ms: None }, &mut now).2,
        Some(Notice::Waiting(30_000))
    );
    assert_eq!(pace.ask(), (Request::Document(7), 30_000));
}

#[test]
fn a_403_keeps_away_for_minutes() {
    let mut pace = following(7);
    let mut now = 0;
    let mut waits = vec![];
    for _ in 0..6 {
        step(&mut pace, FORBIDDEN, &mut now);
        waits.push((pace.ask().1 - now) / 60_000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 15, 15]);
}

#[test]
fn failures_wait_longer_each_time_up_to_a_minute() {
    let mut pace = following(7);
    let mut now = 0;
    let mut waits = vec![];
    for _ in 0..9 {
        step(&mut pace, FAILED, &mut now);
        waits.push((pace.ask().1 - now) / 1000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    step(&mut pace, PLAIN, &mut now);
    step(&mut pace, FAILED, &mut now);
    assert_eq!(pace.ask().1 - now, 1_000, "an answer resets the wait");
}

#[test]
fn a_failed_pointer_at_the_start_is_asked_again() {
    let mut pace = FollowerState::new(Waits::default(), Place::default());
    let mut now = 0;
    step(&mut pace, FAILED, &mut now);
    assert_eq!(pace.ask(), (Request::Pointer, 1_000));
    step(&mut pace, Reply::Missing, &mut now);
    assert_eq!(pace.ask(), (Request::Pointer, 7_000));
}

#[test]
fn a_skipped_number_is_tried_again_while_the_feed_rests() {
    let mut pace = following(7);
    let mut now = AT_MS;
    step(&mut pace, Reply::Hole, &mut now);
    step(&mut pace, PLAIN, &mut now);
    let mut tries = 0;
    let (asked, notes) = run(&mut pace, &mut now, AT_MS + 3_600_000, |ask, _| match ask {
        Request::Retry(7, false) => {
            tries += 1;
            if tries == 3 { PLAIN } else { Reply::Missing }
        }
        Request::Pointer => Reply::Pointer(9),
        _ => Reply::Missing,
    });
    let waits: Vec<u64> = asked
        .iter()
        .filter(|(ask, _)| matches!(ask, Request::Retry(..)))
        .map(|(_, at)| (at - AT_MS) / 1_000)
        .collect();
    assert_eq!(waits, [15, 75, 375], "seconds: after a quarter, one and five minutes");
    assert!(matches!(&notes[..], [Notice::Healed(holes)] if holes[0].first == 7), "{notes:?}");
    assert_eq!(pace.place().holes.list(), []);
    let live =
        asked.iter().filter(|(ask, _)| *ask == Request::Document(9)).map(|(_, at)| *at).collect::<Vec<_>>();
    assert!(live.windows(2).all(|pair| pair[1] - pair[0] >= 6_000), "the head is asked no more often for it");
}

#[test]
fn a_healed_file_may_tell_of_a_rewritten_one() {
    let mut pace = following(7);
    let mut now = AT_MS;
    step(&mut pace, Reply::Hole, &mut now);
    step(&mut pace, PLAIN, &mut now);
    let rewritten = |ask: Request| matches!(ask, Request::Rewritten(3));
    let (asked, _) = run(&mut pace, &mut now, AT_MS + 600_000, |ask, _| match ask {
        Request::Retry(7, false) => updated(3),
        ask if rewritten(ask) => PLAIN,
        Request::Pointer => Reply::Pointer(9),
        _ => Reply::Missing,
    });
    assert_eq!(asked.iter().filter(|(ask, _)| rewritten(*ask)).count(), 1);
}

#[test]
fn what_never_comes_is_looked_for_in_the_archive_of_its_day() {
    let mut pace = following(7);
    let mut now = AT_MS;
    step(&mut pace, PLAIN, &mut now);
    step(&mut pace, Reply::Hole, &mut now);
    step(&mut pace, PLAIN, &mut now);
    let mut filled = false;
    let (mut asked, mut notes) = (vec![], vec![]);
    while notes.is_empty() {
        let (ask, at_ms) = pace.ask();
        now = now.max(at_ms);
        let answer = match ask {
            Request::List(_) => Reply::Listed { wanted: !filled },
            Request::Bodies(day) => {
                pace.filled(day, AT + 5);
                filled = true;
                Reply::Filled
            }
            Request::Pointer => Reply::Pointer(10),
            _ => Reply::Missing,
        };
        asked.push((ask, now));
        notes.extend(pace.answered(ask, answer, now));
        assert!(now < AT_MS + 3 * 86_400_000, "it is never healed");
    }
    let archive: Vec<_> =
        asked.iter().filter(|(ask, _)| matches!(ask, Request::List(_) | Request::Bodies(_))).collect();
    assert_eq!(
        archive.iter().map(|(ask, _)| *ask).collect::<Vec<_>>(),
        [Request::List(20_000), Request::Bodies(20_000)]
    );
    assert!(archive[0].1 >= 20_001 * 86_400_000 + 23_400_000, "after half past six of the next day");
    let Notice::Healed(holes) = &notes[0] else { panic!("{notes:?}") };
    assert_eq!(holes[0].filled(), Some(Span::at(AT + 5)));
    assert_eq!(pace.place().holes.next(0, &Waits::default().healing).map(|(cure, _)| cure), None::<Cure>);
}

#[test]
fn a_hole_before_the_first_document_is_of_the_time_of_the_feed() {
    let list_days = |at: i64, now_ms: u64| {
        let mut now = now_ms;
        let mut pace = following(7);
        let feed = move |ask, _| match ask {
            Request::Pointer => Reply::Pointer(9),
            Request::Document(9) => Reply::Document { updated: None, at: Some(at) },
            Request::Document(8) | Request::Retry(8, _) => Reply::Hole,
            Request::List(_) => Reply::Listed { wanted: false },
            _ => Reply::Missing,
        };
        let until = now + 40 * 86_400_000;
        let (asked, _) = run(&mut pace, &mut now, until, feed);
        assert_eq!(pace.place().holes.list(), [], "all of it was read");
        let days: Vec<_> = asked
            .into_iter()
            .filter_map(|(ask, _)| if let Request::List(day) = ask { Some(day - 20_000) } else { None })
            .collect();
        (days, pace.begun())
    };
    // A feed of a month ago: its own days are read, not ours.
    assert_eq!(list_days(AT, AT_MS + 30 * 86_400_000), (vec![0], AT - 3600));
    // The first document is two days late: what came before it happened since we began.
    assert_eq!(list_days(AT, AT_MS - 2 * 86_400_000).0, [-2, -1, 0]);
}

#[test]
fn a_clock_of_1970_makes_nobody_read_fifty_years() {
    let (mut pace, mut now) = (following(7), 5_000);
    step(&mut pace, Reply::Hole, &mut now);
    step(&mut pace, PLAIN, &mut now);
    assert_eq!(pace.begun(), AT - 30 * DAY_SECS);
}

#[test]
fn a_broken_archive_is_listed_anew() {
    let place = Place { next: Some(9), begun: Some(AT), last: Some(AT), ..Place::default() };
    let mut pace = FollowerState::new(Waits::default(), place);
    let mut now = AT_MS;
    step(&mut pace, Reply::Hole, &mut now);
    step(&mut pace, PLAIN, &mut now);
    let mut broken = 0;
    run(&mut pace, &mut now, AT_MS + 2 * 86_400_000, |ask, _| match ask {
        Request::List(_) => Reply::Listed { wanted: true },
        Request::Bodies(_) if broken < 3 => {
            broken += 1;
            FAILED
        }
        Request::Bodies(_) => Reply::Filled,
        Request::Pointer => Reply::Pointer(11),
        _ => Reply::Missing,
    });
    assert_eq!((broken, pace.place().holes.list().len()), (3, 0));
}

#[test]
fn a_restart_in_the_middle_goes_on_with_all_that_was_open() {
    let mut pace = following(7);
    let mut now = AT_MS;
    step(&mut pace, PLAIN, &mut now);
    step(&mut pace, Reply::Hole, &mut now);
    step(&mut pace, updated(3), &mut now);
    let bytes = serde_json::to_vec(pace.place()).unwrap();
    let place: Place = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(&place, pace.place());
    let again = FollowerState::new(Waits::default(), place);
    assert_eq!(again.ask().0, Request::Rewritten(3));
    let old: Place = serde_json::from_str(r#"{"next":9,"rewritten":[4]}"#).unwrap();
    assert_eq!(
        (old.next, &old.rewritten[..], old.holes.list().len()),
        (Some(9), &[4][..], 0),
        "an older checkpoint is read"
    );
}

/// Lets `sequence.json` say something else.
trait MapPointer: FnMut(Request, u64) -> Reply + Sized {
    fn map_pointer(mut self, pointer: u64) -> impl FnMut(Request, u64) -> Reply {
        move |ask, at| if ask == Request::Pointer { Reply::Pointer(pointer) } else { self(ask, at) }
    }
}

impl<F: FnMut(Request, u64) -> Reply> MapPointer for F {}
