//! What the follower of R2Z2 asks, what it is answered, and what it has to tell of that.
//!
//! Must not know: what is asked when; how an answer is read.

use crate::ingest::r2z2::missing_numbers::MissingNumber;

/// What to ask the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// `sequence.json`: how far the feed is at least.
    Pointer,
    /// The document of this number, the next one in line.
    Document(u64),
    /// The document of this older number again: its file was rewritten.
    Rewritten(u64),
    /// The document of this later number: whether it is there while the next one is missing or unreadable. It
    /// is kept if it is.
    Ahead(u64),
    /// The document of this number, only to see whether there is one.
    Probe(u64),
    /// The document of a number that was given up; `true` where its file was rewritten.
    Retry(u64, bool),
    /// Which killmails the archive of this day (days since 1970) has.
    List(i64),
    /// The killmails of that archive.
    Bodies(i64),
}

/// What the feed answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// `sequence.json` names this number.
    Pointer(u64),
    /// A document (one that was refused is one too: it was kept raw); it may name an older number whose file
    /// was rewritten.
    Document {
        /// That older number.
        updated: Option<u64>,
        /// When it was published, unix seconds; or when its killmail happened.
        at: Option<i64>,
    },
    /// A placeholder without a killmail: the number is missing.
    Hole,
    /// 200, but not the document of this number: a page, a text that was cut off, JSON of something else. A
    /// fault of transport.
    Misfit {
        /// It is a document of the feed, but of another number.
        other_number: bool,
    },
    /// 404.
    Missing,
    /// The archive lists killmails; whether there are any we do not have.
    Listed {
        /// Whether there are.
        wanted: bool,
    },
    /// All killmails of the archive we wanted were taken.
    Filled,
    /// 429, perhaps with the wait it asks for, milliseconds.
    Limited {
        /// The wait asked for.
        retry_after_ms: Option<u64>,
    },
    /// 403, perhaps with the wait it asks for, milliseconds.
    Forbidden {
        /// The wait asked for.
        retry_after_ms: Option<u64>,
    },
    /// 5xx, a timeout, no connection, an answer that is no answer; perhaps with the wait it asks for,
    /// milliseconds.
    Failed {
        /// The wait asked for.
        retry_after_ms: Option<u64>,
    },
}

/// What happened besides going on, for logs and counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// These numbers are missing, first and last: each is remembered and tried again beside the feed.
    Missing(u64, u64),
    /// The files of these numbers are gone, first and last; they are looked for in the archives.
    Skipped(u64, u64),
    /// The feed was set back: numbers are asked for again from the second one on, no more from the first.
    RolledBack(u64, u64),
    /// Holes are closed: their numbers came, or archives filled in what there was.
    Healed(Vec<MissingNumber>),
    /// Requests are refused or fail; the wait until the next one, milliseconds.
    Waiting(u64),
    /// The answer says nothing of whether the feed can be read: the failures before it still stand.
    Unproven,
}
