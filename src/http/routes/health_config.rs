//! The settings of health (`[health]`): what makes the server unwell.
//!
//! Must not know: how it is found out.

use serde::{Deserialize, Serialize};

use crate::feed::silence::Limits;
use crate::telemetry::usual_rate;

/// When the server calls itself unwell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The source may keep away from the other side for so long before the server is unhealthy, seconds.
    pub breaker_open_secs: u64,
    /// So many documents of a source in a row, refused for one reason, degrade the server; 0: none do.
    pub refused_documents: u64,
    /// `/health/ready` turns when no killmail came for so long, seconds, or for longer where they usually
    /// come slower.
    pub silent_secs: u64,
    /// How many killmails have to be missing before it turns, by how many usually come at this hour.
    pub silent_killmails: f64,
    /// How many killmails usually come in a day, of the whole game; the hours have their usual shares.
    pub killmails_per_day: f64,
    /// The game's daily downtime from 11:00 UTC on is no silence, seconds.
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
    /// What is too silent.
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
