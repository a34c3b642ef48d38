//! The parameters of a query string or a JSON object, parsed on demand as the type the caller asks for.
//! Messages are those of WandererKills if it has one for the case.
//!
//! The caller says which names are known. Their values are kept as raw text until they are asked for. Other
//! members are skipped without being parsed, and only their names are kept.
//!
//! Must not know: what the parameters mean, or which transport they came by.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::query::given_value::{
    describe, json_integer, json_number, parse_id, parse_json_id, truncate,
};
use crate::wire::query::spelling::{
    format_float, label_variants, parse_integer, parse_number, parse_time, split_list, to_unix_seconds,
};
use crate::wire::read::json::{self, JsonError};

/// Unknown names that are kept to be reported, each truncated.
const UNKNOWN_MAX: usize = 32;

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParameterError {
    /// Name of the parameter.
    pub field: String,
    /// What is wrong with it, for people.
    pub message: String,
    /// The limit it exceeds, if that is what is wrong.
    pub limit: Option<u64>,
}

impl ParameterError {
    /// The list has too many elements.
    #[must_use]
    pub fn too_many(field: &str, most: usize) -> Self {
        Self::over(field, format!("Too many {field} specified (max {most})"), most as u64)
    }

    /// The value is invalid.
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into(), limit: None }
    }

    /// The value exceeds this limit.
    pub fn over(field: &str, message: impl Into<String>, limit: u64) -> Self {
        Self { field: field.to_owned(), message: message.into(), limit: Some(limit) }
    }
}

/// The names that have a meaning, in groups: transports share some groups and have others for themselves.
pub type KnownNames = &'static [&'static [&'static str]];

/// Parameters by name. Empty strings and nulls count as missing.
#[derive(Debug)]
pub struct Parameters<'a> {
    known: KnownNames,
    named: BTreeMap<&'static str, RawParameter<'a>>,
    /// Earlier values of a name that is repeated in a query string.
    earlier: BTreeMap<&'static str, Vec<Cow<'a, str>>>,
    /// Lists written `name[]` as in PHP, which are not supported.
    bracketed: BTreeSet<&'static str>,
    unknown: Vec<String>,
}

#[derive(Debug)]
enum RawParameter<'a> {
    Text(Cow<'a, str>),
    Json(&'a RawValue),
}

impl RawParameter<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Json(value) => value.get() == "null",
        }
    }
}

/// An id in a request. Any integer is accepted, but not every integer can be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestedId {
    /// A valid id.
    Id(u32),
    /// An integer that cannot be an id, as it came.
    Impossible(i128),
}

impl RequestedId {
    pub(crate) fn new(number: i128) -> Self {
        u32::try_from(number).ok().filter(|id| *id > 0).map_or(Self::Impossible(number), Self::Id)
    }
}

/// The ids of a request in their order, with repetitions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestedIds {
    /// 0, which is never an id, stands for the next element of `impossible`.
    ids: Vec<u32>,
    impossible: Vec<i128>,
}

impl RequestedIds {
    fn push(&mut self, id: RequestedId) {
        match id {
            RequestedId::Id(id) => self.ids.push(id),
            RequestedId::Impossible(number) => {
                self.ids.push(0);
                self.impossible.push(number);
            }
        }
    }

    /// Number of ids, including impossible ones.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether some of them cannot be ids.
    #[must_use]
    pub const fn has_impossible(&self) -> bool {
        !self.impossible.is_empty()
    }

    /// The ids in order, impossible ones included.
    pub fn iter(&self) -> impl Iterator<Item = RequestedId> + '_ {
        let mut impossible = self.impossible.iter();
        self.ids.iter().map(move |id| match id {
            0 => RequestedId::Impossible(impossible.next().copied().unwrap_or_default()),
            id => RequestedId::Id(*id),
        })
    }
}

