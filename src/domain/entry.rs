//! A killmail in the log: its number, where it came from and when, and its facts. What every floor above the
//! store hands around.
//!
//! Must not know: how an entry is written to disk or to a client; `json` is only the place where its one
//! encoding is kept.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::domain::facts::Facts;
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;

/// Older than this when it was appended: late, seconds.
pub const LATE_AFTER_SECS: u32 = 3600;

/// The first day of the game, 2003-05-06: nothing was lost before.
const FIRST_TIME: i64 = 1_052_179_200;
/// A killmail cannot have happened longer than this after we got it, seconds: clocks differ.
const TIME_AHEAD_MAX_SECS: i64 = 3600;

/// Whether a killmail that came then cannot have happened at this time. Who says so has no other time to
/// tell: it counts as undated.
#[must_use]
pub fn is_implausible(time: i64, received_at_ms: i64) -> bool {
    time < FIRST_TIME || time > received_at_ms.div_euclid(1000).saturating_add(TIME_AHEAD_MAX_SECS)
}

/// A source cannot publish a killmail longer than this after we got it, seconds: clocks differ, years do not.
const UPLOADED_AHEAD_MAX_SECS: i64 = 86_400;

/// When the source published a killmail, if that can be: not before it happened, and not a day after we got
/// it. Milliseconds are neither.
#[must_use]
pub fn sound_upload(uploaded_at: Option<i64>, time: i64, received_at_ms: i64) -> Option<i64> {
    let last = received_at_ms.div_euclid(1000).saturating_add(UPLOADED_AHEAD_MAX_SECS);
    uploaded_at.filter(|at| (time..=last).contains(at))
}

/// How a killmail came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Origin {
    /// A running source brought it.
    Live = 0,
    /// Import, archive, lookup or REST: never delivered by live parts.
    Backfill = 1,
}

/// A killmail with its place in the log.
#[derive(Debug)]
pub struct Entry {
    /// Its number in the log.
    pub seq: Seq,
    /// The revision its content is at; 0 at first.
    pub rev: u64,
    /// How it came.
    pub origin: Origin,
    /// When we got it, unix milliseconds.
    pub received_at_ms: i64,
    /// When the source published it, unix seconds, as far as that can be.
    pub uploaded_at: Option<i64>,
    /// How old it was when it was appended, seconds; fixed at append.
    pub age_secs: u32,
    /// The killmail itself.
    pub killmail: Killmail,
    /// What filters ask.
    pub facts: Facts,
    /// The canonical JSON, made once by whoever needs it first.
    pub json: OnceLock<Bytes>,
}

impl Entry {
    /// Whether it was old news when it came.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.age_secs > LATE_AFTER_SECS
    }
}

/// Entries are shared, never copied.
pub type SharedEntry = Arc<Entry>;

/// Entries handed on together. Who only reads them touches one count, not one of each.
pub type Page = Arc<Vec<SharedEntry>>;

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: i64 = 1_763_600_061;

    #[test]
    fn times_before_the_game_and_ahead_of_us_cannot_be() {
        for (time, implausible) in [
            (i64::MIN, true),
            (0, true),
            (FIRST_TIME - 1, true),
            (FIRST_TIME, false),
            (RECEIVED, false),
            (RECEIVED + 3600, false),
            (RECEIVED + 3601, true),
            (i64::MAX, true),
        ] {
            assert_eq!(is_implausible(time, RECEIVED * 1000 + 999), implausible, "{time}");
        }
    }

    #[test]
    fn an_upload_lies_between_the_killmail_and_the_day_after_it_came() {
        let sound = |at| sound_upload(Some(at), RECEIVED - 60, RECEIVED * 1000);
        for at in [RECEIVED - 60, RECEIVED, RECEIVED + 86_400] {
            assert_eq!(sound(at), Some(at));
        }
        for at in [0, RECEIVED - 61, RECEIVED + 86_401, RECEIVED * 1000, i64::MAX] {
            assert_eq!(sound(at), None, "{at}");
        }
    }
}
