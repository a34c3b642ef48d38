//! Parameters as they were given, in a query string or a JSON object, read as what they should be. The texts
//! of what can be wrong are WandererKills' where it has one.
//!
//! Whoever reads says which names there are. Of a JSON object the values of these are kept as the text they
//! are and read when they are asked for; all else is skipped, and its names are told.
//!
//! Must not know: which parameters there are, which door asks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::wire::query::given_value::{asked_id, cut, json_id, json_integer, json_number, shown_raw};
use crate::wire::query::spelling::{moment, number, parts, spelled, unix_seconds, whole, with_plus};
use crate::wire::read::json::{self, Broken};

/// Names without a meaning that are told, each cut to [`SHOWN_CHARS`].
const UNKNOWN_MAX: usize = 32;

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Which one.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
    /// The limit it broke, where it broke one.
    pub limit: Option<u64>,
}

impl Error {
    /// A list longer than it may be.
    #[must_use]
    pub fn too_many(field: &str, most: usize) -> Self {
        Self::over(field, format!("Too many {field} specified (max {most})"), most as u64)
    }

    /// A parameter that cannot be understood.
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), message: message.into(), limit: None }
    }

    /// A parameter over its limit.
    pub fn over(field: &str, message: impl Into<String>, limit: u64) -> Self {
        Self { field: field.to_owned(), message: message.into(), limit: Some(limit) }
    }
}

/// The names there are, in groups: a door has some of its own beside those it shares.
pub type Known = &'static [&'static [&'static str]];

/// Parameters by name. Empty texts and nulls are not given.
#[derive(Debug)]
pub struct Parameters<'a> {
    known: Known,
    named: BTreeMap<&'static str, One<'a>>,
    /// What a query string says of a name before it says it again.
    earlier: BTreeMap<&'static str, Vec<Cow<'a, str>>>,
    /// Lists spelled `name[]`, as PHP has it: nobody reads them.
    bracketed: BTreeSet<&'static str>,
    unknown: Vec<String>,
}

#[derive(Debug)]
enum One<'a> {
    Text(Cow<'a, str>),
    Json(&'a RawValue),
}

impl One<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Json(value) => value.get() == "null",
        }
    }
}

/// An id as asked for: any integer may be, not every one can be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedId {
    /// Could be one.
    Id(u32),
    /// No killmail has it; as it was asked for.
    Impossible(i128),
}

/// Ids as asked for, in the order given, repetitions kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AskedIds {
    /// 0, which no id is, stands for the next of the impossible ones.
    ids: Vec<u32>,
    impossible: Vec<i128>,
}

impl AskedIds {
    fn push(&mut self, id: AskedId) {
        match id {
            AskedId::Id(id) => self.ids.push(id),
            AskedId::Impossible(number) => {
                self.ids.push(0);
                self.impossible.push(number);
            }
        }
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether some can be no id.
    #[must_use]
    pub const fn has_impossible(&self) -> bool {
        !self.impossible.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = AskedId> + '_ {
        let mut impossible = self.impossible.iter();
        self.ids.iter().map(move |id| match id {
            0 => AskedId::Impossible(impossible.next().copied().unwrap_or_default()),
            id => AskedId::Id(*id),
        })
    }
}

impl<'a> Parameters<'a> {
    /// Of a decoded query string; a list that comes twice is one list, of another name that comes twice the
    /// last counts.
    #[must_use]
    pub fn pairs(pairs: &'a [(String, String)], known: Known) -> Self {
        let mut given = Self::none(known);
        pairs.iter().for_each(|(name, value)| given.enter(name, One::Text(Cow::Borrowed(value))));
        given
    }

    /// Of the text of a JSON object; of a name that comes twice the last counts.
    ///
    /// # Errors
    /// It is none.
    pub fn object(text: &'a [u8], known: Known) -> Result<Self, Broken> {
        let mut given = Self::none(known);
        json::members(text, |name, value| {
            let one = json::text(value).map_or(One::Json(value), One::Text);
            given.enter(&name, one);
        })?;
        given.earlier.clear();
        Ok(given)
    }

    /// Nothing.
    #[must_use]
    pub const fn none(known: Known) -> Self {
        Self {
            known,
            named: BTreeMap::new(),
            earlier: BTreeMap::new(),
            bracketed: BTreeSet::new(),
            unknown: Vec::new(),
        }
    }

    /// With what the query string says beside it, where this says nothing.
    #[must_use]
    pub fn or_pairs(mut self, pairs: &'a [(String, String)]) -> Self {
        let mut beside = Self::pairs(pairs, self.known);
        beside.earlier.retain(|name, _| !self.named.contains_key(name));
        beside.named.append(&mut self.named);
        self.bracketed.append(&mut beside.bracketed);
        beside.unknown.iter().for_each(|name| self.not_known(name));
        Self { named: beside.named, earlier: beside.earlier, ..self }
    }