impl<'a> Parameters<'a> {
    /// From a decoded query string. Repeated lists are joined; of other repeated names the last value counts.
    #[must_use]
    pub fn from_pairs(pairs: &'a [(String, String)], known: KnownNames) -> Self {
        let mut parameters = Self::empty(known);
        pairs
            .iter()
            .for_each(|(name, value)| parameters.insert(name, RawParameter::Text(Cow::Borrowed(value))));
        parameters
    }

    /// From the text of a JSON object. Of a repeated name the last value counts.
    ///
    /// # Errors
    /// The text is not a JSON object.
    pub fn from_object(text: &'a [u8], known: KnownNames) -> Result<Self, JsonError> {
        let mut parameters = Self::empty(known);
        json::members(text, |name, value| {
            let parsed = json::text(value).map_or(RawParameter::Json(value), RawParameter::Text);
            parameters.insert(&name, parsed);
        })?;
        parameters.earlier.clear();
        Ok(parameters)
    }

    /// No parameters.
    #[must_use]
    pub const fn empty(known: KnownNames) -> Self {
        Self {
            known,
            named: BTreeMap::new(),
            earlier: BTreeMap::new(),
            bracketed: BTreeSet::new(),
            unknown: Vec::new(),
        }
    }

    /// Adds parameters from a query string, for names that are missing here.
    #[must_use]
    pub fn or_from_pairs(mut self, pairs: &'a [(String, String)]) -> Self {
        let mut query = Self::from_pairs(pairs, self.known);
        query.earlier.retain(|name, _| !self.named.contains_key(name));
        query.named.append(&mut self.named);
        self.bracketed.append(&mut query.bracketed);
        query.unknown.iter().for_each(|name| self.note_unknown(name));
        Self { named: query.named, earlier: query.earlier, ..self }
    }

    fn insert(&mut self, name: &str, value: RawParameter<'a>) {
        let find = |name: &str| self.known.iter().copied().flatten().copied().find(|known| *known == name);
        let list = || {
            name.split_once('[').and_then(|(plain, _)| find(plain)).filter(|plain| plain.ends_with("_ids"))
        };
        if let Some(name) = find(name) {
            if let Some(RawParameter::Text(earlier)) = self.named.insert(name, value) {
                self.earlier.entry(name).or_default().push(earlier);
            }
        } else if let Some(list) = list() {
            self.bracketed.insert(list);
        } else if !value.is_empty() {
            self.note_unknown(name);
        }
    }

    fn note_unknown(&mut self, name: &str) {
        let name = truncate(name);
        if self.unknown.len() < UNKNOWN_MAX && !self.unknown.contains(&name) {
            self.unknown.push(name);
        }
    }

