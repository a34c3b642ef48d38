//! Webhooks: killmails delivered by HTTP POST to the URLs of subscribers.
//!
//! Must not know: the REST API, how the store keeps subscriptions.

pub mod message;
pub mod schedule;
pub mod signature;
pub mod target;
