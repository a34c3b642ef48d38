//! What follows from the answer to a delivery: when it is repeated, and when an endpoint is given up.
//!
//! A pure function of settings, the failures so far, the answer and the time. A failed delivery keeps its place: it is
//! repeated after 1 minute, 5 minutes, 15 minutes, 1 hour, then every hour, until it succeeds or the endpoint is
//! disabled.
//!
//! Must not know: what is delivered, where state is kept, the clock.

use serde::{Deserialize, Serialize};

use crate::webhook::config::Config;
use crate::webhook::target::sender::Answer;
use crate::wire::time::parse_retry_after;

/// The endpoint wants nothing any more.
const GONE: u16 = 410;
const TOO_MANY_REQUESTS: u16 = 429;
/// No attempt follows another sooner, whatever the endpoint asks for, milliseconds.
const WAIT_MIN_MS: u64 = 1_000;
const HOUR_SECS: u32 = 3_600;
const DAY_SECS: u32 = 86_400;

/// Failures in a row, kept with the subscription. The default is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// When the first of them was, unix milliseconds.
    pub since_ms: i64,
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The delivery succeeded; there are no failures in a row any more.
    Delivered,
    /// The same delivery is attempted again.
    Retry {
        /// The failures including this one.
        failures: Failures,
        /// When, unix milliseconds.
        at_ms: i64,
    },
    /// No further attempts; the place stays.
    Disable {
        /// The failures including this one.
        failures: Failures,
        /// Why, for people.
        reason: String,
    },
}

impl Config {
    /// What follows from the answer that arrived at `now_ms`, after these failures in a row. `jitter` returns a random
    /// number, at least 0 and below 1; it is called only for a retry.
    #[must_use]
    pub fn next_attempt(
        &self,
        failures: Failures,
        answer: &Answer,
        now_ms: i64,
        jitter: impl FnOnce() -> f64,
    ) -> Next {
        if matches!(answer, Answer::Status { status: 200..=299, .. }) {
            return Next::Delivered;
        }
        let since_ms = if failures.count == 0 { now_ms } else { failures.since_ms };
        let failures = Failures { count: failures.count.saturating_add(1), since_ms };
        if matches!(answer, Answer::Status { status: GONE, .. }) {
            return Next::Disable { failures, reason: "the endpoint answered 410 (gone)".to_owned() };
        }
        if now_ms.saturating_sub(since_ms) >= i64::from(self.disable_after_secs) * 1_000 {
            return Next::Disable { failures, reason: self.gave_up(answer) };
        }
        let wait_ms = self.wait_ms(failures, answer, now_ms);
        let prolonged = wait_ms as f64 * f64::from(self.retry_jitter_percent) / 100.0 * jitter();
        let wait_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX).saturating_add(prolonged as i64);
        Next::Retry { failures, at_ms: now_ms.saturating_add(wait_ms) }
    }

    /// Whether a subscription with these failures is shown as `failing`.
    #[must_use]
    pub const fn is_failing(&self, failures: Failures) -> bool {
        failures.count >= self.failing_after
    }

    /// The wait the endpoint asked for, else that of the schedule. An endpoint that is failing cannot ask for less than the
    /// first wait of the schedule: it would be called every second for days.
    fn wait_ms(&self, failures: Failures, answer: &Answer, now_ms: i64) -> u64 {
        let scheduled = self.scheduled_ms(failures.count);
        let Some(requested) = requested_ms(answer, now_ms) else { return scheduled };
        let least = if self.is_failing(failures) { self.scheduled_ms(1) } else { WAIT_MIN_MS };
        requested.min(u64::from(self.retry_after_max_secs) * 1_000).max(least)
    }

    fn scheduled_ms(&self, failures: u32) -> u64 {
        let at = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let secs = self.retry_secs.get(at).or(self.retry_secs.last()).copied().unwrap_or(HOUR_SECS);
        (u64::from(secs) * 1_000).max(WAIT_MIN_MS)
    }

    fn gave_up(&self, answer: &Answer) -> String {
        let last = match answer {
            Answer::Status { status, .. } => format!("status {status}"),
            Answer::Failed { error } => error.clone(),
        };
        let days = f64::from(self.disable_after_secs) / f64::from(DAY_SECS);
        format!("every attempt failed for {days} days; the last one: {last}")
    }
}

/// The wait the endpoint asked for, milliseconds. Discord says it more precisely in the body of a 429, in seconds with a
/// fraction (<https://docs.discord.com/developers/topics/rate-limits>).
fn requested_ms(answer: &Answer, now_ms: i64) -> Option<u64> {
    #[derive(Deserialize)]
    struct RateLimited {
        retry_after: f64,
    }
    let Answer::Status { status, retry_after, body } = answer else { return None };
    let in_body =
        if *status == TOO_MANY_REQUESTS { serde_json::from_slice::<RateLimited>(body).ok() } else { None };
    match in_body {
        // The conversion takes what is too large for the largest number.
        Some(limited) if limited.retry_after >= 0.0 => Some((limited.retry_after * 1_000.0).ceil() as u64),
        _ => parse_retry_after(retry_after.as_deref()?, now_ms),
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
