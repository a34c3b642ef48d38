//! The state machine of the R2Z2 follower: what to request next, and when. Pure: replies and times in,
//! requests out.
//!
//! The rules are zKillboard's (`docs/sources.md`): one request at a time, a tenth of a second between
//! documents, six seconds after a 404 and then the same number again, minutes after a 403. A 404 is ambiguous
//! (nothing new yet, a missing number, a stale edge of the CDN). From the second 404 on one later number is
//! therefore tried as well ([`LookAhead`]); if that exists, the follower continues after it, and the numbers
//! before it are retried alongside the feed. If too many in a row are missing, `sequence.json` shows after a
//! minute that the feed has moved on.
//!
//! A page instead of a document is a transport fault like a 5xx: it says nothing about the number. The same
//! number is requested again, and passed over only once a later one can be read.
//!
//! Must not know: clocks, sockets, JSON; who stores the killmails.

use crate::ingest::r2z2::exchange::{Notice, Reply, Request};
use crate::ingest::r2z2::follower_place::Place;
use crate::ingest::r2z2::look_ahead::LookAhead;
use crate::ingest::r2z2::missing_numbers::{PassedOver, RecoveryStep};
use crate::ingest::r2z2::oldest_file_search::{OldestFileSearch, SearchStep};
use crate::ingest::r2z2::waits::Waits;

/// Rewritten numbers remembered at once. Each is fetched before the next number, so there are hardly ever
/// two; the bound keeps the checkpoint small.
const REWRITTEN_MAX: usize = 256;
/// Tries of a rewritten file that does not exist before it is postponed.
const REWRITTEN_TRIES: u32 = 3;
/// From this many unreadable replies in a row on, later numbers are tried.
const UNREADABLE_MIN: u32 = 3;
/// Up to this many numbers passed over at once are remembered one by one. More become one range, which only
/// archives recover.
const SINGLE_MAX: u64 = 16;
/// A document is rarely published later than this after its killmail, seconds. Nothing that long before the
/// first document is looked for.
const BEFORE_SECS: i64 = 3600;
/// The feed is never silent for this long, seconds.
const SILENT_SECS: i64 = 30 * 86_400;
/// This many numbers missing one after the other start a search for the oldest file.
const MISSING_MAX: u32 = 3;

/// Where the follower stands. Times are unix milliseconds.
#[derive(Debug, Clone)]
pub struct FollowerState {
    waits: Waits,
    place: Place,
    /// The number in the last `sequence.json`.
    pointer: u64,
    /// The pointer the follower rolled back to last: it does so once for each value.
    rolled_to: Option<u64>,
    /// Replies in a row that were not the requested document.
    misfits: u32,
    /// Replies in a row without the rewritten file.
    rewritten_tries: u32,
    /// When a number that is unreadable may be requested again.
    held_until_ms: u64,
    ahead: LookAhead,
    /// A later number to request now.
    try_ahead: Option<u64>,
    /// Numbers missing one after the other, as `sequence.json` showed.
    missing_in_row: u32,
    /// Since when the next number is missing; starts over with every look at `sequence.json`.
    missing_since_ms: Option<u64>,
    /// Since when it is missing without a decision.
    stuck_since_ms: Option<u64>,
    check_pointer: bool,
    probe_after_next: bool,
    search: Option<OldestFileSearch>,
    /// The day whose archive lists killmails that are not stored.
    bodies_day: Option<i64>,
    /// Failed requests in a row.
    failures: u32,
    /// No request before this time.
    not_before_ms: u64,
    /// No request for the feed itself before this time; recovery may go on.
    feed_not_before_ms: u64,
}

impl FollowerState {
    /// Starts at a place known from before, or where `sequence.json` points if `place.next` is `None`.
    #[must_use]
    pub const fn new(waits: Waits, place: Place) -> Self {
        Self {
            waits,
            place,
            pointer: 0,
            rolled_to: None,
            misfits: 0,
            rewritten_tries: 0,
            held_until_ms: 0,
            ahead: LookAhead::new(),
            try_ahead: None,
            missing_in_row: 0,
            missing_since_ms: None,
            stuck_since_ms: None,
            check_pointer: false,
            probe_after_next: false,
            search: None,
            bodies_day: None,
            failures: 0,
            not_before_ms: 0,
            feed_not_before_ms: 0,
        }
    }

