//! How R2Z2 is followed: what to ask next and when. A pure state machine: answers and times in, questions out.
//!
//! The rules are zKillboard's: one request at a time, a tenth of a second between documents, six seconds after a 404 and
//! then the same number again, minutes after a 403. A 404 is ambiguous (nothing yet, a hole, a stale edge of the CDN), so
//! a number is given up only after a minute and only while `sequence.json` has gone past it.
//!
//! Must not know: clocks, sockets, JSON; who keeps the killmails.

use std::collections::VecDeque;

/// Rewritten numbers remembered at once. Each is fetched before the next number, so there are hardly ever two; the checkpoint stays small.
const REWRITTEN_MAX: usize = 256;
/// Answers that do not fit (404 on a rewritten file, another number in the body) before a number is given up.
const MISFITS_MAX: u32 = 3;

/// Waits of the follower, all in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// After a 404.
    pub idle_ms: u64,
    /// After a document.
    pub pace_ms: u64,
    /// 404s on one number for longer than this make it a ghost if the feed has gone on.
    pub ghost_ms: u64,
    /// After a 429 that does not say how long.
    pub limited_ms: u64,
    /// After the first 403; doubles with each further one.
    pub forbidden_ms: u64,
    /// The longest wait after 403s.
    pub forbidden_max_ms: u64,
    /// After the first failure of the server or the network; doubles with each further one.
    pub failed_ms: u64,
    /// The longest wait after failures.
    pub failed_max_ms: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            idle_ms: 6_000,
            pace_ms: 100,
            ghost_ms: 60_000,
            limited_ms: 30_000,
            forbidden_ms: 60_000,
            forbidden_max_ms: 900_000,
            failed_ms: 1_000,
            failed_max_ms: 60_000,
        }
    }
}

/// What to ask the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `sequence.json`: how far the feed is at least.
    Pointer,
    /// The document of this number, the next one in line.
    Document(u64),
    /// The document of this older number again: its file was rewritten.
    Rewritten(u64),
}

/// What the feed answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `sequence.json` names this number.
    Pointer(u64),
    /// A document (one that could not be understood is one too: it was kept raw); it may name an older number whose file was rewritten.
    Document {
        /// That older number.
        updated: Option<u64>,
    },
    /// A placeholder: the number will never hold a killmail.
    Hole,
    /// The body carries another number than the one asked for.
    Mismatch,
    /// 404.
    Missing,
    /// 429, perhaps with the wait it asks for, milliseconds.
    Limited {
        /// The wait asked for.
        retry_after_ms: Option<u64>,
    },
    /// 403.
    Forbidden,
    /// 5xx, a timeout, no connection, an answer that is no answer.
    Failed,
}

/// What happened besides going on, for logs and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// The number was given up.
    Skipped(u64),
    /// Requests are refused or fail; the wait until the next one, milliseconds.
    Waiting(u64),
}

/// Where the follower stands.
#[derive(Debug, Clone)]
pub struct Pace {
    waits: Waits,
    next: Option<u64>,
    pointer: u64,
    rewritten: VecDeque<u64>,
    misfits: u32,
    missing_since_ms: Option<u64>,
    look_at_pointer: bool,
    failures: u32,
    at_ms: u64,
}

impl Pace {
    /// Begins at a number known from before with files still to be fetched again, or (`None`) where `sequence.json` points.
    #[must_use]
    pub fn new(waits: Waits, next: Option<u64>, rewritten: Vec<u64>) -> Self {
        Self {
            waits,
            next,
            pointer: 0,
            rewritten: rewritten.into(),
            misfits: 0,
            missing_since_ms: None,
            look_at_pointer: false,
            failures: 0,
            at_ms: 0,
        }
    }

