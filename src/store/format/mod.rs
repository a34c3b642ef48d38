//! Everything the store writes, in bytes: records, entries of the log, the frame around a killmail,
//! compression.
//!
//! Old bytes decode for ever (law 4). Each format is drawn in `docs/storage.md`.
//!
//! Must not know: trees, keys, files.

pub mod dictionary;
pub(crate) mod envelope;
pub(crate) mod frame;
pub(crate) mod log_entry;
pub(crate) mod record;
pub(crate) mod varint;
