//! Reports the follower to operators: log lines, counters, and what the source is doing.
//!
//! Must not know: what is requested next.

use std::sync::atomic::Ordering;

use crate::ingest::backoff::opens_breaker;
use crate::ingest::r2z2::day_archive::day_name;
use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::missing_numbers::MissingRange;
use crate::telemetry::source_status::{Doing, SourceStatus};
use crate::telemetry::usual_rate;

/// Reports a reply to the source of this name at `now_ms` (unix milliseconds), and what followed from it.
pub fn report_reply(
    status: &SourceStatus,
    name: &str,
    request: Request,
    reply: Reply,
    notice: Option<&Notice>,
    now_ms: i64,
) {
    match notice {
        Some(Notice::Waiting(wait_ms)) => {
            return report_wait(status, name, request, reply, *wait_ms, now_ms);
        }
        Some(Notice::Unproven) => {
            // A page in place of another number is still a failed request.
            status.errors.fetch_add(u64::from(matches!(reply, Reply::Misfit { .. })), Ordering::Relaxed);
            return;
        }
        Some(Notice::Missing { first, last }) => report_missing(status, name, *first, *last),
        Some(Notice::Gone { first, last }) => report_gone(status, name, *first, *last),
        Some(Notice::RolledBack { from, to }) => {
            tracing::warn!(
                "{name} has been set back: number {from} did not arrive and sequence.json is at {to}; continuing \
                 from there"
            );
        }
        Some(Notice::Recovered(ranges)) => {
            ranges.iter().for_each(|range| report_recovered(status, name, range));
        }
        None => {}
    }
    if let Request::Document(number) | Request::Ahead(number) = request
        && reply != Reply::NotFound
    {
        status.sequence.store(number, Ordering::Relaxed);
    }
    status.consecutive_errors.store(0, Ordering::Relaxed);
    status.last_success_ms.store(now_ms, Ordering::Relaxed);
    status.note(Doing::Following, now_ms);
}

fn report_missing(status: &SourceStatus, name: &str, first: u64, last: u64) {
    status.missing.fetch_add(last - first + 1, Ordering::Relaxed);
    for number in first..=last {
        tracing::warn!(
            "{name} number {number} is missing; it is retried, then looked for in the archive of its day"
        );
    }
}

fn report_gone(status: &SourceStatus, name: &str, first: u64, last: u64) {
    status.missing.fetch_add(last - first + 1, Ordering::Relaxed);
    tracing::warn!(
        "{name} numbers {first} to {last} are no longer there; they are looked for in the archives"
    );
}

fn report_recovered(status: &SourceStatus, name: &str, range: &MissingRange) {
    status.recovered.fetch_add(range.numbers, Ordering::Relaxed);
    let MissingRange { first, last, .. } = range;
    match range.recovered() {
        Some(span) => tracing::info!(
            "the missing {name} numbers {first} to {last} are closed: archives had {} killmails",
            span.killmails
        ),
        None => tracing::info!("the missing {name} numbers {first} to {last} are closed"),
    }
}

fn report_wait(status: &SourceStatus, name: &str, request: Request, reply: Reply, wait_ms: u64, now_ms: i64) {
    status.errors.fetch_add(1, Ordering::Relaxed);
    let failures = status.consecutive_errors.fetch_add(1, Ordering::Relaxed) + 1;
    let is_forbidden = matches!(reply, Reply::Forbidden { .. });
    let what = match reply {
        Reply::Limited { .. } => "responded: too many requests (429)",
        Reply::Forbidden { .. } => "refuses us (403)",
        Reply::Misfit { other_number: true } => "responded with a document that carries another number",
        Reply::Misfit { other_number: false } => {
            "responded 200 with something other than a document of the feed"
        }
        _ => "does not respond",
    };
    let why = format!("{name} {what}");
    let requested = describe(request);
    if usual_rate::is_downtime(now_ms.div_euclid(1000)) && !is_forbidden {
        // Expected while the game is down, so neither a warning nor an open breaker.
        tracing::info!(
            "{why} (request for {requested}), in the daily downtime; next request in {wait_ms} ms"
        );
        return status.note(Doing::BackingOff(format!("{why}, in the daily downtime")), now_ms);
    }
    tracing::warn!("{why} (request for {requested}); next request in {wait_ms} ms");
    let doing =
        if opens_breaker(is_forbidden, failures) { Doing::BreakerOpen(why) } else { Doing::BackingOff(why) };
    status.note(doing, now_ms);
}

fn describe(request: Request) -> String {
    match request {
        Request::Pointer => "sequence.json".to_owned(),
        Request::Document(number)
        | Request::Rewritten(number)
        | Request::Ahead(number)
        | Request::Probe(number)
        | Request::Retry { number, .. } => format!("number {number}"),
        Request::ArchiveList(day) | Request::ArchiveBodies(day) => {
            format!("the archive of {}", day_name(day))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Reply = Reply::Failed { retry_after_ms: None };
    const DAY_MS: i64 = 86_400_000;
    const ELEVEN_MS: i64 = 20_000 * DAY_MS + 11 * 3_600_000;

    fn after(failures: u32, reply: Reply, at_ms: i64) -> &'static str {
        let status = SourceStatus::default();
        for _ in 0..failures {
            report_reply(&status, "r2z2", Request::Document(7), reply, Some(&Notice::Waiting(1_000)), at_ms);
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
    fn pages_count_as_failures_and_an_unproven_reply_does_not_end_them() {
        let page = Reply::Misfit { other_number: false };
        assert_eq!(
            (after(1, page, 0), after(9, page, 0), after(10, page, 0)),
            ("backing_off", "backing_off", "breaker_open")
        );
        let status = SourceStatus::default();
        for _ in 0..10 {
            report_reply(&status, "r2z2", Request::Document(7), page, Some(&Notice::Waiting(1_000)), 5);
            report_reply(&status, "r2z2", Request::Ahead(8), Reply::NotFound, Some(&Notice::Unproven), 5);
        }
        assert_eq!((status.doing().0.word(), status.errors.load(Ordering::Relaxed)), ("breaker_open", 10));
        report_reply(
            &status,
            "r2z2",
            Request::Ahead(8),
            Reply::Document { updated: None, at: None },
            Some(&Notice::Missing { first: 7, last: 7 }),
            6,
        );
        assert_eq!(status.doing(), (Doing::Following, 6));
        report_reply(&status, "r2z2", Request::Pointer, page, Some(&Notice::Waiting(1_000)), 7);
        assert_eq!(
            status.doing().0.reason(),
            Some("r2z2 responded 200 with something other than a document of the feed")
        );
    }

    #[test]
    fn a_403_opens_the_breaker_at_once_even_in_the_daily_downtime() {
        let forbidden = Reply::Forbidden { retry_after_ms: None };
        assert_eq!(
            (after(1, forbidden, 0), after(1, forbidden, ELEVEN_MS)),
            ("breaker_open", "breaker_open")
        );
    }

    #[test]
    fn missing_numbers_are_counted_and_a_reply_closes_the_breaker() {
        let status = SourceStatus::default();
        report_reply(
            &status,
            "r2z2",
            Request::Document(7),
            Reply::Forbidden { retry_after_ms: None },
            Some(&Notice::Waiting(1)),
            5,
        );
        report_reply(
            &status,
            "r2z2",
            Request::Pointer,
            Reply::Pointer(20),
            Some(&Notice::Missing { first: 7, last: 11 }),
            9,
        );
        assert_eq!((status.doing(), status.missing.load(Ordering::Relaxed)), ((Doing::Following, 9), 5));
    }
}