    /// The next question and the time (milliseconds, same clock as `answered`) before which it must not be asked.
    #[must_use]
    pub fn ask(&self) -> (Ask, u64) {
        let ask = match (self.next, self.rewritten.front()) {
            (None, _) => Ask::Pointer,
            (Some(_), Some(rewritten)) => Ask::Rewritten(*rewritten),
            (Some(_), None) if self.look_at_pointer => Ask::Pointer,
            (Some(next), None) => Ask::Document(next),
        };
        (ask, self.at_ms)
    }

    /// Takes the answer to the question last given out, at `now_ms`.
    pub fn answered(&mut self, ask: Ask, answer: Answer, now_ms: u64) -> Option<Note> {
        match answer {
            Answer::Limited { retry_after_ms } => return Some(self.wait(now_ms, retry_after_ms.unwrap_or(self.waits.limited_ms))),
            Answer::Forbidden => {
                let wait = doubled(self.waits.forbidden_ms, self.failures, self.waits.forbidden_max_ms);
                return Some(self.wait(now_ms, wait));
            }
            Answer::Failed => {
                let wait = doubled(self.waits.failed_ms, self.failures, self.waits.failed_max_ms);
                return Some(self.wait(now_ms, wait));
            }
            Answer::Missing => self.at_ms = now_ms + self.waits.idle_ms,
            Answer::Mismatch => self.at_ms = now_ms + self.waits.idle_ms,
            Answer::Pointer(_) | Answer::Document { .. } | Answer::Hole => self.at_ms = now_ms + self.waits.pace_ms,
        }
        self.failures = 0;
        match ask {
            Ask::Pointer => self.pointed(answer, now_ms),
            Ask::Document(number) => self.document(number, answer, now_ms),
            Ask::Rewritten(_) => self.rewritten(answer),
        }
    }

    /// The number that comes next, and the older numbers still to be fetched again: what a checkpoint must remember.
    #[must_use]
    pub fn place(&self) -> (Option<u64>, Vec<u64>) {
        (self.next, self.rewritten.iter().copied().collect())
    }

    /// How many numbers the feed is known to be ahead of us; 0 near its head.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.next.map_or(0, |next| self.pointer.saturating_sub(next))
    }

    fn wait(&mut self, now_ms: u64, wait_ms: u64) -> Note {
        self.failures = self.failures.saturating_add(1);
        self.at_ms = now_ms + wait_ms;
        Note::Waiting(wait_ms)
    }

    fn pointed(&mut self, answer: Answer, now_ms: u64) -> Option<Note> {
        self.look_at_pointer = false;
        let Answer::Pointer(pointer) = answer else {
            // sequence.json itself is missing: ask again after the idle wait, as for a document.
            return None;
        };
        self.pointer = self.pointer.max(pointer);
        let Some(next) = self.next else {
            self.next = Some(pointer);
            return None;
        };
        if self.missing_since_ms.is_none() || pointer <= next {
            // The feed stands still here: wait for another minute of 404s before asking again.
            self.missing_since_ms = self.missing_since_ms.map(|_| now_ms);
            self.at_ms = now_ms + self.waits.idle_ms;
            return None;
        }
        self.advance();
        Some(Note::Skipped(next))
    }

    fn document(&mut self, number: u64, answer: Answer, now_ms: u64) -> Option<Note> {
        match answer {
            Answer::Document { updated } => {
                self.advance();
                if let Some(updated) = updated.filter(|u| *u < number && !self.rewritten.contains(u)) {
                    self.rewritten.push_back(updated);
                }
                let over = self.rewritten.len() > REWRITTEN_MAX;
                over.then(|| self.rewritten.pop_front()).flatten().map(Note::Skipped)
            }
            Answer::Hole => {
                self.advance();
                Some(Note::Skipped(number))
            }
            Answer::Mismatch => {
                self.misfits += 1;
                (self.misfits >= MISFITS_MAX).then(|| {
                    self.advance();
                    Note::Skipped(number)
                })
            }
            _ => {
                let since = *self.missing_since_ms.get_or_insert(now_ms);
                if now_ms.saturating_sub(since) > self.waits.ghost_ms {
                    // A look at the pointer is not another try of the number, so it need not wait.
                    self.look_at_pointer = true;
                    self.at_ms = now_ms + self.waits.pace_ms;
                }
                None
            }
        }
    }

    fn rewritten(&mut self, answer: Answer) -> Option<Note> {
        self.misfits += 1;
        let done = matches!(answer, Answer::Document { .. } | Answer::Hole);
        if !done && self.misfits < MISFITS_MAX {
            return None;
        }
        self.misfits = 0;
        let number = self.rewritten.pop_front();
        number.filter(|_| !done).map(Note::Skipped)
    }

    fn advance(&mut self) {
        self.next = self.next.map(|n| n + 1);
        self.misfits = 0;
        self.missing_since_ms = None;
        self.look_at_pointer = false;
    }
}

