//! Parses and formats times.
//!
//! Must not know: what the times mean.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

use crate::clock::now_micros;

/// Whether [`iso_seconds`] can write this time.
#[must_use]
pub fn is_writable(unix_secs: i64) -> bool {
    /// Begin of the year 0: earlier years have a sign.
    const FIRST: i64 = -62_167_219_200;
    (FIRST..=Timestamp::MAX.as_second()).contains(&unix_secs)
}

/// Unix seconds as ISO 8601 UTC: `2021-11-27T00:00:00Z`. Times outside of the calendar's range are clamped.
#[must_use]
pub fn iso_seconds(unix_secs: i64) -> String {
    nearest(i128::from(unix_secs) * 1_000_000_000).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Unix milliseconds as ISO 8601 UTC with microseconds: `2025-12-03T12:00:00.123000Z`.
#[must_use]
pub fn iso_micros(unix_ms: i64) -> String {
    micros(i128::from(unix_ms) * 1_000_000)
}

/// The current time, formatted as by [`iso_micros`].
#[must_use]
pub fn iso_micros_now() -> String {
    micros(i128::from(now_micros()) * 1_000)
}

/// A day (counted from 1970) as zKillboard's history names it: `20261121`.
#[must_use]
pub fn compact_day(day: i64) -> String {
    nearest(i128::from(day) * 86_400_000_000_000).strftime("%Y%m%d").to_string()
}

/// Parses a day as [`compact_day`] writes it; `None` if it is not one.
#[must_use]
pub fn parse_day(text: &str) -> Option<i64> {
    let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_digit());
    let time = digits.then(|| {
        parse_common(format!("{}-{}-{}T00:00:00Z", &text[..4], &text[4..6], &text[6..]).as_bytes())
    })??;
    Some(time.div_euclid(86_400))
}

fn micros(unix_nanos: i128) -> String {
    nearest(unix_nanos).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn nearest(unix_nanos: i128) -> Timestamp {
    let within = unix_nanos.clamp(Timestamp::MIN.as_nanosecond(), Timestamp::MAX.as_nanosecond());
    Timestamp::from_nanosecond(within).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Parses a time in any format that upstreams use, as unix seconds: RFC 3339 with any offset (a fraction is
/// dropped), or `YYYY-MM-DD hh:mm:ss` and similar without an offset, as UTC. `None` if it is none of these.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    parse_common(text.as_bytes()).or_else(|| {
        let text = text.trim();
        let with_offset = text.parse::<Timestamp>().map(Timestamp::as_nanosecond);
        let nanos = with_offset.ok().or_else(|| {
            let civil: DateTime = text.parse().ok()?;
            civil.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp().as_nanosecond())
        })?;
        i64::try_from(nanos.div_euclid(1_000_000_000)).ok()
    })
}

/// Parses the value of a `Retry-After` header, seconds or a date of HTTP, as milliseconds from `now_ms`; 0 for a date
/// in the past. `None` if it is neither.
#[must_use]
pub fn parse_retry_after(text: &str, now_ms: i64) -> Option<u64> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse::<u64>().map_or(u64::MAX, |secs| secs.saturating_mul(1000)));
    }
    let at_ms = parse_http_date(text)?.saturating_mul(1000);
    Some(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0))
}

/// Parses a date of HTTP in any of the three forms that RFC 9110 allows, as unix seconds.
fn parse_http_date(text: &str) -> Option<i64> {
    /// The two obsolete forms; both are in UTC.
    const OBSOLETE: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    if let Ok(time) = rfc2822::parse(text) {
        return Some(time.timestamp().as_second());
    }
    let civil = OBSOLETE.iter().find_map(|form| DateTime::strptime(form, text).ok())?;
    civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_second())
}

/// A fast path for the format of nearly all killmails: `YYYY-MM-DDThh:mm:ssZ`, also with a space and without
/// `Z`.
fn parse_common(text: &[u8]) -> Option<i64> {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let [y0, y1, y2, y3, b'-', o0, o1, b'-', d0, d1, b'T' | b' ', h0, h1, b':', m0, m1, b':', s0, s1] = text
    else {
        return None;
    };
    let number = |digits: &[&u8]| {
        digits.iter().try_fold(0_i64, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i64::from(**digit - b'0'))
        })
    };
    let (year, month, day) = (number(&[y0, y1, y2, y3])?, number(&[o0, o1])?, number(&[d0, d1])?);
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[m0, m1])?, number(&[s0, s1])?);
    let fits = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    fits.then(|| days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. Years are taken to begin in March, so that leap days come
/// last.
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_format_is_parsed() {
        for text in [
            "2021-11-27T00:00:01Z",
            "2021-11-27 00:00:01",
            "2021-11-27T00:00:01",
            "2021-11-27T00:00:01.999Z",
            "2021-11-27T01:00:01+01:00",
            "2021-11-27T00:00:01+00:00",
            " 2021-11-27T00:00:01Z ",
        ] {
            assert_eq!(parse(text), Some(1_637_971_201), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_times() {
        for text in [
            "",
            "yesterday",
            "2021-13-01T00:00:00Z",
            "2021-02-29T00:00:00Z",
            "2021-11-27T24:00:01Z",
            "2017.09.22 21:48:32",
            "1637971201",
            "２021-11-27T00:00:01Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date_of_http() {
        let now_ms = 784_111_770_000;
        for (text, wait_ms) in [
            ("120", Some(120_000)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7_000)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7_000)),
            ("Sun Nov  6 08:49:37 1994", Some(7_000)),
            ("Sat, 01 Jan 1994 00:00:00 GMT", Some(0)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("2026-12-01T00:00:00Z", None),
        ] {
            assert_eq!(parse_retry_after(text, now_ms), wait_ms, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn formatted_times_parse_to_themselves(secs in -62_000_000_000_i64..250_000_000_000) {
            prop_assert_eq!(parse(&iso_seconds(secs)), Some(secs));
        }

        #[test]
        fn the_fast_path_agrees_with_the_calendar(secs in -62_000_000_000_i64..250_000_000_000) {
            let text = iso_seconds(secs);
            prop_assert_eq!(parse_common(text.as_bytes()), text.parse::<Timestamp>().ok().map(Timestamp::as_second));
        }

        #[test]
        fn any_text_may_stand_in_retry_after(text in "[ -~]{0,40}", now_ms in any::<i64>()) {
            let _ = parse_retry_after(&text, now_ms);
        }

        #[test]
        fn any_number_of_seconds_can_be_formatted(secs in any::<i64>(), ms in any::<i64>()) {
            prop_assert!(iso_seconds(secs).ends_with('Z') && iso_micros(ms).ends_with('Z'));
        }
    }
}
