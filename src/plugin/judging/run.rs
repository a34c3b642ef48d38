//! What a page of killmails is judged for, how long the instance that judges it lives, and the result.
//!
//! Must not know: which component judges, or on which thread.

use crate::domain::id::Seq;
use crate::domain::verdict::{Failure, Fault, Verdict};

/// The verdict of a guest, or what went wrong.
pub type Judgment = Result<Verdict, Failure>;
/// The same without the message of a fault.
pub type Answer = Result<Verdict, Fault>;

/// How long instances live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Instance {
    /// Across calls: 0.3 us per call.
    #[default]
    Warm,
    /// For one call, for guests that are not repeatable otherwise: 26 us more per call.
    Fresh,
}

/// What a page is judged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Live streams: judged first, and remembered for equal pairs.
    Live,
    /// Preload, catching up, history requests: judged when no live page waits.
    History {
        /// The head when the run began: it bounds the history that backfilled killmails see.
        head: Seq,
    },
}
