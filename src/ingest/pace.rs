//! How R2Z2 is followed: what to ask next and when. A pure state machine: answers and times in, questions out.
//!
//! The rules are zKillboard's: one request at a time, a tenth of a second between documents, six seconds after a 404 and
//! then the same number again, minutes after a 403. A 404 is ambiguous (nothing yet, a hole, a stale edge of the CDN), so
//! a number is given up only after a minute and only while `sequence.json` has gone past it; it is remembered then, and
//! tried again while the feed has nothing new.
//!
//! Must not know: clocks, sockets, JSON; who keeps the killmails.

use serde::{Deserialize, Serialize};

use crate::ingest::holes::{Cure, Healing, Hole, Holes};
use crate::ingest::seek::{Seek, Step};

/// Rewritten numbers remembered at once. Each is fetched before the next number, so there are hardly ever two; the checkpoint stays small.
const REWRITTEN_MAX: usize = 256;
/// Answers that do not fit (404 on a rewritten file, another number in the body, no JSON) before a number is given up.
const MISFITS_MAX: u32 = 3;
/// What is published is rarely older than this, seconds: so long before the first document nothing is looked for.
const BEFORE_SECS: i64 = 3600;
/// The feed is never silent for so long, seconds.
const SILENT_SECS: i64 = 30 * 86_400;
/// Ghosts one after the other before it is looked how far they reach.
const GHOSTS_MAX: u32 = 3;

/// What the follower goes by; waits in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// After a 404.
    pub idle_ms: u64,
    /// After a document.
    pub pace_ms: u64,
    /// 404s on one number for longer than this make it a ghost if the feed has gone on.
    pub ghost_ms: u64,
    /// 404s on one number for longer than this while `sequence.json` is behind it: the feed was set back, or `sequence.json` is stale.
    pub rollback_ms: u64,
    /// A missing number so far behind `sequence.json` is one of many whose files are gone.
    pub far_numbers: u64,
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
    /// For numbers given up.
    pub healing: Healing,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            idle_ms: 6_000,
            pace_ms: 100,
            ghost_ms: 60_000,
            rollback_ms: 180_000,
            far_numbers: 500,
            limited_ms: 30_000,
            forbidden_ms: 60_000,
            forbidden_max_ms: 900_000,
            failed_ms: 1_000,
            failed_max_ms: 60_000,
            healing: Healing { first_ms: 60_000, archive_after_ms: 23_400_000 },
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
    /// The document of this number, only to see whether there is one.
    Probe(u64),
    /// The document of a number that was given up; `true` where its file was rewritten.
    Retry(u64, bool),
    /// Which killmails the archive of this day (days since 1970) has.
    List(i64),
    /// The killmails of that archive.
    Bodies(i64),
}

/// What the feed answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `sequence.json` names this number.
    Pointer(u64),
    /// A document (one that was refused is one too: it was kept raw); it may name an older number whose file was rewritten.
    Document {
        /// That older number.
        updated: Option<u64>,
        /// When it was published, unix seconds; or when its killmail happened.
        at: Option<i64>,
    },
    /// A placeholder: the file says nothing.
    Hole,
    /// The body carries another number than the one asked for, or is no JSON.
    Misfit,
    /// 404.
    Missing,
    /// The archive lists killmails; whether there are any we do not have.
    Listed {
        /// Whether there are.
        wanted: bool,
    },
    /// All killmails of the archive we wanted were taken.
    Filled,
    /// 429, perhaps with the wait it asks for, milliseconds.
    Limited {
        /// The wait asked for.
        retry_after_ms: Option<u64>,
    },
    /// 403, perhaps with the wait it asks for, milliseconds.
    Forbidden {
        /// The wait asked for.
        retry_after_ms: Option<u64>,
    },
    /// 5xx, a timeout, no connection, an answer that is no answer; perhaps with the wait it asks for, milliseconds.
    Failed {
        /// The wait asked for.
        retry_after_ms: Option<u64>,
    },
}

/// What happened besides going on, for logs and counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// These numbers were given up for now, first and last; they are remembered.
    Skipped(u64, u64),
    /// The feed was set back: numbers are asked for again from the second one on, no more from the first.
    RolledBack(u64, u64),
    /// Holes are closed: their numbers came, or archives filled in what there was.
    Healed(Vec<Hole>),
    /// Requests are refused or fail; the wait until the next one, milliseconds.
    Waiting(u64),
}

