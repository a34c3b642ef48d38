//! Parameters as they were given, in a query string or a JSON object, read as what they should be. The texts of what can be wrong
//! are WandererKills' where it has one.
//!
//! Must not know: which parameters there are, which door asks.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::wire::number::{integer, shown};
use crate::wire::time;

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Which one.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
    /// The limit it broke, where it broke one.
    pub limit: Option<u64>,
}

impl Error {
    /// A parameter that cannot be understood.
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into(), limit: None }
    }

    /// A parameter over its limit.
    pub fn over(field: &str, message: impl Into<String>, limit: u64) -> Self {
        Self { field: field.to_owned(), message: message.into(), limit: Some(limit) }
    }
}

/// Parameters by name. Empty texts and nulls are not given.
#[derive(Debug)]
pub struct Given<'a> {
    named: BTreeMap<&'a str, One<'a>>,
}

#[derive(Debug, Clone, Copy)]
enum One<'a> {
    Text(&'a str),
    Json(&'a Value),
}

/// An id as asked for: any integer may be, not every one can be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedId {
    /// Could be one.
    Id(u32),
    /// No killmail has it; as it was asked for.
    Impossible(i128),
}

impl<'a> Given<'a> {
    /// Of a decoded query string; of a name that comes twice the last counts.
    #[must_use]
    pub fn pairs(pairs: &'a [(String, String)]) -> Self {
        let named = pairs.iter().map(|(name, value)| (name.as_str(), One::Text(value))).collect();
        Self { named }.without_empty()
    }

    /// Of a JSON object.
    #[must_use]
    pub fn object(object: &'a Map<String, Value>) -> Self {
        let one = |value: &'a Value| value.as_str().map_or(One::Json(value), One::Text);
        Self { named: object.iter().map(|(name, value)| (name.as_str(), one(value))).collect() }.without_empty()
    }

    fn without_empty(mut self) -> Self {
        self.named.retain(|_, one| !matches!(one, One::Text("") | One::Json(Value::Null)));
        self
    }

