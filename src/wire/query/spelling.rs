//! Numbers, times and lists as they are written in a query string.
//!
//! Must not know: which parameter is read.

use crate::wire::time;

/// The non-empty elements of a list separated by commas.
pub(crate) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// The labels that a list element can mean. In a query string `+` means a space, and labels such as `isk:1b+`
/// end with it, so a trailing space stands for either.
#[must_use]
pub(crate) fn label_variants(part: &str) -> Vec<String> {
    let label = part.trim();
    match label {
        "" => Vec::new(),
        _ if part.ends_with(' ') => vec![label.to_owned(), format!("{label}+")],
        _ => vec![label.to_owned()],
    }
}

/// A decimal integer of any length, clamped to 128 bits.
#[must_use]
pub(crate) fn parse_integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let cut = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    Some(text.parse().unwrap_or(cut))
}

/// A finite decimal number, with optional fraction and exponent.
#[must_use]
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let begins = unsigned.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let is_decimal =
        unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    text.parse().ok().filter(|n: &f64| begins && is_decimal && n.is_finite())
}

/// A number of seconds from this on, some 3,000 years ahead, is taken as milliseconds.
const MILLISECONDS_MIN: u128 = 100_000_000_000;

/// Unix seconds from a number of seconds or milliseconds, told apart by their size; `None` if it is too large
/// for either.
#[must_use]
pub(crate) fn to_unix_seconds(number: i128) -> Option<i64> {
    let seconds = if number.unsigned_abs() < MILLISECONDS_MIN { number } else { number.div_euclid(1000) };
    i64::try_from(seconds).ok().filter(|seconds| u128::from(seconds.unsigned_abs()) < MILLISECONDS_MIN)
}

/// A time as unix seconds: RFC 3339 (also with a space where a `+` was decoded), unix seconds or
/// milliseconds.
#[must_use]
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let seconds = || parse_integer(text).and_then(to_unix_seconds);
    let offset_with_plus = || {
        let (time, offset) = text.rsplit_once(' ')?;
        time::parse(&format!("{time}+{offset}"))
    };
    seconds().or_else(|| time::parse(text)).or_else(offset_with_plus)
}

/// A float as WandererKills writes it in messages: the shortest digits, in the shorter of plain and
/// scientific notation.
#[must_use]
pub(crate) fn format_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let len = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let place = exponent + 1;
    let cost = i64::try_from(exponent.to_string().len()).unwrap_or(0) + if len == 1 { 3 } else { 2 };
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    let text = if place > 0 && place < len {
        let (whole, rest) = digits.split_at(usize::try_from(place).unwrap_or(1));
        format!("{whole}.{rest}")
    } else if place >= len && place - len + 2 <= cost {
        format!("{digits}{}.0", zeros(place - len))
    } else if place <= 0 && 2 - place <= cost {
        format!("0.{}{digits}", zeros(-place))
    } else {
        let (first, rest) = digits.split_at(1);
        format!("{first}.{}e{exponent}", if rest.is_empty() { "0" } else { rest })
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_formatted_as_by_the_older_service() {
        for (number, text) in [
            (-100.0, "-100.0"),
            (-1.0, "-1.0"),
            (-0.5, "-0.5"),
            (-1000.0, "-1.0e3"),
            (-1234.0, "-1234.0"),
            (-1234.5, "-1234.5"),
            (-1e22, "-1.0e22"),
            (-1.5e-7, "-1.5e-7"),
            (-0.01, "-0.01"),
            (-0.001, "-0.001"),
            (-0.00001, "-1.0e-5"),
        ] {
            assert_eq!(format_float(number), text);
        }
    }

    #[test]
    fn numbers_are_decimal() {
        assert_eq!(parse_number("1e9"), Some(1e9));
        assert_eq!(parse_number("+5.5"), Some(5.5));
        for wrong in ["", "x", "inf", "nan", "1e999", ".5", "1_000", " 5", "0x10", "5 "] {
            assert_eq!(parse_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_survive_a_query_string() {
        assert_eq!(parse_time("1637971201"), Some(1_637_971_201));
        assert_eq!(
            (parse_time("1637971201999"), parse_time("-1")),
            (Some(1_637_971_201), Some(-1)),
            "milliseconds"
        );
        assert_eq!(
            (parse_time("1637971201000000"), parse_time(&i64::MAX.to_string())),
            (None, None),
            "microseconds are refused"
        );
        assert_eq!(
            parse_time("2021-11-27T01:00:01 01:00"),
            Some(1_637_971_201),
            "a plus was decoded to a space"
        );
        assert_eq!(parse_time("2021-11-27"), Some(1_637_971_200));
        assert_eq!(parse_time("soon"), None);
    }
}
