//! Webhooks: killmails delivered by HTTP POST to the URLs of subscribers, in order and at least once. A webhook is a
//! subscription with a place in the log, like a reader, but both are stored.
//!
//! Must not know: axum and requests of the API.

pub mod config;
pub(crate) mod delivery;
pub(crate) mod hook;
pub(crate) mod hosts;
pub(crate) mod message;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod schedule;
pub mod signature;
pub mod target;
pub(crate) mod webhooks;