    /// The names of what was given, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.named.keys().copied()
    }

    /// A text as it is.
    ///
    /// # Errors
    /// Not a text.
    pub fn text(&self, field: &str) -> Result<Option<&'a str>, Error> {
        match self.named.get(field) {
            None => Ok(None),
            Some(One::Text(text)) => Ok(Some(text)),
            Some(One::Json(value)) => Err(Error::new(field, format!("Invalid {field}: {} is not a text", shown(value)))),
        }
    }

    /// Ids, in the order given, repetitions kept: separated by commas, or a JSON list.
    ///
    /// # Errors
    /// The first that is no integer, or no list at all.
    pub fn ids(&self, field: &str) -> Result<Vec<AskedId>, Error> {
        let no_list = || Error::new(field, format!("{field} must be a comma-separated list of integers"));
        let bracketed = |name: &&str| name.strip_prefix(field).is_some_and(|rest| rest.starts_with('['));
        match self.named.get(field) {
            None if self.names().any(|name| bracketed(&name)) => Err(no_list()),
            None => Ok(Vec::new()),
            Some(One::Text(text)) => parts(text).map(|part| asked_id(field, part)).collect(),
            Some(One::Json(Value::Array(list))) => list.iter().map(|value| json_id(field, value)).collect(),
            Some(One::Json(_)) => Err(no_list()),
        }
    }

    /// Texts separated by commas, or a JSON list of texts.
    ///
    /// # Errors
    /// Not a list of texts.
    pub fn texts(&self, field: &str) -> Result<Vec<String>, Error> {
        match self.named.get(field) {
            None => Ok(Vec::new()),
            Some(One::Text(text)) => Ok(text.split(',').flat_map(with_plus).collect()),
            Some(One::Json(Value::Array(list))) if list.iter().all(Value::is_string) => {
                Ok(list.iter().filter_map(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned).collect())
            }
            Some(One::Json(_)) => Err(Error::new(field, format!("{field} must be a list of texts"))),
        }
    }

    /// A number of at least 0.
    ///
    /// # Errors
    /// Negative, or no number.
    pub fn amount(&self, field: &str) -> Result<Option<f64>, Error> {
        let amount = match self.named.get(field) {
            None => return Ok(None),
            Some(One::Text(text)) => number(text).ok_or_else(|| format!("'{text}'")),
            Some(One::Json(value)) => value.as_f64().ok_or_else(|| format!("'{}'", shown(value))),
        };
        match amount {
            Ok(amount) if amount < 0.0 => Err(Error::new(field, format!("{field} must be non-negative, got {}", spelled(amount)))),
            Ok(amount) => Ok(Some(amount)),
            Err(given) => Err(Error::new(field, format!("Invalid {field}: {given} is not a valid number"))),
        }
    }

    /// A whole number of at least 0; cut at `most`.
    ///
    /// # Errors
    /// Negative, or no whole number.
    pub fn count(&self, field: &str, most: u32) -> Result<Option<u32>, Error> {
        let count = match self.named.get(field) {
            None => return Ok(None),
            Some(One::Text(text)) => whole(text).ok_or_else(|| format!("'{text}'")),
            Some(One::Json(value)) => integer(value).ok_or_else(|| format!("'{}'", shown(value))),
        };
        match count {
            Ok(count) if count < 0 => Err(Error::new(field, format!("{field} must be non-negative"))),
            Ok(count) => Ok(Some(u32::try_from(count).unwrap_or(most).min(most))),
            Err(given) => Err(Error::new(field, format!("Invalid {field}: {given} is not a valid integer"))),
        }
    }

    /// A whole number from 1 to `most`.
    ///
    /// # Errors
    /// Anything else.
    pub fn bounded(&self, field: &str, most: u32) -> Result<Option<u32>, Error> {
        let over = || Error::over(field, format!("{field} must be between 1 and {most}"), u64::from(most));
        match self.count(field, u32::MAX) {
            Ok(Some(count)) if count == 0 || count > most => Err(over()),
            Err(error) if error.message.ends_with("non-negative") => Err(over()),
            other => other,
        }
    }

    /// true or false.
    ///
    /// # Errors
    /// Neither.
    pub fn flag(&self, field: &str) -> Result<Option<bool>, Error> {
        match self.named.get(field) {
            None => Ok(None),
            Some(One::Text("true") | One::Json(Value::Bool(true))) => Ok(Some(true)),
            Some(One::Text("false") | One::Json(Value::Bool(false))) => Ok(Some(false)),
            Some(One::Text(text)) => Err(Error::new(field, format!("Invalid {field}: '{text}' is neither true nor false"))),
            Some(One::Json(value)) => Err(Error::new(field, format!("Invalid {field}: '{}' is neither true nor false", shown(value)))),
        }
    }

    /// One of a few words.
    ///
    /// # Errors
    /// None of them.
    pub fn word<T: Copy>(&self, field: &str, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(given) = self.text(field)? else { return Ok(None) };
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
        found.map(Some).ok_or_else(|| Error::new(field, format!("Invalid {field}: '{given}' is not one of {}", known.join(", "))))
    }

    /// A moment: RFC 3339 or unix seconds.
    ///
    /// # Errors
    /// Neither.
    pub fn moment(&self, field: &str) -> Result<Option<i64>, Error> {
        let wrong = |given: &str| Error::new(field, format!("Invalid {field}: '{given}' is neither an RFC 3339 time nor unix seconds"));
        match self.named.get(field) {
            None => Ok(None),
            Some(One::Text(text)) => moment(text).map(Some).ok_or_else(|| wrong(text)),
            Some(One::Json(value)) => integer(value).and_then(|n| i64::try_from(n).ok()).map(Some).ok_or_else(|| wrong(&shown(value))),
        }
    }

    /// JSON: as it is in an object, as text in a query string.
    ///
    /// # Errors
    /// The text is no JSON.
    pub fn json(&self, field: &str) -> Result<Option<Value>, Error> {
        match self.named.get(field) {
            None => Ok(None),
            Some(One::Json(value)) => Ok(Some((*value).clone())),
            Some(One::Text(text)) => {
                serde_json::from_str(text).map(Some).map_err(|error| Error::new(field, format!("Invalid {field}: not JSON: {error}")))
            }
        }
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// In a query string `+` means a blank, and labels such as `isk:1b+` end with one: a trailing blank stands for either.
fn with_plus(part: &str) -> Vec<String> {
    let label = part.trim();
    match label {
        "" => Vec::new(),
        _ if part.ends_with(' ') => vec![label.to_owned(), format!("{label}+")],
        _ => vec![label.to_owned()],
    }
}

fn json_id(field: &str, value: &Value) -> Result<AskedId, Error> {
    match value {
        Value::String(text) => asked_id(field, text.trim()),
        other => integer(other).map(possible).ok_or_else(|| no_integer(field, &shown(other))),
    }
}

fn asked_id(field: &str, text: &str) -> Result<AskedId, Error> {
    whole(text).map(possible).ok_or_else(|| no_integer(field, text))
}

fn no_integer(field: &str, given: &str) -> Error {
    Error::new(field, format!("Invalid {field}: '{given}' is not a valid integer"))
}

fn possible(number: i128) -> AskedId {
    u32::try_from(number).ok().filter(|id| *id > 0).map_or(AskedId::Impossible(number), AskedId::Id)
}

/// A decimal integer of any length, cut to what 128 bits hold.
fn whole(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let cut = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    Some(text.parse().unwrap_or(cut))
}

fn number(text: &str) -> Option<f64> {
    let plain = text.strip_prefix(['+', '-']).unwrap_or(text);
    let begins = plain.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let of_digits = plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    text.parse().ok().filter(|n: &f64| begins && of_digits && n.is_finite())
}

fn moment(text: &str) -> Option<i64> {
    let seconds = || whole(text).and_then(|n| i64::try_from(n).ok());
    let offset_with_plus = || {
        let (time, offset) = text.rsplit_once(' ')?;
        time::parse(&format!("{time}+{offset}"))
    };
    seconds().or_else(|| time::parse(text)).or_else(offset_with_plus)
}

/// A float as the older service writes it: the shortest digits, in the shorter of plain and scientific notation.
fn spelled(number: f64) -> String {
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
    fn floats_are_spelled_like_the_older_service_does() {
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
            assert_eq!(spelled(number), text);
        }
    }

    #[test]
    fn numbers_are_plain() {
        assert_eq!(number("1e9"), Some(1e9));
        assert_eq!(number("+5.5"), Some(5.5));
        for wrong in ["", "x", "inf", "nan", "1e999", ".5", "1_000", " 5", "0x10", "5 "] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn moments_survive_a_query_string() {
        assert_eq!(moment("1637971201"), Some(1_637_971_201));
        assert_eq!(moment("2021-11-27T01:00:01 01:00"), Some(1_637_971_201), "a plus became a blank");
        assert_eq!(moment("2021-11-27"), Some(1_637_971_200));
        assert_eq!(moment("soon"), None);
    }
}