    /// The next request, and the time before which it must not be sent.
    #[must_use]
    pub fn next_request(&self) -> (Request, u64) {
        let feed_ms = self.not_before_ms.max(self.feed_not_before_ms);
        let Some(next) = self.place.next else { return (Request::Pointer, feed_ms) };
        if let Some(day) = self.bodies_day {
            return (Request::ArchiveBodies(day), self.not_before_ms);
        }
        // Recovery only uses the time the feed leaves.
        if let Some((step, due_ms)) = self.place.missing.next_step(self.begun(), &self.waits.recovery)
            && due_ms.max(self.not_before_ms) < feed_ms
        {
            let request = match step {
                RecoveryStep::Number(number) => {
                    Request::Retry { number, is_rewritten: self.place.missing.is_rewritten(number) }
                }
                RecoveryStep::Day(day) => Request::ArchiveList(day),
            };
            return (request, due_ms.max(self.not_before_ms));
        }
        let request = match (&self.search, self.try_ahead, self.place.rewritten.first()) {
            (Some(search), ..) => Request::Probe(search.number()),
            (None, Some(number), _) => Request::Ahead(number),
            (None, None, Some(rewritten)) => Request::Rewritten(*rewritten),
            (None, None, None) if self.check_pointer => Request::Pointer,
            (None, None, None) if self.probe_after_next => Request::Probe(next + 1),
            (None, None, None) => Request::Document(next),
        };
        (request, feed_ms)
    }

    /// Takes the reply to the last request, at `now_ms`.
    pub fn handle_reply(&mut self, request: Request, reply: Reply, now_ms: u64) -> Option<Notice> {
        let wait_ms = match (reply, request) {
            // A 429 says how long to wait. On other failures `Retry-After` can only prolong the wait.
            (Reply::Limited { retry_after_ms }, _) => retry_after_ms.unwrap_or(self.waits.limited_ms),
            (Reply::Forbidden { retry_after_ms }, _) => {
                self.waits.after_forbidden_ms(self.failures).max(retry_after_ms.unwrap_or(0))
            }
            (Reply::Failed { retry_after_ms }, _) => {
                self.waits.after_failure_ms(self.failures).max(retry_after_ms.unwrap_or(0))
            }
            // The number was skipped before: this is one more failed attempt.
            (Reply::Misfit { .. }, Request::Retry { number, .. }) => {
                self.not_before_ms = now_ms + self.waits.pace_ms;
                let closed = self.place.missing.note_failed_try(number, &self.waits.recovery, now_ms);
                return Some(closed.map_or(Notice::Unproven, |range| Notice::Recovered(vec![range])));
            }
            (Reply::Misfit { .. } | Reply::NotFound, Request::Ahead(number)) if self.misfits > 0 => {
                return Some(self.handle_unproven(number, now_ms));
            }
            (Reply::Misfit { .. }, _) => self.waits.after_failure_ms(self.failures),
            _ => return self.handle_success(request, reply, now_ms),
        };
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = now_ms + wait_ms;
        self.handle_failure(request, matches!(reply, Reply::Misfit { .. }), now_ms);
        Some(Notice::Waiting(wait_ms))
    }

