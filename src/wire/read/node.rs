//! A JSON tree that borrows names and strings from the document, with objects as lists in the document's
//! order. It exists beside `serde_json::Value` for two reasons: killmails are hundreds of small objects, for
//! which a tree of owned maps costs more than twice as much; and it can hold values that are not valid JSON
//! (see `lenient`).
//!
//! Must not know: what the document is about.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::wire::read::json::Name;
use crate::wire::read::number;

/// Deepest nesting of a value that is kept; deeper values are kept as strings of JSON. Our own formats add
/// levels around it, and are read by parsers that allow 128.
const KEPT_LEVELS_MAX: usize = 64;
/// Largest raw text that is kept of an invalid value, bytes.
const UNREAD_MAX_BYTES: usize = 4_096;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number that fits.
    Number(Number),
    /// An integer of more digits than a float holds, and its text.
    Long(Number, &'a str),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Fields<'a>),
    /// Raw bytes that are not valid JSON, and need not be UTF-8.
    Unread(&'a [u8]),
}

/// The fields of an object in the order of the document. Of a repeated name the last value counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields<'a>(pub Vec<(Cow<'a, str>, Node<'a>)>);

impl<'a> Fields<'a> {
    /// The last value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node<'a>> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether the name is present, with any value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Removes all values of this name and returns the last one.
    pub fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let value = self.0.iter().rposition(|(key, _)| key == name).map(|at| self.0.swap_remove(at).1);
        if value.is_some() {
            self.0.retain(|(key, _)| key != name);
        }
        value
    }
}

impl Node<'_> {
    /// Its value as an integer, also if it is a string; `None` if it has none.
    #[must_use]
    pub fn integer(&self) -> Option<i128> {
        match self {
            Self::Number(number) | Self::Long(number, _) => number::to_integer(number),
            Self::Text(text) => number::to_integer(&number::parse_number(text)?),
            _ => None,
        }
    }

    /// Its value as a float, also if it is a string; `None` if it has none.
    #[must_use]
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::Number(number) | Self::Long(number, _) => number.as_f64(),
            Self::Text(text) => number::parse_number(text)?.as_f64(),
            _ => None,
        }
    }

    /// Its value as a string; `None` if it is something else.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value without nulls at any depth; `None` if it is null itself.
    #[must_use]
    pub fn without_nulls(self) -> Option<Value> {
        self.into_value(false, KEPT_LEVELS_MAX)
    }

    /// The value as it came, with its nulls. If it is not valid JSON, a string of limited length.
    #[must_use]
    pub fn into_raw(self) -> Value {
        if self.has_unread() {
            let mut text = String::new();
            self.write(&mut text);
            return Value::String(truncate(text));
        }
        self.into_value(true, KEPT_LEVELS_MAX).unwrap_or_default()
    }

    /// Valid JSON: each invalid value in it is replaced by a string.
    #[must_use]
    pub fn into_valid_json(self) -> Value {
        self.into_value(true, usize::MAX).unwrap_or_default()
    }

    /// Whether it contains a value that is not valid JSON.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        match self {
            Self::Unread(_) => true,
            Self::List(list) => list.iter().any(Self::has_unread),
            Self::Object(fields) => fields.0.iter().any(|(_, value)| value.has_unread()),
            _ => false,
        }
    }

    /// Writes it as text, with invalid values as they came.
    fn write(&self, out: &mut String) {
        let quoted = |text: &str| Value::from(text).to_string();
        match self {
            Self::Null | Self::Flag(_) | Self::Number(_) => out.push_str(&self.describe()),
            Self::Long(_, digits) => out.push_str(digits),
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::Unread(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
            Self::List(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (at, (name, value)) in fields.0.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(&quoted(name));
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    fn into_value(self, nulls: bool, levels: usize) -> Option<Value> {
        match self {
            Self::Null => nulls.then_some(Value::Null),
            Self::Flag(flag) => Some(Value::Bool(flag)),
            Self::Long(_, digits) if nulls => Some(Value::from(digits)),
            Self::Number(number) | Self::Long(number, _) => Some(Value::Number(number)),
            Self::Text(text) => Some(Value::String(text.into_owned())),
            Self::Unread(bytes) => Some(Value::String(truncate(String::from_utf8_lossy(bytes).into_owned()))),
            Self::List(_) | Self::Object(_) if levels == 0 => {
                Some(Value::String(self.into_value(nulls, usize::MAX)?.to_string()))
            }
            Self::List(list) => Some(Value::Array(
                list.into_iter().filter_map(|value| value.into_value(nulls, levels - 1)).collect(),
            )),
            Self::Object(fields) => Some(Value::Object(fields.into_value(nulls, levels))),
        }
    }

    /// Describes it in a message: the value if it is short, or else what kind of value it is.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Long(_, digits) => number::describe(&Value::from(*digits)),
            Self::Unread(bytes) => number::describe(&Value::from(String::from_utf8_lossy(bytes))),
            Self::Text(text) => number::describe(&Value::from(text.as_ref())),
            Self::List(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

/// Cuts a text to a length that can be kept.
fn truncate(mut text: String) -> String {
    if text.len() > UNREAD_MAX_BYTES {
        text.truncate(text.floor_char_boundary(UNREAD_MAX_BYTES));
        text.push_str("...");
    }
    text
}

impl Fields<'_> {
    /// The fields without nulls at any depth.
    #[must_use]
    pub fn without_nulls(self) -> Map<String, Value> {
        self.into_value(false, KEPT_LEVELS_MAX)
    }

    fn into_value(self, nulls: bool, levels: usize) -> Map<String, Value> {
        self.0
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_owned(), value.into_value(nulls, levels - 1)?)))
            .collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Node<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node<'de>, E> {
        Ok(Node::Flag(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node<'de>, E> {
        // This may be an integer of more digits than a float holds. `lenient` reads it again with its text.
        if number.abs() >= number::INTEGERS_MIN {
            return Err(E::custom("a number of many digits"));
        }
        Ok(Number::from_f64(number).map_or(Node::Null, Node::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Name(name)) = map.next_key()? {
            if fields.len() == FIELDS_SMALL {
                fields.reserve(FIELDS_RESERVED);
            }
            fields.push((name, map.next_value()?));
        }
        Ok(Node::Object(Fields(fields)))
    }
}

/// An object that has this many fields gets capacity for as many as an attacker has; smaller ones do not.
const FIELDS_SMALL: usize = 4;
const FIELDS_RESERVED: usize = 8;
