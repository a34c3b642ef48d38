//! What a source brings at once, and where it stands after it.
//!
//! Must not know: what becomes of it.

use bytes::Bytes;

use crate::domain::span::Span;
use crate::store::incoming::{Checkpoint, Incoming};
use crate::store::refused::list::Refused;
use crate::telemetry::source_kind::SourceKind;

/// What a source brings at once, and where it stands after it.
#[derive(Debug, Default)]
pub struct Arrival {
    /// Killmails.
    pub killmails: Vec<Incoming>,
    /// Documents that are none.
    pub refused: Vec<Refused>,
    /// Killmails of archives that were kept before and are told of now; there are no killmails beside it.
    pub span: Option<Span>,
    /// The place of the source once all this is kept.
    pub checkpoint: Option<Checkpoint>,
    /// The kind of the source, where what it brings is of the lower rank.
    pub lower_rank: Option<SourceKind>,
    /// The documents as they came; what a recorder writes down.
    pub raw: Vec<Bytes>,
}
