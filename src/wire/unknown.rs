//! Parameters nobody knows: which of them were meant as a filter, so that a stream with a misspelt list of ids does not bring everything.
//!
//! Must not know: which parameters a door knows.

use crate::domain::spelling::distance;
use crate::wire::query::DIMENSIONS;

/// A name so many edits from another is a slip of it.
const SLIP_EDITS: usize = 2;
/// A shorter word has other words for neighbours: `action` is no slip of `faction`.
const LONG_WORD: usize = 8;

/// The dimension a name was meant as, where a mistake must be told: one within two edits (`charater_ids`), another number or spelling of its
/// word (`systems`, `system_id`, `SystemIDs`), or one with something before it (`victim.character_ids`).
#[must_use]
pub fn meant(name: &str) -> Option<&'static str> {
    let word = bare(name);
    let tails: Vec<String> = name.match_indices(['.', '_', '[']).map(|(at, _)| bare(&name[at + 1..])).collect();
    let like = |dimension: &str| {
        let its = bare(dimension);
        let near = its.len() >= LONG_WORD && distance(&word, &its) < SLIP_EDITS;
        word == its || near || tails.contains(&its)
    };
    slip(name).or_else(|| DIMENSIONS.iter().copied().find(|dimension| like(dimension)))
}

/// The dimension a name is within two edits of.
#[must_use]
pub fn slip(name: &str) -> Option<&'static str> {
    let nearest = DIMENSIONS.iter().copied().map(|dimension| (distance(name, dimension), dimension)).min_by_key(|(edits, _)| *edits);
    nearest.filter(|(edits, _)| *edits <= SLIP_EDITS).map(|(_, dimension)| dimension)
}

/// The word of a list of ids, without its ending, underscores and capitals.
fn bare(name: &str) -> String {
    let word: String = name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    let ending = ["ids", "id", "s"].into_iter().find_map(|ending| word.strip_suffix(ending));
    ending.unwrap_or(&word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_filter_is_told_from_what_does_not() {
        for (name, dimension) in [
            ("systems", "system_ids"),
            ("system_id", "system_ids"),
            ("system", "system_ids"),
            ("SystemIDs", "system_ids"),
            ("solar_system_id", "system_ids"),
            ("charater_ids", "character_ids"),
            ("charater", "character_ids"),
            ("characters", "character_ids"),
            ("alliances", "alliance_ids"),
            ("victim.corporation_ids", "corporation_ids"),
            ("ship_types", "ship_type_ids"),
            ("shipTypeIds", "ship_type_ids"),
            ("regoin_ids", "region_ids"),
        ] {
            assert_eq!(meant(name), Some(dimension), "{name}");
        }
        for name in [
            "nonsense",
            "action",
            "ecosystem",
            "unknown",
            "_",
            "t",
            "cache",
            "token",
            "client_identifier",
            "session_id",
            "version",
            "limit",
            "ids",
            "id",
            "",
            "x\n",
        ] {
            assert_eq!(meant(name), None, "{name}");
        }
    }

    #[test]
    fn a_slip_is_within_two_edits_of_the_whole_name() {
        for (name, dimension) in
            [("charater_ids", Some("character_ids")), ("system_id", Some("system_ids")), ("region_isd", Some("region_ids"))]
        {
            assert_eq!(slip(name), dimension, "{name}");
        }
        for name in ["corporations", "system", "alliance", "client_identifier", "user_id"] {
            assert_eq!(slip(name), None, "{name}");
        }
    }
}
