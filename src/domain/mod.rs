//! The words of the house: what a killmail is, what can be asked of it, where a reader stands.
//!
//! Must not know: the JSON of any door, disks, clocks, sockets, static EVE facts.

pub mod entry;
pub mod facts;
pub mod files;
pub mod filter;
pub mod hash;
pub mod hex;
pub mod id;
pub mod key_counts;
pub mod killmail;
pub mod legible;
pub mod merge;
pub mod provenance;
pub mod skip;
pub mod span;
pub mod spelling;
pub mod subscription;
pub mod term;
pub mod unreadable;
pub mod verdict;
pub mod zkb;
