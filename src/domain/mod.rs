//! The domain types: what a killmail is, what can be asked about it, and how a position in the log is
//! written.
//!
//! Must not know: the JSON of any transport, disks, clocks, sockets, static EVE data.

pub mod entry;
pub mod facts;
pub(crate) mod files;
pub mod filter;
pub mod hash;
pub(crate) mod hex;
pub mod id;
pub(crate) mod key_counts;
pub mod killmail;
pub mod merge;
pub(crate) mod provenance;
pub(crate) mod safe_text;
pub(crate) mod skip;
pub mod span;
pub(crate) mod spelling;
pub mod subscription;
pub mod term;
pub(crate) mod unreadable;
pub mod verdict;
pub mod zkb;