fn doubled(first_ms: u64, failures: u32, max_ms: u64) -> u64 {
    first_ms.saturating_mul(1 << failures.min(20)).min(max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the next question; returns it with the time it was asked at.
    fn step(pace: &mut Pace, answer: Answer, now_ms: &mut u64) -> (Ask, u64, Option<Note>) {
        let (ask, at_ms) = pace.ask();
        *now_ms = (*now_ms).max(at_ms);
        let note = pace.answered(ask, answer, *now_ms);
        (ask, *now_ms, note)
    }

    fn following(next: u64) -> Pace {
        Pace::new(Waits::default(), Some(next), vec![])
    }

    const PLAIN: Answer = Answer::Document { updated: None };

    #[test]
    fn a_first_start_asks_where_the_feed_is_and_then_that_number() {
        let mut pace = Pace::new(Waits::default(), None, vec![]);
        let mut now = 5;
        assert_eq!(step(&mut pace, Answer::Pointer(900), &mut now), (Ask::Pointer, 5, None));
        assert_eq!(step(&mut pace, PLAIN, &mut now), (Ask::Document(900), 105, None));
        assert_eq!(step(&mut pace, PLAIN, &mut now), (Ask::Document(901), 205, None));
        assert_eq!(pace.place(), (Some(902), vec![]));
    }

    #[test]
    fn a_missing_number_is_asked_again_after_six_seconds() {
        let mut pace = following(7);
        let mut now = 0;
        step(&mut pace, Answer::Missing, &mut now);
        assert_eq!(step(&mut pace, Answer::Missing, &mut now), (Ask::Document(7), 6_000, None));
        assert_eq!(step(&mut pace, PLAIN, &mut now), (Ask::Document(7), 12_000, None));
        assert_eq!(pace.ask(), (Ask::Document(8), 12_100));
    }

    #[test]
    fn a_ghost_is_skipped_after_a_minute_once_the_feed_has_passed_it() {
        let mut pace = following(7);
        let mut now = 0;
        while pace.ask().0 == Ask::Document(7) {
            step(&mut pace, Answer::Missing, &mut now);
            assert!(now < 120_000, "the pointer is never asked");
        }
        assert!(now > 60_000, "{now}");
        assert_eq!(step(&mut pace, Answer::Pointer(8), &mut now).2, Some(Note::Skipped(7)));
        assert_eq!(pace.ask().0, Ask::Document(8));
    }

    #[test]
    fn a_number_the_feed_has_not_passed_is_waited_for() {
        let mut pace = following(7);
        let mut now = 0;
        let mut pointers = 0;
        while now < 600_000 {
            let answer = if pace.ask().0 == Ask::Pointer { Answer::Pointer(7) } else { Answer::Missing };
            let (ask, _, note) = step(&mut pace, answer, &mut now);
            assert_eq!(note, None);
            pointers += u32::from(ask == Ask::Pointer);
        }
        assert!((5..=10).contains(&pointers), "{pointers}");
        assert_eq!(pace.place().0, Some(7));
    }

    #[test]
    fn a_rewritten_file_is_fetched_again_before_the_next_number() {
        let mut pace = following(7);
        let mut now = 0;
        step(&mut pace, Answer::Document { updated: Some(3) }, &mut now);
        assert_eq!(pace.place(), (Some(8), vec![3]));
        assert_eq!(step(&mut pace, Answer::Document { updated: Some(1) }, &mut now), (Ask::Rewritten(3), 100, None));
        assert_eq!(pace.ask(), (Ask::Document(8), 200), "a rewritten file names nothing further");
    }

    #[test]
    fn a_file_that_names_itself_or_the_future_starts_no_loop() {
        let mut pace = following(7);
        let mut now = 0;
        step(&mut pace, Answer::Document { updated: Some(7) }, &mut now);
        step(&mut pace, Answer::Document { updated: Some(90) }, &mut now);
        assert_eq!(pace.ask().0, Ask::Document(9));
    }

    #[test]
    fn a_rewritten_file_that_stays_missing_is_given_up() {
        let mut pace = Pace::new(Waits::default(), Some(8), vec![3]);
        let mut now = 0;
        assert_eq!(step(&mut pace, Answer::Missing, &mut now).2, None);
        assert_eq!(step(&mut pace, Answer::Missing, &mut now).1, 6_000);
        assert_eq!(step(&mut pace, Answer::Missing, &mut now).2, Some(Note::Skipped(3)));
        assert_eq!(pace.ask().0, Ask::Document(8));
    }

    #[test]
    fn another_number_in_the_body_is_tried_again_and_then_skipped() {
        let mut pace = following(7);
        let mut now = 0;
        assert_eq!(step(&mut pace, Answer::Mismatch, &mut now).2, None);
        assert_eq!(step(&mut pace, Answer::Mismatch, &mut now), (Ask::Document(7), 6_000, None));
        assert_eq!(step(&mut pace, Answer::Mismatch, &mut now).2, Some(Note::Skipped(7)));
        assert_eq!(pace.ask().0, Ask::Document(8));
    }

    #[test]
    fn a_placeholder_is_a_hole() {
        let mut pace = following(7);
        let mut now = 0;
        assert_eq!(step(&mut pace, Answer::Hole, &mut now).2, Some(Note::Skipped(7)));
        assert_eq!(pace.ask(), (Ask::Document(8), 100));
    }

    #[test]
    fn refusals_are_honoured() {
        let mut pace = following(7);
        let mut now = 0;
        step(&mut pace, Answer::Limited { retry_after_ms: Some(2_000) }, &mut now);
        assert_eq!(pace.ask(), (Ask::Document(7), 2_000));
        step(&mut pace, Answer::Limited { retry_after_ms: None }, &mut now);
        assert_eq!(pace.ask(), (Ask::Document(7), 32_000));
        step(&mut pace, PLAIN, &mut now);
        let at = now;
        step(&mut pace, Answer::Forbidden, &mut now);
        assert_eq!(pace.ask(), (Ask::Document(8), at + 100 + 60_000));
        step(&mut pace, Answer::Forbidden, &mut now);
        assert_eq!(pace.ask().1 - now, 120_000);
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_minute() {
        let mut pace = following(7);
        let mut now = 0;
        let mut waits = vec![];
        for _ in 0..9 {
            step(&mut pace, Answer::Failed, &mut now);
            waits.push((pace.ask().1 - now) / 1000);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        step(&mut pace, PLAIN, &mut now);
        step(&mut pace, Answer::Failed, &mut now);
        assert_eq!(pace.ask().1 - now, 1_000, "an answer resets the wait");
    }

    #[test]
    fn a_failed_pointer_at_the_start_is_asked_again() {
        let mut pace = Pace::new(Waits::default(), None, vec![]);
        let mut now = 0;
        step(&mut pace, Answer::Failed, &mut now);
        assert_eq!(pace.ask(), (Ask::Pointer, 1_000));
        step(&mut pace, Answer::Missing, &mut now);
        assert_eq!(pace.ask(), (Ask::Pointer, 7_000));
    }
}
