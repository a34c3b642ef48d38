//! Sanitizes untrusted text before it is shown or logged: no control characters, no invisible characters, one
//! line of limited length.
//!
//! Must not know: where the text comes from, or where it is shown.

/// Marks the place where text was cut off.
const CUT: char = '…';
/// Only this multiple of the limit is looked at: a text may consist of nothing but removed characters.
const SCAN_FACTOR: usize = 4;

/// Whether a character can make text look like a different text: line breaks of every kind, control
/// characters, marks that change the direction of writing, and invisible characters. The variation selectors
/// U+FE00 to U+FE0F are allowed, since they follow a visible character.
#[must_use]
pub fn is_misleading(c: char) -> bool {
    match c {
        '\u{2028}' | '\u{2029}' => true,
        c if c.is_ascii() => c.is_ascii_control(),
        c => c.is_control() || is_invisible(c),
    }
}

/// Unicode's invisible format characters, and those that are ignorable by default.
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

/// The text as one line of at most `bytes_max` bytes. Line breaks and tabs become a space; other misleading
/// characters are removed.
#[must_use]
pub fn sanitize(text: &str, bytes_max: usize) -> String {
    let mut line = String::new();
    for c in text.chars().take(bytes_max.saturating_mul(SCAN_FACTOR)) {
        let shown = match c {
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}'
                if line.is_empty() || line.ends_with(' ') =>
            {
                continue;
            }
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
            c if is_misleading(c) => continue,
            c => c,
        };
        if line.len() + shown.len_utf8() > bytes_max {
            return cut(line, bytes_max);
        }
        line.push(shown);
    }
    line
}

/// The end of the text, as [`sanitize`] returns it: of output before a crash, the last lines matter most.
#[must_use]
pub fn sanitize_end(text: &str, bytes_max: usize) -> String {
    let from = text.floor_char_boundary(text.len().saturating_sub(bytes_max.saturating_mul(SCAN_FACTOR)));
    let line = sanitize(&text[from..], usize::MAX);
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
    fn misleading_characters_are_removed() {
        assert_eq!(sanitize("a\x1b[31mred\u{9b}b\u{202e}c\0\u{200f}", 100), "a[31mredbc");
        assert_eq!(sanitize("\n one\r\n\ttwo\u{2028}three\u{85}", 100), " one two three ");
        assert_eq!(sanitize("äöü 漢字 🚀", 100), "äöü 漢字 🚀");
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_marked() {
        assert_eq!(sanitize("abcdef", 6), "abcdef");
        assert_eq!(sanitize("abcdefg", 6), "abc…");
        assert_eq!(sanitize("éééé", 7), "éé…");
        assert_eq!(sanitize("éé", 3), "…");
        assert_eq!(sanitize("ab", 1), "");
    }

    #[test]
    fn invisible_characters_are_removed() {
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
            let shown = sanitize(&format!("a{c}b"), 100);
            assert_eq!(shown.replace(' ', ""), "ab", "{:x}", u32::from(c));
            assert!(is_misleading(c), "{:x}", u32::from(c));
        }
        // Visible characters and variation selectors stay.
        for text in [
            "\u{2764}\u{fe0f}",
            "\u{e9}\u{301}",
            "\u{645}\u{62f}",
            "\u{ac00}",
            "\u{fffd}",
            "\u{2010}\u{2027}\u{2030}\u{205f}",
        ] {
            assert_eq!(sanitize(text, 100), text);
        }
    }

    #[test]
    fn the_end_of_a_text_is_kept() {
        assert_eq!(sanitize_end("one\ntwo\n", 100), "one two");
        assert_eq!(sanitize_end("abcdefgh", 8), "abcdefgh");
        assert_eq!(sanitize_end("abcdefghi", 8), "\u{2026}efghi");
        assert_eq!(sanitize_end("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}", 8), "\u{2026}\u{e9}\u{e9}");
        assert_eq!((sanitize_end("abc", 2), sanitize_end("", 2)), (String::new(), String::new()));
        let long = format!("{}\nlast", "x".repeat(4 << 20));
        assert!(sanitize_end(&long, 1024).ends_with("x last"));
        assert_eq!(sanitize_end(&"\0".repeat(4 << 20), 1024), "\u{2026}");
    }

    #[test]
    fn a_flood_of_removed_characters_gives_nothing() {
        assert_eq!(sanitize(&"\0".repeat(4 << 20), 1024), "");
        assert!(sanitize(&"\u{10ffff}".repeat(4 << 20), 1024).len() <= 1024);
    }
}
