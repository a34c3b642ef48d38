//! Ids as clients of channels give them, with upstream's checks and texts: the count first, then the types, then the ranges; one bad id
//! refuses all.
//!
//! Must not know: what is done with them.

use hashbrown::HashSet;
use serde_json::Value;

use crate::domain::term::Kind;
use crate::wire::number::integer;

/// EVE's solar systems are well below it.
const SYSTEM_MAX: u32 = 50_000_000;
/// Player characters begin here; below are NPCs.
const CHARACTER_MIN: u32 = 90_000_000;
/// And end before this.
const CHARACTER_MAX: u32 = 3_000_000_000;

/// The ids of a list, distinct, in the order given.
///
/// # Errors
/// Upstream's text.
pub fn read(kind: Kind, list: &[Value], max: usize) -> Result<Vec<u32>, String> {
    let (word, words, range) = match kind {
        Kind::System => ("system", "System", 1..=SYSTEM_MAX),
        _ => ("character", "Character", CHARACTER_MIN..=CHARACTER_MAX),
    };
    if list.len() > max {
        return Err(too_many(kind, max));
    }
    if !list.iter().all(is_integer) {
        return Err(format!("[validation:non_integer_{word}_ids] {words} IDs must be integers"));
    }
    let mut seen = HashSet::with_capacity(list.len());
    let mut ids = Vec::with_capacity(list.len());
    for value in list {
        let id = integer(value).and_then(|id| u32::try_from(id).ok()).filter(|id| range.contains(id));
        let Some(id) = id else { return Err(format!("[validation:invalid_{word}_ids] Invalid {word} IDs")) };
        if seen.insert(id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The text for more ids than there may be.
#[must_use]
pub fn too_many(kind: Kind, max: usize) -> String {
    match kind {
        Kind::System => format!("[validation:too_many_systems] Too many systems (max: {max})"),
        _ => format!("[validation:too_many_characters] Too many characters (max: {max})"),
    }
}

/// Numbers written without a fraction or exponent, and those too long to be told apart from such.
fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.abs() >= 9e18)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn systems(list: Value) -> Result<Vec<u32>, String> {
        read(Kind::System, list.as_array().unwrap(), 3)
    }

    #[test]
    fn the_count_comes_before_types_before_ranges() {
        assert_eq!(systems(json!([3, 1, 3])), Ok(vec![3, 1]));
        assert_eq!(systems(json!([0, "x", 1, 1])).unwrap_err(), "[validation:too_many_systems] Too many systems (max: 3)");
        for list in [json!([0, "x"]), json!([1.0]), json!([null]), json!([[1]]), json!([true])] {
            assert_eq!(systems(list).unwrap_err(), "[validation:non_integer_system_ids] System IDs must be integers");
        }
        for list in [json!([1, 0]), json!([-1]), json!([50_000_001]), json!([u64::MAX]), json!([1e30])] {
            assert_eq!(systems(list).unwrap_err(), "[validation:invalid_system_ids] Invalid system IDs");
        }
        assert_eq!(systems(json!([50_000_000])), Ok(vec![50_000_000]));
    }

    #[test]
    fn characters_are_those_of_players() {
        let characters = |list: Value| read(Kind::Character, list.as_array().unwrap(), 2);
        assert_eq!(characters(json!([90_000_000, 3_000_000_000_u32])), Ok(vec![90_000_000, 3_000_000_000]));
        for list in [json!([5]), json!([89_999_999]), json!([3_000_000_001_u32])] {
            assert_eq!(characters(list).unwrap_err(), "[validation:invalid_character_ids] Invalid character IDs");
        }
        assert_eq!(characters(json!(["a"])).unwrap_err(), "[validation:non_integer_character_ids] Character IDs must be integers");
        assert_eq!(characters(json!([1, 1, 1])).unwrap_err(), "[validation:too_many_characters] Too many characters (max: 2)");
    }
}
