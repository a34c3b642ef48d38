//! Rewords what serde says about a value that a setting cannot have.
//!
//! Must not know: which setting it is.

/// What serde calls the type of a setting, and what to call it in a message.
const TYPES: &[(&str, &str)] = &[
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number of at least 0"),
    ("u64", "a whole number of at least 0"),
    ("usize", "a whole number of at least 0"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list"),
    ("a string", "a string"),
    ("path string", "a path"),
];

/// Turns serde's messages about wrong types, unknown variants and addresses into "expected X"; leaves others as they
/// are.
#[must_use]
pub fn reword(message: &str) -> String {
    let wrong_type = || {
        let (got, expected) = message
            .strip_prefix("invalid type: ")
            .or_else(|| message.strip_prefix("invalid value: "))?
            .split_once(", expected ")?;
        let expected = TYPES.iter().find(|(name, _)| *name == expected).map_or(expected, |(_, words)| words);
        Some(format!("expected {expected}, got {}", without_type(got)))
    };
    let unknown_variant = || {
        let mut names = message.strip_prefix("unknown variant ")?.split('`').skip(1).step_by(2);
        let wrong = names.next()?;
        Some(format!("expected {}, got {wrong:?}", names.collect::<Vec<_>>().join(" or ")))
    };
    let not_an_address =
        || (message == "invalid IP address syntax").then(|| "expected an IP address".to_owned());
    wrong_type().or_else(unknown_variant).or_else(not_an_address).unwrap_or_else(|| message.to_owned())
}

/// The value from serde's `string "abc"` or ``integer `-1` ``.
fn without_type(got: &str) -> &str {
    let value = got.split_once(' ').map_or(got, |(_, value)| value);
    value.trim_matches('`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_to_write() {
        for (message, reworded) in [
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
            ("invalid IP address syntax", "expected an IP address"),
            ("1 is under 100", "1 is under 100"),
        ] {
            assert_eq!(reword(message), reworded);
        }
    }
}
