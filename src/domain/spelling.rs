//! Suggestions for misspelt names.
//!
//! Must not know: what the names stand for.

/// The name nearest to a word, if one is near enough: one edit in five characters, and two in any word.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let edits_max = (word.chars().count() / 5).max(2);
    let near = names
        .into_iter()
        .map(|name| (distance(word, name), name))
        .filter(|(edits, name)| *edits <= edits_max && *edits < name.len());
    near.min_by_key(|(edits, _)| *edits).map(|(_, name)| name)
}

/// Edit distance: characters to replace, remove, insert, or swap with their neighbour.
#[must_use]
pub fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // Three rows of the table are enough: a swap looks back two rows.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters() {
        for (one, other, edits) in [
            ("", "", 0),
            ("abc", "", 3),
            ("system", "sytsem", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
            ("é", "e", 1),
        ] {
            assert_eq!((distance(one, other), distance(other, one)), (edits, edits), "{one} {other}");
        }
    }

    #[test]
    fn the_nearest_name_is_found_unless_it_is_too_far() {
        let names = ["system_ids", "region_ids", "limit", "port"];
        for (word, name) in [
            ("sytem_ids", Some("system_ids")),
            ("limits", Some("limit")),
            ("prot", Some("port")),
            ("x", None),
            ("nonsense", None),
        ] {
            assert_eq!(nearest(word, names), name, "{word}");
        }
    }
}
