//! Webhooks: killmails delivered by HTTP POST to the URLs of subscribers.
//!
//! Must not know: axum and requests of the API.

pub mod message;
pub mod schedule;
pub mod signature;
pub mod target;
