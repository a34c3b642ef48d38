//! The settings of the mirror (`[mirror]`), and what it keeps between requests.
//!
//! Must not know: requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::domain::id::Seq;

/// Limits of the mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The longest time a request may wait for a file that does not exist yet, seconds; 0: it never waits.
    pub wait_max_secs: u64,
    /// Requests waiting at a time; more get their response at once.
    pub waiting_max: usize,
    /// Day files sent at a time: each is read from disk.
    pub days_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { wait_max_secs: 60, waiting_max: 1_000, days_max: 8 }
    }
}

/// What the mirror keeps between requests.
pub struct MirrorState {
    /// A permit for each request that waits.
    pub waiting: Semaphore,
    /// A permit for each day file that is being sent.
    pub days: Arc<Semaphore>,
    /// Killmails per day, counted further with each request.
    pub day_counts: Mutex<DayCounts>,
}

/// The number of killmails of each day.
#[derive(Debug, Default)]
pub struct DayCounts {
    /// Entries up to this number are counted.
    pub upto: Seq,
    /// By day, since the epoch.
    pub days: BTreeMap<i64, u64>,
}

impl MirrorState {
    /// The state before the first request.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let permits = |count: usize| count.min(Semaphore::MAX_PERMITS);
        Self {
            waiting: Semaphore::new(permits(config.waiting_max)),
            days: Arc::new(Semaphore::new(permits(config.days_max))),
            day_counts: Mutex::default(),
        }
    }
}
