//! The settings of health (`[health]`): what makes the server degraded, unhealthy or not ready.
//!
//! Must not know: how it is measured.

use serde::{Deserialize, Serialize};

use crate::telemetry::silence::Limits;
use crate::telemetry::usual_rate;

/// When the server reports itself as degraded, unhealthy or not ready.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The server is unhealthy when the breaker of the source has been open for longer, seconds.
    pub breaker_open_secs: u64,
    /// The server is degraded when this many documents of a source in a row are refused for the same reason;
    /// 0: never.
    pub refused_documents: u64,
    /// `/health/ready` fails when no killmail arrived for this time, seconds, or for longer at hours when
    /// they usually arrive more slowly.
    pub silent_secs: u64,
    /// How many killmails have to be missing before it fails, given how many usually arrive at this hour.
    pub silent_killmails: f64,
    /// How many killmails usually arrive in a day, of the whole game; each hour has its usual share.
    pub killmails_per_day: f64,
    /// How long the game's daily downtime lasts from 11:00 UTC on, seconds; it does not count as silence.
    pub downtime_secs: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            breaker_open_secs: 600,
            refused_documents: 10,
            silent_secs: 300,
            silent_killmails: 8.0,
            killmails_per_day: 12_000.0,
            downtime_secs: usual_rate::DOWNTIME_SECS,
        }
    }
}

impl Config {
    /// The limits on silence.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            least_secs: self.silent_secs,
            killmails: self.silent_killmails,
            per_day: self.killmails_per_day,
            downtime_secs: self.downtime_secs,
        }
    }
}
