//! Which phase a connection is in and since when; its time limits are checked against this. The caller supplies
//! the time.
//!
//! Must not know: sockets, clocks, what is asked for.

use std::sync::atomic::{AtomicU64, Ordering};

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; no bytes received yet.
    New,
    /// Receiving the head of a request.
    Head,
    /// Answering a request.
    Request,
    /// Sending a response that may be as slow as the client is, such as a stream.
    Stream,
    /// Between a response and the next request.
    Idle,
    /// Upgraded to another protocol, which has its own limits.
    Upgraded,
}

const PHASES: [Phase; 6] =
    [Phase::New, Phase::Head, Phase::Request, Phase::Stream, Phase::Idle, Phase::Upgraded];
const PHASE_BITS: u32 = 3;

/// Time limits of a connection, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// To receive the head of a request. For the first one, counted from when the connection was accepted.
    pub head_ms: u64,
    /// Between a response and the next request.
    pub idle_ms: u64,
    /// Without the client reading any bytes while a write is pending.
    pub write_ms: u64,
}

/// The time limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// No bytes were received at all.
    Silent,
    /// The head of a request is incomplete.
    Head,
    /// No further request arrived.
    Idle,
    /// The client does not read the response.
    Write,
}

/// The phase of a connection and when it began. May be read from other threads.
#[derive(Debug)]
pub struct Progress {
    /// When the phase began, milliseconds, and the phase in the low bits.
    phase_since: AtomicU64,
    /// Since when a write has been waiting for the client, milliseconds; 0 if none is.
    blocked_since: AtomicU64,
}

