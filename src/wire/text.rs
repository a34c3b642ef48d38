//! Writes JSON directly into bytes, without a tree. U+2028, U+2029 and U+0085 are always escaped, since some
//! readers split lines at them.
//!
//! Must not know: what is written.

use bytes::Bytes;
use memchr::memchr2_iter;
use serde::Serialize;
use serde_json::{Map, Value};

/// Encodes a value as JSON.
#[must_use]
pub fn json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Only maps with keys other than strings fail, and there are none.
    escaped(serde_json::to_vec(value).unwrap_or_default())
}

/// Escapes the line breaks of Unicode, which can only occur in strings. Most JSON has none and is returned as
/// it is.
#[must_use]
pub fn escaped(json: Vec<u8>) -> Vec<u8> {
    if line_breaks(&json).next().is_none() {
        return json;
    }
    let mut out = Vec::with_capacity(json.len() + json.len() / 8);
    let mut begun = 0;
    for (at, bytes, escape) in line_breaks(&json) {
        out.extend_from_slice(&json[begun..at]);
        out.extend_from_slice(escape);
        begun = at + bytes;
    }
    out.extend_from_slice(&json[begun..]);
    out
}

/// Number of bytes that [`escaped`] adds.
#[must_use]
pub fn escapes_bytes(json: &[u8]) -> usize {
    line_breaks(json).map(|(_, bytes, escape)| escape.len() - bytes).sum()
}

/// The line breaks of Unicode in a text: position, length in bytes, and JSON escape.
fn line_breaks(text: &[u8]) -> impl Iterator<Item = (usize, usize, &'static [u8])> + '_ {
    memchr2_iter(0xE2, 0xC2, text).filter_map(|at| match text[at..] {
        [0xE2, 0x80, 0xA8, ..] => Some((at, 3, &br"\u2028"[..])),
        [0xE2, 0x80, 0xA9, ..] => Some((at, 3, &br"\u2029"[..])),
        [0xC2, 0x85, ..] => Some((at, 2, &br"\u0085"[..])),
        _ => None,
    })
}

/// A buffer into which JSON is written. Commas are added automatically; the caller has to pair `open` and `close`.
#[derive(Debug, Default)]
pub struct JsonBuffer(Vec<u8>);

impl JsonBuffer {
    /// Empty, with capacity for this many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Opens an object or list with `{` or `[`.
    pub fn open(&mut self, bracket: u8) {
        self.comma();
        self.0.push(bracket);
    }

    /// Closes an object or list with `}` or `]`.
    pub fn close(&mut self, bracket: u8) {
        self.0.push(bracket);
    }

    /// Writes a key that needs no escaping.
    pub fn key(&mut self, name: &str) {
        self.comma();
        self.0.push(b'"');
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// Writes a number, string, flag or list of these.
    pub fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        self.comma();
        // Writing numbers and strings into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    /// Writes a key and its value.
    pub fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        self.value(value);
    }

    /// Writes a key and its value, or nothing for `None`.
    pub fn field_if_some<T: Serialize>(&mut self, name: &str, value: Option<&T>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Writes encoded JSON.
    pub fn raw(&mut self, json: &[u8]) {
        self.comma();
        self.0.extend_from_slice(json);
    }

    /// Writes the fields of an object, except those named in `taken` and nulls at any depth.
    pub fn fields(&mut self, fields: &Map<String, Value>, taken: &[&str]) {
        for (name, value) in fields {
            if !value.is_null() && !taken.contains(&name.as_str()) {
                self.value(name);
                self.0.push(b':');
                self.without_nulls(value);
            }
        }
    }

    fn without_nulls(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                self.open(b'{');
                self.fields(fields, &[]);
                self.close(b'}');
            }
            Value::Array(values) => {
                self.open(b'[');
                values.iter().filter(|v| !v.is_null()).for_each(|v| self.without_nulls(v));
                self.close(b']');
            }
            plain => self.value(plain),
        }
    }

    fn comma(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(b',');
        }
    }

    /// The bytes that were written.
    #[must_use]
    pub fn done(self) -> Bytes {
        Bytes::from(escaped(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_breaks_of_unicode_are_escaped() {
        let text = "a\u{2028}b\u{2029}\u{85}c\u{2027}\u{e9}\u{a0}";
        assert_eq!(
            String::from_utf8(json(text)).unwrap(),
            "\"a\\u2028b\\u2029\\u0085c\u{2027}\u{e9}\u{a0}\""
        );
        let mut out = JsonBuffer::default();
        out.open(b'{');
        out.field(text, text);
        out.key("raw");
        out.raw(b"\"\xe2\x80\xa8\"");
        out.close(b'}');
        let written = String::from_utf8(out.done().to_vec()).unwrap();
        assert!(!written.contains(['\u{2028}', '\u{2029}', '\u{85}']), "{written}");
        let read: Value = serde_json::from_str(&written).unwrap();
        assert_eq!((read[text].as_str(), read["raw"].as_str()), (Some(text), Some("\u{2028}")));
    }

    proptest! {
        #[test]
        fn escaped_json_has_the_same_value(text in "[\u{2026}-\u{202a}\u{84}-\u{86}a-c\"\\\\\u{e2}]{0,40}") {
            let plain = serde_json::to_vec(&text).unwrap();
            let safe = escaped(plain.clone());
            prop_assert_eq!(safe.len(), plain.len() + escapes_bytes(&plain));
            prop_assert_eq!(serde_json::from_slice::<String>(&safe).unwrap(), text);
            let has_breaks = String::from_utf8(safe).unwrap().contains(['\u{2028}', '\u{2029}', '\u{85}']);
            prop_assert!(!has_breaks);
        }
    }
}
