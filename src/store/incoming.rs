//! Killmails on their way into the store: what a caller hands over with each, and what became of it.
//!
//! Must not know: how anything is stored.

use crate::domain::entry::{Origin, SharedEntry};
use crate::domain::id::Seq;
use crate::domain::killmail::Killmail;

/// How the age of a killmail is found at append; it is fixed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeRule {
    /// `uploaded_at - time` where that is known and not negative, else received - time.
    ByUpload,
    /// Zero: a replay of old killmails as if they were new.
    Zero,
}

/// Whether present members of a stored zkb block give way to differing incoming ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZkbRule {
    /// Never; absent ones are still filled in.
    Keep,
    /// If the incoming ones are newer: uploaded not before the stored ones, or without a time of upload.
    IfNewer,
    /// Always.
    Always,
}

/// A killmail on its way in.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The killmail.
    pub killmail: Killmail,
    /// How it came.
    pub origin: Origin,
    /// When we got it, unix milliseconds.
    pub received_at_ms: i64,
    /// When the source published it, unix seconds.
    pub uploaded_at: Option<i64>,
    /// How its age is found.
    pub age: AgeRule,
    /// What its zkb block may replace.
    pub zkb: ZkbRule,
}

/// How far a source has been read; written in the same transaction as what it brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The source's name.
    pub source: String,
    /// What only the source understands; at most a few kilobytes.
    pub bytes: Vec<u8>,
}

/// What became of an incoming killmail.
#[derive(Debug, Clone)]
pub enum Appended {
    /// It is the newest entry of the log.
    New(SharedEntry),
    /// It was known and gained something; it keeps its number and is not announced.
    Revised(SharedEntry),
    /// Known, nothing new.
    Known(Seq),
    /// Known with another body; nothing was stored.
    Conflict(Seq),
}
