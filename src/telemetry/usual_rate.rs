//! The usual rate of killmails through the day: when the feed is quiet, and when it is too quiet.
//!
//! Must not know: clocks; who is notified.

use crate::clock::DAY_SECS;
use crate::universe::activity::KILLMAILS_BY_HOUR;

/// The game goes down at 11:00 UTC and is back within a quarter of an hour (`docs/sources.md`).
const DOWNTIME_FROM_SECS: i64 = 11 * 3600;
/// The length of the daily downtime.
pub const DOWNTIME_SECS: u32 = 15 * 60;

/// Whether the game is in its daily downtime at this time, unix seconds.
#[must_use]
pub const fn is_downtime(unix_secs: i64) -> bool {
    let of_day = unix_secs.rem_euclid(DAY_SECS);
    DOWNTIME_FROM_SECS <= of_day && of_day < DOWNTIME_FROM_SECS + DOWNTIME_SECS as i64
}

/// The time between two times (unix seconds) without daily downtimes of this length.
#[must_use]
pub fn silence_secs(since: i64, now: i64, downtime_secs: u32) -> i64 {
    let downtime_secs = i64::from(downtime_secs);
    let down_until = |at: i64| {
        let (days, of_day) = (at.div_euclid(DAY_SECS), at.rem_euclid(DAY_SECS));
        days * downtime_secs + (of_day - DOWNTIME_FROM_SECS).clamp(0, downtime_secs)
    };
    (now - since - (down_until(now) - down_until(since))).max(0)
}

/// The usual number of killmails in the hour of this time (unix seconds), at this many a day.
#[must_use]
pub fn usual_per_hour(unix_secs: i64, per_day: f64) -> f64 {
    let hour = usize::try_from(unix_secs.rem_euclid(DAY_SECS) / 3600).unwrap_or(0);
    per_day * f64::from(KILLMAILS_BY_HOUR[hour]) / f64::from(KILLMAILS_BY_HOUR.iter().sum::<u32>())
}

/// How long the feed may be silent at this time (unix seconds): as long as `killmails` usually take to
/// arrive, but at least `least_secs`.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "seconds, and floats saturate")]
pub fn silent_max_secs(unix_secs: i64, least_secs: u64, killmails: f64, per_day: f64) -> i64 {
    let usual_secs =
        (killmails * 3600.0 / usual_per_hour(unix_secs, per_day).max(f64::MIN_POSITIVE)).ceil() as i64;
    usual_secs.max(i64::try_from(least_secs).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 20_000 * DAY_SECS + 12 * 3600;
    const ELEVEN: i64 = NOON - 3600;

    #[test]
    fn the_downtime_is_the_first_quarter_of_an_hour_after_eleven() {
        assert_eq!(
            [ELEVEN - 1, ELEVEN, ELEVEN + 899, ELEVEN + 900, NOON].map(is_downtime),
            [false, true, true, false, false]
        );
    }

    #[test]
    fn downtimes_do_not_count_as_silence() {
        assert_eq!(silence_secs(ELEVEN - 60, ELEVEN + 600, 900), 60);
        assert_eq!(silence_secs(ELEVEN - 60, ELEVEN + 960, 900), 120);
        assert_eq!(silence_secs(ELEVEN + 300, ELEVEN + 600, 900), 0);
        assert_eq!(silence_secs(NOON, NOON + 100, 900), 100);
        assert_eq!(silence_secs(NOON, NOON + 2 * DAY_SECS, 900), 2 * DAY_SECS - 1800);
        assert_eq!(silence_secs(NOON, NOON - 5, 900), 0, "a clock set back");
    }

    #[test]
    fn a_quiet_hour_allows_a_longer_silence() {
        let max = |at, per_day| silent_max_secs(at, 300, 8.0, per_day);
        assert_eq!(max(NOON, 12_000.0), 300, "the real feed is never that quiet");
        assert_eq!(max(NOON, 0.0), i64::MAX);
        let (down, peak) = (max(ELEVEN + 1800, 500.0), max(NOON + 7 * 3600, 500.0));
        assert!(down > 3 * peak && peak > 300, "{down} {peak}");
        assert!((usual_per_hour(NOON + 7 * 3600, 83_228.0 / 7.0) - 5732.0 / 7.0).abs() < 1e-6);
    }
}