/// What must be remembered: where to go on, and what is still to be healed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The number that comes next.
    pub next: Option<u64>,
    /// Older numbers still to be fetched again.
    pub rewritten: Vec<u64>,
    /// Numbers given up.
    pub holes: Holes,
    /// An hour before the first document ever was published, or earlier where numbers were given up before it, unix seconds: nothing
    /// older is looked for.
    pub begun: Option<i64>,
    /// When the last one was.
    pub last: Option<i64>,
}

/// Where the follower stands. Times are unix milliseconds.
#[derive(Debug, Clone)]
pub struct Pace {
    waits: Waits,
    place: Place,
    /// What `sequence.json` said last.
    pointer: u64,
    /// The pointer rolled back to last: once for each is enough.
    rolled_to: Option<u64>,
    misfits: u32,
    ghosts: u32,
    /// Since when the next number is missing; begins anew with every look at `sequence.json`.
    missing_since_ms: Option<u64>,
    /// Since when it is missing without a decision.
    stuck_since_ms: Option<u64>,
    look_at_pointer: bool,
    /// A number behind the next one is looked at, for `sequence.json` may be stale.
    peek: bool,
    seek: Option<Seek>,
    /// The day whose killmails are to be taken, as its archive has some we lack.
    bodies: Option<i64>,
    failures: u32,
    /// Nothing is asked before.
    at_ms: u64,
    /// The feed itself is not asked before.
    live_ms: u64,
}

impl Pace {
    /// Begins at a place known from before, or (`next` is `None`) where `sequence.json` points.
    #[must_use]
    pub const fn new(waits: Waits, place: Place) -> Self {
        Self {
            waits,
            place,
            pointer: 0,
            rolled_to: None,
            misfits: 0,
            ghosts: 0,
            missing_since_ms: None,
            stuck_since_ms: None,
            look_at_pointer: false,
            peek: false,
            seek: None,
            bodies: None,
            failures: 0,
            at_ms: 0,
            live_ms: 0,
        }
    }

    /// The next question and the time before which it must not be asked.
    #[must_use]
    pub fn ask(&self) -> (Ask, u64) {
        let live_ms = self.at_ms.max(self.live_ms);
        let Some(next) = self.place.next else { return (Ask::Pointer, live_ms) };
        if let Some(day) = self.bodies {
            return (Ask::Bodies(day), self.at_ms);
        }
        // What is to be healed is asked for only where the feed leaves time.
        if let Some((cure, at_ms)) = self.place.holes.next(self.begun(), &self.waits.healing)
            && at_ms.max(self.at_ms) < live_ms
        {
            let ask = match cure {
                Cure::Number(number) => Ask::Retry(number, self.place.holes.is_rewritten(number)),
                Cure::Day(day) => Ask::List(day),
            };
            return (ask, at_ms.max(self.at_ms));
        }
        let ask = match (&self.seek, self.place.rewritten.first()) {
            (Some(seek), _) => Ask::Probe(seek.number()),
            (None, Some(rewritten)) => Ask::Rewritten(*rewritten),
            (None, None) if self.look_at_pointer => Ask::Pointer,
            (None, None) if self.peek => Ask::Probe(next + 1),
            (None, None) => Ask::Document(next),
        };
        (ask, live_ms)
    }

    /// Takes the answer to the question last given out, at `now_ms`.
    pub fn answered(&mut self, ask: Ask, answer: Answer, now_ms: u64) -> Option<Note> {
        let (own_ms, asked_ms) = match answer {
            Answer::Limited { retry_after_ms } => (self.waits.limited_ms, retry_after_ms.or(Some(self.waits.limited_ms))),
            Answer::Forbidden { retry_after_ms } => {
                (doubled(self.waits.forbidden_ms, self.failures, self.waits.forbidden_max_ms), retry_after_ms)
            }
            Answer::Failed { retry_after_ms } => (doubled(self.waits.failed_ms, self.failures, self.waits.failed_max_ms), retry_after_ms),
            _ => return self.heard(ask, answer, now_ms),
        };
        // A 429 says itself how long; what else is said can only make the wait longer.
        let wait_ms = match answer {
            Answer::Limited { .. } => asked_ms.unwrap_or(own_ms),
            _ => own_ms.max(asked_ms.unwrap_or(0)),
        };
        self.failures = self.failures.saturating_add(1);
        self.at_ms = now_ms + wait_ms;
        if let Ask::Bodies(_) = ask {
            // What is still wanted of it is found out anew.
            self.bodies = None;
        }
        Some(Note::Waiting(wait_ms))
    }

