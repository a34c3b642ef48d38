//! The store's own values: its identity, its numbers, the numbers that were lost, spans, and the dictionaries
//! its records were written with.
//!
//! Must not know: when they change.

use std::collections::BTreeMap;

use crate::domain::id::Epoch;
use crate::domain::span::Span;
use crate::store::engine::{Engine, Write, chunked_values};
use crate::store::error::StoreError;
use crate::store::keys::{Key, Tree, number_after, prefix};

/// The newest arrangement of trees, keys and values this code knows. Raised with the version of anything in
/// the trees, so that an older killstream does not open the store at all.
const SCHEMA: u32 = 1;

/// The writer's numbers, as of the last commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// The greatest number given out.
    pub head: u64,
    /// Killmails kept.
    pub count: u64,
    /// Revisions made.
    pub rev: u64,
    /// Conflicts seen.
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

/// Whether the folder holds a store, of an arrangement this code knows.
///
/// # Errors
/// `TooNew`; the disk.
pub fn is_founded(engine: &Engine) -> Result<bool, StoreError> {
    let Some(schema) = engine.get(Tree::Meta, &Key::Schema.bytes())? else { return Ok(false) };
    let found = schema
        .as_array()
        .copied()
        .map(u32::from_le_bytes)
        .ok_or_else(|| engine.damaged("the schema number"))?;
    if found > SCHEMA { Err(StoreError::TooNew { what: "schema", found, known: SCHEMA }) } else { Ok(true) }
}

/// The writes that make a folder a store.
pub fn founding(epoch: Epoch, numbers: &Numbers, lost: &[(u64, u64)]) -> Vec<Write> {
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

/// An identity no other store has.
pub fn new_epoch() -> Result<Epoch, StoreError> {
    getrandom::u64()
        .map(Epoch)
        .map_err(|e| StoreError::Engine { what: "make an identity for the store", why: e.to_string() })
}

/// The store's own numbers.
pub fn numbers(engine: &Engine) -> Result<Numbers, StoreError> {
    let bytes = engine
        .get(Tree::Meta, &Key::Numbers.bytes())?
        .ok_or_else(|| engine.damaged("the store's own numbers are missing"))?;
    Numbers::from_bytes(&bytes).ok_or_else(|| engine.damaged("the store's own numbers"))
}

/// The writes that put a dictionary into a store.
pub fn dictionary_writes(number: u8, bytes: &[u8]) -> Vec<Write> {
    chunked_values::writes(Key::Dictionary(number), bytes)
}

/// The dictionaries in the store.
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

/// Ranges of numbers known to be lost, first and last.
pub fn lost(engine: &Engine) -> Result<Vec<(u64, u64)>, StoreError> {
    let bytes = chunked_values::read(engine, Key::LostNumbers)?.unwrap_or_default();
    let (numbers, []) = bytes.as_chunks::<8>() else {
        return Err(engine.damaged("the list of lost numbers"));
    };
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return Err(engine.damaged("the list of lost numbers"));
    };
    Ok(pairs.iter().map(|[first, last]| (u64::from_le_bytes(*first), u64::from_le_bytes(*last))).collect())
}

/// Ranges of numbers without a killmail, first and last, ascending: those known to be lost, and spans.
pub fn unfilled(engine: &Engine) -> Result<Vec<(u64, u64)>, StoreError> {
    let mut ranges = lost(engine)?;
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

/// The spans of a store.
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

/// A span as it stands on disk.
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
