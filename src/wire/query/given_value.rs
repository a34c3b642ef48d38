//! One value of a parameter: parsed as a number or an id, or shortened for a message.
//!
//! Must not know: which parameter it belongs to, beyond the name in its error.

use serde_json::Number;
use serde_json::value::RawValue;

use crate::wire::query::parameters::{ParameterError, RequestedId};
use crate::wire::query::spelling::parse_integer;
use crate::wire::read::json;
use crate::wire::read::number::{describe as describe_value, to_integer};

/// Characters of a value that a message repeats.
const SHOWN_CHARS: usize = 60;

/// Parses an id from a JSON value.
///
/// # Errors
/// It is not an integer. The message is WandererKills'.
pub(crate) fn parse_json_id(field: &str, value: &RawValue) -> Result<RequestedId, ParameterError> {
    match json::text(value) {
        Some(text) => parse_id(field, text.trim()),
        None => {
            json_integer(value).map(RequestedId::new).ok_or_else(|| not_an_integer(field, &describe(value)))
        }
    }
}

/// The JSON value as a number; `None` if it is something else.
#[must_use]
pub(crate) fn json_number(value: &RawValue) -> Option<Number> {
    let is_number = value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    is_number.then(|| serde_json::from_str(value.get()).ok()).flatten()
}

/// The JSON value as an integer; `None` if it is something else.
#[must_use]
pub(crate) fn json_integer(value: &RawValue) -> Option<i128> {
    match value.get().parse::<u32>() {
        Ok(common) => Some(common.into()),
        Err(_) => json_number(value).as_ref().and_then(to_integer),
    }
}

/// Describes a JSON value in a message: the value if it is short, or else what kind of value it is.
pub(crate) fn describe(value: &RawValue) -> String {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{') => json::kind(value).to_owned(),
        Some(b'"') => truncate(value.get()),
        _ => serde_json::from_str(value.get())
            .map_or_else(|_| truncate(value.get()), |plain| describe_value(&plain)),
    }
}

/// Cuts a text to a length for a message.
pub(crate) fn truncate(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// Parses an id from a text.
///
/// # Errors
/// It is not an integer. The message is WandererKills'.
pub(crate) fn parse_id(field: &str, text: &str) -> Result<RequestedId, ParameterError> {
    parse_integer(text).map(RequestedId::new).ok_or_else(|| not_an_integer(field, text))
}

fn not_an_integer(field: &str, given: &str) -> ParameterError {
    ParameterError::new(field, format!("Invalid {field}: '{}' is not a valid integer", truncate(given)))
}
