//! What a source delivers in one step, and its checkpoint after it.
//!
//! Must not know: what becomes of it.

use bytes::Bytes;

use crate::domain::span::Span;
use crate::store::incoming::{Checkpoint, Incoming};
use crate::store::refused::list::Refused;
use crate::telemetry::source_kind::SourceKind;

/// What a source delivers in one step.
#[derive(Debug, Default)]
pub struct Arrival {
    pub killmails: Vec<Incoming>,
    /// Documents that are not killmails.
    pub refused: Vec<Refused>,
    /// A span of killmails from archives that were stored before and are announced now; `killmails` is empty
    /// then.
    pub span: Option<Span>,
    /// The checkpoint of the source once all of this is stored.
    pub checkpoint: Option<Checkpoint>,
    /// The kind of the source if its data ranks below that of R2Z2 and ESI.
    pub lower_rank: Option<SourceKind>,
    /// The documents as received, for recordings.
    pub raw: Vec<Bytes>,
}
