//! Numbers as upstreams write them: integers, or floats where a database stood in between.
//!
//! Must not know: what the numbers count or name.

use serde_json::{Number, Value};

use crate::wire::read::node::Node;
use crate::wire::read::reason::{Flaw, Reason};

/// Up to here a float holds every integer exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The parser makes floats of integers that fit no 64 bits, so from here on a float is one.
pub const INTEGERS_MIN: f64 = 9_223_372_036_854_775_808.0;

/// The integer a JSON value stands for; `None` when it stands for none.
#[must_use]
pub fn integer(value: &Value) -> Option<i128> {
    value.as_number().and_then(integral)
}

/// The integer a number stands for, cut to what 128 bits hold; `None` when it has a fraction or is a float
/// that may have lost digits.
#[must_use]
pub fn integral(number: &Number) -> Option<i128> {
    if let Some(n) = number.as_i64() {
        return Some(i128::from(n));
    }
    if let Some(n) = number.as_u64() {
        return Some(i128::from(n));
    }
    let float = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number, cut on purpose")]
    (float.fract() == 0.0 && (float.abs() <= EXACT_MAX || float.abs() >= INTEGERS_MIN))
        .then_some(float as i128)
}

/// The number a text holds: JSON's way to write one, and nothing else but blanks around it.
#[must_use]
pub fn written(text: &str) -> Option<Number> {
    /// Longer texts are no number anybody writes.
    const MAX_BYTES: usize = 64;
    Some(text).filter(|text| text.len() <= MAX_BYTES).and_then(|text| serde_json::from_str(text).ok())
}

/// An id of a killmail or solar system, which must be there. `reason` is what to say when it is no such
/// number at all.
///
/// # Errors
/// Not a whole number of at least 0, or over 32 bits.
pub fn essential_id(value: &Node<'_>, field: &str, reason: Reason) -> Result<u32, Box<Flaw>> {
    let out_of_range =
        || Flaw::new(Reason::IdOutOfRange, format!("{field} does not fit 32 bits: {}", value.shown()));
    match value.integer() {
        Some(n) if n < 0 => Err(Flaw::new(reason, format!("{field} is negative: {}", value.shown()))),
        Some(n) => u32::try_from(n).map_err(|_| out_of_range()),
        None if value.float().is_some_and(|f| f > EXACT_MAX) => Err(out_of_range()),
        None => Err(Flaw::new(reason, format!("{field} is no integer: {}", value.shown()))),
    }
}

/// A whole number of a type that holds it; `None`: it is none, or too large or small.
#[must_use]
pub fn whole<T: TryFrom<i128>>(value: &Node<'_>) -> Option<T> {
    value.integer().and_then(|n| T::try_from(n).ok())
}

/// true or false, also as 1 or 0.
#[must_use]
pub fn flag(value: &Node<'_>) -> Option<bool> {
    match value {
        Node::Flag(flag) => Some(*flag),
        other => [(0, false), (1, true)]
            .into_iter()
            .find(|(n, _)| other.integer() == Some(*n))
            .map(|(_, flag)| flag),
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
