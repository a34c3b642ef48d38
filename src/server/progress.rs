//! How far a connection is with its request, and since when: what its time limits are judged by. Time is
//! counted outside.
//!
//! Must not know: sockets, clocks, what is asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Just accepted; nothing came yet.
    New,
    /// The head of a request is coming.
    Head,
    /// A request is answered.
    Request,
    /// The answer is one that goes on at the client's pace.
    Stream,
    /// An answer was given and no further request has begun.
    Idle,
    /// It speaks another protocol now, with limits of its own.
    Upgraded,
}

const PHASES: [Phase; 6] =
    [Phase::New, Phase::Head, Phase::Request, Phase::Stream, Phase::Idle, Phase::Upgraded];
const PHASE_BITS: u32 = 3;

/// How long a connection may take, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// For the head of a request; for the first one from the moment it was accepted.
    pub head_ms: u64,
    /// Between an answer and the next request.
    pub idle_ms: u64,
    /// Without taking a byte of what is to be written.
    pub write_ms: u64,
}

/// The limit that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// Nothing came at all.
    Silent,
    /// The head of a request is not whole.
    Head,
    /// No further request came.
    Idle,
    /// The client takes nothing of its answer.
    Write,
}

/// Where a connection is and since when. Readers may be on other threads than the connection.
#[derive(Debug)]
pub struct Progress {
    /// Milliseconds and phase.
    at: AtomicU64,
    /// Since when a write waits for the client, 0: none does.
    blocked: AtomicU64,
}

