//! Parameters nobody knows: which of them were meant as a filter, so that a stream with a misspelt filter
//! does not bring everything.
//!
//! Must not know: which parameters a door knows.

use crate::domain::spelling::distance;
use crate::wire::query::{DIMENSIONS, FILTERS, JOINED, PLUGIN};

/// A name so many edits from another is a slip of it.
const SLIP_EDITS: usize = 2;
/// A shorter word has other words for neighbours: `action` is no slip of `faction`.
const LONG_WORD: usize = 8;
/// So much of the beginning of a word stands for it: `corp`; in a list of ids less does: `sys_ids`.
const BEGINNING: (usize, usize) = (4, 3);
/// What people call things that have another name here.
const SYNONYMS: &[(&str, &str)] = &[
    ("pilot", "character_ids"),
    ("player", "character_ids"),
    ("ally", "alliance_ids"),
    ("isk", "min_value"),
    ("minisk", "min_value"),
    ("maxisk", "max_value"),
    ("value", "min_value"),
    ("tag", "labels"),
];

/// The filter a name was meant as, where a mistake must be told: a dimension within two edits
/// (`charater_ids`), another number or spelling of its word (`systems`, `system_id`, `SystemIDs`), its
/// beginning or its last word (`corp_ids`, `group_ids`), one with something before it
/// (`victim.character_ids`), or any other filter nearly spelled right (`minvalue`, `rol`).
#[must_use]
pub fn meant(name: &str) -> Option<&'static str> {
    let word = bare(name);
    let is_list = ["id", "ids"].iter().any(|ending| name.to_ascii_lowercase().ends_with(ending));
    let tails: Vec<String> =
        name.match_indices(['.', '_', '[']).map(|(at, _)| bare(&name[at + 1..])).collect();
    let enough = if is_list { BEGINNING.1 } else { BEGINNING.0 };
    let like = |filter: &str| {
        let its = bare(filter);
        let begins = word.len() >= enough && its.starts_with(&word);
        let last = is_list
            && !word.is_empty()
            && filter.match_indices('_').any(|(at, _)| bare(&filter[at + 1..]) == word);
        is_near(&word, &its) || begins || last
    };
    let dimensions = || DIMENSIONS.iter().copied();
    let all = || dimensions().chain(FILTERS.iter().copied()).chain(PLUGIN.iter().copied());
    let synonym = || SYNONYMS.iter().find(|(one, _)| *one == word).map(|(_, filter)| *filter);
    slip_of(name, dimensions())
        .or_else(|| dimensions().find(|dimension| tails.contains(&bare(dimension))))
        .or_else(|| all().find(|filter| bare(filter) == word))
        .or_else(|| all().find(|filter| like(filter)))
        .or_else(synonym)
}

/// Whether a word is another one with a slip in it; of short words the first letter has to be right.
fn is_near(word: &str, its: &str) -> bool {
    let far = distance(word, its);
    let begins_the_same = word.chars().next() == its.chars().next();
    match its.len() {
        ..4 => false,
        4..LONG_WORD => begins_the_same && far < SLIP_EDITS,
        _ => far < SLIP_EDITS || begins_the_same && far == SLIP_EDITS,
    }
}

/// The list of ids in a channel join that a name is within two edits of.
#[must_use]
pub fn slip(name: &str) -> Option<&'static str> {
    slip_of(name, JOINED.iter().chain(DIMENSIONS).copied())
}

fn slip_of(name: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let nearest = names.map(|one| (distance(name, one), one)).min_by_key(|(edits, _)| *edits);
    nearest.filter(|(edits, _)| *edits <= SLIP_EDITS).map(|(_, one)| one)
}

/// The word of a list of ids, without its ending, underscores and capitals.
fn bare(name: &str) -> String {
    let word: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
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
            ("corp_ids", "corporation_ids"),
            ("corps", "corporation_ids"),
            ("chars", "character_ids"),
            ("pilots", "character_ids"),
            ("ship_ids", "ship_type_ids"),
            ("weapon_ids", "weapon_type_ids"),
            ("type_ids", "ship_type_ids"),
            ("group_ids", "ship_group_ids"),
            ("sys_ids", "system_ids"),
            ("systm", "system_ids"),
            ("label", "labels"),
            ("minvalue", "min_value"),
            ("min_val", "min_value"),
            ("maxValue", "max_value"),
            ("min_isk", "min_value"),
            ("npcs", "npc"),
            ("rol", "role"),
            ("matc", "match"),
            ("solos", "solo"),
            ("sinc", "since"),
            ("plugn", "plugin"),
            ("plugin_conf", "plugin_config"),
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
            "all",
            "type",
            "mode",
            "sort",
            "from",
            "max_kills",
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
        for (name, dimension) in [
            ("charater_ids", Some("character_ids")),
            ("system_id", Some("system_ids")),
            ("region_isd", Some("region_ids")),
            ("sytems", Some("systems")),
            ("system", Some("systems")),
            ("charcters", Some("characters")),
        ] {
            assert_eq!(slip(name), dimension, "{name}");
        }
        for name in ["corporations", "min_val", "alliance", "client_identifier", "user_id"] {
            assert_eq!(slip(name), None, "{name}");
        }
    }
}
