//! Texts for Discord: names that cannot become markup, links or mentions, and figures for people.
//!
//! Names are chosen by players, and by anyone who can add a killmail.
//!
//! Must not know: where in a message a text stands.

use crate::domain::safe_text::sanitize;
use crate::universe;

/// Characters of a name. The game's longest have about 50.
const NAME_CHARS_MAX: usize = 64;
/// Bytes of a name that are looked at.
const NAME_BYTES_MAX: usize = 1_024;
/// Marks the place where a text was cut.
const CUT: char = '…';
/// Follows an `@`, so that it mentions nobody: Discord finds some mentions behind a backslash, too.
const ZERO_WIDTH_SPACE: char = '\u{200b}';
const ISK_UNITS: [(f64, &str); 4] = [(1.0, ""), (1e6, " million"), (1e9, " billion"), (1e12, " trillion")];

/// The length of a text as Discord limits it. It counts code points; UTF-16 units are never fewer.
#[must_use]
pub fn chars(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The beginning of a text, at most this many characters.
#[must_use]
pub fn cut(text: &str, chars_max: usize) -> String {
    if chars(text) <= chars_max {
        return text.to_owned();
    }
    let mut room = chars_max.saturating_sub(1);
    let fits = |c: &char| {
        let fits = c.len_utf16() <= room;
        room = room.saturating_sub(c.len_utf16());
        fits
    };
    text.chars().take_while(fits).chain([CUT]).collect()
}

/// A name as text without markup: one line of visible characters, with every character escaped that could mean
/// something.
#[must_use]
pub fn name(text: &str) -> String {
    let line = cut(sanitize(text, NAME_BYTES_MAX).trim(), NAME_CHARS_MAX);
    let mut shown = String::with_capacity(line.len() + 8);
    for (at, c) in line.chars().enumerate() {
        match c {
            '\\' | '`' | '*' | '_' | '~' | '|' | '>' | '<' | '#' | '[' | ']' | '(' | ')' | ':' | '/' => {
                shown.extend(['\\', c]);
            }
            // A list, at the beginning of a line.
            '-' | '+' if at == 0 => shown.extend(['\\', c]),
            '@' => shown.extend(['@', ZERO_WIDTH_SPACE]),
            c => shown.push(c),
        }
    }
    shown
}

/// The name of a type of ship or weapon.
#[must_use]
pub fn type_text(id: Option<u32>) -> String {
    match id {
        Some(id) => universe::type_name(id).map_or_else(|| format!("Type {id}"), name),
        None => "Unknown ship".to_owned(),
    }
}

/// The name of a system and its region.
#[must_use]
pub fn system_text(id: u32) -> String {
    let Some(system) = universe::system(id) else { return format!("System {id}") };
    match universe::region_name(system.region_id) {
        Some(region) => format!("{} ({})", name(system.name), name(region)),
        None => name(system.name),
    }
}

/// A value as people write it: `1.23 billion ISK`.
#[must_use]
pub fn isk(value: Option<f64>) -> String {
    let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) else {
        return "unknown".to_owned();
    };
    // What rounds to 1000.00 of a unit is 1.00 of the next.
    let unit = ISK_UNITS.iter().rev().find(|(size, _)| value >= size * 0.999_995).unwrap_or(&ISK_UNITS[0]);
    match unit {
        (_, "") => format!("{} ISK", grouped(value.round())),
        (size, word) if value / size < 1e6 => format!("{:.2}{word} ISK", value / size),
        _ => format!("{value:e} ISK"),
    }
}

