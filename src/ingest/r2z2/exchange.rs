//! The requests of the R2Z2 follower, the replies to them, and what it reports.
//!
//! Must not know: when to send which request; how a reply is parsed.

use crate::ingest::r2z2::missing_numbers::MissingRange;

/// A request to the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// `sequence.json`, which names a number the feed has reached at least.
    Pointer,
    /// The document of the next number.
    Document(u64),
    /// The document of an older number whose file was rewritten.
    Rewritten(u64),
    /// The document of a later number, to see whether it exists while the next one is missing or unreadable.
    /// If it does, it is stored.
    Ahead(u64),
    /// The document of a number, only to see whether it exists.
    Probe(u64),
    /// The document of a number that was passed over.
    Retry {
        number: u64,
        /// Its file was rewritten, and the new version could not be fetched.
        is_rewritten: bool,
    },
    /// The ids of the killmails in the archive of a day (days since 1970).
    ArchiveList(i64),
    /// The killmails in the archive of a day.
    ArchiveBodies(i64),
}

/// What a response means to the follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// `sequence.json` names this number.
    Pointer(u64),
    /// A document, even if its killmail was refused.
    Document {
        /// An older number whose file was rewritten.
        updated: Option<u64>,
        /// When it was published, or else when its killmail happened, unix seconds.
        at: Option<i64>,
    },
    /// A file without a killmail: the number is missing.
    Placeholder,
    /// 200, but not the document of this number: an HTML page, truncated text, other JSON. Treated as a
    /// transport fault.
    Misfit {
        /// It is a document of the feed, but of another number.
        other_number: bool,
    },
    NotFound,
    /// The list of an archive.
    Listed {
        /// Whether it lists killmails that are not stored.
        wanted: bool,
    },
    /// The killmails of the archive were read to the end.
    BodiesRead,
    Limited {
        retry_after_ms: Option<u64>,
    },
    Forbidden {
        retry_after_ms: Option<u64>,
    },
    /// 5xx, a timeout, no connection, a response that broke off.
    Failed {
        retry_after_ms: Option<u64>,
    },
}

/// What to report about a reply, in the log and in counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// These numbers are missing. Each is remembered and retried alongside the feed.
    Missing { first: u64, last: u64 },
    /// The files of these numbers no longer exist. They are looked for in the archives.
    Gone { first: u64, last: u64 },
    /// The feed was set back: it is followed from `to`, and `from` is no longer awaited.
    RolledBack { from: u64, to: u64 },
    /// These ranges are closed: their numbers arrived, or the archives held what there was, or they are given
    /// up.
    Recovered(Vec<MissingRange>),
    /// A request was refused or failed. The wait before the next one, milliseconds.
    Waiting(u64),
    /// The reply does not show whether the feed can be read, so the failures before it still count.
    Unproven,
}
