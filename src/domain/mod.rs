//! The domain types: what a killmail is, what can be asked about it, and how a position in the log is
//! written.
//!
//! Must not know: the JSON of any transport, disks, clocks, sockets, static EVE data.

pub mod entry;
pub mod facts;
pub mod files;
pub mod filter;
pub mod hash;
pub mod hex;
pub mod id;
pub mod key_counts;
pub mod killmail;
pub mod merge;
pub mod provenance;
pub mod safe_text;
pub mod skip;
pub mod span;
pub mod spelling;
pub mod subscription;
pub mod term;
pub mod unreadable;
pub mod verdict;
pub mod zkb;