    fn enter(&mut self, name: &str, one: One<'a>) {
        let find = |name: &str| self.known.iter().copied().flatten().copied().find(|known| *known == name);
        let list = || {
            name.split_once('[').and_then(|(plain, _)| find(plain)).filter(|plain| plain.ends_with("_ids"))
        };
        if let Some(name) = find(name) {
            if let Some(One::Text(earlier)) = self.named.insert(name, one) {
                self.earlier.entry(name).or_default().push(earlier);
            }
        } else if let Some(list) = list() {
            self.bracketed.insert(list);
        } else if !one.is_empty() {
            self.not_known(name);
        }
    }

    fn not_known(&mut self, name: &str) {
        let name = cut(name);
        if self.unknown.len() < UNKNOWN_MAX && !self.unknown.contains(&name) {
            self.unknown.push(name);
        }
    }

    /// The first names of what was given that have no meaning here, in their order, each cut to a readable
    /// length.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    fn get(&self, field: &str) -> Option<&One<'a>> {
        debug_assert!(
            self.known.iter().any(|names| names.contains(&field)),
            "{field} is read, but not among the known names"
        );
        self.named.get(field).filter(|one| !one.is_empty())
    }

    fn earlier(&self, field: &str) -> impl Iterator<Item = &str> {
        self.earlier.get(field).into_iter().flatten().map(AsRef::as_ref)
    }

