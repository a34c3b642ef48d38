//! Unknown parameters that look like misspelt filters. A stream has to refuse these: without the filter it
//! would get every killmail.
//!
//! Must not know: which parameters a transport has.

use crate::domain::spelling::distance;
use crate::wire::query::{DIMENSIONS, FILTERS, JOINED, PLUGIN};

/// Names at most this many edits apart count as misspelt.
const EDITS_MAX: usize = 2;
/// Shorter words are close to other words: `action` is not a misspelt `faction`.
const LONG_WORD: usize = 8;
/// Characters of a prefix that stands for a word: `corp`.
const PREFIX_MIN: usize = 4;
/// The same in the name of a list of ids: `sys_ids`.
const ID_PREFIX_MIN: usize = 3;
/// Common names for things that have another name here.
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

/// The filter that a name was probably meant as: a dimension within two edits (`charater_ids`), in another
/// form (`systems`, `system_id`, `SystemIDs`), by its prefix or last word (`corp_ids`, `group_ids`), or with
/// something before it (`victim.character_ids`); or another filter that is nearly right (`minvalue`, `rol`).
#[must_use]
pub(crate) fn suggest(name: &str) -> Option<&'static str> {
    let word = stem(name);
    let is_list = ["id", "ids"].iter().any(|ending| name.to_ascii_lowercase().ends_with(ending));
    let tails: Vec<String> =
        name.match_indices(['.', '_', '[']).map(|(at, _)| stem(&name[at + 1..])).collect();
    let prefix_min = if is_list { ID_PREFIX_MIN } else { PREFIX_MIN };
    let resembles = |filter: &str| {
        let target = stem(filter);
        let is_prefix = word.len() >= prefix_min && target.starts_with(&word);
        let is_last_word = is_list
            && !word.is_empty()
            && filter.match_indices('_').any(|(at, _)| stem(&filter[at + 1..]) == word);
        is_near(&word, &target) || is_prefix || is_last_word
    };
    let dimensions = || DIMENSIONS.iter().copied();
    let all = || dimensions().chain(FILTERS.iter().copied()).chain(PLUGIN.iter().copied());
    let synonym = || SYNONYMS.iter().find(|(synonym, _)| *synonym == word).map(|(_, filter)| *filter);
    nearest(name, dimensions())
        .or_else(|| dimensions().find(|dimension| tails.contains(&stem(dimension))))
        .or_else(|| all().find(|filter| stem(filter) == word))
        .or_else(|| all().find(|filter| resembles(filter)))
        .or_else(synonym)
}

/// Whether a word is a misspelt form of another one. The first letter of a short word has to be right.
fn is_near(word: &str, target: &str) -> bool {
    let edits = distance(word, target);
    let same_initial = word.chars().next() == target.chars().next();
    match target.len() {
        ..4 => false,
        4..LONG_WORD => same_initial && edits < EDITS_MAX,
        _ => edits < EDITS_MAX || same_initial && edits == EDITS_MAX,
    }
}

/// The list of ids in a channel join whose name is within two edits.
#[must_use]
pub(crate) fn suggest_list(name: &str) -> Option<&'static str> {
    nearest(name, JOINED.iter().chain(DIMENSIONS).copied())
}

fn nearest(name: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let best = names.map(|candidate| (distance(name, candidate), candidate)).min_by_key(|(edits, _)| *edits);
    best.filter(|(edits, _)| *edits <= EDITS_MAX).map(|(_, candidate)| candidate)
}

/// A name without `ids`, `id` or plural `s` at its end, in lower case and without underscores.
fn stem(name: &str) -> String {
    let word: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    let ending = ["ids", "id", "s"].into_iter().find_map(|ending| word.strip_suffix(ending));
    ending.unwrap_or(&word).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_filters_are_recognised() {
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
            assert_eq!(suggest(name), Some(dimension), "{name}");
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
            assert_eq!(suggest(name), None, "{name}");
        }
    }

    #[test]
    fn joins_suggest_only_names_within_two_edits() {
        for (name, dimension) in [
            ("charater_ids", Some("character_ids")),
            ("system_id", Some("system_ids")),
            ("region_isd", Some("region_ids")),
            ("sytems", Some("systems")),
            ("system", Some("systems")),
            ("charcters", Some("characters")),
        ] {
            assert_eq!(suggest_list(name), dimension, "{name}");
        }
        for name in ["corporations", "min_val", "alliance", "client_identifier", "user_id"] {
            assert_eq!(suggest_list(name), None, "{name}");
        }
    }
}
