//! A JSON document as it is read: names and texts stay in the document's bytes, objects are lists in the
//! document's order. Killmails are hundreds of small objects: a tree of owned maps costs more than twice as
//! much.
//!
//! Must not know: what the document is about.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::wire::read::json::Name;
use crate::wire::read::number;

/// What is kept as it came is nested so deep at most; what is deeper is kept as a text of JSON. Our own forms
/// put levels around it, and are read again by readers that take 128.
const KEPT_LEVELS_MAX: usize = 64;
/// What is kept of a text that is no JSON, bytes at most.
const UNREAD_MAX_BYTES: usize = 4_096;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// A number.
    Number(Number),
    /// A number of more digits than fit, with the text it is.
    Long(Number, &'a str),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(Fields<'a>),
    /// What no parser takes: the text it is, which need not be UTF-8.
    Unread(&'a [u8]),
}

/// The fields of an object, in the order of the document. Of a name that comes twice the last counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields<'a>(pub Vec<(Cow<'a, str>, Node<'a>)>);

impl<'a> Fields<'a> {
    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node<'a>> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Whether the name is there, with whatever value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Takes the value of a name out.
    pub fn take(&mut self, name: &str) -> Option<Node<'a>> {
        let value = self.0.iter().rposition(|(key, _)| key == name).map(|at| self.0.swap_remove(at).1);
        if value.is_some() {
            self.0.retain(|(key, _)| key != name);
        }
        value
    }
}

impl Node<'_> {
    /// The integer it stands for, also in a text; `None` when it stands for none.
    #[must_use]
    pub fn integer(&self) -> Option<i128> {
        match self {
            Self::Number(number) | Self::Long(number, _) => number::integral(number),
            Self::Text(text) => number::integral(&number::written(text)?),
            _ => None,
        }
    }

    /// The number it is, also in a text.
    #[must_use]
    pub fn float(&self) -> Option<f64> {
        match self {
            Self::Number(number) | Self::Long(number, _) => number.as_f64(),
            Self::Text(text) => number::written(text)?.as_f64(),
            _ => None,
        }
    }

    /// The text it is.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// It without the nulls in it, to be kept; `None` if it is null itself.
    #[must_use]
    pub fn without_nulls(self) -> Option<Value> {
        self.kept(false, KEPT_LEVELS_MAX)
    }

    /// It as it came, to be kept; what JSON cannot show again is a text of it, cut to a sane length.
    #[must_use]
    pub fn raw(self) -> Value {
        if self.has_unread() {
            let mut text = String::new();
            self.write(&mut text);
            return Value::String(cut(text));
        }
        self.kept(true, KEPT_LEVELS_MAX).unwrap_or_default()
    }

    /// It as JSON for every parser: a text stands for each value in it that none takes.
    #[must_use]
    pub fn readable(self) -> Value {
        self.kept(true, usize::MAX).unwrap_or_default()
    }

    /// Whether anything in it is what no parser takes.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        match self {
            Self::Unread(_) => true,
            Self::List(list) => list.iter().any(Self::has_unread),
            Self::Object(fields) => fields.0.iter().any(|(_, value)| value.has_unread()),
            _ => false,
        }
    }

    /// It as a text, what no parser takes as it came.
    fn write(&self, out: &mut String) {
        let quoted = |text: &str| Value::from(text).to_string();
        match self {
            Self::Null | Self::Flag(_) | Self::Number(_) => out.push_str(&self.shown()),
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

    fn kept(self, nulls: bool, levels: usize) -> Option<Value> {
        match self {
            Self::Null => nulls.then_some(Value::Null),
            Self::Flag(flag) => Some(Value::Bool(flag)),
            Self::Long(_, digits) if nulls => Some(Value::from(digits)),
            Self::Number(number) | Self::Long(number, _) => Some(Value::Number(number)),
            Self::Text(text) => Some(Value::String(text.into_owned())),
            Self::Unread(bytes) => Some(Value::String(cut(String::from_utf8_lossy(bytes).into_owned()))),
            Self::List(_) | Self::Object(_) if levels == 0 => {
                Some(Value::String(self.kept(nulls, usize::MAX)?.to_string()))
            }
            Self::List(list) => Some(Value::Array(
                list.into_iter().filter_map(|value| value.kept(nulls, levels - 1)).collect(),
            )),
            Self::Object(fields) => Some(Value::Object(fields.kept(nulls, levels))),
        }
    }

    /// It, short enough for a message.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Long(_, digits) => number::shown(&Value::from(*digits)),
            Self::Unread(bytes) => number::shown(&Value::from(String::from_utf8_lossy(bytes))),
            Self::Text(text) => number::shown(&Value::from(text.as_ref())),
            Self::List(_) => "a list".to_owned(),
            Self::Object(_) => "an object".to_owned(),
        }
    }
}

/// A text of a length that can be kept.
fn cut(mut text: String) -> String {
    if text.len() > UNREAD_MAX_BYTES {
        text.truncate(text.floor_char_boundary(UNREAD_MAX_BYTES));
        text.push_str("...");
    }
    text
}

impl Fields<'_> {
    /// They without the nulls in them, to be kept.
    #[must_use]
    pub fn without_nulls(self) -> Map<String, Value> {
        self.kept(false, KEPT_LEVELS_MAX)
    }

    fn kept(self, nulls: bool, levels: usize) -> Map<String, Value> {
        self.0
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_owned(), value.kept(nulls, levels - 1)?)))
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
        // What may be an integer of more digits than a float has is read where its text is at hand.
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
            if fields.len() == FIELDS_FEW {
                fields.reserve(FIELDS_LIKELY);
            }
            fields.push((name, map.next_value()?));
        }
        Ok(Node::Object(Fields(fields)))
    }
}

/// An object with so many fields gets room for those of an attacker; a smaller one takes no more than it
/// needs.
const FIELDS_FEW: usize = 4;
const FIELDS_LIKELY: usize = 8;
