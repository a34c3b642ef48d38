//! Spans: log entries that are not killmails. A span tells readers that archives added killmails of a stretch
//! of time that the readers have already passed.
//!
//! A span gets a number like a killmail and is stored in `meta` under it; to the index it is a number without
//! a killmail, like a hole.
//!
//! Must not know: archives, or who reads spans.

use crate::domain::id::Seq;
use crate::domain::span::Span;
use crate::store::Store;
use crate::store::engine::Write;
use crate::store::engine::meta::span_to_bytes;
use crate::store::error::StoreError;
use crate::store::incoming::Checkpoint;
use crate::store::keys::Key;

impl Store {
    /// Appends a span under the next number, with how far its source was read. On disk when this returns.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_span(&self, span: Span, checkpoint: Option<Checkpoint>) -> Result<Seq, StoreError> {
        self.check_space()?;
        let value = span_to_bytes(&span);
        self.write_span(
            |seq| Write::new(Key::Span(seq.0), value),
            checkpoint,
            |seq| {
                self.spans.write().insert(seq.0, span);
            },
        )
    }

    /// The spans numbered after `after` and up to `to`, ascending.
    #[must_use]
    pub fn spans(&self, after: Seq, to: Seq) -> Vec<(Seq, Span)> {
        if after >= to {
            return Vec::new();
        }
        self.spans.read().range(after.0 + 1..=to.0).map(|(seq, span)| (Seq(*seq), *span)).collect()
    }
}
