//! Ids as clients of channels give them, with upstream's checks and texts: the count first, then the types,
//! then the ranges; one bad id refuses all.
//!
//! Must not know: what is done with them.

use hashbrown::HashSet;
use serde_json::Number;
use serde_json::value::RawValue;

use crate::domain::term::Dimension;
use crate::wire::query::given_value::json_number;
use crate::wire::read::number::to_integer;

/// EVE's solar systems are well below it.
const SYSTEM_MAX: u32 = 50_000_000;
/// Player characters begin here; below are NPCs.
const CHARACTER_MIN: u32 = 90_000_000;
/// Ids of player characters are below this.
const CHARACTER_MAX: u32 = 3_000_000_000;

/// Ids as they come in, from one list or several: looked at one by one, no more of them kept than may be.
#[derive(Debug)]
pub struct Ids {
    dimension: Dimension,
    max: usize,
    given: usize,
    ids: Vec<u32>,
    seen: HashSet<u32>,
    all_integers: bool,
    all_in_range: bool,
}

impl Ids {
    #[must_use]
    pub fn new(dimension: Dimension, max: usize) -> Self {
        Self {
            dimension,
            max,
            given: 0,
            ids: Vec::new(),
            seen: HashSet::new(),
            all_integers: true,
            all_in_range: true,
        }
    }

    /// Adds an id as the client sent it.
    pub fn push(&mut self, value: &RawValue) {
        self.given += 1;
        let number = json_number(value).filter(is_integer);
        self.all_integers &= number.is_some();
        if let Some(number) = number {
            self.push_number(&number);
        }
    }

    fn push_number(&mut self, number: &Number) {
        let range =
            if self.dimension == Dimension::System { 1..=SYSTEM_MAX } else { CHARACTER_MIN..=CHARACTER_MAX };
        match to_integer(number).and_then(|id| u32::try_from(id).ok()).filter(|id| range.contains(id)) {
            None => self.all_in_range = false,
            Some(id) if self.given <= self.max && self.seen.insert(id) => self.ids.push(id),
            Some(_) => {}
        }
    }

    /// The distinct ids, in the order given.
    ///
    /// # Errors
    /// Upstream's text.
    pub fn done(self) -> Result<Vec<u32>, String> {
        let (word, words) = if self.dimension == Dimension::System {
            ("system", "System")
        } else {
            ("character", "Character")
        };
        if self.given > self.max {
            return Err(too_many(self.dimension, self.max));
        }
        if !self.all_integers {
            return Err(format!("[validation:non_integer_{word}_ids] {words} IDs must be integers"));
        }
        if !self.all_in_range {
            return Err(format!("[validation:invalid_{word}_ids] Invalid {word} IDs"));
        }
        Ok(self.ids)
    }
}

/// The id at the end of a topic.
///
/// # Errors
/// Upstream's text.
pub fn of_topic(dimension: Dimension, text: &str) -> Result<u32, String> {
    let mut one = Ids::new(dimension, 1);
    one.given = 1;
    match text.parse::<u64>() {
        Ok(number) => one.push_number(&number.into()),
        Err(_) => one.all_integers = false,
    }
    one.done().map(|ids| ids.first().copied().unwrap_or_default())
}

/// The text for more ids than there may be.
#[must_use]
pub fn too_many(dimension: Dimension, max: usize) -> String {
    match dimension {
        Dimension::System => format!("[validation:too_many_systems] Too many systems (max: {max})"),
        _ => format!("[validation:too_many_characters] Too many characters (max: {max})"),
    }
}

/// Numbers written without a fraction or exponent, and those too long to be told apart from such.
fn is_integer(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.abs() >= 9e18)
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use serde_json::{Value, json};

    use super::*;

    fn read(dimension: Dimension, list: &Value, max: usize) -> Result<Vec<u32>, String> {
        let mut ids = Ids::new(dimension, max);
        list.as_array().unwrap().iter().for_each(|value| ids.push(&to_raw_value(value).unwrap()));
        ids.done()
    }

    fn systems(list: Value) -> Result<Vec<u32>, String> {
        read(Dimension::System, &list, 3)
    }

    #[test]
    fn the_count_comes_before_types_before_ranges() {
        assert_eq!(systems(json!([3, 1, 3])), Ok(vec![3, 1]));
        assert_eq!(
            systems(json!([0, "x", 1, 1])).unwrap_err(),
            "[validation:too_many_systems] Too many systems (max: 3)"
        );
        for list in [json!([0, "x"]), json!([1.0]), json!([null]), json!([[1]]), json!([true])] {
            assert_eq!(
                systems(list).unwrap_err(),
                "[validation:non_integer_system_ids] System IDs must be integers"
            );
        }
        for list in [json!([1, 0]), json!([-1]), json!([50_000_001]), json!([u64::MAX]), json!([1e30])] {
            assert_eq!(systems(list).unwrap_err(), "[validation:invalid_system_ids] Invalid system IDs");
        }
        assert_eq!(systems(json!([50_000_000])), Ok(vec![50_000_000]));
    }

    #[test]
    fn characters_are_those_of_players() {
        let characters = |list: Value| read(Dimension::Character, &list, 2);
        assert_eq!(characters(json!([90_000_000, 3_000_000_000_u32])), Ok(vec![90_000_000, 3_000_000_000]));
        for list in [json!([5]), json!([89_999_999]), json!([3_000_000_001_u32])] {
            assert_eq!(
                characters(list).unwrap_err(),
                "[validation:invalid_character_ids] Invalid character IDs"
            );
        }
        assert_eq!(
            characters(json!(["a"])).unwrap_err(),
            "[validation:non_integer_character_ids] Character IDs must be integers"
        );
        assert_eq!(
            characters(json!([1, 1, 1])).unwrap_err(),
            "[validation:too_many_characters] Too many characters (max: 2)"
        );
    }
}