/// Digits in groups of three.
fn grouped(whole: f64) -> String {
    let digits = format!("{whole:.0}");
    let mut shown = String::with_capacity(digits.len() + 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// True security as the game shows it: one digit, and never 0.0 in high or low security space.
#[must_use]
pub fn security(security: f32) -> String {
    let shown = if security > 0.0 && security < 0.05 { 0.1 } else { (security * 10.0).round() / 10.0 };
    // No minus before zero.
    format!("{:.1}", shown + 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_cannot_become_markup_links_or_mentions() {
        for (text, shown) in [
            ("Jita", "Jita"),
            ("Capsule - Genolution 'Auroral' 197-variant", "Capsule - Genolution 'Auroral' 197-variant"),
            ("**bold** _it_ ~~x~~ ||y|| `z`", r"\*\*bold\*\* \_it\_ \~\~x\~\~ \|\|y\|\| \`z\`"),
            ("[free isk](https://example.org)", r"\[free isk\]\(https\:\/\/example.org\)"),
            ("@everyone", "@\u{200b}everyone"),
            ("<@&123> <:emoji:1>", "\\<@\u{200b}&123\\> \\<\\:emoji\\:1\\>"),
            ("# title", r"\# title"),
            ("> quote", r"\> quote"),
            ("- item - not", r"\- item - not"),
            ("a\\", r"a\\"),
            ("two\nlines\u{202e}\u{200b}\0", "two lines"),
            ("  \t ", ""),
        ] {
            assert_eq!(name(text), shown, "{text:?}");
        }
        assert_eq!(chars(&name(&"é".repeat(900))), NAME_CHARS_MAX);
        assert!(name(&"é".repeat(900)).ends_with(CUT));
    }

    #[test]
    fn values_and_security_are_written_as_people_do() {
        for (value, shown) in [
            (None, "unknown"),
            (Some(f64::NAN), "unknown"),
            (Some(-1.0), "unknown"),
            (Some(0.0), "0 ISK"),
            (Some(12_345.6), "12,346 ISK"),
            (Some(999_994.0), "999,994 ISK"),
            (Some(999_999.0), "1.00 million ISK"),
            (Some(12_345_678.0), "12.35 million ISK"),
            (Some(999_999_999.0), "1.00 billion ISK"),
            (Some(1_234_567_890.0), "1.23 billion ISK"),
            (Some(2.5e12), "2.50 trillion ISK"),
            (Some(1e300), "1e300 ISK"),
        ] {
            assert_eq!(isk(value), shown, "{value:?}");
        }
        for (value, shown) in [
            (0.945_913, "0.9"),
            (0.45, "0.5"),
            (0.01, "0.1"),
            (0.0, "0.0"),
            (-0.01, "0.0"),
            (-0.37, "-0.4"),
            (-1.0, "-1.0"),
        ] {
            assert_eq!(security(value), shown, "{value}");
        }
    }

    #[test]
    fn unknown_ids_are_shown_as_they_are() {
        assert_eq!(system_text(30_000_142), r"Jita \(The Forge\)".replace('\\', ""));
        assert_eq!(system_text(7), "System 7");
        assert_eq!(
            (type_text(Some(587)), type_text(Some(u32::MAX))),
            ("Rifter".into(), "Type 4294967295".into())
        );
        assert_eq!(type_text(None), "Unknown ship");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn every_name_is_one_line_of_limited_length_without_markup(text in "\\PC{0,80}|[@<*_`~|\\\\\\[\\]()#>:/\n\r\u{202e}a-]{0,80}") {
            let shown = name(&text);
            prop_assert!(chars(&shown) <= 2 * NAME_CHARS_MAX);
            let breaks = shown.contains(['\n', '\r', '\u{202e}']);
            prop_assert!(!breaks);
            let mut plain = String::new();
            let mut rest = shown.chars();
            while let Some(c) = rest.next() {
                let is_markup = "`*_~|><#[]():/".contains(c);
                prop_assert!(!is_markup, "not escaped: {}", shown);
                match c {
                    '\\' => plain.extend(rest.next()),
                    '@' => {
                        prop_assert_eq!(rest.next(), Some(ZERO_WIDTH_SPACE));
                        plain.push('@');
                    }
                    c => plain.push(c),
                }
            }
            prop_assert_eq!(plain, cut(sanitize(&text, NAME_BYTES_MAX).trim(), NAME_CHARS_MAX));
        }

        #[test]
        fn a_cut_text_has_at_most_the_characters_asked_for(text in "\\PC{0,50}", most in 1..40_usize) {
            let shown = cut(&text, most);
            prop_assert!(chars(&shown) <= most);
            prop_assert!(shown == text || text.starts_with(shown.trim_end_matches(CUT)));
        }
    }
}
