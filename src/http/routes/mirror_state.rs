//! What the mirror keeps between requests, and its settings.
//!
//! Must not know: requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::domain::id::Seq;

/// The mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A request waits for what is not there yet no longer than this, seconds, whatever it asks for; 0: it
    /// never waits.
    pub wait_max_secs: u64,
    /// Requests that wait at a time; more are answered at once.
    pub waiting_max: usize,
    /// Histories of a day on their way at a time: each is read from the disk.
    pub days_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { wait_max_secs: 60, waiting_max: 1_000, days_max: 8 }
    }
}

/// What the mirror keeps between requests.
pub struct Mirror {
    /// Places for requests that wait.
    pub waiting: Semaphore,
    /// Places for histories of a day on their way.
    pub days: Arc<Semaphore>,
    /// Killmails of each day, and up to which number they were counted.
    pub counted: Mutex<(Seq, BTreeMap<i64, u64>)>,
}

impl Mirror {
    /// Nobody asked yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let most = |count: usize| count.min(Semaphore::MAX_PERMITS);
        Self {
            waiting: Semaphore::new(most(config.waiting_max)),
            days: Arc::new(Semaphore::new(most(config.days_max))),
            counted: Mutex::default(),
        }
    }
}
