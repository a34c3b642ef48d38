//! A killmail in the log: its sequence number, how and when it arrived, and its facts. Everything above the
//! store passes these around.
//!
//! Must not know: how an entry is written to disk or to a client. `json` only caches the encoding.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::domain::facts::Facts;
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;

/// A killmail older than this when it was appended is late, seconds.
pub const LATE_AFTER_SECS: u32 = 3600;

/// 2003-05-06, the day the game was launched: no killmail can be older.
const FIRST_TIME: i64 = 1_052_179_200;
/// How far ahead of the time of arrival a killmail may be, seconds: clocks differ.
const TIME_AHEAD_MAX_SECS: i64 = 3600;

/// Whether a killmail that arrived at `received_at_ms` cannot have happened at `time`. Its source has no
/// other time to offer, so the killmail counts as undated.
#[must_use]
pub fn is_implausible(time: i64, received_at_ms: i64) -> bool {
    time < FIRST_TIME || time > received_at_ms.div_euclid(1000).saturating_add(TIME_AHEAD_MAX_SECS)
}

/// How far ahead of the time of arrival an upload time may be, seconds: clocks differ by hours, not by years.
const UPLOADED_AHEAD_MAX_SECS: i64 = 86_400;

/// The upload time if it is plausible: not before the killmail happened, and at most a day after it arrived.
/// That also excludes times in milliseconds.
#[must_use]
pub fn plausible_upload_time(uploaded_at: Option<i64>, time: i64, received_at_ms: i64) -> Option<i64> {
    let last = received_at_ms.div_euclid(1000).saturating_add(UPLOADED_AHEAD_MAX_SECS);
    uploaded_at.filter(|at| (time..=last).contains(at))
}

/// How a killmail arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Origin {
    /// A live source delivered it.
    Live = 0,
    /// Import, archive, lookup or REST: live readers do not deliver it.
    Backfill = 1,
}

/// A killmail with its position in the log.
#[derive(Debug)]
pub struct Entry {
    /// Its sequence number.
    pub seq: Seq,
    /// Revision of its content; 0 until it is revised.
    pub rev: u64,
    /// How it arrived.
    pub origin: Origin,
    /// When it arrived, unix milliseconds.
    pub received_at_ms: i64,
    /// When the source published it, unix seconds; `None` if unknown or implausible.
    pub uploaded_at: Option<i64>,
    /// Its age when it was appended, seconds.
    pub age_secs: u32,
    /// The killmail itself.
    pub killmail: Killmail,
    /// What filters match on.
    pub facts: Facts,
    /// The canonical JSON, encoded once by the first reader that needs it.
    pub json: OnceLock<Bytes>,
}

impl Entry {
    /// Whether it was older than [`LATE_AFTER_SECS`] when it arrived.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.age_secs > LATE_AFTER_SECS
    }
}

/// Entries are shared between readers, never copied.
pub type SharedEntry = Arc<Entry>;

/// Entries passed on together, so that a reader touches one reference count instead of one for each entry.
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
        let sound = |at| plausible_upload_time(Some(at), RECEIVED - 60, RECEIVED * 1000);
        for at in [RECEIVED - 60, RECEIVED, RECEIVED + 86_400] {
            assert_eq!(sound(at), Some(at));
        }
        for at in [0, RECEIVED - 61, RECEIVED + 86_401, RECEIVED * 1000, i64::MAX] {
            assert_eq!(sound(at), None, "{at}");
        }
    }
}
