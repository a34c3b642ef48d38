//! The place of the follower: the part of its state that survives a restart.
//!
//! Must not know: when anything is fetched.

use serde::{Deserialize, Serialize};

use crate::ingest::r2z2::missing_numbers::MissingNumbers;

/// Stored as JSON in the checkpoint, with every killmail. On disk: names of members never change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The number to fetch next.
    pub next: Option<u64>,
    /// Older numbers whose files were rewritten and must be fetched again.
    pub rewritten: Vec<u64>,
    /// Numbers that were passed over.
    #[serde(rename = "holes")]
    pub missing: MissingNumbers,
    /// When the feed was first followed, unix seconds: an hour before the first document was published, or
    /// earlier if numbers were passed over before it. Nothing older is looked for in archives.
    pub begun: Option<i64>,
    /// When the last document was published, unix seconds.
    pub last: Option<i64>,
}
