//! Walks over the members of a JSON object from outside without building them. A value built from JSON can
//! take a hundred times the size of its text, so a request of megabytes must not be built: the caller gets
//! each member as raw text and parses the few it knows.
//!
//! Unlike `lenient`, this relies on serde and refuses invalid JSON; unlike `split`, it has the whole text.
//!
//! Must not know: what the members mean.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Deepest nesting of lists and objects. The deepest killmail has 33 levels.
pub const LEVELS_MAX: usize = 64;

/// Why a text is not a usable JSON object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("{0}")]
    NotJson(String),
    /// It is JSON, but not an object.
    #[error("it is {0}")]
    NotAnObject(&'static str),
    /// Lists and objects are nested too deep.
    #[error("lists and objects may be nested {LEVELS_MAX} levels deep, these are nested deeper")]
    TooDeep,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson(error.to_string())
    }
}

/// An estimate of what building a JSON text would cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Depth of nesting.
    pub levels: usize,
    /// Number of lists and objects.
    pub containers: usize,
    /// Approximate number of values in them.
    pub values: usize,
}

impl Shape {
    /// Measures a text, which need not be valid JSON.
    #[must_use]
    pub fn measure(text: &[u8]) -> Self {
        let (mut shape, mut level, mut at) = (Self::default(), 0_usize, 0);
        while let Some(byte) = text.get(at) {
            at += 1;
            match byte {
                b'{' | b'[' => {
                    level += 1;
                    shape.levels = shape.levels.max(level);
                    shape.containers += 1;
                    shape.values += 1;
                }
                b'}' | b']' => level = level.saturating_sub(1),
                b',' => shape.values += 1,
                b'"' => at += string_end(&text[at..]).unwrap_or(text.len() - at),
                _ => {}
            }
        }
        shape
    }
}

/// The position behind the closing quote of a JSON string whose opening quote is already behind; `None` if
/// there is no closing quote.
#[must_use]
pub fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..)?) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Removes the byte order mark that some editors and PHP write.
#[must_use]
pub fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text)
}

/// Calls `each` for the members of an object in their order.
///
/// # Errors
/// The text is not an object, or nested too deep. Members before the error have been passed to `each`.
pub fn members<'a>(text: &'a [u8], each: impl FnMut(Cow<'a, str>, &'a RawValue)) -> Result<(), JsonError> {
    if Shape::measure(text).levels > LEVELS_MAX {
        return Err(JsonError::TooDeep);
    }
    let text =
        std::str::from_utf8(without_bom(text)).map_err(|error| JsonError::NotJson(error.to_string()))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    if !text.trim_ascii_start().starts_with('{') {
        let other: &RawValue = serde_json::from_str(text)?;
        return Err(JsonError::NotAnObject(kind(other)));
    }
    reader.deserialize_map(Members(each))?;
    Ok(reader.end()?)
}

/// Calls `each` for the elements of a list; `false` if it is not a list.
pub fn elements<'a>(list: &'a RawValue, each: impl FnMut(&'a RawValue)) -> bool {
    let mut reader = serde_json::Deserializer::from_str(list.get());
    list.get().starts_with('[') && reader.deserialize_seq(Elements(each)).is_ok()
}

/// The value as a string; `None` if it is something else.
#[must_use]
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The type of a value, for a message.
#[must_use]
pub fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

struct Members<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            (self.0)(name, map.next_value()?);
        }
        Ok(())
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element()? {
            (self.0)(element);
        }
        Ok(())
    }
}

/// The name of a member, borrowed unless it has escapes.
#[derive(Debug)]
pub struct Name<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_str(AnyName).map(Self)
    }
}

struct AnyName;

impl<'de> Visitor<'de> for AnyName {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, JsonError> {
        let mut all = Vec::new();
        members(text.as_bytes(), |name, value| all.push((name.into_owned(), value.get().to_owned())))
            .map(|()| all)
    }

    #[test]
    fn members_come_as_raw_text() {
        let of = |pairs: &[(&str, &str)]| {
            Ok(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(
            read(r#" {"a": [1, {"b":2}] ,"\u0062":"x\"","c":null} "#),
            of(&[("a", r#"[1, {"b":2}]"#), ("b", r#""x\"""#), ("c", "null")])
        );
        assert_eq!((read("{}"), read("\u{feff} {}")), (of(&[]), of(&[])));
        for (text, kind) in [
            ("[1]", "a list"),
            ("5", "a number"),
            ("null", "null"),
            ("\"x\"", "a string"),
            ("true", "true or false"),
        ] {
            assert_eq!(read(text), Err(JsonError::NotAnObject(kind)), "{text}");
        }
        for text in ["", "{", "{\"a\":}", "{\"a\":1}x", "{\"a\" 1}", "nonsense", "[1", "{\"a\":1,}"] {
            assert!(matches!(read(text), Err(JsonError::NotJson(_))), "{text}");
        }
        assert!(matches!(members(b"{\"a\":\"\xff\"}", |_, _| ()), Err(JsonError::NotJson(_))));
    }

    #[test]
    fn depth_is_limited_outside_of_strings() {
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read(&nested(LEVELS_MAX)).is_ok());
        assert_eq!(read(&nested(LEVELS_MAX + 1)), Err(JsonError::TooDeep));
        assert_eq!(read(&"[".repeat(8 << 20)), Err(JsonError::TooDeep));
        assert!(read(&format!("{{\"a\":\"{}\\\"{}\"}}", "[".repeat(100), "{".repeat(100))).is_ok());
        let shape = Shape::measure(br#"{"a,[":[1,2,{"b":"\\"}],"c":"]"}"#);
        assert_eq!(shape, Shape { levels: 3, containers: 3, values: 6 });
    }

    #[test]
    fn elements_are_those_of_lists() {
        let read = |text: &str| {
            let (mut all, list): (Vec<String>, Box<RawValue>) =
                (Vec::new(), serde_json::from_str(text).unwrap());
            elements(&list, |one| all.push(one.get().to_owned())).then_some(all)
        };
        assert_eq!(read(r#"[1, "a,b", [2,3]]"#), Some(vec!["1".into(), "\"a,b\"".into(), "[2,3]".into()]));
        assert_eq!((read("[]"), read("{}"), read("\"[1]\"")), (Some(Vec::new()), None, None));
    }
}
