//! Killmails on their way into the store: what a caller passes in with each, and what became of it.
//!
//! Must not know: how anything is stored.

use bytes::Bytes;

use crate::domain::entry::{Origin, SharedEntry};
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;

/// Makes the canonical JSON of a killmail.
///
/// An argument of [`Store::open`](crate::store::Store::open) rather than a setting: it must be the same
/// function in every process that opens a data folder, because the length of what it returns is stored with
/// each entry of the log. It runs once for each new or revised killmail, at append; the text stays in memory
/// with the newest entries. `verify` and `compact` compare and copy what is stored, so they need no encoder;
/// `salvage` writes new log entries and takes one.
pub type Encoder = fn(&Killmail) -> Bytes;

/// How the age of a killmail is computed at append; it does not change afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeRule {
    /// `uploaded_at` - time if that is known and not negative, otherwise received - time.
    ByUpload,
    /// Zero: a replay of old killmails as if they were new.
    Zero,
}

/// Whether differing values of an incoming zkb block replace the stored ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZkbRule {
    /// Never; values that are missing are still added.
    Keep,
    /// If the incoming ones are newer: not uploaded before the stored ones, or without a time of upload.
    IfNewer,
    /// Always.
    Always,
}

/// A killmail on its way into the store.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The killmail.
    pub killmail: Killmail,
    /// How it came.
    pub origin: Origin,
    /// When we received it, unix milliseconds.
    pub received_at_ms: i64,
    /// When the source published it, unix seconds.
    pub uploaded_at: Option<i64>,
    /// How its age is computed.
    pub age: AgeRule,
    /// What its zkb block may replace.
    pub zkb: ZkbRule,
}

/// How far a source has been read; written in the same transaction as what the source brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The source's name.
    pub source: String,
    /// Only the source understands it; at most a few kilobytes.
    pub bytes: Vec<u8>,
}

/// What became of an incoming killmail.
#[derive(Debug, Clone)]
pub enum Appended {
    /// It is the newest entry of the log.
    New(SharedEntry),
    /// It was known and gained something; it keeps its number, and readers do not get it again.
    Revised(SharedEntry),
    /// It was known, and brought nothing new.
    Known(Seq),
    /// It was known with another body; nothing was stored.
    Conflict(Seq),
}
