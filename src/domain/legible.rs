//! Text from outside made fit to be shown: which characters make it look like something else, and a line
//! without them.
//!
//! Must not know: where the text comes from, or where it is shown.

/// What stands where the rest was cut off.
const CUT: char = '…';
/// Of a text only so many times its limit is looked at: it may consist of nothing but what is taken out.
const LOOKED_AT: usize = 4;

/// Whether a character makes text look like another text: line breaks of every kind, control characters,
/// marks that turn the direction of writing, and characters that are not seen at all. The variation selectors
/// U+FE00 to U+FE0F may stay: what they follow is seen.
#[must_use]
pub fn misleads(c: char) -> bool {
    match c {
        '\u{2028}' | '\u{2029}' => true,
        c if c.is_ascii() => c.is_ascii_control(),
        c => c.is_control() || is_invisible(c),
    }
}

/// Unicode's characters of format that show nothing, and those that show nothing by default.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The text as one line of at most so many bytes. Line breaks and tabs become a space; all else that misleads
/// is taken out.
#[must_use]
pub fn legible(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for c in text.chars().take(bytes_max.saturating_mul(LOOKED_AT)) {
        let shown = match c {
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}'
                if line.is_empty() || line.ends_with(' ') =>
            {
                continue;
            }
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

/// The end of the text, as [`legible`] shows it: what was said last counts most.
#[must_use]
pub fn legible_end(text: &str, bytes_max: usize) -> String {
    let from = text.floor_char_boundary(text.len().saturating_sub(bytes_max.saturating_mul(LOOKED_AT)));
    let line = legible(&text[from..], usize::MAX);
    let line = line.trim();
    if from == 0 && line.len() <= bytes_max {
        return line.to_owned();
    }
    let Some(room) = bytes_max.checked_sub(CUT.len_utf8()) else { return String::new() };
    format!("{CUT}{}", &line[line.ceil_char_boundary(line.len().saturating_sub(room))..])
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
    fn what_is_not_seen_is_taken_out() {
        let classes = [
            0xad..=0xad,
            0x34f..=0x34f,
            0x61c..=0x61c,
            0x115f..=0x1160,
            0x17b4..=0x17b5,
            0x180b..=0x180f,
            0x200b..=0x200f,
            0x2028..=0x202e,
            0x2060..=0x206f,
            0x3164..=0x3164,
            0xfeff..=0xfeff,
            0xffa0..=0xffa0,
            0xfff0..=0xfffb,
            0x13430..=0x1343f,
            0x1bca0..=0x1bca3,
            0x1d173..=0x1d17a,
            0xe0000..=0xe0fff,
        ];
        for c in classes.into_iter().flatten().filter_map(char::from_u32) {
            let shown = legible(&format!("a{c}b"), 100);
            assert_eq!(shown.replace(' ', ""), "ab", "{:x}", u32::from(c));
            assert!(misleads(c), "{:x}", u32::from(c));
        }
        // What is seen stays, and so do the selectors of how it is drawn.
        for text in [
            "\u{2764}\u{fe0f}",
            "\u{e9}\u{301}",
            "\u{645}\u{62f}",
            "\u{ac00}",
            "\u{fffd}",
            "\u{2010}\u{2027}\u{2030}\u{205f}",
        ] {
            assert_eq!(legible(text, 100), text);
        }
    }

    #[test]
    fn the_end_of_a_text_is_what_was_said_last() {
        assert_eq!(legible_end("one\ntwo\n", 100), "one two");
        assert_eq!(legible_end("abcdefgh", 8), "abcdefgh");
        assert_eq!(legible_end("abcdefghi", 8), "\u{2026}efghi");
        assert_eq!(legible_end("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", 8), "\u{2026}\u{e9}\u{e9}");
        assert_eq!((legible_end("abc", 2), legible_end("", 2)), (String::new(), String::new()));
        let long = format!("{}\nlast", "x".repeat(4 << 20));
        assert!(legible_end(&long, 1024).ends_with("x last"));
        assert_eq!(legible_end(&"\0".repeat(4 << 20), 1024), "\u{2026}");
    }

    #[test]
    fn a_flood_of_nothing_is_nothing() {
        assert_eq!(legible(&"\0".repeat(4 << 20), 1024), "");
        assert!(legible(&"\u{10ffff}".repeat(4 << 20), 1024).len() <= 1024);
    }
}
