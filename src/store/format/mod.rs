//! The formats of what the store writes: records, log entries, the frame around a killmail, and compression.
//!
//! Old bytes decode forever (law 4). `docs/storage.md` shows each format.
//!
//! Must not know: trees, keys, files.

pub mod dictionary;
pub(crate) mod envelope;
pub(crate) mod frame;
pub(crate) mod log_entry;
pub(crate) mod record;
pub(crate) mod varint;
