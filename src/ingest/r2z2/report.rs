//! What an operator hears of the follower: log lines, counters, and what the source is doing.
//!
//! Must not know: what is asked next.

use std::sync::atomic::Ordering;

use crate::ingest::backoff::BREAKER_FAILURES;
use crate::ingest::r2z2::day_archive::day_name;
use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::missing_numbers::MissingNumber;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::telemetry::usual_rate;

/// Notes an answer to the source of this name at this time (unix milliseconds), and what came of it.
pub fn tell(
    status: &SourceStatus,
    name: &str,
    ask: Request,
    answer: Reply,
    note: Option<&Notice>,
    now_ms: i64,
) {
    match note {
        Some(Notice::Waiting(wait_ms)) => return tell_wait(status, name, ask, answer, *wait_ms, now_ms),
        Some(Notice::Unproven) => {
            // A page for another number is a failed request all the same.
            status.errors.fetch_add(u64::from(matches!(answer, Reply::Misfit { .. })), Ordering::Relaxed);
            return;
        }
        Some(Notice::Missing(first, last)) => tell_missing(status, name, *first, *last),
        Some(Notice::Skipped(first, last)) => tell_skipped(status, name, *first, *last),
        Some(Notice::RolledBack(from, to)) => {
            tracing::warn!(
                "{name} has been set back: number {from} did not come, sequence.json says {to}; going on from there"
            );
        }
        Some(Notice::Healed(holes)) => holes.iter().for_each(|hole| tell_healed(status, name, hole)),
        None => {}
    }
    if let Request::Document(number) | Request::Ahead(number) = ask
        && answer != Reply::Missing
    {
        status.sequence.store(number, Ordering::Relaxed);
    }
    status.consecutive_errors.store(0, Ordering::Relaxed);
    status.last_success_ms.store(now_ms, Ordering::Relaxed);
    status.note(Doing::Following, now_ms);
}

fn tell_missing(status: &SourceStatus, name: &str, first: u64, last: u64) {
    status.gaps.fetch_add(last - first + 1, Ordering::Relaxed);
    for number in first..=last {
        tracing::warn!(
            "{name} number {number} is missing and was passed over; it is tried again, then looked for in the archive of its day"
        );
    }
}

fn tell_skipped(status: &SourceStatus, name: &str, first: u64, last: u64) {
    status.gaps.fetch_add(last - first + 1, Ordering::Relaxed);
    tracing::warn!(
        "{name} numbers {first} to {last} are no longer there and were passed over; they are looked for in the archives"
    );
}

fn tell_healed(status: &SourceStatus, name: &str, hole: &MissingNumber) {
    status.healed.fetch_add(hole.numbers, Ordering::Relaxed);
    let MissingNumber { first, last, .. } = hole;
    match hole.filled() {
        Some(span) => {
            tracing::info!(
                "the gap at {name} numbers {first} to {last} is closed: {} killmails came from archives",
                span.killmails
            )
        }
        None => tracing::info!("the gap at {name} numbers {first} to {last} is closed"),
    }
}

fn tell_wait(status: &SourceStatus, name: &str, ask: Request, answer: Reply, wait_ms: u64, now_ms: i64) {
    status.errors.fetch_add(1, Ordering::Relaxed);
    let failures = status.consecutive_errors.fetch_add(1, Ordering::Relaxed) + 1;
    let forbidden = matches!(answer, Reply::Forbidden { .. });
    let why = match answer {
        Reply::Limited { .. } => "says too many requests (429)",
        Reply::Forbidden { .. } => "refuses us (403)",
        Reply::Misfit { other_number: true } => "answers with a document that carries another number",
        Reply::Misfit { other_number: false } => "answers 200 with what is not a document of the feed",
        _ => "does not answer",
    };
    let why = format!("{name} {why}");
    let what = what(ask);
    if usual_rate::is_downtime(now_ms.div_euclid(1000)) && !forbidden {
        // The game's daily downtime: nothing is wrong here.
        tracing::info!("{why} at {what}, in the daily downtime; the next request follows in {wait_ms} ms");
        return status.note(Doing::BackingOff(format!("{why}, in the daily downtime")), now_ms);
    }
    tracing::warn!("{why} at {what}; the next request follows in {wait_ms} ms");
    let open = forbidden || failures >= u64::from(BREAKER_FAILURES);
    status.note(if open { Doing::BreakerOpen(why) } else { Doing::BackingOff(why) }, now_ms);
}

