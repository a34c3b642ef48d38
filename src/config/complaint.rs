//! What serde says of a value a setting cannot have, in words for whoever wrote it.
//!
//! Must not know: which setting it is.

/// Types of settings as serde names them, and what to write for each.
const TYPES: &[(&str, &str)] = &[
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number of at least 0"),
    ("u64", "a whole number of at least 0"),
    ("usize", "a whole number of at least 0"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list"),
    ("a string", "a text"),
    ("path string", "a path"),
];

/// The complaint as a person would put it; another one stays as it is.
#[must_use]
pub fn plain(complaint: &str) -> String {
    let wrong_type = || {
        let (got, expected) = complaint
            .strip_prefix("invalid type: ")
            .or_else(|| complaint.strip_prefix("invalid value: "))?
            .split_once(", expected ")?;
        let expected = TYPES.iter().find(|(name, _)| *name == expected).map_or(expected, |(_, words)| words);
        Some(format!("expected {expected}, got {}", bare(got)))
    };
    let wrong_word = || {
        let mut names = complaint.strip_prefix("unknown variant ")?.split('`').skip(1).step_by(2);
        let wrong = names.next()?;
        Some(format!("expected {}, got {wrong:?}", names.collect::<Vec<_>>().join(" or ")))
    };
    wrong_type().or_else(wrong_word).unwrap_or_else(|| complaint.to_owned())
}

/// A value without the name of its type: `string "abc"`, ``integer `-1` ``.
fn bare(got: &str) -> &str {
    let value = got.split_once(' ').map_or(got, |(_, value)| value);
    value.trim_matches('`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_say_what_to_write() {
        for (complaint, told) in [
            (
                r#"invalid type: string "abc", expected u16"#,
                r#"expected a whole number from 0 to 65535, got "abc""#,
            ),
            ("invalid value: integer `-1`, expected usize", "expected a whole number of at least 0, got -1"),
            (r#"invalid type: string "many", expected a boolean"#, r#"expected true or false, got "many""#),
            (
                "unknown variant `zz`, expected one of `r2z2`, `replay`, `none`",
                r#"expected r2z2 or replay or none, got "zz""#,
            ),
            ("1 is under 100", "1 is under 100"),
        ] {
            assert_eq!(plain(complaint), told);
        }
    }
}
