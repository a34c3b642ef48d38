//! The rate limiter for ESI. It obeys both of ESI's schemes. A pure state machine: responses and times in,
//! permissions out.
//!
//! Token buckets over a sliding window (CCP's rate-limiting.md, January 2026; `docs/sources.md`): a 2xx costs
//! 2 tokens, 3xx 1, 4xx 5, 5xx none, and without tokens the response is a 429. Routes that have not been
//! moved to buckets count errors (100 a minute) and then respond 420 on every route. Headers show which
//! scheme applies; a reserve of both is never used.
//!
//! Must not know: clocks, sockets; what is requested.

use std::collections::VecDeque;

use crate::ingest::backoff::{FAILED_MAX_TIMES, doubled_ms};

/// The most a response can cost, tokens. This many must be free before a request is sent.
const COST_MAX: u64 = 5;
/// With this many errors left in the current minute no more requests are sent.
const ERRORS_RESERVE: u64 = 20;
/// How long no requests are sent after a 420 or 429 without a time.
const CLOSED_MS: u64 = 60_000;
const FAILED_FIRST_MS: u64 = 1_000;

/// The token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens in one window.
    pub tokens: u64,
    pub window_ms: u64,
    /// Share of the tokens never spent, percent.
    pub spare_percent: u64,
}

/// The size of the bucket as ESI states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketSize {
    pub tokens: u64,
    pub window_ms: u64,
}

/// What a response says about limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub status: u16,
    pub bucket: Option<BucketSize>,
    pub remaining: Option<u64>,
    pub retry_after_ms: Option<u64>,
    /// Errors left in the current minute.
    pub errors_remain: Option<u64>,
    /// How long until that minute ends.
    pub errors_reset_ms: Option<u64>,
}

#[derive(Debug)]
struct Spent {
    at_ms: u64,
    tokens: u64,
}

/// The limiter. All times are milliseconds of the same clock.
#[derive(Debug)]
pub struct Limiter {
    bucket: Bucket,
    /// What was spent within the window, oldest first.
    spent: VecDeque<Spent>,
    /// The sum of it.
    used: u64,
    /// Requests without a response so far.
    outstanding: u64,
    closed_until_ms: u64,
    failures: u32,
}

/// What a response with this status costs, tokens.
#[must_use]
pub const fn cost(status: u16) -> u64 {
    match status {
        200..300 => 2,
        300..400 => 1,
        429 | 500.. => 0,
        _ => COST_MAX,
    }
}

impl Limiter {
    #[must_use]
    pub const fn new(bucket: Bucket) -> Self {
        Self { bucket, spent: VecDeque::new(), used: 0, outstanding: 0, closed_until_ms: 0, failures: 0 }
    }

    /// Asks for permission to send one request. After it, [`Limiter::note_response`] or
    /// [`Limiter::note_no_response`] must be called.
    ///
    /// # Errors
    /// The time at which to ask again.
    pub fn reserve(&mut self, now_ms: u64) -> Result<(), u64> {
        if now_ms < self.closed_until_ms {
            return Err(self.closed_until_ms);
        }
        self.forget(now_ms);
        if self.free() < COST_MAX {
            // If nothing is spent, other requests hold the tokens, and their responses will arrive soon.
            return Err(self
                .spent
                .front()
                .map_or(now_ms + FAILED_FIRST_MS, |spent| spent.at_ms + self.bucket.window_ms)
                .max(now_ms + 1));
        }
        self.outstanding += 1;
        Ok(())
    }

