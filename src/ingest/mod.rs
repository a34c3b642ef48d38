//! Where killmails come from: the live feed, replays, files. Everything enters through the one writer.
//!
//! Must not know: who reads, over which door; how the store keeps what it is given.

pub mod arrival;
pub mod backoff;
pub mod bodies;
pub mod client;
pub mod config;
pub mod fallback_config;
pub mod files;
pub mod package;
pub mod r2z2;
pub mod record;
pub mod redisq;
pub mod replay;
pub mod source;
pub mod source_link;
pub mod supervise;
pub mod websocket;