    /// What a checkpoint must remember.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// A killmail of this time (unix seconds) was found in the archive of this day.
    pub fn filled(&mut self, day: i64, time: i64) {
        let begun = self.begun();
        self.place.holes.filled(day, time, begun);
    }

    /// How many numbers the feed is known to be ahead of us; 0 near its head.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.place.next.map_or(0, |next| self.pointer.saturating_sub(next))
    }

    /// Nothing older than this is looked for, unix seconds.
    #[must_use]
    pub fn begun(&self) -> i64 {
        self.place.begun.unwrap_or(i64::MAX)
    }

    fn heard(&mut self, ask: Ask, answer: Answer, now_ms: u64) -> Option<Note> {
        self.failures = 0;
        self.at_ms = now_ms + self.waits.pace_ms;
        match ask {
            Ask::Pointer => self.pointed(answer, now_ms),
            Ask::Document(number) => self.document(number, answer, now_ms),
            Ask::Rewritten(number) => self.rewritten(number, answer, now_ms),
            Ask::Probe(number) => self.probed(number, answer, now_ms),
            Ask::Retry(number, _) => self.retried(number, answer, now_ms),
            Ask::List(day) => self.listed(day, answer, now_ms),
            Ask::Bodies(day) => {
                self.bodies = None;
                self.listed(day, answer, now_ms)
            }
        }
    }

    fn idle(&mut self, now_ms: u64) {
        self.live_ms = now_ms + self.waits.idle_ms;
    }

    fn pointed(&mut self, answer: Answer, now_ms: u64) -> Option<Note> {
        self.look_at_pointer = false;
        let Answer::Pointer(pointer) = answer else {
            // sequence.json itself is missing: ask again after the idle wait, as for a document.
            self.idle(now_ms);
            return None;
        };
        self.pointer = pointer;
        let Some(next) = self.place.next else {
            self.place.next = Some(pointer);
            return None;
        };
        if pointer > next {
            if pointer - next > self.waits.far_numbers || self.ghosts >= GHOSTS_MAX {
                self.seek = Some(Seek::new(next + 1, pointer));
                return None;
            }
            self.ghosts += 1;
            return Some(self.skip_to(next + 1, now_ms));
        }
        // The feed stands still here: wait for another minute of 404s before asking again.
        self.missing_since_ms = self.missing_since_ms.map(|_| now_ms);
        let stuck_ms = self.stuck_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        if stuck_ms > self.waits.rollback_ms {
            self.peek = true;
        } else {
            self.idle(now_ms);
        }
        None
    }

    fn document(&mut self, number: u64, answer: Answer, now_ms: u64) -> Option<Note> {
        match answer {
            Answer::Document { updated, at } => {
                let healed = self.place.holes.came(number);
                if let Some(at) = at {
                    self.dated(at);
                    self.place.holes.followed_by(at);
                }
                self.go_to(number + 1);
                self.ghosts = 0;
                self.tell_rewritten(number, updated, now_ms);
                healed.map(|hole| Note::Healed(vec![hole]))
            }
            Answer::Hole => Some(self.skip_to(number + 1, now_ms)),
            Answer::Misfit => {
                self.misfits += 1;
                self.idle(now_ms);
                (self.misfits >= MISFITS_MAX).then(|| {
                    self.live_ms = 0;
                    self.skip_to(number + 1, now_ms)
                })
            }
            _ => {
                self.misfits = 0;
                let since = *self.missing_since_ms.get_or_insert(now_ms);
                self.stuck_since_ms.get_or_insert(now_ms);
                // A look at the pointer is not another try of the number, so it need not wait.
                self.look_at_pointer = now_ms.saturating_sub(since) > self.waits.ghost_ms;
                if !self.look_at_pointer {
                    self.idle(now_ms);
                }
                None
            }
        }
    }

    /// A document was published at this time, unix seconds.
    fn dated(&mut self, at: i64) {
        if self.place.last.is_none() {
            // What was given up before the first document is dated by our clock, but the feed may be one of older days, and the clock
            // of a machine that has just started one of 1970.
            let begun = at - BEFORE_SECS;
            self.place.begun = Some(self.place.begun.map_or(begun, |guess| guess.min(begun).max(at - SILENT_SECS)));
            self.place.holes.not_behind(at);
        }
        self.place.last = Some(at);
    }

    fn tell_rewritten(&mut self, by: u64, updated: Option<u64>, now_ms: u64) {
        let Some(updated) = updated.filter(|u| *u < by && !self.place.rewritten.contains(u)) else { return };
        self.place.rewritten.push(updated);
        if self.place.rewritten.len() > REWRITTEN_MAX {
            let oldest = self.place.rewritten.remove(0);
            self.remember((oldest, oldest), true, now_ms);
        }
    }

    fn rewritten(&mut self, number: u64, answer: Answer, now_ms: u64) -> Option<Note> {
        self.misfits += 1;
        let done = matches!(answer, Answer::Document { .. } | Answer::Hole);
        if !done && self.misfits < MISFITS_MAX {
            self.idle(now_ms);
            return None;
        }
        self.misfits = 0;
        self.place.rewritten.retain(|rewritten| *rewritten != number);
        if !done {
            self.remember((number, number), true, now_ms);
        }
        None
    }

    fn probed(&mut self, number: u64, answer: Answer, now_ms: u64) -> Option<Note> {
        if answer == Answer::Misfit {
            // A page of a proxy shows nothing; it is looked at again.
            self.idle(now_ms);
            return None;
        }
        let is_there = answer != Answer::Missing;
        if let Some(seek) = &mut self.seek {
            let Step::Found(first) = seek.answered(is_there) else { return None };
            self.seek = None;
            return Some(self.skip_to(first, now_ms));
        }
        self.peek = false;
        let next = self.place.next?;
        if is_there {
            return Some(self.skip_to(number, now_ms));
        }
        self.stuck_since_ms = Some(now_ms);
        if self.pointer < next && self.rolled_to != Some(self.pointer) {
            self.rolled_to = Some(self.pointer);
            self.go_to(self.pointer);
            return Some(Note::RolledBack(next, self.pointer));
        }
        self.idle(now_ms);
        None
    }

    fn retried(&mut self, number: u64, answer: Answer, now_ms: u64) -> Option<Note> {
        let closed = match answer {
            Answer::Document { updated, .. } => {
                self.tell_rewritten(number, updated, now_ms);
                self.place.holes.came(number)
            }
            _ => self.place.holes.missed(number, &self.waits.healing, now_ms),
        };
        closed.map(|hole| Note::Healed(vec![hole]))
    }

    fn listed(&mut self, day: i64, answer: Answer, now_ms: u64) -> Option<Note> {
        let begun = self.begun();
        let closed = match answer {
            Answer::Listed { wanted: true } => {
                self.bodies = Some(day);
                return None;
            }
            Answer::Listed { wanted: false } | Answer::Filled => self.place.holes.read(day, begun),
            _ => self.place.holes.unread(day, begun, &self.waits.healing, now_ms),
        };
        (!closed.is_empty()).then_some(Note::Healed(closed))
    }

    /// Gives up everything before this number, for now.
    fn skip_to(&mut self, number: u64, now_ms: u64) -> Note {
        let first = self.place.next.unwrap_or(number);
        let last = number.saturating_sub(1).max(first);
        self.remember((first, last), false, now_ms);
        self.go_to(number);
        Note::Skipped(first, last)
    }

    fn remember(&mut self, numbers: (u64, u64), rewritten: bool, now_ms: u64) {
        let from = self.place.last.unwrap_or_else(|| i64::try_from(now_ms / 1000).unwrap_or(i64::MAX));
        self.place.begun.get_or_insert(from - BEFORE_SECS);
        self.place.holes.open(numbers, rewritten, from, &self.waits.healing, now_ms);
    }

    fn go_to(&mut self, number: u64) {
        self.place.next = Some(number);
        self.misfits = 0;
        self.missing_since_ms = None;
        self.stuck_since_ms = None;
        self.look_at_pointer = false;
        self.peek = false;
    }
}

fn doubled(first_ms: u64, failures: u32, max_ms: u64) -> u64 {
    first_ms.saturating_mul(1 << failures.min(20)).min(max_ms)
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
