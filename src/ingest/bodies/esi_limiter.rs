//! How ESI may be asked: two regimes side by side, both obeyed. A pure state machine: answers and times in,
//! permission out.
//!
//! Token buckets over a floating window (CCP's rate-limiting.md, January 2026): 2xx costs 2, 3xx 1, 4xx 5,
//! 5xx nothing; over it comes a
//! 429. Routes that have not moved count errors (100 a minute), then answer 420 on every route. Headers tell
//!      which holds; both keep a spare.
//!
//! Must not know: clocks, sockets; what is asked for.

use std::collections::VecDeque;

/// What an answer may cost at most: so much must be free before a question is asked.
const MOST: u64 = 5;
/// Errors left in the minute of the legacy regime at which no more is asked.
const ERRORS_SPARE: u64 = 20;
/// A 420 or 429 that names no time.
const CLOSED_MS: u64 = 60_000;
const FAILED_FIRST_MS: u64 = 1_000;
const FAILED_MAX_MS: u64 = 60_000;

/// The bucket, until the server tells its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens in one window.
    pub tokens: u64,
    /// Its length, milliseconds.
    pub window_ms: u64,
    /// Share of the tokens never spent, percent.
    pub spare_percent: u64,
}

/// What an answer said about limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// Its status.
    pub status: u16,
    /// Tokens and window (milliseconds) of the bucket.
    pub limit: Option<(u64, u64)>,
    /// Tokens left.
    pub remaining: Option<u64>,
    /// The wait asked for, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// Errors left in the minute of the legacy regime.
    pub errors_remain: Option<u64>,
    /// When that minute ends, milliseconds from now.
    pub errors_reset_ms: Option<u64>,
}

/// The limiter. Times are milliseconds of one clock.
#[derive(Debug)]
pub struct Limiter {
    bucket: Bucket,
    spent: VecDeque<(u64, u64)>,
    used: u64,
    /// Questions asked and not yet answered.
    outstanding: u64,
    closed_until_ms: u64,
    failures: u32,
}

/// What an answer of this status costs, tokens.
#[must_use]
pub const fn cost(status: u16) -> u64 {
    match status {
        200..300 => 2,
        300..400 => 1,
        429 | 500.. => 0,
        _ => MOST,
    }
}

impl Limiter {
    /// Nothing is spent.
    #[must_use]
    pub const fn new(bucket: Bucket) -> Self {
        Self { bucket, spent: VecDeque::new(), used: 0, outstanding: 0, closed_until_ms: 0, failures: 0 }
    }

    /// Permission for one question, to be followed by [`Limiter::answered`] or [`Limiter::failed`].
    ///
    /// # Errors
    /// When to ask again.
    pub fn reserve(&mut self, now_ms: u64) -> Result<(), u64> {
        if now_ms < self.closed_until_ms {
            return Err(self.closed_until_ms);
        }
        self.forget(now_ms);
        if self.free() < MOST {
            // With nothing spent, others have questions out: theirs come back soon.
            return Err(self
                .spent
                .front()
                .map_or(now_ms + FAILED_FIRST_MS, |(at, _)| at + self.bucket.window_ms)
                .max(now_ms + 1));
        }
        self.outstanding += 1;
        Ok(())
    }

