//! Values about the store itself: its identity, its counters, the lost numbers, spans, and the dictionaries that
//! its records were compressed with.
//!
//! Must not know: when they change.

use std::collections::BTreeMap;

use crate::domain::id::Epoch;
use crate::domain::span::Span;
use crate::store::engine::{Engine, Write, chunked_values};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, number_after, prefix};

/// The newest layout of trees, keys and values that this code knows. Raise it together with the version of
/// anything in the trees, so that an older release does not open the store.
const SCHEMA: u32 = 1;

/// The counters of the writer as of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// The greatest number assigned.
    pub head: u64,
    pub count: u64,
    pub rev: u64,
    /// Killmails that arrived again with a different body.
    pub conflicts: u64,
}

impl Numbers {
    pub fn to_bytes(self) -> Vec<u8> {
        [self.head, self.count, self.rev, self.conflicts].iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else { return None };
        let [head, count, rev, conflicts] = *numbers else { return None };
        let [head, count, rev, conflicts] = [head, count, rev, conflicts].map(u64::from_le_bytes);
        Some(Self { head, count, rev, conflicts })
    }
}

/// Spans by their numbers.
pub type Spans = BTreeMap<u64, Span>;

/// Whether the engine contains a store.
///
/// # Errors
/// `TooNew`; the disk.
pub fn is_initialized(engine: &Engine) -> Result<bool, StoreError> {
    let Some(schema) = engine.get(Tree::Meta, &Key::Schema.bytes())? else { return Ok(false) };
    let found = schema
        .as_array()
        .copied()
        .map(u32::from_le_bytes)
        .ok_or_else(|| engine.damaged("the schema number"))?;
    if found > SCHEMA { Err(StoreError::TooNew { what: "schema", found, known: SCHEMA }) } else { Ok(true) }
}

/// The writes that turn an empty engine into a store.
pub fn initial_writes(epoch: Epoch, numbers: &Numbers, lost: &[(u64, u64)]) -> Vec<Write> {
    let lost: Vec<u8> =
        lost.iter().flat_map(|(first, last)| [*first, *last]).flat_map(u64::to_le_bytes).collect();
    let mut writes =
        if lost.is_empty() { Vec::new() } else { chunked_values::writes(Key::LostNumbers, &lost) };
    writes.push(Write::new(Key::Schema, SCHEMA.to_le_bytes().to_vec()));
    writes.push(Write::new(Key::Epoch, epoch.0.to_le_bytes().to_vec()));
    writes.push(Write::new(Key::Numbers, numbers.to_bytes()));
    writes
}

/// The identity of a store.
pub fn epoch(engine: &Engine) -> Result<Epoch, StoreError> {
    let epoch = engine
        .get(Tree::Meta, &Key::Epoch.bytes())?
        .ok_or_else(|| engine.damaged("the store's identity is missing"))?;
    epoch
        .as_array()
        .copied()
        .map(|b| Epoch(u64::from_le_bytes(b)))
        .ok_or_else(|| engine.damaged("the store's identity"))
}

/// A random identity for a new store.
pub fn new_epoch() -> Result<Epoch, StoreError> {
    getrandom::u64()
        .map(Epoch)
        .map_err(|e| StoreError::Engine { what: "make an identity for the store", why: e.to_string() })
}

pub fn numbers(engine: &Engine) -> Result<Numbers, StoreError> {
    let bytes = engine
        .get(Tree::Meta, &Key::Numbers.bytes())?
        .ok_or_else(|| engine.damaged("the store's own numbers are missing"))?;
    Numbers::from_bytes(&bytes).ok_or_else(|| engine.damaged("the store's own numbers"))
}

/// The writes that store a dictionary.
pub fn dictionary_writes(number: u8, bytes: &[u8]) -> Vec<Write> {
    chunked_values::writes(Key::Dictionary(number), bytes)
}

pub fn dictionaries(engine: &Engine) -> Result<BTreeMap<u8, Vec<u8>>, StoreError> {
    let mut known = BTreeMap::new();
    for number in 1..=u8::MAX {
        let Some(bytes) = chunked_values::read(engine, Key::Dictionary(number))? else {
            break;
        };
        known.insert(number, bytes);
    }
    Ok(known)
}

/// Ranges of lost numbers, first and last.
pub fn lost_numbers(engine: &Engine) -> Result<Vec<(u64, u64)>, StoreError> {
    let bytes = chunked_values::read(engine, Key::LostNumbers)?.unwrap_or_default();
    let (numbers, []) = bytes.as_chunks::<8>() else {
        return Err(engine.damaged("the list of lost numbers"));
    };
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return Err(engine.damaged("the list of lost numbers"));
    };
    Ok(pairs.iter().map(|[first, last]| (u64::from_le_bytes(*first), u64::from_le_bytes(*last))).collect())
}

/// Ranges of numbers without a killmail, first and last, ascending: lost numbers and spans.
pub fn numbers_without_killmail(engine: &Engine) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut ranges = lost_numbers(engine)?;
    ranges.extend(spans(engine)?.keys().map(|number| (*number, *number)));
    ranges.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    Ok(joined)
}

pub fn spans(engine: &Engine) -> Result<Spans, StoreError> {
    let mut spans = Spans::new();
    for pair in engine.scan(Tree::Meta, prefix::SPAN) {
        let (key, value) = pair?;
        if !key.starts_with(prefix::SPAN) {
            break;
        }
        let damaged = || engine.damaged("a span of the log");
        let number = number_after(prefix::SPAN, &key).ok_or_else(damaged)?;
        spans.insert(number, span_from_bytes(&value).ok_or_else(damaged)?);
    }
    Ok(spans)
}

/// The form of a span on disk.
pub fn span_to_bytes(span: &Span) -> Vec<u8> {
    [span.from.to_le_bytes(), span.to.to_le_bytes(), span.killmails.to_le_bytes()].concat()
}

fn span_from_bytes(bytes: &[u8]) -> Option<Span> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    let [from, to, killmails] = numbers else { return None };
    Some(Span {
        from: i64::from_le_bytes(*from),
        to: i64::from_le_bytes(*to),
        killmails: u64::from_le_bytes(*killmails),
    })
}