impl Progress {
    /// Accepted now.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self { at: AtomicU64::new(now << PHASE_BITS), blocked: AtomicU64::new(0) }
    }

    fn get(&self) -> (Phase, u64) {
        let at = self.at.load(Ordering::Relaxed);
        let index = (at & ((1 << PHASE_BITS) - 1)) as usize;
        (PHASES.get(index).copied().unwrap_or(Phase::Request), at >> PHASE_BITS)
    }

    fn set(&self, phase: Phase, now: u64) {
        self.at.store(now << PHASE_BITS | phase as u64, Ordering::Relaxed);
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.get().0
    }

    /// Bytes came. `true`: they begin the head of a request.
    pub fn came(&self, now: u64) -> bool {
        match self.get() {
            // The first head has as long as the connection exists.
            (Phase::New, accepted) => self.set(Phase::Head, accepted),
            (Phase::Idle, _) => self.set(Phase::Head, now),
            _ => return false,
        }
        true
    }

    /// The head is whole and the request is being answered.
    pub fn request(&self, now: u64) {
        self.set(Phase::Request, now);
    }

    /// The answer goes on at the client's pace.
    pub fn stream(&self, now: u64) {
        self.set(Phase::Stream, now);
    }

    /// Another protocol is spoken from here on.
    pub fn upgraded(&self, now: u64) {
        self.set(Phase::Upgraded, now);
    }

    /// All of the answer was handed over.
    pub fn answered(&self, now: u64) {
        if self.phase() != Phase::Upgraded {
            self.set(Phase::Idle, now);
        }
    }

    /// The client took bytes.
    pub fn wrote(&self, now: u64) {
        if self.blocked.load(Ordering::Relaxed) != 0 {
            self.blocked.store(0, Ordering::Relaxed);
        }
        // The end of an answer is still on its way: the wait for the next request has not begun.
        if self.phase() == Phase::Idle {
            self.set(Phase::Idle, now);
        }
    }

    /// The client takes no bytes.
    pub fn blocked(&self, now: u64) {
        // Fails where an earlier write waits already, and that one counts.
        let _ = self.blocked.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The limit that is broken now.
    #[must_use]
    pub fn overdue(&self, now: u64, times: &Times) -> Option<Overdue> {
        let over = |since: u64, max: u64| now.saturating_sub(since) >= max;
        let (phase, since) = self.get();
        let blocked = self.blocked.load(Ordering::Relaxed);
        match phase {
            Phase::Stream | Phase::Upgraded => None,
            _ if blocked != 0 => over(blocked, times.write_ms).then_some(Overdue::Write),
            Phase::New => over(since, times.head_ms).then_some(Overdue::Silent),
            Phase::Head => over(since, times.head_ms).then_some(Overdue::Head),
            Phase::Idle => over(since, times.idle_ms).then_some(Overdue::Idle),
            Phase::Request => None,
        }
    }

    /// Since when no request is under way; `None` while one is.
    #[must_use]
    pub fn idle_since(&self) -> Option<u64> {
        let (phase, since) = self.get();
        let idle = matches!(phase, Phase::New | Phase::Head | Phase::Idle)
            && self.blocked.load(Ordering::Relaxed) == 0;
        idle.then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { head_ms: 10, idle_ms: 75, write_ms: 30 };

    #[test]
    fn a_silent_connection_has_the_time_of_a_head() {
        let progress = Progress::new(100);
        assert_eq!(
            (progress.overdue(109, &TIMES), progress.overdue(110, &TIMES)),
            (None, Some(Overdue::Silent))
        );
    }

    #[test]
    fn bytes_that_trickle_in_do_not_prolong_a_head() {
        let progress = Progress::new(100);
        assert!(progress.came(105));
        assert!(!progress.came(108));
        assert_eq!(
            (progress.overdue(109, &TIMES), progress.overdue(110, &TIMES)),
            (None, Some(Overdue::Head))
        );
        progress.request(109);
        assert_eq!(progress.overdue(1_000_000, &TIMES), None, "an answer takes as long as it takes");
        assert!(!progress.came(200), "a body is no head");
    }

    #[test]
    fn the_wait_for_the_next_request_begins_with_the_last_byte_taken() {
        let progress = Progress::new(0);
        progress.came(0);
        progress.request(1);
        progress.answered(100);
        assert_eq!(
            (progress.overdue(174, &TIMES), progress.overdue(175, &TIMES)),
            (None, Some(Overdue::Idle))
        );
        progress.wrote(150);
        assert_eq!(
            (progress.overdue(224, &TIMES), progress.overdue(225, &TIMES)),
            (None, Some(Overdue::Idle))
        );
        assert!(progress.came(224));
        assert_eq!(
            (progress.overdue(233, &TIMES), progress.overdue(234, &TIMES)),
            (None, Some(Overdue::Head))
        );
    }

    #[test]
    fn a_client_that_takes_nothing_is_over_its_time_and_any_byte_begins_it_anew() {
        let progress = Progress::new(0);
        progress.request(1);
        progress.blocked(10);
        progress.blocked(39);
        assert_eq!(
            (progress.overdue(39, &TIMES), progress.overdue(40, &TIMES)),
            (None, Some(Overdue::Write))
        );
        progress.wrote(39);
        assert_eq!(progress.overdue(60, &TIMES), None);
        progress.blocked(60);
        progress.answered(61);
        assert_eq!(
            (progress.overdue(89, &TIMES), progress.overdue(90, &TIMES)),
            (None, Some(Overdue::Write))
        );
        assert_eq!(progress.idle_since(), None, "an answer on its way is no idleness");
    }

    #[test]
    fn streams_and_upgraded_connections_keep_their_own_rules() {
        let stream = Progress::new(0);
        stream.request(1);
        stream.stream(2);
        stream.blocked(3);
        assert_eq!((stream.overdue(1_000_000, &TIMES), stream.idle_since()), (None, None));
        let upgraded = Progress::new(0);
        upgraded.request(1);
        upgraded.upgraded(2);
        upgraded.answered(3);
        upgraded.blocked(4);
        assert!(!upgraded.came(5));
        assert_eq!((upgraded.overdue(1_000_000, &TIMES), upgraded.idle_since()), (None, None));
    }

    #[test]
    fn who_has_no_request_under_way_is_idle() {
        let progress = Progress::new(7);
        assert_eq!(progress.idle_since(), Some(7));
        progress.came(8);
        assert_eq!(progress.idle_since(), Some(7));
        progress.request(9);
        assert_eq!(progress.idle_since(), None);
        progress.answered(10);
        assert_eq!(progress.idle_since(), Some(10));
    }
}
