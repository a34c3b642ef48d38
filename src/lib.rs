//! killstream keeps every EVE Online killmail, finds it again, and streams it: one log, many readers.
//!
//! Floors, lowest first; a module uses only what stands on a lower one. `ARCHITECTURE.md` tells why.

pub mod budget;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod feed;
pub mod http;
pub mod ingest;
pub mod phoenix;
pub mod plugin;
pub mod plugins;
pub mod quota;
pub mod sample;
pub mod server;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod universe;
pub mod wire;
