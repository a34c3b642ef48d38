//! How R2Z2 is followed: what to ask next and when. A pure state machine: answers and times in, questions
//! out.
//!
//! The rules are zKillboard's: one request at a time, a tenth of a second between documents, six seconds
//! after a 404 and then the same number again, minutes after a 403. A 404 is ambiguous (nothing yet, a
//! missing number, a stale edge of the CDN), so from the second 404 on one later number is asked for as well
//! ([`LookAhead`]); where that is there, the follower goes on behind it, and what lies before is tried again
//! beside the feed. Where too many in a row are missing, `sequence.json` tells after a minute that the feed
//! has gone on.
//!
//! A page instead of a document is a fault of transport like a 5xx: it says nothing of the number. The same
//! number is asked again, and passed over only once one after it can be read.
//!
//! Must not know: clocks, sockets, JSON; who keeps the killmails.

use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::look_ahead::LookAhead;
use crate::ingest::r2z2::missing_numbers::Cure;
use crate::ingest::r2z2::oldest_file_search::{OldestFileSearch, SearchStep};
use crate::ingest::r2z2::waits::Waits;

/// Rewritten numbers remembered at once. Each is fetched before the next number, so there are hardly ever
/// two; the checkpoint stays small.
const REWRITTEN_MAX: usize = 256;
/// Tries of a rewritten file that is missing before it is put off.
const REWRITTEN_TRIES: u32 = 3;
/// From so many unreadable answers on, it is looked whether a number after it can be read.
const UNREADABLE_MIN: u32 = 3;
/// So many numbers passed over at once are remembered one by one; more become one stretch, which only
/// archives heal.
const APART_MAX: u64 = 16;
/// What is published is rarely older than this, seconds: so long before the first document nothing is looked
/// for.
const BEFORE_SECS: i64 = 3600;
/// The feed is never silent for so long, seconds.
const SILENT_SECS: i64 = 30 * 86_400;
/// Ghosts one after the other before it is looked how far they reach.
const GHOSTS_MAX: u32 = 3;

/// Where the follower stands. Times are unix milliseconds.
#[derive(Debug, Clone)]
pub struct FollowerState {
    waits: Waits,
    place: Place,
    /// What `sequence.json` said last.
    pointer: u64,
    /// The pointer rolled back to last: once for each is enough.
    rolled_to: Option<u64>,
    /// Answers in a row that were not the document asked for.
    misfits: u32,
    /// Answers in a row without the rewritten file.
    rewritten_tries: u32,
    /// Where the next number is unreadable: when it may be asked for again.
    held_ms: u64,
    ahead: LookAhead,
    /// A later number is to be asked for now.
    look: Option<u64>,
    ghosts: u32,
    /// Since when the next number is missing; begins anew with every look at `sequence.json`.
    missing_since_ms: Option<u64>,
    /// Since when it is missing without a decision.
    stuck_since_ms: Option<u64>,
    look_at_pointer: bool,
    /// The number behind the next one is looked at.
    peek: bool,
    seek: Option<OldestFileSearch>,
    /// The day whose killmails are to be taken, as its archive has some we lack.
    bodies: Option<i64>,
    failures: u32,
    /// Nothing is asked before.
    at_ms: u64,
    /// The feed itself is not asked before.
    live_ms: u64,
}

