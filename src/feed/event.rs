//! What a reader hands to its transport.
//!
//! Must not know: how events are framed.

use std::sync::Arc;

use crate::domain::entry::SharedEntry;
use crate::domain::id::{Epoch, EventId, Place, Seq};
use crate::domain::span::Span;
use crate::domain::verdict::Failure;

/// A killmail that goes to a subscription, with the annotations of its plugin.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The killmail.
    pub entry: SharedEntry,
    /// Plugin name and JSON object, for each plugin that annotated.
    pub annotations: Vec<(String, Arc<str>)>,
}

/// Why a stream could not resume where the client was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// Entries the client missed were deleted.
    Horizon,
    /// The id is from another store.
    OtherStore,
    /// The id is beyond the end of the log.
    Ahead,
    /// Not an event id.
    Malformed,
}

impl GapReason {
    /// The word clients see.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Horizon => "horizon",
            Self::OtherStore => "other_store",
            Self::Ahead => "ahead",
            Self::Malformed => "malformed",
        }
    }
}

/// The client asked to resume at a place that is not available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// What the client asked for.
    pub requested: String,
    /// Where the stream resumes instead.
    pub resumed_at: EventId,
}

/// What a reader hands to its transport, in this order: `Opened`, perhaps `Gap`, then `Batch`es and `Preloaded` if
/// there is a preload, then the rest.
#[derive(Debug, Clone)]
pub enum Event {
    /// The reader is open.
    Opened {
        /// The opening place.
        id: EventId,
    },
    /// The stream resumes elsewhere than asked.
    Gap(Gap),
    /// A batch of the preload, in killmail id order.
    Batch(Batch),
    /// The preload is complete; what follows is live.
    Preloaded {
        /// Killmails sent in this preload.
        total: u64,
        /// Where live delivery starts.
        id: EventId,
    },
    /// A killmail, live or resumed.
    Killmail {
        /// The killmail.
        kept: Delivered,
        /// Its place.
        id: EventId,
    },
    /// Killmails were added from archives. The reader does not get them, but learns of them once.
    Backfilled {
        /// Which.
        span: Span,
        /// The span's own place.
        id: EventId,
    },
    /// The plugin failed on a killmail. It is skipped for this reader, unless the transport does something else.
    Fault {
        /// The plugin.
        plugin: String,
        /// The fault.
        failure: Failure,
        /// The killmail it could not judge.
        entry: SharedEntry,
        /// Its place.
        id: EventId,
    },
    /// The subscription cannot continue.
    Ended {
        /// A word that programs can match.
        reason: &'static str,
        /// An explanation for people.
        message: String,
    },
    /// The server is stopping.
    Closing,
}

/// A batch of a preload.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The killmails, oldest first.
    pub kept: Vec<Delivered>,
    /// 1 for the first batch of this connection.
    pub number: u64,
    /// Batches in all, counted before any plugin judged.
    pub total: u64,
    /// Whether this is the last one.
    pub last: bool,
    /// Whether a plugin judged: then `total` is an upper bound and `last` marks the end.
    pub judged: bool,
    /// The head the preload belongs to.
    pub head: Seq,
    /// The place after this batch.
    pub id: EventId,
}

/// The event id of a killmail in a preload, for transports that send killmails one by one.
#[must_use]
pub fn preload_id(epoch: Epoch, head: Seq, kept: &Delivered) -> EventId {
    EventId { epoch, place: Place::Preload { head, after: kept.entry.facts.killmail_id } }
}
