//! What a reader hands to its transport.
//!
//! Must not know: how events are framed.

use std::sync::Arc;

use crate::domain::entry::SharedEntry;
use crate::domain::id::{Epoch, EventId, Place, Seq};
use crate::domain::span::Span;
use crate::domain::verdict::Failure;

/// A killmail the subscription wants, with what plugins said of it.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// The killmail.
    pub entry: SharedEntry,
    /// Plugin name and JSON object, for each plugin that annotated.
    pub annotations: Vec<(String, Arc<str>)>,
}

/// Why a stream could not go on exactly where the client was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// What the client missed is no longer kept.
    Horizon,
    /// The id is from another store.
    OtherStore,
    /// The id is beyond our log.
    Ahead,
    /// The id is none of ours.
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

/// The client asked to go on at a place that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// What the client asked for.
    pub requested: String,
    /// Where the stream goes on instead.
    pub resumed_at: EventId,
}

/// What a reader hands to its door, in this order: `Opened`, perhaps `Gap`, `Batch`es and `Preloaded`, then
/// the rest.
#[derive(Debug, Clone)]
pub enum Event {
    /// The reader stands at its opening place.
    Opened {
        /// The opening place.
        id: EventId,
    },
    /// The stream goes on elsewhere than asked.
    Gap(Gap),
    /// A batch of the preload, in killmail id order.
    Batch(Batch),
    /// The preload is complete; what follows is live.
    Preloaded {
        /// Killmails sent in this preload.
        total: u64,
        /// The place live begins at.
        id: EventId,
    },
    /// A killmail, live or resumed.
    Killmail {
        /// The killmail.
        kept: Delivered,
        /// Its place.
        id: EventId,
    },
    /// Killmails were put in from archives behind the reader's back; it does not get them, and is told once.
    Backfilled {
        /// Which.
        span: Span,
        /// The span's own place.
        id: EventId,
    },
    /// The plugin failed on a killmail, which is skipped for this reader.
    Fault {
        /// The plugin.
        plugin: String,
        /// What it did wrong.
        failure: Failure,
        /// The killmail it could not judge.
        killmail_id: u32,
    },
    /// The subscription cannot go on.
    Ended {
        /// A word for programs.
        reason: &'static str,
        /// A sentence for people.
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
    /// How many batches there are, counted before any plugin judged.
    pub total: u64,
    /// Whether this is the last one.
    pub last: bool,
    /// Whether a plugin judged, so that `last` has to be said.
    pub judged: bool,
    /// The head the preload belongs to.
    pub head: Seq,
    /// The place after this batch.
    pub id: EventId,
}

/// A kept killmail's id in a preload of this head, for transports that send them one by one.
#[must_use]
pub fn preload_id(epoch: Epoch, head: Seq, kept: &Delivered) -> EventId {
    EventId { epoch, place: Place::Preload { head, after: kept.entry.facts.killmail_id } }
}