    /// The text it is, an empty one too; `None` where it is absent or something else.
    #[must_use]
    pub fn plain(&self, field: &str) -> Option<&str> {
        match self.named.get(field) {
            Some(One::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The JSON it is; `None` where it is absent, null or a text.
    #[must_use]
    pub fn raw(&self, field: &str) -> Option<&'a RawValue> {
        match self.get(field) {
            Some(One::Json(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether it is a JSON list; its elements are handed over as they are.
    pub fn elements(&self, field: &str, each: impl FnMut(&'a RawValue)) -> bool {
        self.raw(field).is_some_and(|value| json::elements(value, each))
    }

    /// Whether the name is there, with whatever value.
    #[must_use]
    pub fn is_named(&self, field: &str) -> bool {
        self.named.contains_key(field)
    }

    /// Whether there is anything under the name.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    /// A text as it is.
    ///
    /// # Errors
    /// Not a text.
    pub fn text(&self, field: &str) -> Result<Option<&str>, Error> {
        match self.get(field) {
            None => Ok(None),
            Some(One::Text(text)) => Ok(Some(text)),
            Some(One::Json(value)) => {
                Err(Error::new(field, format!("Invalid {field}: {} is not a text", shown_raw(value))))
            }
        }
    }

    /// Ids, in the order given, repetitions kept: separated by commas, or a JSON list. Of more than `most`
    /// one more is kept.
    ///
    /// # Errors
    /// The first that is no integer, or no list at all.
    pub fn ids(&self, field: &str, most: usize) -> Result<AskedIds, Error> {
        let no_list = || Error::new(field, format!("{field} must be a comma-separated list of integers"));
        let (mut ids, mut wrong) = (AskedIds::default(), None);
        let mut take = |id: Result<AskedId, Error>| match id {
            Ok(id) if ids.len() <= most => ids.push(id),
            Ok(_) => {}
            Err(error) => drop(wrong.get_or_insert(error)),
        };
        self.earlier(field).flat_map(parts).for_each(|part| take(asked_id(field, part)));
        let is_list = match self.get(field) {
            None => !self.bracketed.contains(field),
            Some(One::Text(text)) => {
                parts(text).for_each(|part| take(asked_id(field, part)));
                true
            }
            Some(One::Json(list)) => json::elements(list, |value| take(json_id(field, value))),
        };
        match wrong {
            Some(error) => Err(error),
            None if is_list => Ok(ids),
            None => Err(no_list()),
        }
    }

    /// Texts separated by commas, or a JSON list of texts. Of more than `most` one more is kept.
    ///
    /// # Errors
    /// Not a list of texts.
    pub fn texts(&self, field: &str, most: usize) -> Result<Vec<String>, Error> {
        let mut texts: Vec<String> = self
            .earlier(field)
            .flat_map(|text| text.split(',').flat_map(with_plus))
            .take(most.saturating_add(1))
            .collect();
        match self.get(field) {
            None => {}
            Some(One::Text(text)) => {
                let room = most.saturating_add(1).saturating_sub(texts.len());
                texts.extend(text.split(',').flat_map(with_plus).take(room));
            }
            Some(One::Json(list)) => {
                let mut all_texts = true;
                let is_list = json::elements(list, |value| match json::text(value) {
                    Some(text) if !text.is_empty() && texts.len() <= most => texts.push(text.into_owned()),
                    Some(_) => {}
                    None => all_texts = false,
                });
                if !(is_list && all_texts) {
                    return Err(Error::new(field, format!("{field} must be a list of texts")));
                }
            }
        }
        Ok(texts)
    }

    /// A number of at least 0.
    ///
    /// # Errors
    /// Negative, or no number.
    pub fn amount(&self, field: &str) -> Result<Option<f64>, Error> {
        let amount = match self.get(field) {
            None => return Ok(None),
            Some(One::Text(text)) => number(text).ok_or_else(|| cut(text)),
            Some(One::Json(value)) => {
                json_number(value).and_then(|number| number.as_f64()).ok_or_else(|| shown_raw(value))
            }
        };
        match amount {
            Ok(amount) if amount < 0.0 => {
                Err(Error::new(field, format!("{field} must be non-negative, got {}", spelled(amount))))
            }
            Ok(amount) => Ok(Some(amount)),
            Err(given) => Err(Error::new(field, format!("Invalid {field}: '{given}' is not a valid number"))),
        }
    }

    /// A whole number of at least 0; cut at `most`.
    ///
    /// # Errors
    /// Negative, or no whole number.
    pub fn count(&self, field: &str, most: u32) -> Result<Option<u32>, Error> {
        match self.integer(field)? {
            Some(count) if count < 0 => Err(Error::new(field, format!("{field} must be non-negative"))),
            count => Ok(count.map(|count| u32::try_from(count).unwrap_or(most).min(most))),
        }
    }

    fn integer(&self, field: &str) -> Result<Option<i128>, Error> {
        let integer = match self.get(field) {
            None => return Ok(None),
            Some(One::Text(text)) => whole(text).ok_or_else(|| cut(text)),
            Some(One::Json(value)) => json_integer(value).ok_or_else(|| shown_raw(value)),
        };
        integer
            .map(Some)
            .map_err(|given| Error::new(field, format!("Invalid {field}: '{given}' is not a valid integer")))
    }

    /// A whole number from `least` to `most`.
    ///
    /// # Errors
    /// Anything else.
    pub fn bounded(&self, field: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Error> {
        let Some(number) = self.integer(field)? else { return Ok(None) };
        let (least, most) = (*range.start(), *range.end());
        match u32::try_from(number) {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                // The upper end explains more, unless it is the lower one that was missed and is not obvious.
                let limit = if number < i128::from(least) && least > 1 { least } else { most };
                let message = format!("{field} must be between {least} and {most}");
                Err(Error::over(field, message, u64::from(limit)))
            }
        }
    }

    /// true or false.
    ///
    /// # Errors
    /// Neither.
    pub fn flag(&self, field: &str) -> Result<Option<bool>, Error> {
        let given = match self.get(field) {
            None => return Ok(None),
            Some(One::Text(text)) => (text.as_ref(), cut(text)),
            Some(One::Json(value)) => (value.get(), shown_raw(value)),
        };
        match given {
            ("true", _) => Ok(Some(true)),
            ("false", _) => Ok(Some(false)),
            (_, shown) => {
                Err(Error::new(field, format!("Invalid {field}: '{shown}' is neither true nor false")))
            }
        }
    }

    /// One of a few words.
    ///
    /// # Errors
    /// None of them.
    pub fn word<T: Copy>(&self, field: &str, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(given) = self.text(field)? else { return Ok(None) };
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
        found.map(Some).ok_or_else(|| {
            Error::new(field, format!("Invalid {field}: '{}' is not one of {}", cut(given), known.join(", ")))
        })
    }

    /// A moment: RFC 3339, or unix seconds or milliseconds.
    ///
    /// # Errors
    /// None of these.
    pub fn moment(&self, field: &str) -> Result<Option<i64>, Error> {
        let wrong = |given: &str| {
            Error::new(
                field,
                format!("Invalid {field}: '{given}' is neither an RFC 3339 time nor unix seconds"),
            )
        };
        match self.get(field) {
            None => Ok(None),
            Some(One::Text(text)) => moment(text).map(Some).ok_or_else(|| wrong(&cut(text))),
            Some(One::Json(value)) => {
                json_integer(value).and_then(unix_seconds).map(Some).ok_or_else(|| wrong(&shown_raw(value)))
            }
        }
    }

    /// JSON of at most so many bytes: as it is in an object, as text in a query string.
    ///
    /// # Errors
    /// The text is no JSON, or too long.
    pub fn json(&self, field: &str, most_bytes: usize) -> Result<Option<Value>, Error> {
        let text = match self.get(field) {
            None => return Ok(None),
            Some(One::Json(value)) => value.get(),
            Some(One::Text(text)) => text,
        };
        if text.len() > most_bytes {
            let message = format!("{field} is {} bytes as sent; at most {most_bytes}", text.len());
            return Err(Error::over(field, message, most_bytes as u64));
        }
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| Error::new(field, format!("Invalid {field}: not JSON: {error}")))
    }
}
