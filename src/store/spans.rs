//! Spans: entries of the log that are no killmails but tell readers that some were put in behind their back.
//!
//! A span has a number like a killmail and stands in `meta` under it; to the index it is a number without a
//! killmail, like a hole.
//!
//! Must not know: archives, or who is told.

use crate::domain::id::Seq;
use crate::domain::span::Span;
use crate::store::Store;
use crate::store::engine::Write;
use crate::store::engine::meta::span_to_bytes;
use crate::store::error::StoreError;
use crate::store::incoming::Checkpoint;
use crate::store::keys::Key;

impl Store {
    /// Gives a span the next number, and notes how far its source was read. On disk when this returns.
    ///
    /// # Errors
    /// As `append`.
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

    /// The spans numbered after the first and up to the second, in order.
    #[must_use]
    pub fn spans(&self, after: Seq, to: Seq) -> Vec<(Seq, Span)> {
        if after >= to {
            return Vec::new();
        }
        self.spans.read().range(after.0 + 1..=to.0).map(|(seq, span)| (Seq(*seq), *span)).collect()
    }
}