fn what(ask: Request) -> String {
    match ask {
        Request::Pointer => "sequence.json".to_owned(),
        Request::Document(number)
        | Request::Rewritten(number)
        | Request::Ahead(number)
        | Request::Probe(number)
        | Request::Retry(number, _) => {
            format!("number {number}")
        }
        Request::List(day) | Request::Bodies(day) => format!("the archive of {}", day_name(day)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Reply = Reply::Failed { retry_after_ms: None };
    const DAY_MS: i64 = 86_400_000;
    const ELEVEN_MS: i64 = 20_000 * DAY_MS + 11 * 3_600_000;

    fn after(failures: u32, answer: Reply, at_ms: i64) -> &'static str {
        let status = SourceStatus::default();
        for _ in 0..failures {
            tell(&status, "r2z2", Request::Document(7), answer, Some(&Notice::Waiting(1_000)), at_ms);
        }
        status.doing().0.word()
    }

    #[test]
    fn ten_failures_open_the_breaker_but_not_in_the_daily_downtime() {
        assert_eq!((after(9, FAILED, 0), after(10, FAILED, 0)), ("backing_off", "breaker_open"));
        for minutes in [0, 7, 14] {
            assert_eq!(after(60, FAILED, ELEVEN_MS + minutes * 60_000), "backing_off");
        }
        assert_eq!(after(10, FAILED, ELEVEN_MS + 15 * 60_000), "breaker_open");
    }

    #[test]
    fn pages_turn_health_as_failures_do_and_what_proves_nothing_does_not_turn_it_back() {
        let page = Reply::Misfit { other_number: false };
        assert_eq!(
            (after(1, page, 0), after(9, page, 0), after(10, page, 0)),
            ("backing_off", "backing_off", "breaker_open")
        );
        let status = SourceStatus::default();
        for _ in 0..10 {
            tell(&status, "r2z2", Request::Document(7), page, Some(&Notice::Waiting(1_000)), 5);
            tell(&status, "r2z2", Request::Ahead(8), Reply::Missing, Some(&Notice::Unproven), 5);
        }
        assert_eq!((status.doing().0.word(), status.errors.load(Ordering::Relaxed)), ("breaker_open", 10));
        tell(
            &status,
            "r2z2",
            Request::Ahead(8),
            Reply::Document { updated: None, at: None },
            Some(&Notice::Missing(7, 7)),
            6,
        );
        assert_eq!(status.doing(), (Doing::Following, 6));
        tell(&status, "r2z2", Request::Pointer, page, Some(&Notice::Waiting(1_000)), 7);
        assert_eq!(
            status.doing().0.reason(),
            Some("r2z2 answers 200 with what is not a document of the feed")
        );
    }

    #[test]
    fn a_403_opens_the_breaker_at_once_and_at_any_time() {
        let forbidden = Reply::Forbidden { retry_after_ms: None };
        assert_eq!(
            (after(1, forbidden, 0), after(1, forbidden, ELEVEN_MS)),
            ("breaker_open", "breaker_open")
        );
    }

    #[test]
    fn gaps_are_counted_and_an_answer_closes_the_breaker() {
        let status = SourceStatus::default();
        tell(
            &status,
            "r2z2",
            Request::Document(7),
            Reply::Forbidden { retry_after_ms: None },
            Some(&Notice::Waiting(1)),
            5,
        );
        tell(&status, "r2z2", Request::Pointer, Reply::Pointer(20), Some(&Notice::Missing(7, 11)), 9);
        assert_eq!((status.doing(), status.gaps.load(Ordering::Relaxed)), ((Doing::Following, 9), 5));
    }
}
