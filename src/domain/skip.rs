//! Why a killmail does not reach a reader: the words the debug log uses. `docs/logging.md` lists them.
//!
//! Must not know: who reads, or how anything is logged.

use std::fmt;

use crate::domain::entry::Origin;

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

/// Why the live part of a stream skips a killmail that came this way and was `age_secs` old when it was
/// appended; `None`: it does not. With a `max_age_secs` of 0, age does not matter.
#[must_use]
pub const fn skip_live(origin: Origin, age_secs: u32, max_age_secs: u32) -> Option<Skip> {
    match origin {
        Origin::Backfill => Some(Skip::Backfill),
        Origin::Live if max_age_secs != 0 && age_secs > max_age_secs => Some(Skip::Age),
        Origin::Live => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_killmails_that_are_not_too_old_are_delivered_live() {
        for (origin, age_secs, max_age_secs, skip) in [
            (Origin::Live, 3600, 3600, None),
            (Origin::Live, 3601, 3600, Some(Skip::Age)),
            (Origin::Live, u32::MAX, 0, None),
            (Origin::Backfill, 0, 3600, Some(Skip::Backfill)),
            (Origin::Backfill, 0, 0, Some(Skip::Backfill)),
        ] {
            assert_eq!(skip_live(origin, age_secs, max_age_secs), skip, "{origin:?} {age_secs}");
        }
    }
}
