//! The wall clock, in the units used throughout.
//!
//! Must not know: what the time is used for.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds in a day. EVE's days are UTC days.
pub const DAY_SECS: i64 = 86_400;

/// Unix microseconds; 0 if the clock is before 1970.
#[must_use]
pub fn now_micros() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Unix milliseconds; 0 if the clock is before 1970.
#[must_use]
pub fn now_ms() -> i64 {
    now_micros() / 1_000
}

/// Unix seconds; 0 if the clock is before 1970.
#[must_use]
pub fn now_secs() -> i64 {
    now_micros() / 1_000_000
}
