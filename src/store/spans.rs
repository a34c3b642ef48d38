//! Spans: entries of the log that are no killmails but tell readers that some were put in behind their back.
//!
//! A span has a number like a killmail and stands in `meta` under it; to the index it is a number without a killmail, like a hole.
//!
//! Must not know: archives, or who is told.

use std::collections::BTreeMap;

use crate::domain::id::Seq;
use crate::domain::span::Span;
use crate::store::disk::{Disk, Tree, Write};
use crate::store::{Checkpoint, Error, Store};

/// What the keys in `meta` of spans begin with; the number follows.
pub const SPAN_PREFIX: &[u8] = b"span/";

/// Spans by their numbers.
pub type Spans = BTreeMap<u64, Span>;

/// The spans of a store.
pub fn read(disk: &Disk) -> Result<Spans, Error> {
    let mut spans = Spans::new();
    for pair in disk.scan(Tree::Meta, SPAN_PREFIX) {
        let (key, value) = pair?;
        let Some(number) = key.strip_prefix(SPAN_PREFIX) else { break };
        let damaged = || disk.damaged("a span of the log");
        let number = number.as_array().copied().map(u64::from_be_bytes).ok_or_else(damaged)?;
        spans.insert(number, from_bytes(&value).ok_or_else(damaged)?);
    }
    Ok(spans)
}

impl Store {
    /// Gives a span the next number, and notes how far its source was read. On disk when this returns.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_span(&self, span: Span, checkpoint: Option<Checkpoint>) -> Result<Seq, Error> {
        self.check_space()?;
        let value = Some(to_bytes(&span));
        self.write_span(
            |seq| Write { tree: Tree::Meta, key: key_of(seq.0), value },
            checkpoint,
            |seq| {
                self.spans.write().insert(seq.0, span);
            },
        )
    }

    /// The spans numbered after the first and up to the second, in order.
    #[must_use]
    pub fn spans(&self, after: Seq, to: Seq) -> Vec<(Seq, Span)> {
        if after >= to {
            return Vec::new();
        }
        self.spans.read().range(after.0 + 1..=to.0).map(|(seq, span)| (Seq(*seq), *span)).collect()
    }
}

fn key_of(number: u64) -> Vec<u8> {
    [SPAN_PREFIX, &number.to_be_bytes()].concat()
}

fn to_bytes(span: &Span) -> Vec<u8> {
    [span.from.to_le_bytes(), span.to.to_le_bytes(), span.killmails.to_le_bytes()].concat()
}

fn from_bytes(bytes: &[u8]) -> Option<Span> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    let [from, to, killmails] = numbers else { return None };
    Some(Span { from: i64::from_le_bytes(*from), to: i64::from_le_bytes(*to), killmails: u64::from_le_bytes(*killmails) })
}