    /// What a failure changes besides the wait: only the next number itself is requested again without end.
    fn handle_failure(&mut self, request: Request, is_misfit: bool, now_ms: u64) {
        match request {
            Request::Document(_) | Request::Rewritten(_) if is_misfit => {
                self.misfits += 1;
                if self.misfits >= UNREADABLE_MIN {
                    self.try_ahead = self.after_unreadable();
                    self.held_until_ms = self.not_before_ms;
                    self.not_before_ms = now_ms + self.waits.pace_ms;
                }
            }
            Request::Ahead(number) => {
                self.try_ahead = None;
                if self.misfits == 0 {
                    self.ahead.note_not_found(number, now_ms);
                    self.idle(now_ms);
                }
            }
            Request::Pointer if self.place.next.is_some() => {
                self.check_pointer = false;
                self.missing_since_ms = self.missing_since_ms.map(|_| now_ms);
                self.idle(now_ms);
            }
            Request::Probe(_) if is_misfit => {
                self.misfits += 1;
                if self.misfits >= UNREADABLE_MIN {
                    (self.search, self.probe_after_next, self.misfits) = (None, false, 0);
                    (self.missing_since_ms, self.stuck_since_ms) = (Some(now_ms), Some(now_ms));
                }
            }
            // The list is read again, to see what is still missing.
            Request::ArchiveList(day) | Request::ArchiveBodies(day) => {
                self.bodies_day = None;
                let begun = self.begun();
                self.place.missing.postpone_archive(day, begun, &self.waits.recovery, now_ms);
            }
            Request::Document(_)
            | Request::Rewritten(_)
            | Request::Pointer
            | Request::Probe(_)
            | Request::Retry { .. } => {}
        }
    }

    /// The number whose file proves that the feed continues after what is unreadable: the one after the next
    /// number, or the next number if a rewritten file before it is unreadable.
    fn after_unreadable(&self) -> Option<u64> {
        self.place.next.map(|next| next + u64::from(self.place.rewritten.is_empty()))
    }

    /// A number after an unreadable one is missing or unreadable as well, which proves nothing. In each round
    /// one further number is tried, in turn, since several in a row may be missing.
    fn handle_unproven(&mut self, number: u64, now_ms: u64) -> Notice {
        let further = self.waits.ahead_numbers.saturating_sub(1);
        let turn = u64::from(self.misfits.saturating_sub(UNREADABLE_MIN)).checked_rem(further);
        self.try_ahead =
            turn.filter(|_| Some(number) == self.after_unreadable()).map(|turn| number + 1 + turn);
        self.held_until_ms = self.held_until_ms.max(now_ms + self.waits.idle_ms);
        self.not_before_ms =
            if self.try_ahead.is_some() { now_ms + self.waits.pace_ms } else { self.held_until_ms };
        Notice::Unproven
    }

    /// What a checkpoint must remember.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Notes that a killmail of this time (unix seconds) was found in the archive of this day.
    pub fn note_recovered(&mut self, day: i64, time: i64) {
        let begun = self.begun();
        self.place.missing.note_recovered(day, time, begun);
    }

    /// Nothing older than this is looked for, unix seconds.
    #[must_use]
    pub fn begun(&self) -> i64 {
        self.place.begun.unwrap_or(i64::MAX)
    }

    fn handle_success(&mut self, request: Request, reply: Reply, now_ms: u64) -> Option<Notice> {
        self.failures = 0;
        self.not_before_ms = now_ms + self.waits.pace_ms;
        match request {
            Request::Pointer => self.handle_pointer(reply, now_ms),
            Request::Document(number) => self.handle_document(number, reply, now_ms),
            Request::Rewritten(number) => {
                self.handle_rewritten(number, reply, now_ms);
                None
            }
            Request::Ahead(number) => self.handle_ahead(number, reply, now_ms),
            Request::Probe(number) => self.handle_probe(number, reply, now_ms),
            Request::Retry { number, .. } => self.handle_retry(number, reply, now_ms),
            Request::ArchiveList(day) => self.handle_archive(day, reply, now_ms),
            Request::ArchiveBodies(day) => {
                self.bodies_day = None;
                self.handle_archive(day, reply, now_ms)
            }
        }
    }

    fn idle(&mut self, now_ms: u64) {
        self.feed_not_before_ms = now_ms + self.waits.idle_ms;
    }

    fn handle_pointer(&mut self, reply: Reply, now_ms: u64) -> Option<Notice> {
        self.check_pointer = false;
        let Reply::Pointer(pointer) = reply else {
            // There is no sequence.json: it is requested again after the idle wait, the next number until
            // then.
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
            // If more are missing than were tried, passing over them one by one would take this long for
            // each.
            let reach = Some(self.waits.ahead_numbers).filter(|numbers| *numbers > 0).unwrap_or(u64::MAX);
            if pointer - next > reach.min(self.waits.far_numbers) || self.missing_in_row >= MISSING_MAX {
                self.search = Some(OldestFileSearch::new(next + 1, pointer));
                return None;
            }
            self.missing_in_row += 1;
            return Some(self.skip_to(next + 1, now_ms));
        }
        // The feed has stopped here: another minute of 404s passes before the next look.
        self.missing_since_ms = self.missing_since_ms.map(|_| now_ms);
        let stuck_ms = self.stuck_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        if stuck_ms > self.waits.rollback_ms {
            self.probe_after_next = true;
        } else {
            self.idle(now_ms);
        }
        None
    }

