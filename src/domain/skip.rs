//! Why a killmail does not reach a reader: the words the debug log uses. `docs/logging.md` lists them.
//!
//! Must not know: who reads, or how anything is logged.

use std::fmt;

/// The log target of everything that follows a killmail from its source to a client.
pub const DELIVERY: &str = "killstream::delivery";

/// Why a killmail was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// It was stored before, so it is not announced again.
    Known,
    /// It came from an archive or an import, which live parts never deliver.
    Backfill,
    /// It was older than the subscription's `max_age_secs` when it arrived.
    Age,
    /// The subscription's filter does not match it.
    Filter,
    /// The filter matches it, but it is outside the plugin's declared interest.
    Interest,
    /// The plugin dropped it.
    Verdict,
    /// The plugin failed on it.
    Fault,
    /// The client has it already: preloads and live killmails of one channel can overlap.
    AlreadySent,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Known => "known",
            Self::Backfill => "backfill",
            Self::Age => "age",
            Self::Filter => "filter",
            Self::Interest => "interest",
            Self::Verdict => "verdict",
            Self::Fault => "fault",
            Self::AlreadySent => "already_sent",
        })
    }
}
