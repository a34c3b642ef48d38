//! What a page of killmails is judged for, how long the instance lives that judges it, and what comes of it.
//!
//! Must not know: which component judges, or on which thread.

use crate::domain::id::Seq;
use crate::domain::verdict::{Failure, Fault, Verdict};

/// What a guest says of a killmail, or what it did wrong.
pub type Judgment = Result<Verdict, Failure>;
/// The same without what is told of a fault.
pub type Answer = Result<Verdict, Fault>;

/// How long instances live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Instance {
    /// From call to call: 0.3 us a call.
    #[default]
    Warm,
    /// For one call: for guests that are not repeatable otherwise; 26 us more a call.
    Fresh,
}

/// What a page is judged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Live parts: judged first, remembered for equal pairs.
    Live,
    /// Preload, catching up, history: judged when nothing live waits.
    History {
        /// The head when the run began: what backfilled killmails see of history.
        head: Seq,
    },
}
