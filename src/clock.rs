//! The wall clock, as ingest reads it.
//!
//! Must not know: what it is read for.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds; 0 for a clock before 1970.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
