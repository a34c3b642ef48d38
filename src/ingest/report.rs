//! What an operator hears of the follower: log lines, counters, and what the source is doing.
//!
//! Must not know: what is asked next.

use std::sync::atomic::Ordering;

use crate::feed::pulse::{Doing, Pulse};
use crate::feed::rhythm;
use crate::ingest::clock;
use crate::ingest::holes::Hole;
use crate::ingest::pace::{Answer, Ask, Note};
use crate::ingest::reading::day_name;

/// Failures in a row after which the feed counts as unreachable.
const BREAKER_FAILURES: u64 = 10;

/// Notes an answer and what came of it.
pub fn tell(pulse: &Pulse, ask: Ask, answer: Answer, note: Option<&Note>) {
    if let Some(Note::Waiting(wait_ms)) = note {
        return tell_wait(pulse, ask, answer, *wait_ms);
    }
    match note {
        Some(Note::Skipped(first, last)) => tell_skipped(pulse, *first, *last),
        Some(Note::RolledBack(from, to)) => {
            tracing::warn!("R2Z2 has been set back: number {from} did not come, sequence.json says {to}; going on from there");
        }
        Some(Note::Healed(holes)) => holes.iter().for_each(|hole| tell_healed(pulse, hole)),
        Some(Note::Waiting(_)) | None => {}
    }
    if answer == Answer::Misfit {
        tracing::warn!("R2Z2 {} carries another number or is no killmail", what(ask));
    }
    if let Ask::Document(number) = ask
        && answer != Answer::Missing
    {
        pulse.sequence.store(number, Ordering::Relaxed);
    }
    let now_ms = clock::now_ms();
    pulse.consecutive_errors.store(0, Ordering::Relaxed);
    pulse.last_success_ms.store(now_ms, Ordering::Relaxed);
    pulse.note(Doing::Following, now_ms);
}

fn tell_skipped(pulse: &Pulse, first: u64, last: u64) {
    pulse.gaps.fetch_add(last - first + 1, Ordering::Relaxed);
    if first == last {
        tracing::warn!("R2Z2 number {first} never came and was passed over; it is tried again, then looked for in the archive of its day");
    } else {
        tracing::warn!("R2Z2 numbers {first} to {last} are no longer there and were passed over; they are looked for in the archives");
    }
}

fn tell_healed(pulse: &Pulse, hole: &Hole) {
    pulse.healed.fetch_add(hole.numbers, Ordering::Relaxed);
    let Hole { first, last, .. } = hole;
    match hole.filled() {
        Some(span) => {
            tracing::info!("the gap at R2Z2 numbers {first} to {last} is closed: {} killmails came from archives", span.killmails)
        }
        None => tracing::info!("the gap at R2Z2 numbers {first} to {last} is closed"),
    }
}

fn tell_wait(pulse: &Pulse, ask: Ask, answer: Answer, wait_ms: u64) {
    let now_ms = clock::now_ms();
    pulse.errors.fetch_add(1, Ordering::Relaxed);
    let failures = pulse.consecutive_errors.fetch_add(1, Ordering::Relaxed) + 1;
    let forbidden = matches!(answer, Answer::Forbidden { .. });
    let why = match answer {
        Answer::Limited { .. } => "R2Z2 says too many requests (429)",
        Answer::Forbidden { .. } => "R2Z2 refuses us (403)",
        _ => "R2Z2 does not answer",
    };
    let what = what(ask);
    if rhythm::is_downtime(now_ms.div_euclid(1000)) && !forbidden {
        // The game's daily downtime: nothing is wrong here.
        tracing::info!("{why} at {what}, in the daily downtime; the next request follows in {wait_ms} ms");
        return pulse.note(Doing::BackingOff(format!("{why}, in the daily downtime")), now_ms);
    }
    tracing::warn!("{why} at {what}; the next request follows in {wait_ms} ms");
    let open = forbidden || failures >= BREAKER_FAILURES;
    let why = why.to_owned();
    pulse.note(if open { Doing::BreakerOpen(why) } else { Doing::BackingOff(why) }, now_ms);
}

fn what(ask: Ask) -> String {
    match ask {
        Ask::Pointer => "sequence.json".to_owned(),
        Ask::Document(number) | Ask::Rewritten(number) | Ask::Probe(number) | Ask::Retry(number, _) => format!("number {number}"),
        Ask::List(day) | Ask::Bodies(day) => format!("the archive of {}", day_name(day)),
    }
}
