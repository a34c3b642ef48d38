//! Numbers as upstreams write them: integers, or floats and strings if they went through a database.
//!
//! Must not know: what the numbers mean.

use serde_json::{Number, Value};

use crate::wire::read::node::Node;
use crate::wire::read::reason::{ReadError, Reason};

/// Floats hold every integer up to this one exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// serde turns integers that exceed 64 bits into floats, so a float from this on is an integer.
pub(crate) const INTEGERS_MIN: f64 = 9_223_372_036_854_775_808.0;

/// The number as an integer, clamped to 128 bits; `None` if it has a fraction, or is a float that may have
/// lost digits.
#[must_use]
pub(crate) fn to_integer(number: &Number) -> Option<i128> {
    if let Some(n) = number.as_i64() {
        return Some(i128::from(n));
    }
    if let Some(n) = number.as_u64() {
        return Some(i128::from(n));
    }
    let float = number.as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "an integer, clamped on purpose")]
    (float.fract() == 0.0 && (float.abs() <= EXACT_MAX || float.abs() >= INTEGERS_MIN))
        .then_some(float as i128)
}

/// Parses a string that has a JSON number and nothing else, except whitespace around it.
#[must_use]
pub(crate) fn parse_number(text: &str) -> Option<Number> {
    /// Nobody writes longer numbers.
    const MAX_BYTES: usize = 64;
    Some(text).filter(|text| text.len() <= MAX_BYTES).and_then(|text| serde_json::from_str(text).ok())
}

/// Reads the required id of a killmail or solar system. `reason` is the reason to give if it is not an
/// integer of at least 0.
///
/// # Errors
/// It is not an integer of at least 0, or exceeds 32 bits.
pub(crate) fn essential_id(value: &Node<'_>, field: &str, reason: Reason) -> Result<u32, Box<ReadError>> {
    let out_of_range = || {
        ReadError::new(Reason::IdOutOfRange, format!("{field} does not fit 32 bits: {}", value.describe()))
    };
    match value.integer() {
        Some(n) if n < 0 => Err(ReadError::new(reason, format!("{field} is negative: {}", value.describe()))),
        Some(n) => u32::try_from(n).map_err(|_| out_of_range()),
        None if value.float().is_some_and(|f| f > EXACT_MAX) => Err(out_of_range()),
        None => Err(ReadError::new(reason, format!("{field} is not an integer: {}", value.describe()))),
    }
}

/// The value as an integer of this type; `None` if it is not an integer or does not fit.
#[must_use]
pub(crate) fn parse_integer<T: TryFrom<i128>>(value: &Node<'_>) -> Option<T> {
    value.integer().and_then(|n| T::try_from(n).ok())
}

/// `true` or `false`, also as 1 or 0.
#[must_use]
pub(crate) fn parse_flag(value: &Node<'_>) -> Option<bool> {
    match value {
        Node::Flag(flag) => Some(*flag),
        other => [(0, false), (1, true)]
            .into_iter()
            .find(|(n, _)| other.integer() == Some(*n))
            .map(|(_, flag)| flag),
    }
}

/// Describes a value in a message: the value if it is short, or else what kind of value it is.
#[must_use]
pub(crate) fn describe(value: &Value) -> String {
    const MAX: usize = 60;
    let text = match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        plain => plain.to_string(),
    };
    if text.chars().count() <= MAX { text } else { text.chars().take(MAX).chain("...".chars()).collect() }
}
