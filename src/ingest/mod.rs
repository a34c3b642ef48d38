//! Where killmails come from: the live feed, replays, files. Everything enters through the one writer.
//!
//! Must not know: who reads, over which door; how the store keeps what it is given.

pub mod ahead;
pub mod archive;
pub mod ask;
pub mod backoff;
pub mod client;
pub mod config;
pub mod decompress;
pub mod esi;
pub mod fetcher;
pub mod file_list;
pub mod holes;
pub mod import;
pub mod limiter;
pub mod link;
pub mod numbered;
pub mod open;
pub mod pace;
pub mod package;
pub mod r2z2;
pub mod reading;
pub mod record;
pub mod redisq;
pub mod replay;
pub mod report;
pub mod secondary;
pub mod seek;
pub mod source;
pub mod standby;
pub mod unmatched;
pub mod waits;
pub mod watch;
pub mod websocket;