    fn handle_document(&mut self, number: u64, reply: Reply, now_ms: u64) -> Option<Notice> {
        match reply {
            Reply::Document { updated, at } => self.advance(number, updated, at, now_ms),
            Reply::Placeholder => Some(self.skip_to(number + 1, now_ms)),
            _ => {
                self.misfits = 0;
                let since = *self.missing_since_ms.get_or_insert(now_ms);
                self.stuck_since_ms.get_or_insert(now_ms);
                self.ahead.note_not_found(number, now_ms);
                // Neither the pointer nor a later number is another try of this one, so neither has to wait.
                self.check_pointer = now_ms.saturating_sub(since) > self.waits.missing_ms;
                self.try_ahead = self
                    .ahead
                    .number_to_try(number, self.waits.ahead_numbers)
                    .filter(|_| !self.check_pointer);
                if !self.check_pointer && self.try_ahead.is_none() {
                    self.idle(now_ms);
                }
                None
            }
        }
    }

    /// The next document arrived, or a later one while the next is missing or unreadable.
    fn advance(&mut self, number: u64, updated: Option<u64>, at: Option<i64>, now_ms: u64) -> Option<Notice> {
        let recovered = self.place.missing.remove_arrived(number);
        if let Some(at) = at {
            self.note_published(at);
            self.place.missing.set_end(at);
        }
        self.go_to(number + 1);
        self.missing_in_row = 0;
        self.remember_rewritten(number, updated, now_ms);
        recovered.map(|range| Notice::Recovered(vec![range]))
    }

    /// The reply for a number after the next one, which is missing or (`misfits`) unreadable.
    fn handle_ahead(&mut self, number: u64, reply: Reply, now_ms: u64) -> Option<Notice> {
        self.try_ahead = None;
        if reply == Reply::NotFound || (reply == Reply::Placeholder && self.misfits > 0) {
            self.ahead.note_not_found(number, now_ms);
            self.idle(now_ms);
            return None;
        }
        if self.misfits > 0 && !self.place.rewritten.is_empty() {
            // What is unreadable is a rewritten file; it must no longer hold up the feed.
            let rewritten = self.place.rewritten.remove(0);
            self.pass_over(rewritten, rewritten, true, now_ms);
        }
        let Reply::Document { updated, at } = reply else { return Some(self.skip_to(number + 1, now_ms)) };
        let missing = self.place.next.filter(|next| *next < number).map(|_| self.skip_to(number, now_ms));
        let recovered = self.advance(number, updated, at, now_ms);
        missing.or(recovered)
    }

    /// A document was published at this time, unix seconds.
    fn note_published(&mut self, at: i64) {
        if self.place.last.is_none() {
            // Numbers passed over before the first document were dated by our clock. But the feed may be one
            // of older days, and the clock of a machine that has just booted may show 1970.
            let begun = at - BEFORE_SECS;
            self.place.begun =
                Some(self.place.begun.map_or(begun, |guess| guess.min(begun).max(at - SILENT_SECS)));
            self.place.missing.limit_from(at);
        }
        self.place.last = Some(at);
    }

    fn remember_rewritten(&mut self, by: u64, updated: Option<u64>, now_ms: u64) {
        let Some(updated) = updated.filter(|u| *u < by && !self.place.rewritten.contains(u)) else { return };
        self.place.rewritten.push(updated);
        if self.place.rewritten.len() > REWRITTEN_MAX {
            let oldest = self.place.rewritten.remove(0);
            self.pass_over(oldest, oldest, true, now_ms);
        }
    }