impl Progress {
    /// The progress of a connection accepted at `now`.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self { phase_since: AtomicU64::new(now << PHASE_BITS), blocked_since: AtomicU64::new(0) }
    }

    fn get(&self) -> (Phase, u64) {
        let packed = self.phase_since.load(Ordering::Relaxed);
        let index = (packed & ((1 << PHASE_BITS) - 1)) as usize;
        (PHASES.get(index).copied().unwrap_or(Phase::Request), packed >> PHASE_BITS)
    }

    fn set(&self, phase: Phase, now: u64) {
        self.phase_since.store(now << PHASE_BITS | phase as u64, Ordering::Relaxed);
    }

    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.get().0
    }

    /// Records that bytes were received. Returns whether they begin the head of a request.
    pub fn received(&self, now: u64) -> bool {
        match self.get() {
            // The time for the first head starts with the connection.
            (Phase::New, accepted) => self.set(Phase::Head, accepted),
            (Phase::Idle, _) => self.set(Phase::Head, now),
            _ => return false,
        }
        true
    }

    /// Records that the head is complete and the request is being answered.
    pub fn request_started(&self, now: u64) {
        self.set(Phase::Request, now);
    }

    /// Records that the response may be as slow as the client is.
    pub fn stream_started(&self, now: u64) {
        self.set(Phase::Stream, now);
    }

    /// Records the switch to another protocol.
    pub fn upgraded(&self, now: u64) {
        self.set(Phase::Upgraded, now);
    }

    /// Records that the whole response was handed to the socket.
    pub fn response_finished(&self, now: u64) {
        if self.phase() != Phase::Upgraded {
            self.set(Phase::Idle, now);
        }
    }

    /// Records that a write succeeded.
    pub fn wrote(&self, now: u64) {
        if self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
        // The end of a response was still being sent: the wait for the next request begins only now.
        if self.phase() == Phase::Idle {
            self.set(Phase::Idle, now);
        }
    }

    /// Records that a write is waiting for the client.
    pub fn write_blocked(&self, now: u64) {
        // Fails if an earlier write is waiting; that one counts.
        let _ = self.blocked_since.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The time limit that is exceeded at `now`, if any.
    #[must_use]
    pub fn timeout(&self, now: u64, times: &TimeLimits) -> Option<Timeout> {
        let over = |since: u64, max: u64| now.saturating_sub(since) >= max;
        let (phase, since) = self.get();
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        match phase {
            Phase::Stream | Phase::Upgraded => None,
            _ if blocked != 0 => over(blocked, times.write_ms).then_some(Timeout::Write),
            Phase::New => over(since, times.head_ms).then_some(Timeout::Silent),
            Phase::Head => over(since, times.head_ms).then_some(Timeout::Head),
            Phase::Idle => over(since, times.idle_ms).then_some(Timeout::Idle),
            Phase::Request => None,
        }
    }

    /// Since when there has been no request to answer; `None` while there is one.
    #[must_use]
    pub fn idle_since(&self) -> Option<u64> {
        let (phase, since) = self.get();
        let idle = matches!(phase, Phase::New | Phase::Head | Phase::Idle)
            && self.blocked_since.load(Ordering::Relaxed) == 0;
        idle.then_some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: TimeLimits = TimeLimits { head_ms: 10, idle_ms: 75, write_ms: 30 };

    #[test]
    fn a_silent_connection_has_as_long_as_a_head() {
        let progress = Progress::new(100);
        assert_eq!(
            (progress.timeout(109, &TIMES), progress.timeout(110, &TIMES)),
            (None, Some(Timeout::Silent))
        );
    }

    #[test]
    fn trickling_bytes_do_not_extend_the_time_for_a_head() {
        let progress = Progress::new(100);
        assert!(progress.received(105));
        assert!(!progress.received(108));
        assert_eq!(
            (progress.timeout(109, &TIMES), progress.timeout(110, &TIMES)),
            (None, Some(Timeout::Head))
        );
        progress.request_started(109);
        assert_eq!(progress.timeout(1_000_000, &TIMES), None, "a response may take as long as it needs");
        assert!(!progress.received(200), "a body is not a head");
    }

    #[test]
    fn the_wait_for_the_next_request_starts_with_the_last_byte_sent() {
        let progress = Progress::new(0);
        progress.received(0);
        progress.request_started(1);
        progress.response_finished(100);
        assert_eq!(
            (progress.timeout(174, &TIMES), progress.timeout(175, &TIMES)),
            (None, Some(Timeout::Idle))
        );
        progress.wrote(150);
        assert_eq!(
            (progress.timeout(224, &TIMES), progress.timeout(225, &TIMES)),
            (None, Some(Timeout::Idle))
        );
        assert!(progress.received(224));
        assert_eq!(
            (progress.timeout(233, &TIMES), progress.timeout(234, &TIMES)),
            (None, Some(Timeout::Head))
        );
    }

    #[test]
    fn a_client_that_reads_nothing_times_out_and_any_byte_restarts_the_time() {
        let progress = Progress::new(0);
        progress.request_started(1);
        progress.write_blocked(10);
        progress.write_blocked(39);
        assert_eq!(
            (progress.timeout(39, &TIMES), progress.timeout(40, &TIMES)),
            (None, Some(Timeout::Write))
        );
        progress.wrote(39);
        assert_eq!(progress.timeout(60, &TIMES), None);
        progress.write_blocked(60);
        progress.response_finished(61);
        assert_eq!(
            (progress.timeout(89, &TIMES), progress.timeout(90, &TIMES)),
            (None, Some(Timeout::Write))
        );
        assert_eq!(progress.idle_since(), None, "a response being sent is not idle");
    }

    #[test]
    fn streams_and_upgraded_connections_have_no_time_limits_here() {
        let stream = Progress::new(0);
        stream.request_started(1);
        stream.stream_started(2);
        stream.write_blocked(3);
        assert_eq!((stream.timeout(1_000_000, &TIMES), stream.idle_since()), (None, None));
        let upgraded = Progress::new(0);
        upgraded.request_started(1);
        upgraded.upgraded(2);
        upgraded.response_finished(3);
        upgraded.write_blocked(4);
        assert!(!upgraded.received(5));
        assert_eq!((upgraded.timeout(1_000_000, &TIMES), upgraded.idle_since()), (None, None));
    }

    #[test]
    fn a_connection_without_a_request_is_idle() {
        let progress = Progress::new(7);
        assert_eq!(progress.idle_since(), Some(7));
        progress.received(8);
        assert_eq!(progress.idle_since(), Some(7));
        progress.request_started(9);
        assert_eq!(progress.idle_since(), None);
        progress.response_finished(10);
        assert_eq!(progress.idle_since(), Some(10));
    }
}
