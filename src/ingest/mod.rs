//! Where killmails come from: the live feed, replays, files. Everything enters through the one writer.
//!
//! Must not know: who reads, over which door; how the store keeps what it is given.

pub mod archive;
pub mod pace;
pub mod split;
