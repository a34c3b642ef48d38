//! One value as it was given, as a number, an id or a text short enough for a message.
//!
//! Must not know: which parameter it belongs to, beyond the name in its error.

use serde_json::Number;
use serde_json::value::RawValue;

use crate::wire::query::parameters::{AskedId, Error};
use crate::wire::query::spelling::whole;
use crate::wire::read::json;
use crate::wire::read::number::{integral, shown};

/// Characters of what was given that a message repeats.
const SHOWN_CHARS: usize = 60;

/// An id given as a JSON value.
///
/// # Errors
/// It is not an integer, with the text WandererKills uses.
pub fn json_id(field: &str, value: &RawValue) -> Result<AskedId, Error> {
    match json::text(value) {
        Some(text) => asked_id(field, text.trim()),
        None => json_integer(value).map(possible).ok_or_else(|| no_integer(field, &shown_raw(value))),
    }
}

/// The number a JSON value is.
#[must_use]
pub fn json_number(value: &RawValue) -> Option<Number> {
    let is_number = value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    is_number.then(|| serde_json::from_str(value.get()).ok()).flatten()
}

/// The integer a JSON value is; `None`: it is not one.
#[must_use]
pub fn json_integer(value: &RawValue) -> Option<i128> {
    match value.get().parse::<u32>() {
        Ok(usual) => Some(usual.into()),
        Err(_) => json_number(value).as_ref().and_then(integral),
    }
}

/// A JSON value, short enough for a message.
pub fn shown_raw(value: &RawValue) -> String {
    match value.get().as_bytes().first() {
        Some(b'[' | b'{') => json::kind(value).to_owned(),
        Some(b'"') => cut(value.get()),
        _ => serde_json::from_str(value.get()).map_or_else(|_| cut(value.get()), |plain| shown(&plain)),
    }
}

/// A text, short enough for a message.
pub fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// An id given as text.
///
/// # Errors
/// It is not an integer, with the text WandererKills uses.
pub fn asked_id(field: &str, text: &str) -> Result<AskedId, Error> {
    whole(text).map(possible).ok_or_else(|| no_integer(field, text))
}

fn no_integer(field: &str, given: &str) -> Error {
    Error::new(field, format!("Invalid {field}: '{}' is not a valid integer", cut(given)))
}

fn possible(number: i128) -> AskedId {
    u32::try_from(number).ok().filter(|id| *id > 0).map_or(AskedId::Impossible(number), AskedId::Id)
}