    /// Takes the response to a request.
    pub fn note_response(&mut self, limits: &Limits, now_ms: u64) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some(size) = limits.bucket.filter(|size| size.tokens >= 2 * COST_MAX && size.window_ms > 0) {
            (self.bucket.tokens, self.bucket.window_ms) = (size.tokens, size.window_ms);
        }
        self.spend(cost(limits.status), now_ms);
        if let Some(remaining) = limits.remaining {
            // Other clients behind the same address also spend tokens.
            let expected = self.bucket.tokens.saturating_sub(self.used);
            self.spend(expected.saturating_sub(remaining), now_ms);
        }
        let closed_ms = match limits.status {
            420 => Some(limits.errors_reset_ms.or(limits.retry_after_ms).unwrap_or(CLOSED_MS)),
            429 => Some(limits.retry_after_ms.unwrap_or(CLOSED_MS)),
            500.. => Some(limits.retry_after_ms.unwrap_or_else(|| self.next_failure_wait_ms())),
            _ => limits
                .errors_remain
                .filter(|remain| *remain <= ERRORS_RESERVE)
                .map(|_| limits.errors_reset_ms.unwrap_or(CLOSED_MS)),
        };
        if limits.status < 500 {
            self.failures = 0;
        }
        self.close(closed_ms.unwrap_or(0), now_ms);
    }

    /// Notes that there was no response.
    pub fn note_no_response(&mut self, now_ms: u64) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.spend(1, now_ms);
        let wait_ms = self.next_failure_wait_ms();
        self.close(wait_ms, now_ms);
    }

    /// Tokens that may be spent now, minus those that outstanding requests may cost.
    #[must_use]
    pub const fn free(&self) -> u64 {
        let usable = self.bucket.tokens.saturating_sub(self.bucket.tokens * self.bucket.spare_percent / 100);
        usable.saturating_sub(self.used + self.outstanding * COST_MAX)
    }

    fn next_failure_wait_ms(&mut self) -> u64 {
        let wait_ms = doubled_ms(FAILED_FIRST_MS, self.failures, FAILED_MAX_TIMES);
        self.failures = self.failures.saturating_add(1);
        wait_ms
    }

    fn close(&mut self, wait_ms: u64, now_ms: u64) {
        self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(wait_ms));
    }

    fn spend(&mut self, tokens: u64, now_ms: u64) {
        if tokens > 0 {
            self.used += tokens;
            self.spent.push_back(Spent { at_ms: now_ms, tokens });
        }
    }

    fn forget(&mut self, now_ms: u64) {
        while let Some(spent) = self.spent.pop_front_if(|spent| spent.at_ms + self.bucket.window_ms <= now_ms)
        {
            self.used -= spent.tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: Bucket = Bucket { tokens: 100, window_ms: 60_000, spare_percent: 10 };

    fn status(status: u16) -> Limits {
        Limits { status, ..Limits::default() }
    }

    #[test]
    fn case_80_responses_cost_what_esi_documents() {
        for (code, tokens) in [
            (200, 2),
            (204, 2),
            (302, 1),
            (304, 1),
            (404, 5),
            (422, 5),
            (420, 5),
            (429, 0),
            (500, 0),
            (503, 0),
        ] {
            assert_eq!(cost(code), tokens, "{code}");
            let mut limiter = Limiter::new(BUCKET);
            limiter.reserve(0).unwrap();
            assert_eq!(limiter.free(), 85, "an outstanding request may cost the most");
            limiter.note_response(&status(code), 0);
            assert_eq!(limiter.free(), 90 - tokens, "{code}");
        }
    }

    #[test]
    fn case_80_below_five_free_tokens_no_request_is_sent_until_the_window_has_passed() {
        let mut limiter = Limiter::new(BUCKET);
        for at in 0..43 {
            limiter.reserve(at * 10).unwrap();
            limiter.note_response(&status(200), at * 10);
        }
        assert_eq!(limiter.free(), 4);
        assert_eq!(limiter.reserve(500), Err(60_000));
        assert_eq!(limiter.reserve(60_000), Ok(()), "the first two tokens are free again");
        assert_eq!(limiter.reserve(60_000), Err(60_010), "the outstanding one counts");
    }

    #[test]
    fn the_remaining_tokens_of_the_server_take_precedence() {
        let mut limiter = Limiter::new(BUCKET);
        limiter.reserve(0).unwrap();
        limiter.note_response(
            &Limits {
                bucket: Some(BucketSize { tokens: 50, window_ms: 900_000 }),
                remaining: Some(7),
                ..status(200)
            },
            1_000,
        );
        assert_eq!(limiter.reserve(2_000), Err(901_000), "5 of the 7 are the reserve");
    }

    #[test]
    fn a_429_is_waited_out() {
        for (retry_after_ms, until) in [(Some(7_000), 8_000), (None, 61_000)] {
            let mut limiter = Limiter::new(BUCKET);
            limiter.reserve(0).unwrap();
            limiter.note_response(&Limits { retry_after_ms, ..status(429) }, 1_000);
            assert_eq!(limiter.reserve(2_000), Err(until));
            assert_eq!(limiter.reserve(until), Ok(()));
        }
    }

    #[test]
    fn after_a_420_no_request_is_sent_until_the_reset() {
        let mut limiter = Limiter::new(BUCKET);
        limiter.reserve(0).unwrap();
        limiter.note_response(
            &Limits { errors_remain: Some(0), errors_reset_ms: Some(35_000), ..status(420) },
            1_000,
        );
        assert_eq!(limiter.reserve(35_999), Err(36_000));
    }

    #[test]
    fn with_few_errors_left_no_request_is_sent_either() {
        let mut limiter = Limiter::new(BUCKET);
        for (remain, reserved) in [(98, Ok(())), (21, Ok(())), (20, Err(30_000))] {
            limiter.note_response(
                &Limits { errors_remain: Some(remain), errors_reset_ms: Some(30_000), ..status(422) },
                0,
            );
            assert_eq!(limiter.reserve(0), reserved, "{remain}");
        }
    }

    #[test]
    fn waits_after_failures_double_until_a_response() {
        let mut limiter = Limiter::new(BUCKET);
        let mut now = 0;
        for wait_ms in [1_000, 2_000, 4_000, 8_000] {
            limiter.reserve(now).unwrap();
            limiter.note_response(&status(502), now);
            assert_eq!(limiter.reserve(now), Err(now + wait_ms));
            now += wait_ms;
        }
        limiter.reserve(now).unwrap();
        limiter.note_response(&status(200), now);
        limiter.reserve(now).unwrap();
        limiter.note_no_response(now);
        assert_eq!(limiter.reserve(now), Err(now + 1_000));
    }
}