impl FollowerState {
    /// Begins at a place known from before, or (`next` is `None`) where `sequence.json` points.
    #[must_use]
    pub const fn new(waits: Waits, place: Place) -> Self {
        Self {
            waits,
            place,
            pointer: 0,
            rolled_to: None,
            misfits: 0,
            rewritten_tries: 0,
            held_ms: 0,
            ahead: LookAhead::new(),
            look: None,
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
    pub fn ask(&self) -> (Request, u64) {
        let live_ms = self.at_ms.max(self.live_ms);
        let Some(next) = self.place.next else { return (Request::Pointer, live_ms) };
        if let Some(day) = self.bodies {
            return (Request::Bodies(day), self.at_ms);
        }
        // What is to be healed is asked for only where the feed leaves time.
        if let Some((cure, at_ms)) = self.place.holes.next(self.begun(), &self.waits.healing)
            && at_ms.max(self.at_ms) < live_ms
        {
            let ask = match cure {
                Cure::Number(number) => Request::Retry(number, self.place.holes.is_rewritten(number)),
                Cure::Day(day) => Request::List(day),
            };
            return (ask, at_ms.max(self.at_ms));
        }
        let ask = match (&self.seek, self.look, self.place.rewritten.first()) {
            (Some(seek), ..) => Request::Probe(seek.number()),
            (None, Some(number), _) => Request::Ahead(number),
            (None, None, Some(rewritten)) => Request::Rewritten(*rewritten),
            (None, None, None) if self.look_at_pointer => Request::Pointer,
            (None, None, None) if self.peek => Request::Probe(next + 1),
            (None, None, None) => Request::Document(next),
        };
        (ask, live_ms)
    }

    /// Takes the answer to the question last given out, at `now_ms`.
    pub fn answered(&mut self, ask: Request, answer: Reply, now_ms: u64) -> Option<Notice> {
        let (own_ms, asked_ms) = match answer {
            Reply::Limited { retry_after_ms } => {
                (self.waits.limited_ms, retry_after_ms.or(Some(self.waits.limited_ms)))
            }
            Reply::Forbidden { retry_after_ms } => {
                (doubled(self.waits.forbidden_ms, self.failures, self.waits.forbidden_max_ms), retry_after_ms)
            }
            Reply::Failed { retry_after_ms } => (self.failed_ms(), retry_after_ms),
            Reply::Misfit { .. } => match ask {
                // The number was passed over before: it is one more try without it.
                Request::Retry(number, _) => {
                    self.at_ms = now_ms + self.waits.pace_ms;
                    let closed = self.place.holes.missed(number, &self.waits.healing, now_ms);
                    return Some(closed.map_or(Notice::Unproven, |hole| Notice::Healed(vec![hole])));
                }
                Request::Ahead(number) if self.misfits > 0 => return Some(self.unproven(number, now_ms)),
                _ => (self.failed_ms(), None),
            },
            _ => match (ask, answer) {
                (Request::Ahead(number), Reply::Missing) if self.misfits > 0 => {
                    return Some(self.unproven(number, now_ms));
                }
                _ => return self.heard(ask, answer, now_ms),
            },
        };
        // A 429 says itself how long; what else is said can only make the wait longer.
        let wait_ms = match answer {
            Reply::Limited { .. } => asked_ms.unwrap_or(own_ms),
            _ => own_ms.max(asked_ms.unwrap_or(0)),
        };
        self.failures = self.failures.saturating_add(1);
        self.at_ms = now_ms + wait_ms;
        self.failed(ask, matches!(answer, Reply::Misfit { .. }), now_ms);
        Some(Notice::Waiting(wait_ms))
    }

    fn failed_ms(&self) -> u64 {
        doubled(self.waits.failed_ms, self.failures, self.waits.failed_max_ms)
    }

    /// What a failure changes besides the wait: whatever is not the next number itself must not be insisted
    /// on.
    fn failed(&mut self, ask: Request, misfit: bool, now_ms: u64) {
        match ask {
            Request::Document(_) | Request::Rewritten(_) if misfit => {
                self.misfits += 1;
                if self.misfits >= UNREADABLE_MIN {
                    self.look = self.after_unreadable();
                    (self.held_ms, self.at_ms) = (self.at_ms, now_ms + self.waits.pace_ms);
                }
            }
            Request::Ahead(number) => {
                self.look = None;
                if self.misfits == 0 {
                    self.ahead.missed(number, now_ms);
                    self.idle(now_ms);
                }
            }
            Request::Pointer if self.place.next.is_some() => {
                self.look_at_pointer = false;
                self.missing_since_ms = self.missing_since_ms.map(|_| now_ms);
                self.idle(now_ms);
            }
            Request::Probe(_) if misfit => {
                self.misfits += 1;
                if self.misfits >= UNREADABLE_MIN {
                    (self.seek, self.peek, self.misfits) = (None, false, 0);
                    (self.missing_since_ms, self.stuck_since_ms) = (Some(now_ms), Some(now_ms));
                }
            }
            // What is still wanted of a day is found out anew.
            Request::List(day) | Request::Bodies(day) => {
                self.bodies = None;
                let begun = self.begun();
                self.place.holes.put_off(day, begun, &self.waits.healing, now_ms);
            }
            _ => {}
        }
    }

    /// The number whose file shows that the feed goes on behind what is unreadable: the next number, or a
    /// rewritten file before it.
    fn after_unreadable(&self) -> Option<u64> {
        self.place.next.map(|next| next + u64::from(self.place.rewritten.is_empty()))
    }

    /// A number after an unreadable one is missing or cannot be read either: nothing is known. A further one
    /// is looked at in each round, in turn, for those may be in a row.
    fn unproven(&mut self, number: u64, now_ms: u64) -> Notice {
        let further = self.waits.ahead_numbers.saturating_sub(1);
        let turn = u64::from(self.misfits.saturating_sub(UNREADABLE_MIN)).checked_rem(further);
        self.look = turn.filter(|_| Some(number) == self.after_unreadable()).map(|turn| number + 1 + turn);
        self.held_ms = self.held_ms.max(now_ms + self.waits.idle_ms);
        self.at_ms = if self.look.is_some() { now_ms + self.waits.pace_ms } else { self.held_ms };
        Notice::Unproven
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

    /// Nothing older than this is looked for, unix seconds.
    #[must_use]
    pub fn begun(&self) -> i64 {
        self.place.begun.unwrap_or(i64::MAX)
    }

    fn heard(&mut self, ask: Request, answer: Reply, now_ms: u64) -> Option<Notice> {
        self.failures = 0;
        self.at_ms = now_ms + self.waits.pace_ms;
        match ask {
            Request::Pointer => self.pointed(answer, now_ms),
            Request::Document(number) => self.document(number, answer, now_ms),
            Request::Rewritten(number) => self.rewritten(number, answer, now_ms),
            Request::Ahead(number) => self.looked(number, answer, now_ms),
            Request::Probe(number) => self.probed(number, answer, now_ms),
            Request::Retry(number, _) => self.retried(number, answer, now_ms),
            Request::List(day) => self.listed(day, answer, now_ms),
            Request::Bodies(day) => {
                self.bodies = None;
                self.listed(day, answer, now_ms)
            }
        }
    }

    fn idle(&mut self, now_ms: u64) {
        self.live_ms = now_ms + self.waits.idle_ms;
    }

    fn pointed(&mut self, answer: Reply, now_ms: u64) -> Option<Notice> {
        self.look_at_pointer = false;
        let Reply::Pointer(pointer) = answer else {
            // sequence.json itself is missing: ask again after the idle wait, as for a document; the next
            // number meanwhile.
            self.missing_since_ms = self.missing_since_ms.map(|_| now_ms);
            self.idle(now_ms);
            return None;
        };
        self.pointer = pointer;
        let Some(next) = self.place.next else {
            self.place.next = Some(pointer);
            return None;
        };
        if pointer > next {
            // More are missing than were looked at: one by one it would take as long again for each.
            let reach = Some(self.waits.ahead_numbers).filter(|numbers| *numbers > 0).unwrap_or(u64::MAX);
            if pointer - next > reach.min(self.waits.far_numbers) || self.ghosts >= GHOSTS_MAX {
                self.seek = Some(OldestFileSearch::new(next + 1, pointer));
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

    fn document(&mut self, number: u64, answer: Reply, now_ms: u64) -> Option<Notice> {
        match answer {
            Reply::Document { updated, at } => self.arrived(number, updated, at, now_ms),
            Reply::Hole => Some(self.skip_to(number + 1, now_ms)),
            _ => {
                self.misfits = 0;
                let since = *self.missing_since_ms.get_or_insert(now_ms);
                self.stuck_since_ms.get_or_insert(now_ms);
                self.ahead.missed(number, now_ms);
                // A look at the pointer or at a later number is not another try of this one, so it need not
                // wait.
                self.look_at_pointer = now_ms.saturating_sub(since) > self.waits.ghost_ms;
                self.look =
                    self.ahead.next(number, self.waits.ahead_numbers).filter(|_| !self.look_at_pointer);
                if !self.look_at_pointer && self.look.is_none() {
                    self.idle(now_ms);
                }
                None
            }
        }
    }

    /// The next document came, or a later one while the next is missing or unreadable.
    fn arrived(&mut self, number: u64, updated: Option<u64>, at: Option<i64>, now_ms: u64) -> Option<Notice> {
        let healed = self.place.holes.came(number);
        if let Some(at) = at {
            self.dated(at);
            self.place.holes.followed_by(at);
        }
        self.go_to(number + 1);
        self.ghosts = 0;
        self.tell_rewritten(number, updated, now_ms);
        healed.map(|hole| Notice::Healed(vec![hole]))
    }

    /// The answer for a number behind the next one, which is missing or (`misfits`) unreadable.
    fn looked(&mut self, number: u64, answer: Reply, now_ms: u64) -> Option<Notice> {
        self.look = None;
        if answer == Reply::Missing || (answer == Reply::Hole && self.misfits > 0) {
            self.ahead.missed(number, now_ms);
            self.idle(now_ms);
            return None;
        }
        if self.misfits > 0 && !self.place.rewritten.is_empty() {
            // It is a rewritten file that cannot be read, and holds up the rest no longer.
            let rewritten = self.place.rewritten.remove(0);
            self.remember((rewritten, rewritten), true, now_ms);
        }
        let Reply::Document { updated, at } = answer else { return Some(self.skip_to(number + 1, now_ms)) };
        let missing = self.place.next.filter(|next| *next < number).map(|_| self.skip_to(number, now_ms));
        let healed = self.arrived(number, updated, at, now_ms);
        missing.or(healed)
    }

    /// A document was published at this time, unix seconds.
    fn dated(&mut self, at: i64) {
        if self.place.last.is_none() {
            // What was given up before the first document is dated by our clock, but the feed may be one of
            // older days, and the clock of a machine that has just started one of 1970.
            let begun = at - BEFORE_SECS;
            self.place.begun =
                Some(self.place.begun.map_or(begun, |guess| guess.min(begun).max(at - SILENT_SECS)));
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

    fn rewritten(&mut self, number: u64, answer: Reply, now_ms: u64) -> Option<Notice> {
        self.misfits = 0;
        self.rewritten_tries += 1;
        let done = matches!(answer, Reply::Document { .. } | Reply::Hole);
        if !done && self.rewritten_tries < REWRITTEN_TRIES {
            self.idle(now_ms);
            return None;
        }
        self.rewritten_tries = 0;
        self.place.rewritten.retain(|rewritten| *rewritten != number);
        if !done {
            self.remember((number, number), true, now_ms);
        }
        None
    }

    fn probed(&mut self, number: u64, answer: Reply, now_ms: u64) -> Option<Notice> {
        self.misfits = 0;
        let is_there = answer != Reply::Missing;
        if let Some(seek) = &mut self.seek {
            let SearchStep::Found(first) = seek.answered(is_there) else { return None };
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
            // The way back to the number that was just asked for may be short.
            self.idle(now_ms);
            return Some(Notice::RolledBack(next, self.pointer));
        }
        self.idle(now_ms);
        None
    }

    fn retried(&mut self, number: u64, answer: Reply, now_ms: u64) -> Option<Notice> {
        let closed = match answer {
            Reply::Document { updated, .. } => {
                self.tell_rewritten(number, updated, now_ms);
                self.place.holes.came(number)
            }
            _ => self.place.holes.missed(number, &self.waits.healing, now_ms),
        };
        closed.map(|hole| Notice::Healed(vec![hole]))
    }

    fn listed(&mut self, day: i64, answer: Reply, now_ms: u64) -> Option<Notice> {
        let begun = self.begun();
        let closed = match answer {
            Reply::Listed { wanted: true } => {
                self.bodies = Some(day);
                return None;
            }
            Reply::Listed { wanted: false } | Reply::Filled => self.place.holes.read(day, begun),
            _ => self.place.holes.unread(day, begun, &self.waits.healing, now_ms),
        };
        (!closed.is_empty()).then_some(Notice::Healed(closed))
    }

    /// Passes over everything before this number, for now.
    fn skip_to(&mut self, number: u64, now_ms: u64) -> Notice {
        let first = self.place.next.unwrap_or(number);
        let last = number.saturating_sub(1).max(first);
        let apart = last - first < APART_MAX;
        if apart {
            (first..=last).for_each(|number| self.remember((number, number), false, now_ms));
        } else {
            self.remember((first, last), false, now_ms);
        }
        self.go_to(number);
        if apart { Notice::Missing(first, last) } else { Notice::Skipped(first, last) }
    }

    fn remember(&mut self, numbers: (u64, u64), rewritten: bool, now_ms: u64) {
        let from = self.place.last.unwrap_or_else(|| i64::try_from(now_ms / 1000).unwrap_or(i64::MAX));
        self.place.begun.get_or_insert(from - BEFORE_SECS);
        // Waits count from the last time it was asked for.
        let asked_ms =
            self.ahead.asked_ms(numbers.0).filter(|_| !rewritten && self.misfits == 0).unwrap_or(now_ms);
        self.place.holes.open(numbers, rewritten, from, &self.waits.healing, (now_ms, asked_ms));
    }

    fn go_to(&mut self, number: u64) {
        self.place.next = Some(number);
        (self.misfits, self.rewritten_tries, self.held_ms) = (0, 0, 0);
        self.ahead = LookAhead::new();
        self.look = None;
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
#[path = "follower_state_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "missing_tests.rs"]
mod missing_tests;
