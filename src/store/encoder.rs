//! How the store makes the canonical JSON of a killmail.
//!
//! Must not know: what the JSON looks like. The store stands below `wire`, so whoever opens it passes the
//! function in.

use bytes::Bytes;

use crate::domain::killmail::Killmail;

/// Makes the canonical JSON of a killmail.
///
/// An argument of [`Store::open`](crate::store::Store::open) rather than a setting: it must be the same
/// function in every process that opens a data folder, because the length of what it returns is stored with
/// each entry of the log. It runs once for each new or revised killmail, at append; the text stays in memory
/// with the newest entries. `verify` and `compact` copy and compare what is stored, so they need no encoder;
/// `salvage` writes new log entries and takes one.
pub type Encoder = fn(&Killmail) -> Bytes;