    fn handle_rewritten(&mut self, number: u64, reply: Reply, now_ms: u64) {
        self.misfits = 0;
        self.rewritten_tries += 1;
        let is_done = matches!(reply, Reply::Document { .. } | Reply::Placeholder);
        if !is_done && self.rewritten_tries < REWRITTEN_TRIES {
            return self.idle(now_ms);
        }
        self.rewritten_tries = 0;
        self.place.rewritten.retain(|rewritten| *rewritten != number);
        if !is_done {
            self.pass_over(number, number, true, now_ms);
        }
    }

    fn handle_probe(&mut self, number: u64, reply: Reply, now_ms: u64) -> Option<Notice> {
        self.misfits = 0;
        let exists = reply != Reply::NotFound;
        if let Some(search) = &mut self.search {
            let SearchStep::Found(first) = search.note_probe(exists) else { return None };
            self.search = None;
            return Some(self.skip_to(first, now_ms));
        }
        self.probe_after_next = false;
        let next = self.place.next?;
        if exists {
            return Some(self.skip_to(number, now_ms));
        }
        self.stuck_since_ms = Some(now_ms);
        // The number just requested may be reached again soon, so its wait must be kept.
        self.idle(now_ms);
        if self.pointer >= next || self.rolled_to == Some(self.pointer) {
            return None;
        }
        self.rolled_to = Some(self.pointer);
        self.go_to(self.pointer);
        Some(Notice::RolledBack { from: next, to: self.pointer })
    }

    fn handle_retry(&mut self, number: u64, reply: Reply, now_ms: u64) -> Option<Notice> {
        let closed = match reply {
            Reply::Document { updated, .. } => {
                self.remember_rewritten(number, updated, now_ms);
                self.place.missing.remove_arrived(number)
            }
            _ => self.place.missing.note_failed_try(number, &self.waits.recovery, now_ms),
        };
        closed.map(|range| Notice::Recovered(vec![range]))
    }

    fn handle_archive(&mut self, day: i64, reply: Reply, now_ms: u64) -> Option<Notice> {
        let (begun, missing) = (self.begun(), &mut self.place.missing);
        let closed = match reply {
            Reply::Listed { wanted: true } => {
                self.bodies_day = Some(day);
                return None;
            }
            Reply::Listed { wanted: false } | Reply::BodiesRead => missing.note_archive_read(day, begun),
            _ => missing.note_archive_missing(day, begun, &self.waits.recovery, now_ms),
        };
        (!closed.is_empty()).then_some(Notice::Recovered(closed))
    }

    /// Passes over all numbers before this one, for now.
    fn skip_to(&mut self, number: u64, now_ms: u64) -> Notice {
        let first = self.place.next.unwrap_or(number);
        let last = number.saturating_sub(1).max(first);
        let is_one_by_one = last - first < SINGLE_MAX;
        if is_one_by_one {
            (first..=last).for_each(|number| self.pass_over(number, number, false, now_ms));
        } else {
            self.pass_over(first, last, false, now_ms);
        }
        self.go_to(number);
        if is_one_by_one { Notice::Missing { first, last } } else { Notice::Gone { first, last } }
    }

    fn pass_over(&mut self, first: u64, last: u64, rewritten: bool, now_ms: u64) {
        let from = self.place.last.unwrap_or_else(|| i64::try_from(now_ms / 1000).unwrap_or(i64::MAX));
        self.place.begun.get_or_insert(from - BEFORE_SECS);
        let is_missing = !rewritten && self.misfits == 0;
        let requested_ms = self.ahead.last_tried_ms(first).filter(|_| is_missing).unwrap_or(now_ms);
        let passed_over = PassedOver { first, last, rewritten, from, now_ms, requested_ms };
        self.place.missing.add(passed_over, &self.waits.recovery);
    }

    fn go_to(&mut self, number: u64) {
        self.place.next = Some(number);
        (self.misfits, self.rewritten_tries, self.held_until_ms) = (0, 0, 0);
        self.ahead = LookAhead::new();
        self.try_ahead = None;
        self.missing_since_ms = None;
        self.stuck_since_ms = None;
        self.check_pointer = false;
        self.probe_after_next = false;
    }
}

#[cfg(test)]
#[path = "follower_state_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "missing_tests.rs"]
mod missing_tests;