    /// Takes the answer to a question.
    pub fn answered(&mut self, said: &Said, now_ms: u64) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if let Some((tokens, window_ms)) =
            said.limit.filter(|(tokens, window_ms)| *tokens >= 2 * MOST && *window_ms > 0)
        {
            (self.bucket.tokens, self.bucket.window_ms) = (tokens, window_ms);
        }
        self.spend(cost(said.status), now_ms);
        if let Some(remaining) = said.remaining {
            // Others behind the same address spend as well.
            let here = self.bucket.tokens.saturating_sub(self.used);
            self.spend(here.saturating_sub(remaining), now_ms);
        }
        let closed_ms = match said.status {
            420 => Some(said.errors_reset_ms.or(said.retry_after_ms).unwrap_or(CLOSED_MS)),
            429 => Some(said.retry_after_ms.unwrap_or(CLOSED_MS)),
            500.. => Some(said.retry_after_ms.unwrap_or_else(|| self.fail())),
            _ => said
                .errors_remain
                .filter(|remain| *remain <= ERRORS_SPARE)
                .map(|_| said.errors_reset_ms.unwrap_or(CLOSED_MS)),
        };
        if said.status < 500 {
            self.failures = 0;
        }
        self.close(closed_ms.unwrap_or(0), now_ms);
    }

    /// There was no answer.
    pub fn failed(&mut self, now_ms: u64) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.spend(1, now_ms);
        let wait_ms = self.fail();
        self.close(wait_ms, now_ms);
    }

    /// Tokens that may be spent now, those of questions still out taken off.
    #[must_use]
    pub const fn free(&self) -> u64 {
        let usable = self.bucket.tokens.saturating_sub(self.bucket.tokens * self.bucket.spare_percent / 100);
        usable.saturating_sub(self.used + self.outstanding * MOST)
    }

    fn fail(&mut self) -> u64 {
        let wait_ms = FAILED_FIRST_MS.saturating_mul(1 << self.failures.min(10)).min(FAILED_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        wait_ms
    }

    fn close(&mut self, wait_ms: u64, now_ms: u64) {
        self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(wait_ms));
    }

    fn spend(&mut self, tokens: u64, now_ms: u64) {
        if tokens > 0 {
            self.used += tokens;
            self.spent.push_back((now_ms, tokens));
        }
    }

    fn forget(&mut self, now_ms: u64) {
        while let Some((_, tokens)) = self.spent.pop_front_if(|(at, _)| *at + self.bucket.window_ms <= now_ms)
        {
            self.used -= tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKET: Bucket = Bucket { tokens: 100, window_ms: 60_000, spare_percent: 10 };

    fn said(status: u16) -> Said {
        Said { status, ..Said::default() }
    }

    #[test]
    fn case_80_answers_cost_what_esi_says() {
        for (status, tokens) in [
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
            assert_eq!(cost(status), tokens, "{status}");
            let mut limiter = Limiter::new(BUCKET);
            limiter.reserve(0).unwrap();
            assert_eq!(limiter.free(), 85, "a question that is out may cost the most");
            limiter.answered(&said(status), 0);
            assert_eq!(limiter.free(), 90 - tokens, "{status}");
        }
    }

    #[test]
    fn case_80_below_five_free_tokens_nothing_is_asked_until_the_window_has_passed() {
        let mut limiter = Limiter::new(BUCKET);
        for at in 0..43 {
            limiter.reserve(at * 10).unwrap();
            limiter.answered(&said(200), at * 10);
        }
        assert_eq!(limiter.free(), 4);
        assert_eq!(limiter.reserve(500), Err(60_000));
        assert_eq!(limiter.reserve(60_000), Ok(()), "the first two tokens are free again");
        assert_eq!(limiter.reserve(60_000), Err(60_010), "the one that is out counts");
    }

    #[test]
    fn the_server_knows_better_how_much_is_left() {
        let mut limiter = Limiter::new(BUCKET);
        limiter.reserve(0).unwrap();
        limiter.answered(&Said { limit: Some((50, 900_000)), remaining: Some(7), ..said(200) }, 1_000);
        assert_eq!(limiter.reserve(2_000), Err(901_000), "5 of the 7 are the spare");
    }

    #[test]
    fn a_429_is_waited_out() {
        for (retry_after_ms, until) in [(Some(7_000), 8_000), (None, 61_000)] {
            let mut limiter = Limiter::new(BUCKET);
            limiter.reserve(0).unwrap();
            limiter.answered(&Said { retry_after_ms, ..said(429) }, 1_000);
            assert_eq!(limiter.reserve(2_000), Err(until));
            assert_eq!(limiter.reserve(until), Ok(()));
        }
    }

    #[test]
    fn a_420_stops_everything_until_the_errors_are_forgotten() {
        let mut limiter = Limiter::new(BUCKET);
        limiter.reserve(0).unwrap();
        limiter.answered(&Said { errors_remain: Some(0), errors_reset_ms: Some(35_000), ..said(420) }, 1_000);
        assert_eq!(limiter.reserve(35_999), Err(36_000));
    }

    #[test]
    fn few_errors_left_stop_it_before_that() {
        let mut limiter = Limiter::new(BUCKET);
        for (remain, answer) in [(98, Ok(())), (21, Ok(())), (20, Err(30_000))] {
            limiter.answered(
                &Said { errors_remain: Some(remain), errors_reset_ms: Some(30_000), ..said(422) },
                0,
            );
            assert_eq!(limiter.reserve(0), answer, "{remain}");
        }
    }

    #[test]
    fn failures_back_off_and_an_answer_ends_that() {
        let mut limiter = Limiter::new(BUCKET);
        let mut now = 0;
        for wait_ms in [1_000, 2_000, 4_000, 8_000] {
            limiter.reserve(now).unwrap();
            limiter.answered(&said(502), now);
            assert_eq!(limiter.reserve(now), Err(now + wait_ms));
            now += wait_ms;
        }
        limiter.reserve(now).unwrap();
        limiter.answered(&said(200), now);
        limiter.reserve(now).unwrap();
        limiter.failed(now);
        assert_eq!(limiter.reserve(now), Err(now + 1_000));
    }
}
