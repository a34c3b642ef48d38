//! Where killmails come from: the live feed, replays, files. Everything enters through the one writer.
//!
//! Must not know: who reads, over which door; how the store keeps what it is given.

pub mod archive;
pub mod client;
pub mod clock;
pub mod config;
pub mod holes;
pub mod import;
pub mod numbered;
pub mod pace;
pub mod package;
pub mod r2z2;
pub mod reading;
pub mod replay;
pub mod report;
pub mod seek;
pub mod source;
pub mod split;
