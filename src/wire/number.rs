//! Numbers as upstreams write them: integers, or floats where a database stood in between.
//!
//! Must not know: what the numbers count or name.

use serde_json::Value;

use crate::wire::reason::{Flaw, Reason};

/// Up to here a float holds every integer exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The integer a JSON value stands for; `None` when it stands for none.
#[must_use]
pub fn integer(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    if let Some(n) = number.as_i64() {
        return Some(i128::from(n));
    }
    if let Some(n) = number.as_u64() {
        return Some(i128::from(n));
    }
    let float = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number floats hold exactly")]
    (float.fract() == 0.0 && float.abs() <= EXACT_MAX).then_some(float as i128)
}

/// An id of a killmail, place, party or type. `reason` is what to say when it is no such number at all.
///
/// # Errors
/// Not a whole number of at least 0, or over 32 bits.
pub fn id(value: &Value, field: &str, reason: Reason) -> Result<u32, Box<Flaw>> {
    let out_of_range = || Flaw::new(Reason::IdOutOfRange, format!("{field} does not fit 32 bits: {}", shown(value)));
    match integer(value) {
        Some(n) if n < 0 => Err(Flaw::new(reason, format!("{field} is negative: {}", shown(value)))),
        Some(n) => u32::try_from(n).map_err(|_| out_of_range()),
        None if value.as_f64().is_some_and(|f| f > EXACT_MAX) => Err(out_of_range()),
        None => Err(Flaw::new(reason, format!("{field} is no integer: {}", shown(value)))),
    }
}

/// A whole number of a type that holds it.
///
/// # Errors
/// Not a whole number, or too large or small.
pub fn whole<T: TryFrom<i128>>(value: &Value, field: &str, reason: Reason) -> Result<T, Box<Flaw>> {
    let fitting = integer(value).and_then(|n| T::try_from(n).ok());
    fitting.ok_or_else(|| Flaw::new(reason, format!("{field} is not a number that can be: {}", shown(value))))
}

/// Any finite number.
///
/// # Errors
/// Not a number.
pub fn float(value: &Value, field: &str, reason: Reason) -> Result<f64, Box<Flaw>> {
    value.as_f64().ok_or_else(|| Flaw::new(reason, format!("{field} is no number: {}", shown(value))))
}

/// true or false, also as 1 or 0.
///
/// # Errors
/// Neither.
pub fn flag(value: &Value, field: &str, reason: Reason) -> Result<bool, Box<Flaw>> {
    let numbered = || integer(value).and_then(|n| [(0, false), (1, true)].into_iter().find(|(k, _)| *k == n).map(|(_, v)| v));
    value.as_bool().or_else(numbered).ok_or_else(|| Flaw::new(reason, format!("{field} is neither true nor false: {}", shown(value))))
}

/// A text.
///
/// # Errors
/// Not a text.
pub fn text(value: Value, field: &str, reason: Reason) -> Result<String, Box<Flaw>> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Flaw::new(reason, format!("{field} is no text: {}", shown(&other)))),
    }
}

/// A value short enough for a message.
#[must_use]
pub fn shown(value: &Value) -> String {
    const MAX: usize = 60;
    let text = match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        plain => plain.to_string(),
    };
    if text.chars().count() <= MAX { text } else { text.chars().take(MAX).chain("...".chars()).collect() }
}
