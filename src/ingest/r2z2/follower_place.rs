//! The place of the follower that outlasts a restart: the number to go on with, and what is still to be fetched.
//!
//! Must not know: when anything is fetched.

use serde::{Deserialize, Serialize};

use crate::ingest::r2z2::missing_numbers::MissingNumbers;

/// What must be remembered: where to go on, and what is still to be healed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The number that comes next.
    pub next: Option<u64>,
    /// Older numbers still to be fetched again.
    pub rewritten: Vec<u64>,
    /// Numbers given up.
    pub holes: MissingNumbers,
    /// An hour before the first document ever was published, or earlier where numbers were given up before
    /// it, unix seconds: nothing older is looked for.
    pub begun: Option<i64>,
    /// When the last one was.
    pub last: Option<i64>,
}