    /// The first unknown names in their order, each truncated to a readable length.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    fn get(&self, field: &str) -> Option<&RawParameter<'a>> {
        debug_assert!(
            self.known.iter().any(|names| names.contains(&field)),
            "{field} is read, but not among the known names"
        );
        self.named.get(field).filter(|value| !value.is_empty())
    }

    fn earlier(&self, field: &str) -> impl Iterator<Item = &str> {
        self.earlier.get(field).into_iter().flatten().map(AsRef::as_ref)
    }

    /// The value as text, also if it is empty; `None` if it is missing or not a string.
    #[must_use]
    pub fn raw_text(&self, field: &str) -> Option<&str> {
        match self.named.get(field) {
            Some(RawParameter::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The value as raw JSON; `None` if it is missing, null or a string.
    #[must_use]
    pub fn raw_json(&self, field: &str) -> Option<&'a RawValue> {
        match self.get(field) {
            Some(RawParameter::Json(value)) => Some(value),
            _ => None,
        }
    }

    /// Calls `each` with the elements of a JSON list; `false` if the value is not a list.
    pub fn elements(&self, field: &str, each: impl FnMut(&'a RawValue)) -> bool {
        self.raw_json(field).is_some_and(|value| json::elements(value, each))
    }

    /// Whether the name is present, with any value.
    #[must_use]
    pub fn contains(&self, field: &str) -> bool {
        self.named.contains_key(field)
    }

    /// A string.
    ///
    /// # Errors
    /// It is not a string.
    pub fn text(&self, field: &str) -> Result<Option<&str>, ParameterError> {
        match self.get(field) {
            None => Ok(None),
            Some(RawParameter::Text(text)) => Ok(Some(text)),
            Some(RawParameter::Json(value)) => Err(ParameterError::new(
                field,
                format!("Invalid {field}: {} is not a string", describe(value)),
            )),
        }
    }

    /// Ids, separated by commas or in a JSON list. At most `most + 1` are kept, so that the caller can tell
    /// when there are too many.
    ///
    /// # Errors
    /// An element is not an integer, or the value is not a list.
    pub fn ids(&self, field: &str, most: usize) -> Result<RequestedIds, ParameterError> {
        let not_a_list =
            || ParameterError::new(field, format!("{field} must be a comma-separated list of integers"));
        let (mut ids, mut first_error) = (RequestedIds::default(), None);
        let mut push = |id: Result<RequestedId, ParameterError>| match id {
            Ok(id) if ids.len() <= most => ids.push(id),
            Ok(_) => {}
            Err(error) => drop(first_error.get_or_insert(error)),
        };
        self.earlier(field).flat_map(split_list).for_each(|part| push(parse_id(field, part)));
        let is_list = match self.get(field) {
            None => !self.bracketed.contains(field),
            Some(RawParameter::Text(text)) => {
                split_list(text).for_each(|part| push(parse_id(field, part)));
                true
            }
            Some(RawParameter::Json(list)) => json::elements(list, |value| push(parse_json_id(field, value))),
        };
        match first_error {
            Some(error) => Err(error),
            None if is_list => Ok(ids),
            None => Err(not_a_list()),
        }
    }

    /// Strings, separated by commas or in a JSON list. At most `most + 1` are kept, so that the caller can
    /// tell when there are too many.
    ///
    /// # Errors
    /// The value is not a list of strings.
    pub fn texts(&self, field: &str, most: usize) -> Result<Vec<String>, ParameterError> {
        let mut texts: Vec<String> = self
            .earlier(field)
            .flat_map(|text| text.split(',').flat_map(label_variants))
            .take(most.saturating_add(1))
            .collect();
        match self.get(field) {
            None => {}
            Some(RawParameter::Text(text)) => {
                let space = most.saturating_add(1).saturating_sub(texts.len());
                texts.extend(text.split(',').flat_map(label_variants).take(space));
            }
            Some(RawParameter::Json(list)) => {
                let mut all_strings = true;
                let is_list = json::elements(list, |value| match json::text(value) {
                    Some(text) if !text.is_empty() && texts.len() <= most => texts.push(text.into_owned()),
                    Some(_) => {}
                    None => all_strings = false,
                });
                if !(is_list && all_strings) {
                    return Err(ParameterError::new(field, format!("{field} must be a list of strings")));
                }
            }
        }
        Ok(texts)
    }

    /// A number of at least 0.
    ///
    /// # Errors
    /// It is negative, or not a number.
    pub fn amount(&self, field: &str) -> Result<Option<f64>, ParameterError> {
        let amount = match self.get(field) {
            None => return Ok(None),
            Some(RawParameter::Text(text)) => parse_number(text).ok_or_else(|| truncate(text)),
            Some(RawParameter::Json(value)) => {
                json_number(value).and_then(|number| number.as_f64()).ok_or_else(|| describe(value))
            }
        };
        match amount {
            Ok(amount) if amount < 0.0 => Err(ParameterError::new(
                field,
                format!("{field} must be non-negative, got {}", format_float(amount)),
            )),
            Ok(amount) => Ok(Some(amount)),
            Err(given) => {
                Err(ParameterError::new(field, format!("Invalid {field}: '{given}' is not a valid number")))
            }
        }
    }

    /// An integer of at least 0, clamped to `most`.
    ///
    /// # Errors
    /// It is negative, or not an integer.
    pub fn count(&self, field: &str, most: u32) -> Result<Option<u32>, ParameterError> {
        match self.integer(field)? {
            Some(count) if count < 0 => {
                Err(ParameterError::new(field, format!("{field} must be non-negative")))
            }
            count => Ok(count.map(|count| u32::try_from(count).unwrap_or(most).min(most))),
        }
    }

    fn integer(&self, field: &str) -> Result<Option<i128>, ParameterError> {
        let integer = match self.get(field) {
            None => return Ok(None),
            Some(RawParameter::Text(text)) => parse_integer(text).ok_or_else(|| truncate(text)),
            Some(RawParameter::Json(value)) => json_integer(value).ok_or_else(|| describe(value)),
        };
        integer.map(Some).map_err(|given| {
            ParameterError::new(field, format!("Invalid {field}: '{given}' is not a valid integer"))
        })
    }

    /// An integer within a range.
    ///
    /// # Errors
    /// It is outside of the range, or not an integer.
    pub fn integer_in(&self, field: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ParameterError> {
        let Some(number) = self.integer(field)? else { return Ok(None) };
        let (least, most) = (*range.start(), *range.end());
        match u32::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                // The upper end is more useful, unless the number is below a lower end that is not obvious.
                let limit = if number < i128::from(least) && least > 1 { least } else { most };
                let message = format!("{field} must be between {least} and {most}");
                Err(ParameterError::over(field, message, u64::from(limit)))
            }
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// It is neither.
    pub fn flag(&self, field: &str) -> Result<Option<bool>, ParameterError> {
        let given = match self.get(field) {
            None => return Ok(None),
            Some(RawParameter::Text(text)) => (text.as_ref(), truncate(text)),
            Some(RawParameter::Json(value)) => (value.get(), describe(value)),
        };
        match given {
            ("true", _) => Ok(Some(true)),
            ("false", _) => Ok(Some(false)),
            (_, shown) => Err(ParameterError::new(
                field,
                format!("Invalid {field}: '{shown}' is neither true nor false"),
            )),
        }
    }

    /// One of these words, as the value that belongs to it.
    ///
    /// # Errors
    /// It is another word.
    pub fn word<T: Copy>(&self, field: &str, words: &[(&str, T)]) -> Result<Option<T>, ParameterError> {
        let Some(given) = self.text(field)? else { return Ok(None) };
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
        found.map(Some).ok_or_else(|| {
            ParameterError::new(
                field,
                format!("Invalid {field}: '{}' is not one of {}", truncate(given), known.join(", ")),
            )
        })
    }

    /// A time as unix seconds: RFC 3339, unix seconds or milliseconds.
    ///
    /// # Errors
    /// It is none of these.
    pub fn time(&self, field: &str) -> Result<Option<i64>, ParameterError> {
        let invalid = |given: &str| {
            ParameterError::new(
                field,
                format!("Invalid {field}: '{given}' is neither an RFC 3339 time nor unix seconds"),
            )
        };
        match self.get(field) {
            None => Ok(None),
            Some(RawParameter::Text(text)) => {
                parse_time(text).map(Some).ok_or_else(|| invalid(&truncate(text)))
            }
            Some(RawParameter::Json(value)) => json_integer(value)
                .and_then(to_unix_seconds)
                .map(Some)
                .ok_or_else(|| invalid(&describe(value))),
        }
    }

    /// JSON: the value of a member of an object, or text in a query string.
    ///
    /// # Errors
    /// It is longer than `most_bytes`, or not JSON.
    pub fn json(&self, field: &str, most_bytes: usize) -> Result<Option<Value>, ParameterError> {
        let text = match self.get(field) {
            None => return Ok(None),
            Some(RawParameter::Json(value)) => value.get(),
            Some(RawParameter::Text(text)) => text,
        };
        if text.len() > most_bytes {
            let message = format!("{field} is {} bytes as sent; at most {most_bytes}", text.len());
            return Err(ParameterError::over(field, message, most_bytes as u64));
        }
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| ParameterError::new(field, format!("Invalid {field}: not JSON: {error}")))
    }
}
