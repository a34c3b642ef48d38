//! Where killmails come from: the live feed, fallback sources, replays and files. Everything enters through
//! the one writer.
//!
//! Must not know: who reads, over which transport; how the store keeps what it is given.

pub(crate) mod arrival;
pub(crate) mod backoff;
pub(crate) mod bodies;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod fallback_config;
pub(crate) mod files;
pub(crate) mod package;
pub(crate) mod r2z2;
pub(crate) mod record;
pub(crate) mod redisq;
pub(crate) mod replay;
pub(crate) mod source;
pub(crate) mod source_link;
pub(crate) mod supervise;
pub(crate) mod websocket;
