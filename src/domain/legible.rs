//! Text from outside made fit to be shown: which characters make it look like something else, and a line without them.
//!
//! Must not know: where the text comes from, or where it is shown.

/// What stands where the rest was cut off.
const CUT: char = '…';
/// Of a text only so many times its limit is looked at: it may consist of nothing but what is taken out.
const LOOKED_AT: usize = 4;

/// Whether a character makes text look like another text: line breaks of every kind, control characters, and marks that turn the
/// direction of writing.
#[must_use]
pub fn misleads(c: char) -> bool {
    match c {
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        '\u{2028}' | '\u{2029}' => true,
        _ => c.is_control(),
    }
}

/// The text as one line of at most so many bytes. Line breaks and tabs become a space; all else that misleads is taken out.
#[must_use]
pub fn legible(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for c in text.chars().take(bytes_max.saturating_mul(LOOKED_AT)) {
        let shown = match c {
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' if line.is_empty() || line.ends_with(' ') => continue,
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
            c if misleads(c) => continue,
            c => c,
        };
        if line.len() + shown.len_utf8() > bytes_max {
            return cut(line, bytes_max);
        }
        line.push(shown);
    }
    line
}

fn cut(mut line: String, bytes_max: usize) -> String {
    while line.len() + CUT.len_utf8() > bytes_max && line.pop().is_some() {}
    if line.len() + CUT.len_utf8() <= bytes_max {
        line.push(CUT);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_misleads_is_taken_out() {
        assert_eq!(legible("a\x1b[31mred\u{9b}b\u{202e}c\0\u{200f}", 100), "a[31mredbc");
        assert_eq!(legible("\n one\r\n\ttwo\u{2028}three\u{85}", 100), " one two three ");
        assert_eq!(legible("äöü 漢字 🚀", 100), "äöü 漢字 🚀");
    }

    #[test]
    fn long_texts_are_cut_between_letters_and_say_so() {
        assert_eq!(legible("abcdef", 6), "abcdef");
        assert_eq!(legible("abcdefg", 6), "abc…");
        assert_eq!(legible("éééé", 7), "éé…");
        assert_eq!(legible("éé", 3), "…");
        assert_eq!(legible("ab", 1), "");
    }

    #[test]
    fn a_flood_of_nothing_is_nothing() {
        assert_eq!(legible(&"\0".repeat(4 << 20), 1024), "");
        assert!(legible(&"\u{10ffff}".repeat(4 << 20), 1024).len() <= 1024);
    }
}
